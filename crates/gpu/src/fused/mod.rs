//! Fused kernels of composites and updates, and their registration. What a kernel does not cover (`f64`, class weights,
//! label smoothing, AMSGrad) runs by its definition.

use crate::Gpu;
use crate::launch::{Steps, folded};
use crate::memory::GpuBuffer;
use crate::runtime::GpuRuntime;
use cubecl::prelude::{CubeCount, CubeDim};
use gradus_core::composite::FusedCall;
use gradus_core::functional::all_finite::AllFinite;
use gradus_core::functional::attention::{Attention, AttentionGrad};
use gradus_core::functional::batch_norm::{BatchNorm, BatchNormGrad, BatchNormRelu, BatchNormReluGrad};
use gradus_core::functional::chain::Chain;
use gradus_core::functional::conv::{Conv, ConvInputGrad, ConvWeightGrad};
use gradus_core::functional::dropout::Dropout;
use gradus_core::functional::global_norm::GlobalNorm;
use gradus_core::functional::gru::{GruStep, GruStepGrad};
use gradus_core::functional::lerp::Lerp;
use gradus_core::functional::linear::Linear;
use gradus_core::functional::loss::{CrossEntropy, CrossEntropyGrad};
use gradus_core::functional::lstm::{LstmStep, LstmStepGrad};
use gradus_core::functional::newton_schulz::NewtonSchulzSum;
use gradus_core::functional::norm::{LayerNorm, LayerNormGrad};
use gradus_core::functional::pool::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad};
use gradus_core::functional::rms_norm::{RmsNorm, RmsNormGrad};
use gradus_core::functional::rotary::Rotary;
use gradus_core::functional::running_average::RunningAverage;
use gradus_core::functional::softmax::{LogSoftmax, LogSoftmaxGrad, Softmax, SoftmaxGrad};
use gradus_core::functional::swiglu::{SwiGlu, SwiGluGrad};
use gradus_core::functional::update::{AdamUpdate, LionUpdate, MomentumUpdate, MuonUpdate, SgdUpdate};
use gradus_core::ops::UnaryGrad;
use gradus_core::tensor::UpdateCall;
use gradus_core::{Backend, DType, Layout, Meta, Result, Shape, View};
use gradus_kernels::rows::LANES;

mod activation;
mod attention;
mod batch_norm;
mod chain;
mod conv;
mod dropout;
mod gru;
mod loss;
mod lstm;
mod newton_schulz;
mod norm;
mod pool;
mod rms_norm;
mod rotary;
mod several;
mod softmax;
mod swiglu;
mod update;
mod window;

pub(crate) use update::Waiting;

/// Dtypes that the fused kernels compute, in `f32`.
fn covered(dtype: DType) -> bool {
    matches!(dtype, DType::F32 | DType::F16 | DType::Bf16)
}

