//! Muon's momentum and its step. (Its iteration: products, and `newton_schulz`.)

use super::{Part, begin, end, gradient};
use cubecl::prelude::*;

/// b ← b + (g − b)·gain, for each b.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn momentum_kernel<T: Numeric>(
    g: &Sequence<Array<T>>,
    b: &mut Sequence<Array<T>>,
    factor: &Sequence<Array<T>>,
    parts: &Sequence<Part>,
    gain: &Sequence<f32>,
    #[define(T)] _type: StorageType,
) {
    let count = comptime!(parts.len());
    #[unroll]
    for t in 0..count {
        let (part, b) = (parts.index(t), b.index_mut(t));
        for i in range_stepped(begin(part), end(part), CUBE_DIM as usize) {
            let before = f32::cast_from(b[i]);
            b[i] = T::cast_from(before + (gradient(g.index(t), i, part, factor) - before) * *gain.index(t));
        }
    }
}

/// The numbers of a step of Muon, as they are at this step.
#[derive(CubeType, CubeLaunch)]
pub struct MuonNumbers {
    /// What the step is multiplied with.
    pub rate: f32,
    /// And then: the scale of the matrix.
    pub scale: f32,
    /// 1 − η·λ.
    pub decay: f32,
}

/// p ← p·decay − (o·rate)·scale, for each p, with o its orthogonal direction.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn muon_kernel<T: Numeric>(
    o: &Sequence<Array<T>>,
    p: &mut Sequence<Array<T>>,
    parts: &Sequence<Part>,
    numbers: &Sequence<MuonNumbers>,
    #[define(T)] _type: StorageType,
) {
    let count = comptime!(parts.len());
    #[unroll]
    for t in 0..count {
        let (part, s) = (parts.index(t), numbers.index(t));
        let (o, p) = (o.index(t), p.index_mut(t));
        for i in range_stepped(begin(part), end(part), CUBE_DIM as usize) {
            let step = (f32::cast_from(o[part.offset + i]) * s.rate) * s.scale;
            p[i] = T::cast_from(f32::cast_from(p[i]) * s.decay - step);
        }
    }
}
