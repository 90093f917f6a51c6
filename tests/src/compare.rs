//! Comparisons of tensors that say what differs, where, and by how much.

use gradus_core::{DType, Tensor};

/// The largest magnitude among the finite elements.
pub fn scale(x: &[f64]) -> f64 {
    x.iter().filter(|v| v.is_finite()).fold(0.0, |m, v| m.max(v.abs()))
}

/// What differs between two lists of numbers by more than `tolerance · (1 + scale)`; NaN equals NaN, infinities themselves.
pub fn numbers(what: &str, have: &[f64], want: &[f64], tolerance: f64) -> Result<(), String> {
    if have.len() != want.len() {
        return Err(format!("{what}: {} elements instead of {}", have.len(), want.len()));
    }
    let allowed = tolerance * (1.0 + scale(want));
    for (i, (&a, &b)) in have.iter().zip(want).enumerate() {
        let equal = a == b || (a.is_nan() && b.is_nan());
        // `!(x <= y)`: a NaN difference is one.
        if !equal && !((a - b).abs() <= allowed) {
            return Err(format!(
                "{what}: element {i} is {a:e}, want {b:e} (off by {:e}, allowed {allowed:e})",
                (a - b).abs()
            ));
        }
    }
    Ok(())
}

/// The elements as `f64`, or why they cannot be read.
pub fn read(what: &str, x: &Tensor) -> Result<Vec<f64>, String> {
    x.to_vec::<f64>().map_err(|e| format!("{what}: cannot be read: {e}"))
}

/// What differs between two tensors: shape, dtype, or a number by more than `tolerance · (1 + scale)`.
pub fn tensors(what: &str, have: &Tensor, want: &Tensor, tolerance: f64) -> Result<(), String> {
    same_kind(what, have, want)?;
    numbers(what, &read(what, have)?, &read(what, want)?, tolerance)
}

/// What differs between two tensors, bit by bit.
pub fn bits(what: &str, have: &Tensor, want: &Tensor) -> Result<(), String> {
    same_kind(what, have, want)?;
    let (a, b) = (have.to_bytes().map_err(|e| e.to_string())?, want.to_bytes().map_err(|e| e.to_string())?);
    if a == b {
        return Ok(());
    }
    numbers(what, &read(what, have)?, &read(what, want)?, 0.0)?;
    Err(format!("{what}: equal numbers with different bits (signs of zeros, or payloads of NaNs)"))
}

fn same_kind(what: &str, have: &Tensor, want: &Tensor) -> Result<(), String> {
    if have.meta() != want.meta() {
        return Err(format!("{what}: {} {} instead of {} {}", have.dtype(), have.shape(), want.dtype(), want.shape()));
    }
    Ok(())
}

/// The distance between 1 and the next number of a floating-point dtype.
pub fn epsilon(dtype: DType) -> f64 {
    match dtype {
        DType::F64 => f64::EPSILON,
        DType::F32 => f64::from(f32::EPSILON),
        DType::F16 => 2f64.powi(-10),
        DType::Bf16 => 2f64.powi(-7),
        _ => 0.0,
    }
}
