//! Matrix products and sums of products.

use super::{Outcome, one};
use gradus_core::ops::BinaryOp;
use gradus_core::{Error, Result, Tensor};
use gradus_tests::golden::{Call, items};

fn of_rank(x: Tensor, rank: usize) -> Result<Tensor> {
    if x.rank() == rank { Ok(x) } else { Err(Error::misuse(format!("needs {rank} dimensions, not {}", x.rank()))) }
}

/// beta·x + alpha·product.
fn added(c: &Call<'_>, product: Result<Tensor>) -> Result<Tensor> {
    let product = product?;
    let alpha = c.number(9, "alpha")?.unwrap_or(1.0);
    let (x, beta) = (c.x(0)?, c.number(9, "beta")?.unwrap_or(1.0));
    let product = product.try_binary_scalar(BinaryOp::Mul, alpha)?;
    if beta == 0.0 {
        // Then x counts for its shape alone, not even for its NaNs.
        return product.try_add(&x.zeros_like());
    }
    x.try_binary_scalar(BinaryOp::Mul, beta)?.try_add(&product)
}

pub(super) fn run(name: &str, c: &Call<'_>) -> Outcome {
    let pair = |i: usize, a: usize, b: usize| Ok::<_, Error>((of_rank(c.x(i)?, a)?, of_rank(c.x(i + 1)?, b)?));
    one(match name {
        "matmul" => c.x(0).and_then(|a| a.try_matmul(&c.x(1)?)),
        "mm" => pair(0, 2, 2).and_then(|(a, b)| a.try_matmul(&b)),
        "bmm" => pair(0, 3, 3).and_then(|(a, b)| a.try_matmul(&b)),
        "mv" => pair(0, 2, 1).and_then(|(a, b)| a.try_matmul(&b)),
        "dot" => c.x(0).and_then(|a| a.try_dot(&c.x(1)?)),
        "outer" => c.x(0).and_then(|a| a.try_outer(&c.x(1)?)),
        "inner" => c.x(0).and_then(|a| {
            let b = c.x(1)?;
            if a.rank() == 0 || b.rank() == 0 { a.try_mul(&b) } else { a.try_matmul(&b.try_movedim(-1, 0)?) }
        }),
        "addmm" => added(c, pair(1, 2, 2).and_then(|(a, b)| a.try_matmul(&b))),
        "addmv" => added(c, pair(1, 2, 1).and_then(|(a, b)| a.try_matmul(&b))),
        "baddbmm" => added(c, pair(1, 3, 3).and_then(|(a, b)| a.try_matmul(&b))),
        "addbmm" => added(c, pair(1, 3, 3).and_then(|(a, b)| a.try_matmul(&b)?.try_sum_dims(&[0], false))),
        "addr" => added(c, c.x(1).and_then(|a| a.try_outer(&c.x(2)?))),
        "linalg.multi_dot" => c.list(0).and_then(|x| {
            let mut all = x.iter();
            let first = all.next().ok_or_else(|| Error::misuse("needs a matrix"))?.clone();
            all.try_fold(first, |a, b| a.try_matmul(b))
        }),
        "einsum" => c
            .list(0)
            .and_then(|x| Tensor::try_einsum(c.word(1, "equation").unwrap_or(""), &x.iter().collect::<Vec<_>>())),
        "tensordot" => tensordot(c),
        "nn.functional.linear" => c.x(0).and_then(|x| x.try_linear(&c.x(1)?, c.tensor(2, "bias")?.as_ref())),
        _ => return None,
    })
}

fn tensordot(c: &Call<'_>) -> Result<Tensor> {
    let (a, b) = (c.x(0)?, c.x(1)?);
    let dims = c.arg(2, "dims");
    let list = |v: &serde_json::Value| {
        items(v).into_iter().flatten().filter_map(|n| n.as_i64()).map(|n| n as isize).collect::<Vec<_>>()
    };
    let (of_a, of_b): (Vec<isize>, Vec<isize>) = match dims.as_i64() {
        Some(n) => ((a.rank() as isize - n as isize..a.rank() as isize).collect(), (0..n as isize).collect()),
        None => match items(dims).map(|v| &v[..]) {
            Some([x, y]) => (list(x), list(y)),
            _ => return Err(Error::misuse("two lists of dimensions are needed")),
        },
    };
    let letter = |i: usize| char::from(b'a' + i as u8);
    let mut left: Vec<char> = (0..a.rank()).map(letter).collect();
    let mut right: Vec<char> = (0..b.rank()).map(|i| letter(i + a.rank())).collect();
    let mut summed = Vec::new();
    for (x, y) in of_a.iter().zip(&of_b) {
        let (x, y) = (a.shape().dim(*x)?, b.shape().dim(*y)?);
        right[y] = left[x];
        summed.push(left[x]);
    }
    let out: String = left.iter().chain(&right).filter(|l| !summed.contains(l)).collect();
    let (l, r): (String, String) = (left.drain(..).collect(), right.drain(..).collect());
    Tensor::try_einsum(&format!("{l},{r}->{out}"), &[&a, &b])
}
