//! From samples to a batch: host values are laid side by side, then uploaded at once.

use gradus_core::tensor::TensorData;
use gradus_core::{Device, Element, Error, Result, Shape, Tensor};

/// What a sample can be, and the batch that several of them become.
pub trait Collate: Send + Sized {
    /// Several samples on a device: their values with a new first dimension.
    type Batch: Send;

    /// The samples, in order, as one batch: one upload for each array. An error if they do not fit together; it names the
    /// first that differs by its place in the batch.
    fn collate(items: Vec<Self>, device: Device) -> Result<Self::Batch>;
}

/// A sample of supervised learning: what goes into the model, and what should come out. An array without dimensions
/// (a label) becomes one number in the batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What the model sees, without the batch's dimension: `[channels, height, width]` for an image.
    pub input: TensorData,
    /// What it should give: a class index (`i64`, no dimensions), or values.
    pub target: TensorData,
}

/// Samples on a device.
#[derive(Clone, Debug)]
pub struct Batch {
    /// `[samples, ..]`.
    pub input: Tensor,
    /// `[samples, ..]`; `[samples]` for class indices.
    pub target: Tensor,
}

impl Batch {
    /// Number of samples.
    pub fn len(&self) -> usize {
        self.input.dims().first().copied().unwrap_or(0)
    }
    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Collate for TensorData {
    type Batch = Tensor;
    fn collate(items: Vec<TensorData>, device: Device) -> Result<Tensor> {
        let Some(first) = items.first() else {
            return Err(Error::data("a batch needs at least one sample"));
        };
        if let Some(i) = items.iter().position(|x| x.shape != first.shape || x.dtype != first.dtype) {
            let other = &items[i];
            return Err(Error::data(format!(
                "samples of one batch must be alike: number 0 is {} {:?}, number {i} is {} {:?}; reshape, pad or crop them in `get`",
                first.dtype, first.shape, other.dtype, other.shape
            )));
        }
        let shape = Shape::try_new(&first.shape)?.try_insert(0, items.len())?;
        let place = device.with(first.dtype);
        let mut bytes = Vec::with_capacity(items.len() * first.bytes.len());
        items.iter().for_each(|x| bytes.extend_from_slice(&x.bytes));
        Tensor::from_bytes(&bytes, shape, place)
    }
}

impl Collate for Sample {
    type Batch = Batch;
    fn collate(items: Vec<Sample>, device: Device) -> Result<Batch> {
        let (inputs, targets) = items.into_iter().map(|s| (s.input, s.target)).unzip();
        let input = TensorData::collate(inputs, device).map_err(|e| e.context("inputs"))?;
        let target = TensorData::collate(targets, device).map_err(|e| e.context("targets"))?;
        Ok(Batch { input, target })
    }
}

macro_rules! number_samples {
    ($($t:ty)*) => {$(
        impl Collate for $t {
            type Batch = Tensor;
            fn collate(items: Vec<$t>, device: Device) -> Result<Tensor> {
                let n = items.len();
                Tensor::try_from_vec(items, [n], device)
            }
        }
    )*};
}
number_samples!(f64 f32 i64 i32 u32 u8 bool);

/// A vector is a row: all of one batch must be equally long.
impl<T: Element> Collate for Vec<T> {
    type Batch = Tensor;
    fn collate(items: Vec<Vec<T>>, device: Device) -> Result<Tensor> {
        let columns = items.first().map_or(0, Vec::len);
        if let Some(i) = items.iter().position(|row| row.len() != columns) {
            return Err(Error::data(format!(
                "rows of one batch must be equally long: number 0 has {columns} values, number {i} has {}",
                items[i].len()
            )));
        }
        let rows = items.len();
        Tensor::try_from_vec(items.concat(), [rows, columns], device)
    }
}

impl<A: Collate, B: Collate> Collate for (A, B) {
    type Batch = (A::Batch, B::Batch);
    fn collate(items: Vec<(A, B)>, device: Device) -> Result<Self::Batch> {
        let (a, b) = items.into_iter().unzip();
        Ok((A::collate(a, device)?, B::collate(b, device)?))
    }
}

impl<A: Collate, B: Collate, C: Collate> Collate for (A, B, C) {
    type Batch = (A::Batch, B::Batch, C::Batch);
    fn collate(items: Vec<(A, B, C)>, device: Device) -> Result<Self::Batch> {
        let (mut a, mut b, mut c) = (Vec::new(), Vec::new(), Vec::new());
        for (x, y, z) in items {
            a.push(x);
            b.push(y);
            c.push(z);
        }
        Ok((A::collate(a, device)?, B::collate(b, device)?, C::collate(c, device)?))
    }
}
