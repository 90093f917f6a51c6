//! Pooling layers.

mod adaptive;
mod fractional;
mod unpool;
mod windows;

pub use adaptive::*;
pub use fractional::*;
pub use unpool::*;
pub use windows::*;
