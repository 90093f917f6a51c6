//! The rows of a data set in memory of their own: aligned, and on huge pages where the system has them. A shuffled batch takes its
//! rows from all over a data set; on small pages, the processor looks up the place of each anew.

use gradus_core::tensor::TensorData;
use gradus_core::{DType, Device, Error, ErrorKind, Result, Shape, Tensor};
use memmap2::MmapMut;
use std::fmt;
use std::sync::Arc;

/// An array whose first dimension counts samples. Clones share the memory.
#[derive(Clone)]
pub(crate) struct Rows {
    dtype: DType,
    shape: Shape,
    /// Bytes of a row.
    row: usize,
    /// None if there are no bytes: an empty map is refused by some systems.
    pages: Option<Arc<MmapMut>>,
}

impl Rows {
    /// The rows of an array; `what` names it in errors.
    pub fn of(array: &TensorData, what: &str) -> Result<Rows> {
        let (dtype, shape, bytes) = (array.dtype, Shape::try_new(&array.shape)?, array.bytes.len());
        if shape.rank() == 0 {
            return Err(Error::data(format!("the {what} need a first dimension, along which the samples lie")));
        }
        let needed = shape.checked_elements(dtype.size())? * dtype.size();
        if bytes != needed {
            return Err(Error::data(format!(
                "the {what} are said to be {dtype} {:?}, which takes {needed} bytes; {bytes} are there",
                array.shape
            )));
        }
        if bytes == 0 {
            return Ok(Rows { dtype, shape, row: 0, pages: None });
        }
        let none = |e| {
            let why = format!("the system has no {bytes} bytes of memory left for the {what}");
            Error::new(ErrorKind::Memory, why).caused_by(e)
        };
        let mut pages = MmapMut::map_anon(bytes).map_err(none)?;
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage); // advice: without it, memory is slower, not wrong
        pages.copy_from_slice(&array.bytes);
        Ok(Rows { dtype, shape, row: bytes / shape[0], pages: Some(Arc::new(pages)) })
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.shape[0]
    }
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn bytes(&self) -> &[u8] {
        self.pages.as_deref().map_or(&[], |pages| pages)
    }
    /// The bytes of row `index`, which must be there.
    fn at(&self, index: usize) -> &[u8] {
        &self.bytes()[index * self.row..(index + 1) * self.row]
    }
    /// One row as an array without the first dimension.
    pub fn get(&self, index: usize) -> TensorData {
        TensorData { dtype: self.dtype, shape: self.shape[1..].to_vec(), bytes: self.at(index).to_vec() }
    }
    /// Some rows, uploaded at once.
    pub fn pick(&self, indices: &[usize], device: Device) -> Result<Tensor> {
        let pieces: Vec<&[u8]> = indices.iter().map(|&i| self.at(i)).collect();
        let mut shape = self.shape;
        shape[0] = indices.len();
        Tensor::from_pieces(&pieces, shape, device.with(self.dtype))
    }
    /// A copy of all rows.
    pub fn to_data(&self) -> TensorData {
        TensorData { dtype: self.dtype, shape: self.shape.to_vec(), bytes: self.bytes().to_vec() }
    }
}

impl PartialEq for Rows {
    fn eq(&self, other: &Rows) -> bool {
        self.dtype == other.dtype && self.shape == other.shape && self.bytes() == other.bytes()
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rows({} {:?})", self.dtype, self.shape())
    }
}
