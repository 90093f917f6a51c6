//! Views, joins, cuts, repetitions and padding.

use super::{Outcome, lifted, no_word, one};
use gradus_core::functional::rearrange::GridOrder;
use gradus_core::ops::PadMode;
use gradus_core::{Error, Result, Tensor};
use gradus_tests::golden::{Call, UNTYPABLE};

pub(super) fn run(name: &str, c: &Call<'_>) -> Outcome {
    viewed(name, c).or_else(|| joined(name, c)).or_else(|| padded(name, c))
}

/// A shape with −1 for the lengths that stay, counted from the right.
fn stretched(x: &Tensor, shape: &[isize]) -> Result<Tensor> {
    let lead = shape.len() as isize - x.rank() as isize;
    let len = |(i, &n): (usize, &isize)| match n {
        -1 if i as isize >= lead => Ok(x.dims()[(i as isize - lead) as usize]),
        n => usize::try_from(n).map_err(|_| Error::misuse(format!("a length of {n}"))),
    };
    x.try_expand(shape.iter().enumerate().map(len).collect::<Result<Vec<_>>>()?)
}

fn viewed(name: &str, c: &Call<'_>) -> Outcome {
    let int = |i, name, default: isize| Ok::<_, Error>(c.int(i, name)?.unwrap_or(default));
    let ints = |i, name| Ok::<_, Error>(c.ints(i, name)?.unwrap_or_default());
    let x = match name {
        "cat" | "stack" | "hstack" | "vstack" | "meshgrid.list_of_tensors" => return None,
        _ => c.x(0),
    };
    Some(x.and_then(|x| {
        Ok(vec![match name {
            "reshape" | "view" => x.try_view_as(&ints(1, "shape")?)?,
            "flatten" => x.try_flatten(int(1, "start_dim", 0)?, int(2, "end_dim", -1)?)?,
            "ravel" => x.try_reshape([x.elements()])?,
            "unflatten" => return unflattened(&x, c),
            "permute" => x.try_permute(&ints(1, "dims")?)?,
            "transpose" => return lifted(&x, |x| Ok(vec![x.try_transpose(int(1, "dim0", 0)?, int(2, "dim1", 0)?)?])),
            "t" if x.rank() < 2 => x,
            "t" if x.rank() == 2 => x.try_t()?,
            "t" => return Err(Error::misuse("needs at most two dimensions")),
            "movedim" => {
                let (from, to) = (ints(1, "source")?, ints(2, "destination")?);
                return moved(&x, &from, &to).map(|x| vec![x]);
            }
            "unsqueeze" => x.try_unsqueeze(int(1, "dim", 0)?)?,
            "squeeze" | "squeeze.multiple" if c.arg(1, "dim").is_null() => x.try_squeeze_all()?,
            "squeeze" | "squeeze.multiple" => {
                let mut dims = Vec::new();
                for d in ints(1, "dim")? {
                    dims.push(if x.rank() == 0 { 0 } else { x.shape().dim(d)? });
                }
                dims.sort_unstable();
                dims.into_iter().rev().filter(|_| x.rank() > 0).try_fold(x.clone(), |x, d| x.try_squeeze(d as isize))?
            }
            "expand" | "broadcast_to" => stretched(&x, &ints(1, "size")?)?,
            "narrow" => {
                let start = match c.tensor_in(c.arg(2, "start")) {
                    Some(t) if t.rank() == 0 && t.dtype().is_int() => t.item::<i64>()? as isize,
                    Some(t) => {
                        return Err(Error::misuse(format!("{UNTYPABLE}: a start of {} {}", t.dtype(), t.shape())));
                    }
                    None => int(2, "start", 0)?,
                };
                let (dim, n) = (int(1, "dim", 0)?, x.dims()[x.shape().dim(int(1, "dim", 0)?)?] as isize);
                let start = if start < 0 { start + n } else { start };
                let start = usize::try_from(start).map_err(|_| Error::misuse("starts before the beginning"))?;
                let len = c.len(3, "length")?.ok_or_else(|| Error::misuse("no length"))?;
                x.try_narrow(dim, start, len)?
            }
            "slice" => x.try_slice(int(1, "dim", 0)?, c.int(2, "start")?, c.int(3, "end")?, int(4, "step", 1)?)?,
            "select" => x.try_select(int(1, "dim", 0)?, int(2, "index", 0)?)?,
            "flip" => x.try_flip(&ints(1, "dims")?)?,
            "diagonal" => x.try_diagonal(int(1, "offset", 0)?, int(2, "dim1", 0)?, int(3, "dim2", 1)?)?,
            "unfold" => {
                let (size, step) = (c.len(2, "size")?.unwrap_or(0), c.len(3, "step")?.unwrap_or(1));
                let dim = int(1, "dimension", 0)?;
                if x.rank() == 0 {
                    x.try_reshape([1])?.try_unfold(dim, size, step)?.try_reshape([size])?
                } else {
                    x.try_unfold(dim, size, step)?
                }
            }
            "repeat" => x.try_repeat(&c.lens(1, "repeats")?.unwrap_or_default())?,
            "tile" => {
                let mut times = c.lens(1, "dims")?.unwrap_or_default();
                while times.len() < x.rank() {
                    times.insert(0, 1);
                }
                x.try_repeat(&times)?
            }
            "repeat_interleave" => {
                if let Some(times) = c.tensor_in(c.arg(1, "repeats")) {
                    let (x, dim) = match c.int(2, "dim")? {
                        Some(dim) => (x, dim),
                        None => (x.try_reshape([x.elements()])?, 0),
                    };
                    return Ok(vec![x.try_repeat_each(&times, dim)?]);
                }
                let times = c.len(1, "repeats")?.unwrap_or(1);
                match c.int(2, "dim")? {
                    Some(dim) => x.try_repeat_interleave(times, dim)?,
                    None => x.try_reshape([x.elements()])?.try_repeat_interleave(times, 0)?,
                }
            }
            "roll" => rolled(&x, c)?,
            "diag" => x.try_diag(int(1, "diagonal", 0)?)?,
            "diag_embed" => x.try_diag_embed(int(1, "offset", 0)?, int(2, "dim1", -2)?, int(3, "dim2", -1)?)?,
            "rot90" => {
                let dims = c.ints(2, "dims")?.unwrap_or_else(|| vec![0, 1]);
                let &[from, to] = &dims[..] else { return Err(Error::misuse("two dimensions are needed")) };
                x.try_rot90(int(1, "k", 1)?, from, to)?
            }
            "tril" => x.try_tril(int(1, "diagonal", 0)? as i64)?,
            "triu" => x.try_triu(int(1, "diagonal", 0)? as i64)?,
            "trace" if x.rank() == 2 => x.try_trace()?,
            "trace" => return Err(Error::misuse("needs a matrix")),
            "split" => return x.try_split(c.len(1, "split_size")?.unwrap_or(0), int(2, "dim", 0)?),
            "split_with_sizes" => {
                return x.try_split_sizes(&c.lens(1, "split_sizes")?.unwrap_or_default(), int(2, "dim", 0)?);
            }
            "chunk" => return x.try_chunk(c.len(1, "chunks")?.unwrap_or(0), int(2, "dim", 0)?),
            "unbind" => {
                let dim = int(1, "dim", 0)?;
                return (0..x.dims()[x.shape().dim(dim)?]).map(|i| x.try_select(dim, i as isize)).collect();
            }
            _ => return Err(Error::misuse("not of this family")),
        }])
    }))
    .filter(|_| NAMES.contains(&name))
}