fn dense(x: &[View<'_>]) -> bool {
    x.iter().all(|v| v.layout.is_dense()) && x[0].elements() > 0
}

/// A view's lines along a dimension: the other dimensions, and the step along it.
fn lines<const N: usize>(layouts: [&Layout; N], dim: usize) -> (Vec<usize>, [Steps; N]) {
    let shape: Vec<usize> = layouts[0].shape().without(dim).to_vec();
    let steps = layouts.map(|l| Steps {
        strides: (0..l.shape().rank()).filter(|&d| d != dim).map(|d| l.strides()[d]).collect(),
        offset: l.offset() as isize,
    });
    folded(&shape, std::array::from_fn(|i| &steps[i]))
}

impl<R: GpuRuntime> Gpu<R> {
    /// Enters the fused kernels into this device's table. A device lives as long as the program, so its kernels may hold it.
    pub(crate) fn register_fused(&'static self) {
        let table = self.kernels();
        table.register(|c: FusedCall<'_, Softmax>| self.softmax(c.x, c.op.dim, false));
        table.register(|c: FusedCall<'_, LogSoftmax>| self.softmax(c.x, c.op.dim, true));
        table.register(|c: FusedCall<'_, SoftmaxGrad>| self.softmax_grad(c.x, c.op.dim, false));
        table.register(|c: FusedCall<'_, LogSoftmaxGrad>| self.softmax_grad(c.x, c.op.dim, true));
        table.register(|c: FusedCall<'_, LayerNorm>| self.layer_norm(c.x, c.op.eps));
        table.register(|c: FusedCall<'_, LayerNormGrad>| self.layer_norm_grad(c.x));
        table.register(|c: FusedCall<'_, RmsNorm>| self.rms_norm(c.x, c.op.eps));
        table.register(|c: FusedCall<'_, RmsNormGrad>| self.rms_norm_grad(c.x));
        table.register(|c: FusedCall<'_, GlobalNorm>| self.global_norm(c.x, c.op.factor));
        table.register(|c: FusedCall<'_, AllFinite>| self.all_finite(c.x));
        table.register(|c: FusedCall<'_, LstmStep>| self.lstm_step(c.x));
        table.register(|c: FusedCall<'_, LstmStepGrad>| self.lstm_step_grad(c.x));
        table.register(|c: FusedCall<'_, GruStep>| self.gru_step(c.x));
        table.register(|c: FusedCall<'_, GruStepGrad>| self.gru_step_grad(c.x));
        table.register(|c: FusedCall<'_, SwiGlu>| self.swiglu(c.x));
        table.register(|c: FusedCall<'_, SwiGluGrad>| self.swiglu_grad(c.x));
        table.register(|c: FusedCall<'_, Rotary>| self.rotary(c.op, c.x));
        table.register(|c: FusedCall<'_, Attention>| self.attention(c.op, c.x));
        table.register(|c: FusedCall<'_, AttentionGrad>| self.attention_grad(&c.op.0, c.x));
        table.register(|c: FusedCall<'_, CrossEntropy>| self.cross_entropy(c.op, c.x));
        table.register(|c: FusedCall<'_, CrossEntropyGrad>| self.cross_entropy_grad(&c.op.0, c.x));
        table.register(|c: FusedCall<'_, BatchNorm>| self.batch_norm(c.x, c.op.eps, false));
        table.register(|c: FusedCall<'_, BatchNormGrad>| self.batch_norm_grad(c.x));
        table.register(|c: FusedCall<'_, BatchNormRelu>| self.batch_norm(c.x, c.op.eps, true));
        table.register(|c: FusedCall<'_, BatchNormReluGrad>| self.batch_norm_relu_grad(c.x));
        table.register(|c: FusedCall<'_, RunningAverage>| self.running_average(c.x, c.op.momentum));
        table.register(|c: FusedCall<'_, NewtonSchulzSum>| self.newton_schulz(c.op, c.x));
        table.register(|c: FusedCall<'_, Chain>| self.chain(c));
        table.register(|c: FusedCall<'_, Lerp>| self.lerp(c));
        table.register(|c: FusedCall<'_, Conv>| self.conv(c.op, c.x));
        table.register(|c: FusedCall<'_, ConvInputGrad>| self.conv_input_grad(&c.op.0, c.x));
        table.register(|c: FusedCall<'_, ConvWeightGrad>| self.conv_weight_grad(&c.op.conv, c.op.bias, c.x));
        table.register(|c: FusedCall<'_, MaxPool>| self.max_pool(c.op, c.x[0], c.outputs));
        table.register(|c: FusedCall<'_, MaxPoolGrad>| self.max_pool_grad(&c.op.0, c.x, c.outputs));
        table.register(|c: FusedCall<'_, AvgPool>| self.avg_pool(c.op, c.x[0], c.outputs, false));
        table.register(|c: FusedCall<'_, AvgPoolGrad>| self.avg_pool(&c.op.0, c.x[0], c.outputs, true));
        table.register(|c: FusedCall<'_, Dropout>| self.dropout(c.op, c.x[0]));
        table.register(|c: FusedCall<'_, UnaryGrad>| self.unary_grad(c.op.0, c.x));
        table.register(|c: FusedCall<'_, Linear>| self.linear(c.op.activation, c.x));
        table.register_update(|c: UpdateCall<'_, '_, SgdUpdate>| self.sgd(c));
        table.register_update(|c: UpdateCall<'_, '_, AdamUpdate>| self.adam(c));
        table.register_update(|c: UpdateCall<'_, '_, LionUpdate>| self.lion(c));
        table.register_update(|c: UpdateCall<'_, '_, MomentumUpdate>| self.momentum(c));
        table.register_update(|c: UpdateCall<'_, '_, MuonUpdate>| self.muon(c));
    }

    /// One thread or one cube for each of `rows` rows of `width`.
    fn by_rows(&self, rows: usize, width: usize) -> (CubeCount, CubeDim, usize) {
        if width <= self.strategies().row_narrow {
            let (count, dim) = self.grid(rows);
            (count, dim, 1)
        } else {
            // Four elements a thread, where there are enough.
            let lanes = width.div_ceil(4).next_power_of_two().clamp(32, LANES);
            (self.cubes(rows), CubeDim::new_1d(lanes as u32), lanes)
        }
    }

    /// Memory for a statistic of each row, in `f32`.
    fn statistic(&self, rows: usize) -> Result<(Meta, GpuBuffer)> {
        Ok((Meta::new(DType::F32, Shape::try_new(&[rows])?), self.reserve(rows, DType::F32)?))
    }
}
