//! Picking and placing by index, and what depends on the data.

use super::{Outcome, lifted, no_word, one, subscript};
use gradus_core::functional::embedding_bag::{BagMode, EmbeddingBagOptions};
use gradus_core::ops::{BinaryOp, ScatterReduceOp};
use gradus_core::{DType, Error, Result, Tensor};
use gradus_tests::golden::Call;

/// A scalar as a vector of one.
fn up(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 0 { x.try_reshape([1]) } else { Ok(x.clone()) }
}

pub(super) fn run(name: &str, c: &Call<'_>) -> Outcome {
    let dim = || c.int(1, "dim").map(|d| d.unwrap_or(0));
    let index = || c.x(2);
    match name {
        "gather" => one(c.x(0).and_then(|x| {
            let i = index()?;
            up(&x)?.try_gather(dim()?, &up(&i)?)?.try_reshape(*i.shape())
        })),
        "index_select" => {
            Some(c.x(0).and_then(|x| lifted(&x, |x| Ok(vec![x.try_index_select(dim()?, &vector(&index()?)?)?]))))
        }
        "scatter" | "scatter_add" => Some(c.x(0).and_then(|x| {
            lifted(&x, |x| {
                let i = up(&index()?)?;
                let source = match c.x(3) {
                    Ok(s) => up(&s)?,
                    Err(_) => Tensor::try_full(*i.shape(), c.number(3, "value")?.unwrap_or(f64::NAN), x.place())?,
                };
                // PyTorch takes as much of the source as the index covers.
                let source = fitting(&source, &i)?;
                Ok(vec![if name == "scatter" {
                    x.try_scatter(dim()?, &i, &source)?
                } else {
                    x.try_scatter_add(dim()?, &i, &source)?
                }])
            })
        })),
        "index_add" => Some(c.x(0).and_then(|x| {
            let source = c.x(3)? * c.number(9, "alpha")?.unwrap_or(1.0);
            lifted(&x, |x| Ok(vec![x.try_index_add(dim()?, &vector(&index()?)?, &up(&source)?)?]))
        })),
        "index_copy" => {
            Some(c.x(0).and_then(|x| {
                lifted(&x, |x| Ok(vec![x.try_index_copy(dim()?, &vector(&index()?)?, &up(&c.x(3)?)?)?]))
            }))
        }
        "take" => one(c
            .x(0)
            .and_then(|x| x.try_reshape([x.elements()])?.try_index_select(0, &wrapped(&c.x(1)?, x.elements())?))),
        "take_along_dim" => one(c.x(0).and_then(|x| match c.int(2, "dim")? {
            Some(dim) => x.try_take_along(dim, &c.x(1)?),
            None => x.try_reshape([x.elements()])?.try_gather(0, &c.x(1)?.try_flatten(0, -1)?),
        })),
        "masked_select" => one(c.x(0).and_then(|x| x.try_masked_select(&c.x(1)?))),
        "nonzero" if !c.flag(1, "as_tuple", false) => one(c.x(0).and_then(|x| x.try_nonzero())),
        "nonzero" => Some(c.x(0).and_then(|x| {
            let at = up(&x)?.try_nonzero()?;
            (0..at.dims()[1]).map(|d| at.try_select(1, d as isize)).collect()
        })),
        "unique" => Some(unique(c)),
        "__getitem__" => one(subscript::item(c)),
        "index_put" => one(c.x(0).and_then(|x| {
            let indices = c.list(1)?;
            let indices: Vec<Option<&Tensor>> = indices.iter().map(Some).collect();
            x.try_index_put(&indices, &c.x(2)?, c.flag(3, "accumulate", false))
        })),
        "index_fill" => Some(c.x(0).and_then(|x| {
            let value = match c.x(3) {
                Ok(v) => v,
                Err(_) => Tensor::try_full((), c.number(3, "value")?.unwrap_or(f64::NAN), x.place())?,
            };
            lifted(&x, |x| Ok(vec![x.try_index_fill(dim()?, &vector(&index()?)?, &value)?]))
        })),
        "masked_scatter" => one(c.x(0).and_then(|x| x.try_masked_scatter(&c.x(1)?, &c.x(2)?))),
        "select_scatter" => one(c.x(0).and_then(|x| {
            let at = c.int(3, "index")?.unwrap_or(0);
            x.try_select_scatter(&c.x(1)?, c.int(2, "dim")?.unwrap_or(0), at)
        })),
        "slice_scatter" => one(c.x(0).and_then(|x| {
            let (start, end, step) = (c.int(3, "start")?, c.int(4, "end")?, c.int(5, "step")?.unwrap_or(1));
            x.try_slice_scatter(&c.x(1)?, c.int(2, "dim")?.unwrap_or(0), start, end, step)
        })),
        "scatter_reduce.sum"
        | "scatter_reduce.mean"
        | "scatter_reduce.prod"
        | "scatter_reduce.amax"
        | "scatter_reduce.amin" => one(scatter_reduce(c)),
        "searchsorted" => one(searchsorted(c)),
        "bucketize" => one(c.x(0).and_then(|x| {
            narrow(x.try_bucketize(&c.x(1)?, c.flag(9, "right", false))?, c.flag(9, "out_int32", false))
        })),
        "nn.functional.embedding_bag" => one(embedding_bag(c)),
        "nn.functional.one_hot" => one(c.x(0).and_then(|x| match c.int(1, "num_classes")? {
            Some(n) if n >= 0 => x.try_one_hot(n as usize),
            _ => x.try_one_hot(x.try_max()?.item::<i64>()? as usize + 1),
        })),
        "nn.functional.embedding" => one(c.x(0).and_then(|table| {
            if !c.arg(3, "max_norm").is_null()
                || c.flag(5, "scale_grad_by_freq", false)
                || !c.arg(2, "padding_idx").is_null()
            {
                return Err(Error::misuse("the option is not there yet"));
            }
            table.try_embedding(&c.x(1)?)
        })),
        _ => None,
    }
}