const NAMES: [&str; 34] = [
    "diag",
    "diag_embed",
    "rot90",
    "reshape",
    "view",
    "flatten",
    "ravel",
    "unflatten",
    "permute",
    "transpose",
    "t",
    "movedim",
    "unsqueeze",
    "squeeze",
    "squeeze.multiple",
    "expand",
    "broadcast_to",
    "narrow",
    "slice",
    "select",
    "flip",
    "diagonal",
    "unfold",
    "repeat",
    "tile",
    "repeat_interleave",
    "roll",
    "tril",
    "triu",
    "trace",
    "split",
    "split_with_sizes",
    "chunk",
    "unbind",
];

fn unflattened(x: &Tensor, c: &Call<'_>) -> Result<Vec<Tensor>> {
    let d = x.shape().dim(c.int(1, "dim")?.unwrap_or(0))?;
    let mut sizes = c.ints(2, "sizes")?.unwrap_or_default();
    let known: isize = sizes.iter().filter(|&&n| n >= 0).product();
    sizes.iter_mut().filter(|n| **n < 0).for_each(|n| *n = x.dims()[d] as isize / known.max(1));
    let dims = x.dims().iter().map(|&n| n as isize);
    let all: Vec<isize> = dims.clone().take(d).chain(sizes).chain(dims.skip(d + 1)).collect();
    Ok(vec![x.try_view_as(&all)?])
}

