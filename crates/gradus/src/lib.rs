//! Train neural networks on CPUs and GPUs: tensors, autodiff of any order, layers, optimizers, a trainer.
