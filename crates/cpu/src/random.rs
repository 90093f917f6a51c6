//! Random numbers: Philox blocks, each element's bits a function of the key and its place (see `gradus_core::rng`).

use crate::elementwise::{finish, refused, with_dtype};
use crate::launch::{Out, launch};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::threads::for_ranges;
use gradus_core::rng::{Distribution, Key, below, normal_pair, philox, uniform};
use gradus_core::{Buffer, DType, Element, Result};

/// Elements that one thread draws at a time; a multiple of the four of a block.
const CHUNK: usize = 8192;

vectorized! {
    /// The words of blocks `first..`, four to a block.
    pub(crate) fn words(key: [u32; 2], counter: [u32; 3], first: u32, out: &mut [u32]) {
        const WIDE: usize = 16;
        // Sixteen blocks side by side, word by word, so that the rounds vectorize.
        let mut at = first;
        for group in out.chunks_mut(4 * WIDE) {
            let mut w = [[0u32; WIDE]; 4];
            let [w0, w1, w2, w3] = &mut w;
            for (i, (((a, b), c), d)) in w0.iter_mut().zip(w1).zip(w2).zip(w3).enumerate() {
                [*a, *b, *c, *d] = philox([at.wrapping_add(i as u32), counter[0], counter[1], counter[2]], key);
            }
            for (i, o) in group.iter_mut().enumerate() { *o = w[i % 4][i / 4]; }
            at = at.wrapping_add(WIDE as u32);
        }
    }
}

/// Calls `f(at, n, words)` for pieces of `n` elements of `start..start + len` (`start` a multiple of 4), with the words of
/// their whole blocks.
pub(crate) fn for_words(key: &Key, start: usize, len: usize, mut f: impl FnMut(usize, usize, &[u32])) {
    let k = [key.seed as u32, (key.seed >> 32) as u32];
    let counter = [key.step.get(), key.stream as u32, (key.stream >> 32) as u32];
    let mut buf = [0u32; 1024];
    for at in (start..start + len).step_by(buf.len()) {
        let n = buf.len().min(start + len - at);
        let whole = n.next_multiple_of(4);
        words(k, counter, (at / 4) as u32, &mut buf[..whole]);
        f(at, n, &buf[..whole]);
    }
}

pub(crate) fn random(distribution: Distribution, key: &Key, n: usize, dtype: DType) -> Result<Buffer> {
    let fits = match distribution {
        Distribution::Bits => dtype == DType::U32,
        Distribution::Uniform | Distribution::Normal => dtype.is_float(),
        Distribution::Integers(..) => dtype.is_int(),
        Distribution::Bernoulli(_) => true,
    };
    if !fits {
        return Err(refused("this distribution", dtype));
    }
    let key = key.clone();
    with_dtype!(dtype, T => {
        let to = CpuStorage::new(n * size_of::<T>())?;
        let out = Out::<T>::of(&to);
        launch(&[], &[&to], move || {
            for_ranges(n, CHUNK, 3000, |start, len| {
                for_words(&key, start, len, |at, n, w| fill(distribution, w, out.part(at, n)));
            });
        });
        finish(to)
    })
}

fn fill<T: Element>(distribution: Distribution, w: &[u32], y: &mut [T]) {
    match distribution {
        Distribution::Bits => y.iter_mut().zip(w).for_each(|(y, &w)| *y = T::from_i64(w as i64)),
        Distribution::Uniform => y.iter_mut().zip(w).for_each(|(y, &w)| *y = T::from_f64(uniform(w) as f64)),
        Distribution::Bernoulli(p) => {
            y.iter_mut().zip(w).for_each(|(y, &w)| *y = T::from_i64(((uniform(w) as f64) < p) as i64))
        }
        Distribution::Integers(low, high) => {
            let n = high.wrapping_sub(low) as u64;
            y.iter_mut().zip(w).for_each(|(y, &w)| *y = T::from_i64(low + below(w, n) as i64));
        }
        Distribution::Normal => {
            for (y, w) in y.chunks_mut(2).zip(w.chunks(2)) {
                let (a, b) = normal_pair(w[0], w[1]);
                y[0] = T::from_f64(a);
                if let Some(y) = y.get_mut(1) {
                    *y = T::from_f64(b);
                }
            }
        }
    }
}
