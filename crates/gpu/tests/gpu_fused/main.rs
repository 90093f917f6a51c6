//! The fused kernels against the definitions of their composites, on the CPU in `f64`: outputs, gradients and second gradients, at
//! sizes on both sides of every tile; and that a device runs the kernel, in as many launches as it should, and no definition.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

#[path = "../adapter/mod.rs"]
mod adapter;
#[path = "../definition/mod.rs"]
mod definition;

mod attention;
mod channels;
mod elementwise;
mod recurrent;
mod rows;
mod several;
mod table;

pub(crate) use definition::{agrees, attend, heads, normal, numbers, run};
