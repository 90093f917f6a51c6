//! Lion.

use super::{Part, begin, end, gradient};
use cubecl::prelude::*;

/// The numbers of a step of Lion, as they are at this step.
#[derive(CubeType, CubeLaunch)]
pub struct LionNumbers {
    /// What every weight moves by.
    pub rate: f32,
    /// 1 − β₁.
    pub gain1: f32,
    /// 1 − β₂.
    pub gain2: f32,
    /// 1 − η·λ.
    pub decay: f32,
    /// −1 to climb, else 1.
    pub sign: f32,
}

/// Each p and its `exp_avg` m become what the step says.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn lion_kernel<T: Numeric>(
    g: &Sequence<Array<T>>,
    p: &mut Sequence<Array<T>>,
    m: &mut Sequence<Array<T>>,
    factor: &Sequence<Array<T>>,
    parts: &Sequence<Part>,
    numbers: &Sequence<LionNumbers>,
    #[define(T)] _type: StorageType,
) {
    let count = comptime!(parts.len());
    #[unroll]
    for t in 0..count {
        let (part, s) = (parts.index(t), numbers.index(t));
        let (p, m) = (p.index_mut(t), m.index_mut(t));
        for i in range_stepped(begin(part), end(part), CUBE_DIM as usize) {
            let d = gradient(g.index(t), i, part, factor) * s.sign;
            let before = f32::cast_from(m[i]);
            let mixed = before + (d - before) * s.gain1;
            let (zero, one) = (f32::new(0.0), f32::new(1.0));
            let direction = select(mixed > zero, one, select(mixed < zero, -one, zero));
            m[i] = T::cast_from(before + (d - before) * s.gain2);
            p[i] = T::cast_from(f32::cast_from(p[i]) * s.decay - direction * s.rate);
        }
    }
}