fn vector(index: &Tensor) -> Result<Tensor> {
    up(index)
}

fn fitting(source: &Tensor, index: &Tensor) -> Result<Tensor> {
    if source.rank() != index.rank() {
        return Err(Error::misuse("source and index differ in their number of dimensions"));
    }
    (0..index.rank()).try_fold(source.clone(), |s, d| s.try_narrow(d as isize, 0, index.dims()[d]))
}

/// Indices counted from the end if negative.
fn wrapped(index: &Tensor, n: usize) -> Result<Tensor> {
    let index = index.try_to_dtype(DType::I64)?;
    let from_end = index.try_binary_scalar(BinaryOp::Add, n as i64)?;
    from_end.try_where(&index.try_lt_scalar(0i64)?, &index)
}

fn unique(c: &Call<'_>) -> Result<Vec<Tensor>> {
    let (values, inverse, counts) = match c.int(9, "dim")? {
        Some(dim) => c.x(0)?.try_unique_slices(dim)?,
        None => c.x(0)?.try_unique()?,
    };
    let mut out = vec![values];
    out.extend(c.flag(9, "return_inverse", false).then_some(inverse));
    out.extend(c.flag(9, "return_counts", false).then_some(counts));
    Ok(out)
}

fn scatter_reduce(c: &Call<'_>) -> Result<Tensor> {
    let op = match c.word(4, "reduce") {
        Some("sum") => ScatterReduceOp::Sum,
        Some("mean") => ScatterReduceOp::Mean,
        Some("prod") => ScatterReduceOp::Prod,
        Some("amax") => ScatterReduceOp::Max,
        Some("amin") => ScatterReduceOp::Min,
        word => return no_word("reduction", word),
    };
    let (x, index, source) = (c.x(0)?, c.x(2)?, c.x(3)?);
    let source = fitting(&source, &index)?;
    x.try_scatter_reduce(c.int(1, "dim")?.unwrap_or(0), &index, &source, op, c.flag(9, "include_self", true))
}

/// Places as PyTorch's 32-bit integers, where it is asked for them.
fn narrow(places: Tensor, to_i32: bool) -> Result<Tensor> {
    if to_i32 { places.try_to_dtype(DType::I32) } else { Ok(places) }
}

fn searchsorted(c: &Call<'_>) -> Result<Tensor> {
    let row = c.x(0)?;
    let queries = match c.x(1) {
        Ok(q) => q,
        Err(_) => Tensor::try_full((), c.number(1, "value")?.unwrap_or(f64::NAN), row.place())?,
    };
    let right = match c.word(9, "side") {
        None => c.flag(9, "right", false),
        Some("left") if c.flag(9, "right", false) => return no_word("side of the right", Some("left")),
        Some("left") => false,
        Some("right") => true,
        side => return no_word("side", side),
    };
    let at = match c.tensor(9, "sorter")? {
        Some(sorter) => row.try_searchsorted_by(&sorter, &queries, right)?,
        None => row.try_searchsorted(&queries, right)?,
    };
    narrow(at, c.flag(9, "out_int32", false))
}

fn embedding_bag(c: &Call<'_>) -> Result<Tensor> {
    if !c.arg(9, "max_norm").is_null() || c.flag(9, "scale_grad_by_freq", false) {
        return Err(Error::misuse("options of the layer, not of the function"));
    }
    let mode = match c.word(9, "mode") {
        Some("sum") => BagMode::Sum,
        None | Some("mean") => BagMode::Mean,
        Some("max") => BagMode::Max,
        word => return no_word("mode", word),
    };
    let options = EmbeddingBagOptions {
        mode,
        offsets: c.tensor(2, "offsets")?,
        include_last_offset: c.flag(9, "include_last_offset", false),
        weights: c.tensor(9, "per_sample_weights")?,
        padding: c.len(9, "padding_idx")?,
    };
    c.x(0)?.try_embedding_bag(&c.x(1)?, &options)
}
