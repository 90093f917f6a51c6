//! Factorizations, solutions, norms and distances.

use super::{Outcome, lifted, no_word, one};
use gradus_core::linalg::MatrixNorm;
use gradus_core::{Error, Result, Tensor};
use gradus_tests::golden::Call;

pub(super) fn run(name: &str, c: &Call<'_>) -> Outcome {
    let number = |i, name, default: f64| Ok::<_, Error>(c.number(i, name)?.unwrap_or(default));
    one(match name {
        "linalg.cholesky" => c.x(0).and_then(|x| x.try_cholesky(c.flag(9, "upper", false))),
        "linalg.inv" => c.x(0).and_then(|x| x.try_inv()),
        "linalg.det" => c.x(0).and_then(|x| x.try_det()),
        "linalg.solve" => c.x(0).and_then(|a| a.try_solve(&c.x(1)?)),
        "linalg.norm" => norm(c),
        "kron" => c.x(0).and_then(|a| a.try_kron(&c.x(1)?)),
        "dist" => c.x(0).and_then(|a| a.try_dist(&c.x(1)?, number(2, "p", 2.0)?)),
        "cdist" => c.x(0).and_then(|a| a.try_cdist(&c.x(1)?, number(2, "p", 2.0)?)),
        "nn.functional.bilinear" => {
            c.x(0).and_then(|a| a.try_bilinear(&c.x(1)?, &c.x(2)?, c.tensor(3, "bias")?.as_ref()))
        }
        "nn.functional.normalize" => c.x(0).and_then(|x| {
            let (p, dim, eps) = (number(1, "p", 2.0)?, c.int(2, "dim")?.unwrap_or(1), number(3, "eps", 1e-12)?);
            x.try_normalize(p, dim, eps)
        }),
        "nn.functional.cosine_similarity" => c
            .x(0)
            .and_then(|a| a.try_cosine_similarity(&c.x(1)?, c.int(2, "dim")?.unwrap_or(1), number(3, "eps", 1e-8)?)),
        "nn.functional.pairwise_distance" => c.x(0).and_then(|a| {
            let (p, eps) = (number(2, "p", 2.0)?, number(3, "eps", 1e-6)?);
            a.try_pairwise_distance(&c.x(1)?, p, eps, c.flag(4, "keepdim", false))
        }),
        _ => return None,
    })
}

/// Of a vector, of all elements (without an order), or of matrices.
fn norm(c: &Call<'_>) -> Result<Tensor> {
    let (x, keep) = (c.x(0)?, c.flag(9, "keepdim", false));
    let dims = c.ints(2, "dim")?;
    let order = c.arg(1, "ord");
    let flat = dims.as_ref().map_or(x.rank() == 1, |d| d.len() == 1);
    if order.is_null() || flat {
        let p = c.number(1, "ord")?.unwrap_or(2.0);
        return Ok(lifted(&x, |x| Ok(vec![x.try_norm(p, dims.as_deref().unwrap_or(&[]), keep)?]))?.swap_remove(0));
    }
    let dims = dims.unwrap_or_else(|| vec![0, 1]);
    let &[rows, columns] = &dims[..] else { return Err(Error::misuse("a matrix has two dimensions")) };
    if c.arg(2, "dim").is_null() && x.rank() != 2 {
        return Err(Error::misuse("needs a matrix, or its dimensions"));
    }
    let kind = match (c.word(1, "ord"), if order.is_string() { None } else { c.number(1, "ord")? }) {
        (Some("fro"), _) => MatrixNorm::Frobenius,
        (Some("nuc"), _) => MatrixNorm::Nuclear,
        (Some(word), _) => return no_word("norm", Some(word)),
        (_, Some(2.0)) => MatrixNorm::Spectral,
        (_, Some(-2.0)) => MatrixNorm::SpectralMin,
        (_, Some(1.0)) => MatrixNorm::Columns,
        (_, Some(-1.0)) => MatrixNorm::ColumnsMin,
        (_, Some(f64::INFINITY)) => MatrixNorm::Rows,
        (_, Some(f64::NEG_INFINITY)) => MatrixNorm::RowsMin,
        (_, p) => return Err(Error::misuse(format!("a matrix has no norm of order {p:?}"))),
    };
    x.try_matrix_norm(kind, (rows, columns), keep)
}
