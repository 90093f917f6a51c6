//! Reductions, statistics, norms, scans and orders.

use super::{Outcome, lifted, one};
use gradus_core::{DType, Error, Result, Tensor};
use gradus_tests::golden::{Call, UNTYPABLE};

pub(super) fn run(name: &str, c: &Call<'_>) -> Outcome {
    reduced(name, c).or_else(|| statistics(name, c)).or_else(|| along(name, c)).or_else(|| norms(name, c))
}

/// The dimensions named at argument `i`, all if none is.
fn dims(c: &Call<'_>, i: usize, x: &Tensor) -> Result<Vec<isize>> {
    let given = c.ints(i, "dim")?.filter(|d| !d.is_empty());
    Ok(given.unwrap_or_else(|| (0..x.rank() as isize).collect()))
}

fn reduced(name: &str, c: &Call<'_>) -> Outcome {
    let f: fn(&Tensor, &[isize], bool) -> Result<Tensor> = match name {
        "sum" => |x, d, k| x.try_sum_dims(d, k),
        "mean" => |x, d, k| x.try_mean_dims(d, k),
        "prod" => |x, d, k| x.try_prod_dims(d, k),
        "amax" => |x, d, k| x.try_amax(d, k),
        "amin" => |x, d, k| x.try_amin(d, k),
        "any" => |x, d, k| x.try_any_dims(d, k),
        "all" => |x, d, k| x.try_all_dims(d, k),
        "logsumexp" => |x, d, k| x.try_logsumexp(d, k),
        "nansum" => |x, d, k| x.try_nansum(d, k),
        "nanmean" => |x, d, k| x.try_nanmean(d, k),
        "count_nonzero" => |x, d, _| x.try_count_nonzero(d),
        "max.reduction_no_dim" => |x, _, _| x.try_max(),
        "min.reduction_no_dim" => |x, _, _| x.try_min(),
        _ => return None,
    };
    let cast = |x: Tensor| match c.arg(9, "dtype").get("dtype").and_then(|d| d.as_str()) {
        Some("float32") => x.try_to_dtype(DType::F32),
        Some("float64") => x.try_to_dtype(DType::F64),
        Some("int64") => x.try_to_dtype(DType::I64),
        Some(other) => Err(Error::misuse(format!("{UNTYPABLE}: the dtype {other}"))),
        None => Ok(x),
    };
    Some(
        c.x(0)
            .and_then(cast)
            .and_then(|x| lifted(&x, |x| Ok(vec![f(x, &dims(c, 1, x)?, c.flag(2, "keepdim", false))?]))),
    )
}

fn statistics(name: &str, c: &Call<'_>) -> Outcome {
    let (kind, with_mean) = match name {
        "var" | "var.unbiased" => ("var", false),
        "std" | "std.unbiased" => ("std", false),
        "var_mean" => ("var", true),
        "std_mean" => ("std", true),
        _ => return None,
    };
    Some(c.x(0).and_then(|x| {
        // Either (x, unbiased) or (x, dim, unbiased or correction).
        let alone = c.arg(1, "").is_boolean();
        let unbiased = if alone { c.arg(1, "") } else { c.arg(2, "unbiased") }.as_bool();
        let correction = match unbiased {
            Some(u) => f64::from(u),
            None => c.number(9, "correction")?.unwrap_or(1.0),
        };
        let keep = c.flag(9, "keepdim", false);
        let dims = if alone { Vec::new() } else { dims(c, 1, &x)? };
        let y = if kind == "var" { x.try_var(&dims, correction, keep)? } else { x.try_std(&dims, correction, keep)? };
        if !with_mean {
            return Ok(vec![y]);
        }
        Ok(vec![y, x.try_mean_dims(&(if dims.is_empty() { (0..x.rank() as isize).collect() } else { dims }), keep)?])
    }))
}

fn pair(y: Result<(Tensor, Tensor)>) -> Result<Vec<Tensor>> {
    y.map(|(a, b)| vec![a, b])
}

