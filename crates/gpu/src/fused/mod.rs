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
use gradus_core::functional::batch_norm::{BatchNorm, BatchNormGrad, BatchNormRelu, BatchNormReluGrad, ChannelAffine};
use gradus_core::functional::chain::Chain;
use gradus_core::functional::conv::{Conv, ConvInputGrad, ConvWeightGrad};
use gradus_core::functional::dropout::Dropout;
use gradus_core::functional::global_norm::GlobalNorm;
use gradus_core::functional::group_norm::{GroupNorm, GroupNormGrad, GroupNormRelu, GroupNormReluGrad};
use gradus_core::functional::gru::{GruStep, GruStepGrad};
use gradus_core::functional::lerp::Lerp;
use gradus_core::functional::linear::Linear;
use gradus_core::functional::loss::{CrossEntropy, CrossEntropyGrad};
use gradus_core::functional::lstm::{LstmStep, LstmStepGrad};
use gradus_core::functional::newton_schulz::NewtonSchulzSum;
use gradus_core::functional::norm::{AddLayerNorm, LayerNorm, LayerNormGrad};
use gradus_core::functional::pool::{AvgPool, AvgPoolGrad, MaxPool, MaxPoolGrad};
use gradus_core::functional::rms_norm::{AddRmsNorm, RmsNorm, RmsNormGrad};
use gradus_core::functional::rotary::Rotary;
use gradus_core::functional::running_average::RunningAverage;
use gradus_core::functional::softmax::{LogSoftmax, LogSoftmaxGrad, Softmax, SoftmaxGrad};
use gradus_core::functional::swiglu::{SwiGlu, SwiGluGrad};
use gradus_core::functional::update::{AdamUpdate, LionUpdate, MomentumUpdate, MuonUpdate, SgdUpdate};
use gradus_core::ops::UnaryGrad;
use gradus_core::tensor::UpdateCall;
use gradus_core::{DType, Layout, Meta, Result, Shape, View};
use gradus_kernels::rows::LANES;

