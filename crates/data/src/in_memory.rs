//! A data set in memory: inputs and targets as two host arrays, a sample a row.

use crate::collate::{Batch, Sample};
use crate::source::Source;
use gradus_core::tensor::TensorData;
use gradus_core::{DType, Device, Element, Error, Key, Result, Shape, Tensor};

/// Inputs `[samples, ..]` and targets `[samples, ..]` in memory. Batches are copied row by row from it, and uploaded at once.
///
/// ```
/// use gradus_data::{InMemory, Source};
/// let set = InMemory::from_rows(&[vec![0.0f32, 1.0], vec![1.0, 0.0], vec![0.5, 0.5]], &[0, 1, 0])?.classes(2)?;
/// assert_eq!((set.len(), set.input_shape(), set.labels()?), (3, &[2][..], vec![0, 1, 0]));
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct InMemory {
    inputs: TensorData,
    targets: TensorData,
    samples: usize,
}

impl InMemory {
    /// Inputs and targets with their samples along the first dimension, equally many of each.
    pub fn new(inputs: TensorData, targets: TensorData) -> Result<InMemory> {
        for (what, x) in [("inputs", &inputs), ("targets", &targets)] {
            let n = Shape::try_new(&x.shape)?.checked_elements(x.dtype.size())?;
            if x.shape.is_empty() {
                return Err(Error::data(format!("the {what} need a first dimension, along which the samples lie")));
            }
            if x.bytes.len() != n * x.dtype.size() {
                return Err(Error::data(format!(
                    "the {what} are said to be {} {:?}, which takes {} bytes; {} are there",
                    x.dtype,
                    x.shape,
                    n * x.dtype.size(),
                    x.bytes.len()
                )));
            }
        }
        let samples = inputs.shape[0];
        if targets.shape[0] != samples {
            return Err(Error::data(format!("{samples} inputs need as many targets; there are {}", targets.shape[0])));
        }
        Ok(InMemory { inputs, targets, samples })
    }

    /// Inputs one after another, each of the shape `each`, with a label for each.
    pub fn labelled<T: Element>(inputs: &[T], each: &[usize], labels: &[i64]) -> Result<InMemory> {
        let shape: Vec<usize> = [labels.len()].iter().chain(each).copied().collect();
        let inputs = TensorData::try_new(inputs, &shape)
            .map_err(|e| e.context(format!("inputs for {} labels", labels.len())))?;
        InMemory::new(inputs, TensorData::try_new(labels, &[labels.len()])?)
    }

    /// A row of values and a label for each sample. Rows of different lengths are an error that names the first.
    pub fn from_rows<T: Element>(rows: &[Vec<T>], labels: &[i64]) -> Result<InMemory> {
        let columns = rows.first().map_or(0, Vec::len);
        if let Some(i) = rows.iter().position(|row| row.len() != columns) {
            return Err(Error::data(format!(
                "row 0 has {columns} values, row {i} has {}: all must be equally long",
                rows[i].len()
            )));
        }
        if rows.len() != labels.len() {
            return Err(Error::data(format!("{} rows need as many labels; there are {}", rows.len(), labels.len())));
        }
        InMemory::labelled(&rows.concat(), &[columns], labels)
    }

    /// Inputs and targets that are tensors already, read back to the host.
    pub fn from_tensors(inputs: &Tensor, targets: &Tensor) -> Result<InMemory> {
        InMemory::new(inputs.to_data()?, targets.to_data()?)
    }

    /// Checks that the targets are class indices below `classes`. The error names the first that is not, and its row.
    pub fn classes(self, classes: usize) -> Result<InMemory> {
        for (i, label) in self.labels()?.into_iter().enumerate() {
            if label < 0 || label as u64 >= classes as u64 {
                return Err(Error::data(format!(
                    "sample {i} has the label {label}; with {classes} classes, labels go from 0 to {}",
                    classes as i64 - 1
                )));
            }
        }
        Ok(self)
    }

