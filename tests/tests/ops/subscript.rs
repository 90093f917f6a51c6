//! Python's `x[..]`: integers, slices, an ellipsis, lists and tensors of indices, masks.

use gradus_core::{Error, Result, Tensor};
use gradus_tests::golden::{Call, items};
use serde_json::Value;

/// The subscripts with the ellipsis, or its absence at the end, as whole dimensions.
fn spread<'a>(subscripts: Vec<&'a Value>, x: &Tensor, c: &Call<'_>) -> Vec<&'a Value> {
    const WHOLE: &Value = &Value::Null;
    let dims =
        |v: &Value| c.tensor_in(v).map_or(1, |t| if t.dtype() == gradus_core::DType::Bool { t.rank() } else { 1 });
    let named: usize = subscripts.iter().filter(|v| v.get("ellipsis").is_none()).map(|v| dims(v)).sum();
    let rest = x.rank().saturating_sub(named);
    let mut out = Vec::new();
    let mut open = true;
    for v in subscripts {
        if v.get("ellipsis").is_some() {
            open = false;
            out.extend(std::iter::repeat_n(WHOLE, rest));
        } else {
            out.push(v);
        }
    }
    out.extend(std::iter::repeat_n(WHOLE, if open { rest } else { 0 }));
    out
}

fn integers(v: &Value, x: &Tensor) -> Option<Result<Tensor>> {
    let list: Vec<i64> = items(v)?.iter().map(Value::as_i64).collect::<Option<_>>()?;
    let n = list.len();
    Some(Tensor::try_from_vec(list, [n], x.device()))
}

/// The subscript at argument 1 of a call.
pub(super) fn item(c: &Call<'_>) -> Result<Tensor> {
    let v = c.arg(1, "");
    let mut x = c.x(0)?;
    let subscripts = match v.get("tuple").and_then(Value::as_array) {
        Some(items) => items.iter().collect(),
        None => vec![v],
    };
    let (mut dim, mut indices) = (0isize, Vec::new());
    for v in spread(subscripts, &x, c) {
        if let Some(slice) = v.get("slice").and_then(Value::as_array) {
            let at = |i: usize| slice[i].as_i64().map(|n| n as isize);
            x = x.try_slice(dim, at(0), at(1), at(2).unwrap_or(1))?;
            indices.push(None);
        } else if let Some(at) = v.as_i64() {
            x = x.try_select(dim, at as isize)?;
            continue;
        } else if v.is_null() {
            indices.push(None);
        } else {
            let index = c.tensor_in(v).map(Ok).or_else(|| integers(v, &x));
            indices.push(Some(index.ok_or_else(|| Error::misuse(format!("no subscript: {v}")))??));
        }
        dim += 1;
    }
    if indices.iter().all(Option::is_none) {
        return Ok(x);
    }
    x.try_index(&indices.iter().map(Option::as_ref).collect::<Vec<_>>())
}
