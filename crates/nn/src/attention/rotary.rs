//! Rotary position embedding (Su et al., "RoFormer", 2021).

use crate::{Module, Site};
use gradus_core::device::Place;
use gradus_core::error::or_raise;
use gradus_core::{DType, Error, Result, Tensor};
use std::sync::{Arc, Mutex, PoisonError};

/// Rotates pairs of numbers by angles that grow with the position: pair i of a head's width d turns by p·base^(−2i/d) at position
/// p. Products of queries and keys then depend on the distance of their positions alone.
///
/// By default pair i is numbers i and i + d/2 (as in GPT-NeoX and Llama); interleaved, it is 2i and 2i + 1 (as in the paper and
/// GPT-J). With [`partial`](Self::partial), only the first numbers turn.
///
/// ```
/// use gradus_core::Tensor;
/// use gradus_nn::RotaryEmbedding;
/// let rope = RotaryEmbedding::new(8);
/// let q = Tensor::ones([2, 4, 5, 8], gradus_cpu::device()); // [batch, heads, length, width]
/// let turned = rope.rotate(&q, 0);
/// assert_eq!(turned.dims(), q.dims());
/// // Lengths stay.
/// let change = turned.square().sum_dims(&[-1], false) - q.square().sum_dims(&[-1], false);
/// assert!(change.abs().amax(&[0, 1, 2], false).item::<f32>()? < 1e-5);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Module, Clone, Debug)]
pub struct RotaryEmbedding {
    width: usize,
    base: f64,
    interleaved: bool,
    #[module(skip)]
    tables: Arc<Mutex<Option<Tables>>>,
    site: Site,
}

/// Cosines and sines `[positions, width/2]` on a place.
#[derive(Clone, Debug)]
struct Tables {
    cos: Tensor,
    sin: Tensor,
}

impl RotaryEmbedding {
    /// For heads of `width` numbers (an even number), with base 10000.
    pub fn new(width: usize) -> RotaryEmbedding {
        RotaryEmbedding { width, base: 10_000.0, interleaved: false, tables: Arc::default(), site: Site::default() }
    }
    /// With this base.
    pub fn base(mut self, base: f64) -> RotaryEmbedding {
        (self.base, self.tables) = (base, Arc::default());
        self
    }
    /// With neighbours as pairs.
    pub fn interleaved(mut self) -> RotaryEmbedding {
        self.interleaved = true;
        self
    }
    /// Turning the first `width` numbers of a head alone.
    pub fn partial(mut self, width: usize) -> RotaryEmbedding {
        (self.width, self.tables) = (width, Arc::default());
        self
    }

    /// x `[.., length, width]` turned, the first at position `start`. Panics at the caller's line if it does not fit.
    #[track_caller]
    pub fn rotate(&self, x: &Tensor, start: usize) -> Tensor {
        or_raise(self.try_rotate(x, start))
    }
    /// As [`rotate`](Self::rotate), with misuse returned as an error.
    pub fn try_rotate(&self, x: &Tensor, start: usize) -> Result<Tensor> {
        let w = self.width;
        if x.rank() < 2 || x.dim(-1) < w || !w.is_multiple_of(2) || !x.dtype().is_float() {
            let message = format!("turns an even number of numbers, {w}, of [.., length, {w} or more]");
            return Err(Error::misuse(message).in_op("rotary embedding", [(x.dtype(), *x.shape())]));
        }
        let length = x.dim(-2);
        let Tables { cos, sin } = self.tables(start + length, x.place())?;
        let (cos, sin) = (cos.try_narrow(0, start, length)?, sin.try_narrow(0, start, length)?);
        x.try_rotary(&cos, &sin, self.interleaved)
    }

    /// Cosines and sines for `length` positions at least. Angles are computed on the host in `f64`: in `f32` those of far positions
    /// would be off. They are kept from call to call.
    fn tables(&self, length: usize, place: Place) -> Result<Tables> {
        let mut kept = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(t) = kept.as_ref().filter(|t| t.cos.place() == place && t.cos.dim(0) >= length) {
            return Ok(t.clone());
        }
        let (positions, half) = (length.next_power_of_two(), self.width / 2);
        let angle = |p: usize, i: usize| p as f64 * self.base.powf(-2.0 * i as f64 / self.width as f64);
        let table = |f: fn(f64) -> f64| {
            let values: Vec<f64> = (0..positions).flat_map(|p| (0..half).map(move |i| f(angle(p, i)))).collect();
            match place.dtype {
                DType::F64 => Tensor::try_from_vec(values, [positions, half], place.device),
                d => {
                    let values: Vec<f32> = values.into_iter().map(|v| v as f32).collect();
                    Tensor::try_from_vec(values, [positions, half], place.device)?.try_to_dtype(d)
                }
            }
        };
        let tables = Tables { cos: table(f64::cos)?, sin: table(f64::sin)? };
        *kept = Some(tables.clone());
        Ok(tables)
    }
}
