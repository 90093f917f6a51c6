//! A data set in memory: inputs and targets as the rows of two arrays on the host.

use crate::collate::{Batch, Sample};
use crate::rows::Rows;
use crate::source::Source;
use gradus_core::tensor::TensorData;
use gradus_core::{DType, Device, Element, Error, Key, Result, Tensor};

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
    inputs: Rows,
    targets: Rows,
}

impl InMemory {
    /// Inputs and targets with their samples along the first dimension, equally many of each.
    pub fn new(inputs: TensorData, targets: TensorData) -> Result<InMemory> {
        let (inputs, targets) = (Rows::of(&inputs, "inputs")?, Rows::of(&targets, "targets")?);
        if targets.len() != inputs.len() {
            let (n, m) = (inputs.len(), targets.len());
            return Err(Error::data(format!("{n} inputs need as many targets; there are {m}")));
        }
        Ok(InMemory { inputs, targets })
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
        let (dtype, shape) = (self.targets.dtype(), self.targets.shape());
        if shape.len() != 1 || !(dtype.is_int() || dtype == DType::Bool) {
            return Err(Error::data(format!("labels are one integer a sample; the targets are {dtype} {shape:?}")));
        }
        let labels = self.targets.to_data();
        Ok((0..self.targets.len()).map(|i| labels.i64_at(i)).collect())
    }

    /// The shape of one input, without the samples' dimension.
    pub fn input_shape(&self) -> &[usize] {
        &self.inputs.shape()[1..]
    }

    /// A copy of all inputs, `[samples, ..]`.
    pub fn inputs(&self) -> TensorData {
        self.inputs.to_data()
    }

    /// A copy of all targets, `[samples, ..]`.
    pub fn targets(&self) -> TensorData {
        self.targets.to_data()
    }
}

impl InMemory {
    fn check(&self, index: usize) -> Result<()> {
        if index < self.len() {
            return Ok(());
        }
        Err(Error::data(format!("there is no sample {index} in a data set of {}", self.len())))
    }
}

impl Source for InMemory {
    type Item = Sample;
    fn len(&self) -> usize {
        self.inputs.len()
    }
    fn get(&self, index: usize, _key: &Key) -> Result<Sample> {
        self.check(index)?;
        Ok(Sample { input: self.inputs.get(index), target: self.targets.get(index) })
    }
    fn batch(&self, indices: &[usize], _key: &Key, device: Device) -> Result<Batch> {
        indices.iter().try_for_each(|&i| self.check(i))?;
        Ok(Batch { input: self.inputs.pick(indices, device)?, target: self.targets.pick(indices, device)? })
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
