//! Stochastic gradient descent, with and without momentum.

use super::{Part, begin, end, gradient};
use cubecl::prelude::*;

/// The numbers of a step of SGD, as they are at this step.
#[derive(CubeType, CubeLaunch)]
pub struct SgdNumbers {
    /// What the step is multiplied with.
    pub rate: f32,
    /// How much of the buffer stays.
    pub momentum: f32,
    /// How much of the gradient the buffer takes.
    pub gain: f32,
    /// The L2 penalty.
    pub penalty: f32,
    /// −1 to climb, else 1.
    pub sign: f32,
}

/// Each p and, if there are any, its momentum buffer b become what the step says.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn sgd_kernel<T: Numeric>(
    g: &Sequence<Array<T>>,
    p: &mut Sequence<Array<T>>,
    b: &mut Sequence<Array<T>>,
    factor: &Sequence<Array<T>>,
    parts: &Sequence<Part>,
    numbers: &Sequence<SgdNumbers>,
    #[comptime] nesterov: bool,
    #[define(T)] _type: StorageType,
) {
    let count = comptime!(parts.len());
    let momentum = comptime!(b.len() > 0);
    #[unroll]
    for t in 0..count {
        let (part, s) = (parts.index(t), numbers.index(t));
        let p = p.index_mut(t);
        for i in range_stepped(begin(part), end(part), CUBE_DIM as usize) {
            let old = f32::cast_from(p[i]);
            let mut d = gradient(g.index(t), i, part, factor) * s.sign;
            if s.penalty != f32::new(0.0) {
                d += old * s.penalty;
            }
            if comptime!(momentum) {
                let b = b.index_mut(t);
                let buffer = f32::cast_from(b[i]) * s.momentum + d * s.gain;
                b[i] = T::cast_from(buffer);
                if comptime!(nesterov) {
                    d += buffer * s.momentum;
                } else {
                    d = buffer;
                }
            }
            p[i] = T::cast_from(old - d * s.rate);
        }
    }
}
