//! Diagonals as matrices, quarter turns, grids of coordinates, Kronecker products.

use crate::error::{Error, Result};
use crate::ops::{Put, ViewSpec};
use crate::shape::Shape;
use crate::tensor::Tensor;

/// In which order a grid's first two dimensions come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum GridOrder {
    /// As the coordinates are given: rows first (`ij`).
    #[default]
    Matrix,
    /// The second coordinate first (`xy`).
    Cartesian,
}

impl Tensor {
    crate::fallible! {
        /// A vector as the `offset`-th diagonal of a matrix of zeros, or that diagonal of a matrix. In PyTorch: `torch.diag`.
        pub fn diag | try_diag(&self, offset: isize) -> Tensor {
            match self.rank() {
                1 => self.try_diag_embed(offset, 0, 1),
                2 => self.try_diagonal(offset, 0, 1),
                r => Err(Error::misuse(format!("needs a vector or a matrix, not {r} dimensions")).in_op("diag", [(self.dtype(), *self.shape())])),
            }
        }
        /// Zeros, with the last dimension as the diagonal, `offset` above the main one, of the new dimensions `dim1` and `dim2`.
        /// ∂ = the diagonal of g. In PyTorch: `torch.diag_embed`.
        pub fn diag_embed | try_diag_embed(&self, offset: isize, dim1: isize, dim2: isize) -> Tensor {
            let named = |e: Error| e.in_op("diag_embed", [(self.dtype(), *self.shape())]);
            let Some(&len) = self.dims().last() else {
                return Err(named(Error::misuse("a number is no diagonal")));
            };
            let rank = self.rank() as isize + 1;
            let resolved = |d: isize| {
                let i = if d < 0 { d + rank } else { d };
                usize::try_from(i).ok().filter(|&i| (i as isize) < rank).ok_or_else(|| {
                    named(Error::misuse(format!("dimension {d} is out of range: the result has {rank} dimensions")))
                })
            };
            let (d1, d2) = (resolved(dim1)?, resolved(dim2)?);
            if d1 == d2 {
                return Err(named(Error::misuse(format!("dimensions {dim1} and {dim2} are the same"))));
            }
            let side = len.checked_add(offset.unsigned_abs());
            let side = side.ok_or_else(|| named(Error::misuse(format!("an offset of {offset} is too large"))))?;
            let lead = self.shape().without(self.rank() - 1);
            let shape = lead.try_insert(d1.min(d2), side)?.try_insert(d1.max(d2), side)?;
            shape.checked_elements(self.dtype().size()).map_err(named)?;
            Tensor::try_apply1(Put { spec: ViewSpec::Diagonal { offset, d1, d2, len }, shape }, &[self])
        }
        /// Turned by `times` quarters, from `dim1` towards `dim2`. In PyTorch: `torch.rot90`.
        pub fn rot90 | try_rot90(&self, times: isize, dim1: isize, dim2: isize) -> Tensor {
            if self.shape().dim(dim1)? == self.shape().dim(dim2)? {
                return Err(Error::misuse(format!("dimensions {dim1} and {dim2} are the same")).in_op("rot90", [(self.dtype(), *self.shape())]));
            }
            match times.rem_euclid(4) {
                0 => Ok(self.clone()),
                1 => self.try_flip(&[dim2])?.try_transpose(dim1, dim2),
                2 => self.try_flip(&[dim1, dim2]),
                _ => self.try_flip(&[dim1])?.try_transpose(dim1, dim2),
            }
        }
        /// The Kronecker product: every product of an element of each, in blocks; missing dimensions have length 1 in front. At most
        /// four dimensions. In PyTorch: `torch.kron`.
        pub fn kron | try_kron(&self, other: &Tensor) -> Tensor {
            let rank = self.rank().max(other.rank());
            let dims = |t: &Tensor| -> Vec<usize> { vec![1; rank - t.rank()].into_iter().chain(t.dims().iter().copied()).collect() };
            let (a, b) = (dims(self), dims(other));
            let spread = |d: &[usize], first: bool| {
                Shape::try_new(&d.iter().flat_map(|&n| if first { [n, 1] } else { [1, n] }).collect::<Vec<_>>())
            };
            let product = self.try_reshape(spread(&a, true)?)?.try_mul(&other.try_reshape(spread(&b, false)?)?)?;
            product.try_reshape(a.iter().zip(&b).map(|(m, n)| m * n).collect::<Vec<_>>())
        }
    }

    /// Each vector stretched to the grid of all of them: coordinate i varies along dimension i (or, in Cartesian order, the
    /// first two change places). Numbers count as vectors of one. In PyTorch: `torch.meshgrid`.
    ///
    /// Panics at the caller's line on misuse.
    #[track_caller]
    pub fn meshgrid(vectors: &[&Tensor], order: GridOrder) -> Vec<Tensor> {
        crate::error::or_raise(Tensor::try_meshgrid(vectors, order))
    }

    /// As [`meshgrid`](Self::meshgrid), with misuse returned as an error.
    #[track_caller]
    pub fn try_meshgrid(vectors: &[&Tensor], order: GridOrder) -> Result<Vec<Tensor>> {
        if vectors.is_empty() || vectors.iter().any(|v| v.rank() > 1 || v.dtype() != vectors[0].dtype()) {
            return Err(Error::misuse("meshgrid: needs vectors of one dtype, at least one"));
        }
        let lens = Shape::try_new(&vectors.iter().map(|v| v.elements()).collect::<Vec<_>>())?;
        let swap = order == GridOrder::Cartesian && vectors.len() > 1;
        let grid = |(i, v): (usize, &&Tensor)| {
            let mut alone = vec![1; lens.rank()];
            alone[i] = lens[i];
            let grid = v.try_reshape(alone)?.try_expand(lens)?;
            if swap { grid.try_transpose(0, 1) } else { Ok(grid) }
        };
        vectors.iter().enumerate().map(grid).collect()
    }
}
