//! Train neural networks on CPUs and GPUs: tensors, autodiff of any order, layers, optimizers, a trainer.
//!
//! ```
//! use gradus::prelude::*;
//!
//! let x = Tensor::from_slice(&[1f32, 2.0, 3.0], Device::cpu()).requires_grad();
//! let y = (&x * &x).sum();
//! y.backward();
//! assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [2.0, 4.0, 6.0]);
//! ```
//!
//! `use gradus::prelude::*;` brings what most programs need. The modules:
//!
//! | for | see |
//! |---|---|
//! | tensors, autodiff, functions of tensors | the root ([`Tensor`], [`DType`], [`Device`]), [`autodiff`], [`functional`] |
//! | devices | [`Devices`], [`cpu`] |
//! | layers, losses, initial weights | [`nn`] |
//! | optimizers, schedules, penalties, clipping | [`optim`] |
//! | data sets, splits, loaders | [`data`] |
//! | metrics | [`metrics`] |
//! | the trainer, checkpoints, callbacks | [`train`] |
//! | safetensors files | [`io`] |
//!
//! Features: `wgpu` (Vulkan devices, of any vendor), `cuda` (NVIDIA devices). Without them there is the CPU.

mod devices;

pub use devices::{Devices, ListedDevice};
pub use gradus_core::*;
pub use gradus_cpu as cpu;
pub use gradus_data as data;
pub use gradus_io as io;
pub use gradus_metrics as metrics;
pub use gradus_nn as nn;
pub use gradus_optim as optim;
pub use gradus_train as train;

/// What most programs need.
pub mod prelude {
    pub use crate::{
        Backward, DType, Device, Devices, Error, Key, Precision, Result, SliceSpec, Tensor, checkpoint, enable_grad,
        grad, no_grad, with_precision,
    };
    pub use gradus_data::prelude::*;
    pub use gradus_metrics::prelude::*;
    pub use gradus_nn::prelude::*;
    pub use gradus_optim::prelude::*;
    pub use gradus_train::prelude::*;
}