fn moved(x: &Tensor, from: &[isize], to: &[isize]) -> Result<Tensor> {
    if from.len() != to.len() {
        return Err(Error::misuse("as many places as dimensions are needed"));
    }
    let mut order: Vec<Option<usize>> = vec![None; x.rank()];
    let mut used = Vec::new();
    for (&f, &t) in from.iter().zip(to) {
        let (f, t) = (x.shape().dim(f)?, x.shape().dim(t)?);
        if order[t].is_some() || used.contains(&f) {
            return Err(Error::misuse("a dimension is named twice"));
        }
        order[t] = Some(f);
        used.push(f);
    }
    let mut rest = (0..x.rank()).filter(|d| !used.contains(d));
    let order: Vec<isize> = order.into_iter().map(|o| o.or_else(|| rest.next()).unwrap_or(0) as isize).collect();
    x.try_permute(&order)
}

fn rolled(x: &Tensor, c: &Call<'_>) -> Result<Tensor> {
    let by = c.ints(1, "shifts")?.unwrap_or_default();
    let Some(dims) = c.ints(2, "dims")?.filter(|d| !d.is_empty()) else {
        let &[by] = &by[..] else { return Err(Error::misuse("several shifts need dimensions")) };
        return x.try_reshape([x.elements()])?.try_roll(by, 0)?.try_reshape(*x.shape());
    };
    if by.len() != dims.len() {
        return Err(Error::misuse("as many shifts as dimensions are needed"));
    }
    by.iter().zip(&dims).try_fold(x.clone(), |x, (&by, &dim)| x.try_roll(by, dim))
}

fn joined(name: &str, c: &Call<'_>) -> Outcome {
    let join = |f: fn(&[&Tensor], isize) -> Result<Tensor>, dim: isize| {
        c.list(0).and_then(|x| {
            // PyTorch's cat leaves out empty vectors among tensors of other ranks.
            let rank = x.iter().map(Tensor::rank).max().unwrap_or(0);
            let x: Vec<&Tensor> = x.iter().filter(|x| x.dims() != [0] || rank == 1).collect();
            f(&x, dim)
        })
    };
    let dim = |i| c.int(i, "dim").map(|d| d.unwrap_or(0));
    one(match name {
        "meshgrid.list_of_tensors" => {
            let order = match c.word(9, "indexing") {
                None | Some("ij") => GridOrder::Matrix,
                Some("xy") => GridOrder::Cartesian,
                word => return Some(no_word("order", word)),
            };
            return Some(c.list(0).and_then(|x| Tensor::try_meshgrid(&x.iter().collect::<Vec<_>>(), order)));
        }
        "cat" => dim(1).and_then(|d| join(Tensor::try_cat, d)),
        "stack" => dim(1).and_then(|d| join(Tensor::try_stack, d)),
        "hstack" => c.list(0).and_then(|x| {
            let x = x
                .iter()
                .map(|x| if x.rank() == 0 { x.try_reshape([1]) } else { Ok(x.clone()) })
                .collect::<Result<Vec<_>>>()?;
            Tensor::try_cat(&x.iter().collect::<Vec<_>>(), if x.first().is_some_and(|x| x.rank() == 1) { 0 } else { 1 })
        }),
        "vstack" => c.list(0).and_then(|x| {
            let row = |x: &Tensor| if x.rank() < 2 { x.try_reshape([1, x.elements()]) } else { Ok(x.clone()) };
            let x = x.iter().map(row).collect::<Result<Vec<_>>>()?;
            Tensor::try_cat(&x.iter().collect::<Vec<_>>(), 0)
        }),
        _ => return None,
    })
}

fn padded(name: &str, c: &Call<'_>) -> Outcome {
    let kind = name.strip_prefix("nn.functional.pad.")?;
    let run = || {
        let mode = match kind {
            "constant" => PadMode::Constant(c.number(3, "value")?.unwrap_or(0.0)),
            "reflect" => PadMode::Reflect,
            "replicate" => PadMode::Replicate,
            _ => PadMode::Circular,
        };
        // PyTorch's list begins with the last dimension.
        let flat = c.ints(1, "pad")?.unwrap_or_default();
        let amounts: Vec<(isize, isize)> = flat.chunks(2).rev().map(|p| (p[0], p[p.len() - 1])).collect();
        c.x(0)?.try_pad(&amounts, mode)
    };
    one(run())
}
