//! What the peers are given, weights and batches; and Burn's layers made of them. A weight of a linear layer is stored as
//! `[inputs, outputs]` in Burn: the transpose of the file's.

use burn::module::Param;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, PaddingConfig2d,
};
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use contract::Result;
use safetensors::{Dtype, SafeTensors};
use std::collections::BTreeMap;
use std::path::Path;

/// The tensors of a file.
pub struct Tensors(pub BTreeMap<String, TensorData>);

impl Tensors {
    pub fn load(path: &Path) -> Result<Tensors> {
        let say = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let bytes = std::fs::read(path).map_err(|e| say(&e))?;
        let file = SafeTensors::deserialize(&bytes).map_err(|e| say(&e))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let (shape, bytes) = (view.shape().to_vec(), view.data());
            let data = match view.dtype() {
                Dtype::F32 => TensorData::new(numbers(bytes, f32::from_le_bytes), shape),
                Dtype::I64 => TensorData::new(numbers(bytes, i64::from_le_bytes), shape),
                dtype => return Err(say(&format!("{name} is of {dtype:?}, not f32 or i64")).into()),
            };
            tensors.insert(name, data);
        }
        Ok(Tensors(tensors))
    }

    fn data(&self, name: &str) -> Result<TensorData> {
        Ok(self.0.get(name).ok_or_else(|| format!("there is no tensor called {name}"))?.clone())
    }
    pub fn get<B: Backend, const D: usize>(&self, name: &str, device: &B::Device) -> Result<Tensor<B, D>> {
        Ok(Tensor::from_data(self.data(name)?, device))
    }
    pub fn int<B: Backend, const D: usize>(&self, name: &str, device: &B::Device) -> Result<Tensor<B, D, Int>> {
        Ok(Tensor::from_data(self.data(name)?, device))
    }

    pub fn param<B: Backend, const D: usize>(&self, name: &str, device: &B::Device) -> Result<Param<Tensor<B, D>>> {
        Ok(Param::from_tensor(self.get(name, device)?))
    }
    /// From `{name}{weight}` and `{name}{bias}`.
    pub fn linear_of<B: Backend>(
        &self,
        name: &str,
        [weight, bias]: [&str; 2],
        device: &B::Device,
    ) -> Result<Linear<B>> {
        // The data are transposed, not the view, so that the parameter is laid out as one that Burn initialized.
        let weight = self.get::<B, 2>(&format!("{name}{weight}"), device)?.transpose().into_data();
        let bias = self.param(&format!("{name}{bias}"), device)?;
        Ok(Linear { weight: Param::from_data(weight, device), bias: Some(bias) })
    }
    pub fn linear<B: Backend>(&self, name: &str, device: &B::Device) -> Result<Linear<B>> {
        self.linear_of(name, [".weight", ".bias"], device)
    }
    pub fn embedding<B: Backend>(&self, name: &str, device: &B::Device) -> Result<Embedding<B>> {
        Ok(Embedding {
            weight: self.param(&format!("{name}.weight"), device)?,
            ..EmbeddingConfig::new(1, 1).init(device)
        })
    }
    pub fn layer_norm<B: Backend>(&self, name: &str, device: &B::Device) -> Result<LayerNorm<B>> {
        let mut norm = LayerNormConfig::new(1).init(device);
        norm.gamma = self.param(&format!("{name}.weight"), device)?;
        norm.beta = Some(self.param(&format!("{name}.bias"), device)?);
        Ok(norm)
    }
    /// Its running statistics begin as those of the file do.
    pub fn batch_norm<B: Backend>(&self, name: &str, device: &B::Device) -> Result<BatchNorm<B>> {
        let gamma: Param<Tensor<B, 1>> = self.param(&format!("{name}.weight"), device)?;
        let fresh = BatchNormConfig::new(gamma.dims()[0]).init(device);
        Ok(BatchNorm { gamma, beta: self.param(&format!("{name}.bias"), device)?, ..fresh })
    }
    /// With a bias if the file has one.
    pub fn conv<B: Backend>(&self, name: &str, stride: usize, padding: usize, device: &B::Device) -> Result<Conv2d<B>> {
        let weight: Param<Tensor<B, 4>> = self.param(&format!("{name}.weight"), device)?;
        let [outputs, inputs, height, width] = weight.dims();
        let config = Conv2dConfig::new([inputs, outputs], [height, width]).with_stride([stride; 2]);
        let config = config.with_padding(PaddingConfig2d::Explicit(padding, padding, padding, padding));
        let bias = format!("{name}.bias");
        let bias = if self.0.contains_key(&bias) { Some(self.param(&bias, device)?) } else { None };
        Ok(Conv2d { weight, bias, ..config.with_bias(false).init(device) })
    }
}

fn numbers<T, const N: usize>(bytes: &[u8], read: fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|bytes| read(*bytes)).collect()
}
