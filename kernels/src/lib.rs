//! GPU kernels of Gradus, written once in Rust (cubecl's `#[cube]` dialect) and compiled at run time for the device at hand:
//! SPIR-V for Vulkan, CUDA C++ for NVIDIA.
//!
//! Each file is one kernel, or a family that differs in one function: its formula, its CPU reference, and what keeps its
//! bits the same from run to run. Kernels read strided views where they lie (see `strided`), take element types at launch
//! (`#[define]`), accumulate halves in `f32`, and use no float atomics. Nothing here allocates, knows a tensor, or names a
//! runtime; `gradus-gpu` launches them.
//!
//! Every kernel is launched unchecked: its host side passes lengths that keep each access inside its buffer.
//!
//! The kernels are there with the feature `cubecl`, which `gradus-gpu` turns on with either of its runtimes.
#![cfg(feature = "cubecl")]
// `#[cube]` writes a module, a struct and functions beside each kernel that carry no docs of their own; the kernel's stand
// for them. Its dialect has no `!is_nan()`, `div_ceil`, `is_empty` or elided lifetimes, and
// compound assignment only on variables.
#![allow(
    missing_docs,
    clippy::eq_op,
    clippy::nonminimal_bool,
    clippy::neg_cmp_op_on_partial_ord,
    clippy::assign_op_pattern,
    clippy::manual_div_ceil,
    clippy::len_zero,
    clippy::needless_lifetimes
)]
// Coefficients are given as published.
#![allow(clippy::excessive_precision)]

pub mod attention;
pub mod batch_norm;
pub mod binary;
pub mod chain;
pub mod channel_affine;
pub mod compare;
pub mod conv;
pub mod copy;
pub mod cross_entropy;
pub mod dropout;
pub mod elementary;
pub mod fault;
pub mod gather;
pub mod group_norm;
pub mod gru;
pub mod layer_norm;
pub mod lstm;
pub mod matmul;
pub mod newton_schulz;
pub mod pool;
pub mod random;
pub mod reduce;
pub mod rms_norm;
pub mod rotary;
pub mod rows;
pub mod running_average;
pub mod scan;
pub mod several;
pub mod softmax;
pub mod sort;
pub mod strided;
pub mod swiglu;
pub mod unary;
pub mod unary_grad;
pub mod update;
pub mod window;