fn along(name: &str, c: &Call<'_>) -> Outcome {
    let int = |i, name, default: isize| Ok::<_, Error>(c.int(i, name)?.unwrap_or(default));
    type F<'a> = Box<dyn Fn(&Tensor) -> Result<Vec<Tensor>> + 'a>;
    let f: F = match name {
        "cumsum" => Box::new(|x| Ok(vec![x.try_cumsum(int(1, "dim", 0)?)?])),
        "cummax" => Box::new(|x| pair(x.try_cummax(int(1, "dim", 0)?))),
        "cummin" => Box::new(|x| pair(x.try_cummin(int(1, "dim", 0)?))),
        "aminmax" => Box::new(|x| pair(x.try_aminmax(&dims(c, 1, x)?, c.flag(2, "keepdim", false)))),
        "kthvalue" => Box::new(|x| {
            pair(x.try_kthvalue(c.len(1, "k")?.unwrap_or(0), int(2, "dim", -1)?, c.flag(3, "keepdim", false)))
        }),
        "cumprod" => Box::new(|x| Ok(vec![x.try_cumprod(int(1, "dim", 0)?)?])),
        "logcumsumexp" => Box::new(|x| Ok(vec![x.try_logcumsumexp(int(1, "dim", 0)?)?])),
        "softmax" => Box::new(|x| Ok(vec![x.try_softmax(int(1, "dim", 0)?)?])),
        "log_softmax" => Box::new(|x| Ok(vec![x.try_log_softmax(int(1, "dim", 0)?)?])),
        "nn.functional.softmin" => Box::new(|x| Ok(vec![x.try_softmin(int(1, "dim", 0)?)?])),
        "sort" => Box::new(|x| pair(x.try_sort(int(1, "dim", -1)?, c.flag(2, "descending", false)))),
        "argsort" => Box::new(|x| Ok(vec![x.try_argsort(int(1, "dim", -1)?, c.flag(2, "descending", false))?])),
        "msort" => Box::new(|x| Ok(vec![x.try_sort(0, false)?.0])),
        "topk" => {
            Box::new(|x| pair(x.try_topk(c.len(1, "k")?.unwrap_or(0), int(2, "dim", -1)?, c.flag(3, "largest", true))))
        }
        "max.reduction_with_dim" => Box::new(|x| pair(x.try_max_dim(int(1, "dim", 0)?, c.flag(2, "keepdim", false)))),
        "min.reduction_with_dim" => Box::new(|x| pair(x.try_min_dim(int(1, "dim", 0)?, c.flag(2, "keepdim", false)))),
        "median" => Box::new(|x| match c.int(1, "dim")? {
            Some(dim) => pair(x.try_median(dim, c.flag(2, "keepdim", false))),
            None => Ok(vec![x.try_reshape([x.elements()])?.try_median(0, false)?.0]),
        }),
        "argmax" | "argmin" => Box::new(|x| {
            let (dim, keep) = (c.int(1, "dim")?, c.flag(2, "keepdim", false));
            let flat = if dim.is_none() { x.try_reshape([x.elements()])? } else { x.clone() };
            let keep_here = keep && dim.is_some();
            let y = if name == "argmax" {
                flat.try_argmax(dim.unwrap_or(0), keep_here)
            } else {
                flat.try_argmin(dim.unwrap_or(0), keep_here)
            }?;
            Ok(vec![if keep && dim.is_none() { y.try_reshape(vec![1; x.rank()])? } else { y }])
        }),
        _ => return None,
    };
    Some(c.x(0).and_then(|x| lifted(&x, f)))
}

fn norms(name: &str, c: &Call<'_>) -> Outcome {
    match name {
        "linalg.vector_norm" => {}
        "norm" | "norm.inf" => {}
        _ => return None,
    }
    one(c.x(0).and_then(|x| {
        let vector = name == "linalg.vector_norm";
        let p = c.number(1, if vector { "ord" } else { "p" })?.unwrap_or(2.0);
        let d = c.ints(2, "dim")?.filter(|d| !d.is_empty()).unwrap_or_default();
        let keep = c.flag(3, "keepdim", false);
        Ok(lifted(&x, |x| Ok(vec![x.try_norm(p, &d, keep)?]))?.swap_remove(0))
    }))
}