    /// The class index of each sample; an error if the targets are not one integer a sample.
    pub fn labels(&self) -> Result<Vec<i64>> {
        let t = &self.targets;
        if t.shape.len() != 1 || !(t.dtype.is_int() || t.dtype == DType::Bool) {
            return Err(Error::data(format!(
                "labels are one integer a sample; the targets are {} {:?}",
                t.dtype, t.shape
            )));
        }
        Ok((0..self.samples).map(|i| t.i64_at(i)).collect())
    }

    /// The shape of one input, without the samples' dimension.
    pub fn input_shape(&self) -> &[usize] {
        &self.inputs.shape[1..]
    }

    /// All inputs, `[samples, ..]`.
    pub fn inputs(&self) -> &TensorData {
        &self.inputs
    }

    /// All targets, `[samples, ..]`.
    pub fn targets(&self) -> &TensorData {
        &self.targets
    }
}

/// One row of an array, without the first dimension.
fn row(x: &TensorData, index: usize) -> TensorData {
    let size = x.bytes.len() / x.shape[0].max(1);
    TensorData {
        dtype: x.dtype,
        shape: x.shape[1..].to_vec(),
        bytes: x.bytes[index * size..(index + 1) * size].to_vec(),
    }
}

/// Some rows of an array, uploaded at once.
fn rows(x: &TensorData, indices: &[usize], device: Device) -> Result<Tensor> {
    let size = x.bytes.len() / x.shape[0].max(1);
    let pieces: Vec<&[u8]> = indices.iter().map(|&i| &x.bytes[i * size..(i + 1) * size]).collect();
    let mut shape = Shape::try_new(&x.shape)?;
    shape[0] = indices.len();
    Tensor::from_pieces(&pieces, shape, device.with(x.dtype))
}

impl InMemory {
    fn check(&self, index: usize) -> Result<()> {
        if index < self.samples {
            return Ok(());
        }
        Err(Error::data(format!("there is no sample {index} in a data set of {}", self.samples)))
    }
}

impl Source for InMemory {
    type Item = Sample;
    fn len(&self) -> usize {
        self.samples
    }
    fn get(&self, index: usize, _key: &Key) -> Result<Sample> {
        self.check(index)?;
        Ok(Sample { input: row(&self.inputs, index), target: row(&self.targets, index) })
    }
    fn batch(&self, indices: &[usize], _key: &Key, device: Device) -> Result<Batch> {
        indices.iter().try_for_each(|&i| self.check(i))?;
        Ok(Batch { input: rows(&self.inputs, indices, device)?, target: rows(&self.targets, indices, device)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_the_rows() {
        let set = InMemory::labelled(&[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[1, 2], &[7, 8, 9]).unwrap();
        let s = set.get(1, &Key::new(0)).unwrap();
        assert_eq!(s.input, TensorData::try_new(&[3.0f32, 4.0], &[1, 2]).unwrap());
        assert_eq!(s.target, TensorData::try_new(&[8i64], &[]).unwrap());
        assert!(set.get(3, &Key::new(0)).unwrap_err().to_string().contains("no sample 3 in a data set of 3"));
    }

    #[test]
    fn bad_input_is_named_with_its_values() {
        let says = |r: Result<InMemory>, parts: &[&str]| {
            let e = r.expect_err("must be refused").to_string();
            assert!(parts.iter().all(|p| e.contains(p)), "{e}");
        };
        says(InMemory::from_rows(&[vec![1.0f32], vec![1.0, 2.0]], &[0, 1]), &["row 0 has 1", "row 1 has 2"]);
        says(InMemory::from_rows(&[vec![1.0f32]], &[0, 1]), &["1 rows", "2"]);
        says(InMemory::labelled(&[1.0f32; 5], &[2], &[0, 1]), &["2 labels", "4 elements", "5 were given"]);
        says(
            InMemory::labelled(&[1.0f32; 4], &[2], &[0, 3]).unwrap().classes(3),
            &["sample 1", "label 3", "3 classes", "0 to 2"],
        );
        says(InMemory::labelled(&[1.0f32; 4], &[2], &[0, -1]).unwrap().classes(3), &["sample 1", "label -1"]);
        let floats = TensorData::try_new(&[0.5f32], &[1]).unwrap();
        assert!(InMemory::new(floats.clone(), floats).unwrap().labels().unwrap_err().to_string().contains("f32 [1]"));
    }
}
