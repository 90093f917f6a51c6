//! Convolution, its transpose, and the weight's gradient, without writing columns out.
//!
//! Over one or two dimensions, channels lie side by side: [`depthwise`] where each is a group of its own; of `f32` and one group
//! [`winograd`] for 3×3 of stride 1, [`direct`] for the rest. What remains (`f64`, groups of several channels, three dimensions)
//! goes by [`shifted`].

mod depthwise;
mod direct;
mod epilogue;
mod phases;
mod pixels;
mod planes;
mod shifted;
mod tiles;
mod transforms;
mod winograd;

use self::epilogue::Epilogue;
use crate::dense::by_dtype;
use crate::vector::Real;
use gradus_core::backend::View;
use gradus_core::composite::{Fused, FusedCall, KernelTable};
use gradus_core::functional::conv::{Conv, ConvInputGrad, ConvThen, ConvWeightGrad};
use gradus_core::ops::UnaryOp;
use gradus_core::{Buffer, DType, Result};
use smallvec::smallvec;

pub(crate) fn register(table: &KernelTable) {
    table.register(|c: FusedCall<'_, Conv>| convolve(Direction::Forward, c.op, c.x, None));
    table.register(|c: FusedCall<'_, ConvInputGrad>| convolve(Direction::Transposed, &c.op.0, c.x, None));
    table.register(|c: FusedCall<'_, ConvThen<Conv>>| {
        convolve(Direction::Forward, &c.op.conv, c.x, Some(c.op.activation))
    });
    table.register(|c: FusedCall<'_, ConvThen<ConvInputGrad>>| {
        convolve(Direction::Transposed, &c.op.conv.0, c.x, Some(c.op.activation))
    });
    table.register(|c: FusedCall<'_, ConvWeightGrad>| {
        by_dtype(c.x, |x, dtype| match dtype {
            _ if depthwise::fits(&c.op.conv, x[0].shape()[1], x[1].shape()[1]) => {
                depthwise::weight_grad(&c.op.conv, x).map(|grads| taken(grads, c.op.bias))
            }
            DType::F32 if winograd::fits_weight_grad(&c.op.conv, x[0], x[1]) => {
                winograd::weight_grad::<f32>(&c.op.conv, x).map(|grads| taken(grads, c.op.bias))
            }
            DType::F32 if direct::fits(&c.op.conv) => {
                direct::weight_grad::<f32>(&c.op.conv, x).map(|grads| taken(grads, c.op.bias))
            }
            DType::F32 => shifted::weight_grad::<f32>(&c.op.conv, c.op.bias, x).map(Some),
            _ => shifted::weight_grad::<f64>(&c.op.conv, c.op.bias, x).map(Some),
        })
    });
}

/// Which kernels compute a convolution, or its transpose.
enum Way {
    Depthwise,
    Winograd,
    Direct,
    Shifted,
}

impl Way {
    fn of(conv: &Conv, reads: usize, writes: usize, dtype: DType) -> Way {
        match dtype {
            _ if depthwise::fits(conv, reads, writes) => Way::Depthwise,
            DType::F32 if winograd::fits(conv, reads, writes) => Way::Winograd,
            DType::F32 if direct::fits(conv) => Way::Direct,
            _ => Way::Shifted,
        }
    }
}

/// A convolution, or its transpose.
#[derive(Clone, Copy)]
enum Direction {
    Forward,
    Transposed,
}

/// y from x or, transposed, x from y, with the activation behind it.
fn convolve(direction: Direction, conv: &Conv, x: &[View<'_>], then: Option<UnaryOp>) -> Result<Option<Fused>> {
    let (reads, writes) = match direction {
        Direction::Forward => (x[0].shape()[1], x[1].shape()[0]),
        Direction::Transposed => (x[0].shape()[1], x[1].shape()[1] * conv.groups),
    };
    by_dtype(x, |x, dtype| match (dtype, Way::of(conv, reads, writes, dtype)) {
        (DType::F32, Way::Winograd) => with_epilogue::<f32>(then, |then| match direction {
            Direction::Forward => winograd::forward(conv, x, then),
            Direction::Transposed => winograd::transposed(conv, x, then),
        }),
        (DType::F32, Way::Direct) => with_epilogue::<f32>(then, |then| match direction {
            Direction::Forward => direct::forward(conv, x, then),
            Direction::Transposed => direct::transposed(conv, x, then),
        }),
        (DType::F32, way) => with_epilogue::<f32>(then, |then| of_any_type(direction, way, conv, x, then)),
        (_, way) => with_epilogue::<f64>(then, |then| of_any_type(direction, way, conv, x, then)),
    })
}

/// By the kernels that both types have.
fn of_any_type<T: Real>(
    direction: Direction,
    way: Way,
    conv: &Conv,
    x: &[View<'_>],
    then: Epilogue<T>,
) -> Result<Fused> {
    match (direction, way) {
        (Direction::Forward, Way::Depthwise) => depthwise::forward(conv, x, then),
        (Direction::Forward, _) => shifted::forward(conv, x, then),
        (Direction::Transposed, Way::Depthwise) => depthwise::transposed(conv, x, then),
        (Direction::Transposed, _) => shifted::transposed(conv, x, then),
    }
}

/// Runs a kernel with an activation; one that it does not have goes by definition.
fn with_epilogue<T: Real>(
    then: Option<UnaryOp>,
    run: impl FnOnce(Epilogue<T>) -> Result<Fused>,
) -> Result<Option<Fused>> {
    then.map_or(Some(Epilogue::Nothing), Epilogue::of).map(run).transpose()
}

/// The gradients of the taps, and of the bias if there is one.
fn taken([dw, db]: [Buffer; 2], bias: bool) -> Option<Fused> {
    let outputs = if bias { smallvec![dw, db] } else { smallvec![dw] };
    Some(Fused { outputs, ..Fused::default() })
}

/// Number `i` of a box of these lengths, as a place in it.
fn unravel(i: usize, lens: [usize; 3]) -> [usize; 3] {
    [i / (lens[1] * lens[2]), i / lens[2] % lens[1], i % lens[2]]
}
