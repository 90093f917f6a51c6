//! Pooling layers.

mod adaptive;
mod fractional;
mod windows;

pub use adaptive::*;
pub use fractional::*;
pub use windows::*;
