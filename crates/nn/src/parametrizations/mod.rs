//! Layers whose weight is a function of what is trained: weight and spectral normalization.

mod spectral_norm;
mod weight_norm;
mod weighted;

pub use spectral_norm::SpectralNorm;
pub use weight_norm::WeightNorm;
pub use weighted::Weighted;