mod activation;
mod attention;
mod batch_norm;
mod chain;
mod conv;
mod dropout;
mod group_norm;
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
        self.fused(|gpu, c: FusedCall<'_, Softmax>| gpu.softmax(c.x, c.op.dim, false));
        self.fused(|gpu, c: FusedCall<'_, LogSoftmax>| gpu.softmax(c.x, c.op.dim, true));
        self.fused(|gpu, c: FusedCall<'_, SoftmaxGrad>| gpu.softmax_grad(c.x, c.op.dim, false));
        self.fused(|gpu, c: FusedCall<'_, LogSoftmaxGrad>| gpu.softmax_grad(c.x, c.op.dim, true));
        self.fused(|gpu, c: FusedCall<'_, LayerNorm>| gpu.layer_norm(c.x, c.op.eps));
        self.fused(|gpu, c: FusedCall<'_, AddLayerNorm>| gpu.add_layer_norm(c.x, c.op.eps));
        self.fused(|gpu, c: FusedCall<'_, LayerNormGrad>| gpu.layer_norm_grad(c.x));
        self.fused(|gpu, c: FusedCall<'_, GroupNorm>| gpu.group_norm(c.x, c.op.groups, c.op.eps, false));
        self.fused(|gpu, c: FusedCall<'_, GroupNormGrad>| gpu.group_norm_grad(c.x, c.op.groups, false));
        self.fused(|gpu, c: FusedCall<'_, GroupNormRelu>| gpu.group_norm(c.x, c.op.groups, c.op.eps, true));
        self.fused(|gpu, c: FusedCall<'_, GroupNormReluGrad>| gpu.group_norm_grad(c.x, c.op.groups, c.op.residual));
        self.fused(|gpu, c: FusedCall<'_, RmsNorm>| gpu.rms_norm(c.x, c.op.eps));
        self.fused(|gpu, c: FusedCall<'_, AddRmsNorm>| gpu.add_rms_norm(c.x, c.op.eps));
        self.fused(|gpu, c: FusedCall<'_, RmsNormGrad>| gpu.rms_norm_grad(c.x));
        self.fused(|gpu, c: FusedCall<'_, GlobalNorm>| gpu.global_norm(c.x, c.op.factor));
        self.fused(|gpu, c: FusedCall<'_, AllFinite>| gpu.all_finite(c.x));
        self.fused(|gpu, c: FusedCall<'_, LstmStep>| gpu.lstm_step(c.x));
        self.fused(|gpu, c: FusedCall<'_, LstmStepGrad>| gpu.lstm_step_grad(c.x));
        self.fused(|gpu, c: FusedCall<'_, GruStep>| gpu.gru_step(c.x));
        self.fused(|gpu, c: FusedCall<'_, GruStepGrad>| gpu.gru_step_grad(c.x));
        self.fused(|gpu, c: FusedCall<'_, SwiGlu>| gpu.swiglu(c.x));
        self.fused(|gpu, c: FusedCall<'_, SwiGluGrad>| gpu.swiglu_grad(c.x));
        self.fused(|gpu, c: FusedCall<'_, Rotary>| gpu.rotary(c.op, c.x));
        self.fused(|gpu, c: FusedCall<'_, Attention>| gpu.attention(c.op, c.x));
        self.fused(|gpu, c: FusedCall<'_, AttentionGrad>| gpu.attention_grad(&c.op.0, c.x));
        self.fused(|gpu, c: FusedCall<'_, CrossEntropy>| gpu.cross_entropy(c.op, c.x));
        self.fused(|gpu, c: FusedCall<'_, CrossEntropyGrad>| gpu.cross_entropy_grad(&c.op.0, c.x));
        self.fused(|gpu, c: FusedCall<'_, BatchNorm>| gpu.batch_norm(c.x, c.op.eps, false));
        self.fused(|gpu, c: FusedCall<'_, BatchNormGrad>| gpu.batch_norm_grad(c.x));
        self.fused(|gpu, c: FusedCall<'_, BatchNormRelu>| gpu.batch_norm(c.x, c.op.eps, true));
        self.fused(|gpu, c: FusedCall<'_, BatchNormReluGrad>| gpu.batch_norm_relu_grad(c.x));
        self.fused(|gpu, c: FusedCall<'_, ChannelAffine>| gpu.channel_affine(c.x));
        self.fused(|gpu, c: FusedCall<'_, RunningAverage>| gpu.running_average(c.x, c.op.momentum));
        self.fused(|gpu, c: FusedCall<'_, NewtonSchulzSum>| gpu.newton_schulz(c.op, c.x));
        self.fused(|gpu, c: FusedCall<'_, Chain>| gpu.chain(c));
        self.fused(|gpu, c: FusedCall<'_, Lerp>| gpu.lerp(c));
        self.fused(|gpu, c: FusedCall<'_, Conv>| gpu.conv(c.op, c.x));
        self.fused(|gpu, c: FusedCall<'_, ConvInputGrad>| gpu.conv_input_grad(&c.op.0, c.x));
        self.fused(|gpu, c: FusedCall<'_, ConvWeightGrad>| gpu.conv_weight_grad(&c.op.conv, c.op.bias, c.x));
        self.fused(|gpu, c: FusedCall<'_, MaxPool>| gpu.max_pool(c.op, c.x[0], c.outputs));
        self.fused(|gpu, c: FusedCall<'_, MaxPoolGrad>| gpu.max_pool_grad(&c.op.0, c.x, c.outputs));
        self.fused(|gpu, c: FusedCall<'_, AvgPool>| gpu.avg_pool(c.op, c.x[0], c.outputs, false));
        self.fused(|gpu, c: FusedCall<'_, AvgPoolGrad>| gpu.avg_pool(&c.op.0, c.x[0], c.outputs, true));
        self.fused(|gpu, c: FusedCall<'_, Dropout>| gpu.dropout(c.op, c.x));
        self.fused(|gpu, c: FusedCall<'_, UnaryGrad>| gpu.unary_grad(c.op.0, c.x));
        self.fused(|gpu, c: FusedCall<'_, Linear>| gpu.linear(c.op.activation, c.x));
        self.fused_update(|gpu, c: UpdateCall<'_, '_, SgdUpdate>| gpu.sgd(c));
        self.fused_update(|gpu, c: UpdateCall<'_, '_, AdamUpdate>| gpu.adam(c));
        self.fused_update(|gpu, c: UpdateCall<'_, '_, LionUpdate>| gpu.lion(c));
        self.fused_update(|gpu, c: UpdateCall<'_, '_, MomentumUpdate>| gpu.momentum(c));
        self.fused_update(|gpu, c: UpdateCall<'_, '_, MuonUpdate>| gpu.muon(c));
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
