//! Randomness: counter-based Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
//!
//! A draw is a pure function of its [`Key`] and the element's place, so it has the same bits on every device, for any number
//! of threads, and after a resume. There is no hidden generator.
//!
//! Element `i` of a draw is word `i % 4` of the block with counter `[i / 4, step, stream_lo, stream_hi]` under the Philox key
//! `[seed_lo, seed_hi]`:
//!
//! | distribution | from the word(s) `w` |
//! |---|---|
//! | bits | `w` |
//! | uniform | `(w >> 8) · 2⁻²⁴`, in [0, 1) |
//! | integers below n | `(w · n) >> 32`, for n ≤ 2³² |
//! | Bernoulli(p) | uniform `< p` |
//! | normal | Box–Muller of the words `2j, 2j+1` of a block: `r = √(−2 ln((w₀>>8)+1)·2⁻²⁴)`, `r cos 2πu₁` then `r sin 2πu₁` |

use crate::scalar::Slot;

/// Names a stream of random numbers: a seed, a stream within it, and a step.
#[derive(Clone, Debug)]
pub struct Key {
    /// Chosen by the user, once a run.
    pub seed: u64,
    /// Tells apart the draws of one run: a module's path, a parameter's name.
    pub stream: u64,
    /// Tells apart the steps of one stream.
    pub step: Step,
}

/// The step of a [`Key`]: a number, or a cell that the host advances between replays of a recorded step.
#[derive(Clone, Debug)]
pub enum Step {
    /// A number.
    Const(u32),
    /// The cell's value, truncated.
    Slot(Slot),
}

impl Step {
    /// The step now.
    pub fn get(&self) -> u32 {
        match self {
            Step::Const(n) => *n,
            Step::Slot(s) => s.get() as u32,
        }
    }
}

impl Key {
    /// The first stream of `seed`.
    pub const fn new(seed: u64) -> Key {
        Key { seed, stream: 0, step: Step::Const(0) }
    }
    /// The stream of this key that `name` stands for: independent of this one and of other names'.
    pub fn fold(&self, name: &str) -> Key {
        // FNV-1a over the name: stable across platforms and versions, as results must be.
        let h = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ b as u64).wrapping_mul(0x100_0000_01b3));
        self.fold_in(h)
    }
    /// The stream of this key that the number `n` stands for.
    pub fn fold_in(&self, n: u64) -> Key {
        let a = philox([n as u32, (n >> 32) as u32, self.stream as u32, (self.stream >> 32) as u32], FOLD_KEY);
        Key { seed: self.seed, stream: a[0] as u64 | (a[1] as u64) << 32, step: self.step.clone() }
    }
    /// This stream at another step.
    pub fn at(&self, step: u32) -> Key {
        Key { step: Step::Const(step), ..self.clone() }
    }
    /// This stream at the step that `slot` holds when the draw is made.
    pub fn at_slot(&self, slot: &Slot) -> Key {
        Key { step: Step::Slot(slot.clone()), ..self.clone() }
    }
    /// The four words of block `block`.
    #[inline]
    pub fn block(&self, block: u32) -> [u32; 4] {
        let counter = [block, self.step.get(), self.stream as u32, (self.stream >> 32) as u32];
        philox(counter, [self.seed as u32, (self.seed >> 32) as u32])
    }
}

impl From<u64> for Key {
    fn from(seed: u64) -> Key {
        Key::new(seed)
    }
}
impl From<&Key> for Key {
    fn from(k: &Key) -> Key {
        k.clone()
    }
}

// Folding uses a Philox key of its own, so that stream names never meet the numbers drawn. ("grad", "us..")
const FOLD_KEY: [u32; 2] = [0x6772_6164, 0x7573_2e2e];

/// What to draw.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Distribution {
    /// Raw words; `u32`.
    Bits,
    /// Uniform on [0, 1), a multiple of 2⁻²⁴ in every float dtype that can hold it.
    Uniform,
    /// Normal with mean 0 and variance 1.
    Normal,
    /// True with the given probability; `bool` or 0/1.
    Bernoulli(f64),
    /// Integers from the first number up to, not including, the second (at most 2³² of them).
    Integers(i64, i64),
}

/// One block of Philox4x32-10: four words from a counter of four and a key of two.
#[inline(always)]
pub fn philox(mut c: [u32; 4], mut k: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let p0 = 0xD251_1F53u64 * c[0] as u64;
        let p1 = 0xCD9E_8D57u64 * c[2] as u64;
        c = [(p1 >> 32) as u32 ^ c[1] ^ k[0], p1 as u32, (p0 >> 32) as u32 ^ c[3] ^ k[1], p0 as u32];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

/// The uniform number of a word: a multiple of 2⁻²⁴ in [0, 1).
#[inline(always)]
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// The two normal numbers of two words (Box–Muller, computed in `f64`).
#[inline]
pub fn normal_pair(w0: u32, w1: u32) -> (f64, f64) {
    let u0 = ((w0 >> 8) + 1) as f64 / 16_777_216.0; // in (0, 1]: its logarithm is finite
    let u1 = (w1 >> 8) as f64 / 16_777_216.0;
    let r = (-2.0 * u0.ln()).sqrt();
    let (s, c) = (std::f64::consts::TAU * u1).sin_cos();
    (r * c, r * s)
}

/// The integer below `n` of a word.
#[inline(always)]
pub fn below(word: u32, n: u64) -> u64 {
    (word as u64 * n) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer vectors published with Random123 (kat_vectors, philox4x32 10).
    #[test]
    fn philox_gives_the_published_vectors() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
        let pi = [0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344];
        assert_eq!(philox(pi, [0xa4093822, 0x299f31d0]), [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1]);
    }

    #[test]
    fn streams_are_told_apart_by_name_and_step() {
        let k = Key::new(7);
        let draws =
            [k.block(0), k.fold("a").block(0), k.fold("b").block(0), k.at(1).block(0), k.fold("a").fold("b").block(0)];
        for i in 0..draws.len() {
            for j in 0..i {
                assert_ne!(draws[i], draws[j]);
            }
        }
        assert_eq!(k.fold("a").block(3), Key::new(7).fold("a").block(3));
    }
}
