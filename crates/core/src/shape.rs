//! Shapes: up to eight dimensions, held inline.
//!
//! `Shape` is `Copy`, because every op handles several and none may allocate; its equality is a short loop, because the
//! derived one calls `memcmp`, which costs more than the comparison.

use crate::error::{Error, Result};
use std::fmt;
use std::ops::{Deref, DerefMut};

/// The largest number of dimensions of a tensor.
pub const MAX_RANK: usize = 8;

/// The lengths of a tensor's dimensions, outermost first. The empty shape is that of a scalar.
#[derive(Clone, Copy)]
pub struct Shape {
    dims: [usize; MAX_RANK],
    /// A whole word: a copy reads words, and would wait for a single byte that was just written.
    rank: usize,
}

impl Shape {
    /// The shape of a scalar.
    pub const SCALAR: Shape = Shape { dims: [0; MAX_RANK], rank: 0 };

    /// The shape with these dimensions, or an error if there are more than [`MAX_RANK`].
    pub fn try_new(dims: &[usize]) -> Result<Shape> {
        if dims.len() > MAX_RANK {
            return Err(Error::misuse(format!(
                "a tensor has at most {MAX_RANK} dimensions; got {}: {dims:?}",
                dims.len()
            )));
        }
        let mut shape = Shape::SCALAR;
        shape.rank = dims.len();
        shape.dims[..dims.len()].copy_from_slice(dims);
        Ok(shape)
    }

    /// Number of dimensions.
    #[inline]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The dimensions as a slice.
    #[inline]
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Number of elements: the product of the dimensions, 1 for a scalar. (Overflow is refused where tensors are made.)
    #[inline]
    pub fn elements(&self) -> usize {
        let mut n = 1usize;
        for &d in self.dims() {
            n = n.wrapping_mul(d);
        }
        n
    }

    /// Number of elements, or an error that names the shape if it, or its bytes, cannot be counted.
    #[inline]
    pub fn checked_elements(&self, element_size: usize) -> Result<usize> {
        // Elements take 16 bytes at most.
        let (mut n, mut long) = (1usize, false);
        for &d in self.dims() {
            let (product, over) = n.overflowing_mul(d);
            (n, long) = (product, long | over);
        }
        if !long && n < isize::MAX as usize >> 5 { Ok(n) } else { self.checked_elements_of_many(element_size) }
    }

    #[cold]
    fn checked_elements_of_many(&self, element_size: usize) -> Result<usize> {
        // A zero anywhere makes an empty tensor, whatever the other lengths are.
        if self.dims().contains(&0) {
            return Ok(0);
        }
        let mut bytes = element_size;
        for &d in self.dims() {
            bytes = bytes.checked_mul(d).filter(|&b| b <= isize::MAX as usize).ok_or_else(|| {
                Error::misuse(format!("a tensor of shape {self} needs more bytes than an address can count"))
            })?;
        }
        Ok(bytes / element_size)
    }

    /// The row-major strides, in elements.
    #[inline]
    pub fn strides(&self) -> [isize; MAX_RANK] {
        // Written out, as what a loop has just written in pieces is slow to copy.
        match self.rank {
            0 => return [0; MAX_RANK],
            1 => return [1, 0, 0, 0, 0, 0, 0, 0],
            2 => return [self.dims[1].max(1) as isize, 1, 0, 0, 0, 0, 0, 0],
            _ => {}
        }
        let mut strides = [0; MAX_RANK];
        let mut step = 1isize;
        for i in (0..self.rank()).rev() {
            strides[i] = step;
            step = step.wrapping_mul(self.dims[i].max(1) as isize);
        }
        strides
    }

    /// This shape with dimension `dim` set to `len`.
    #[inline]
    pub fn with(&self, dim: usize, len: usize) -> Shape {
        let mut s = *self;
        s[dim] = len;
        s
    }

    /// This shape without dimension `dim`.
    pub fn without(&self, dim: usize) -> Shape {
        let mut s = *self;
        s.dims.copy_within(dim + 1..self.rank(), dim);
        s.rank -= 1;
        s
    }

    /// This shape with a dimension of length `len` put in before `dim`, or an error beyond [`MAX_RANK`].
    pub fn try_insert(&self, dim: usize, len: usize) -> Result<Shape> {
        let mut dims = [0usize; MAX_RANK + 1];
        dims[..dim].copy_from_slice(&self.dims()[..dim]);
        dims[dim] = len;
        dims[dim + 1..=self.rank()].copy_from_slice(&self.dims()[dim..]);
        Shape::try_new(&dims[..=self.rank()])
    }

    /// The shape that both broadcast to (trailing dimensions are aligned; 1 stretches), or `None` if they do not fit.
    pub fn broadcast(&self, other: &Shape) -> Option<Shape> {
        if self == other {
            return Some(*self);
        }
        let (long, short) = if self.rank >= other.rank { (self, other) } else { (other, self) };
        let mut out = *long;
        let lead = long.rank() - short.rank();
        for i in 0..short.rank() {
            let (a, b) = (long.dims[lead + i], short.dims[i]);
            out.dims[lead + i] = match (a, b) {
                _ if a == b => a,
                (1, _) => b,
                (_, 1) => a,
                _ => return None,
            };
        }
        Some(out)
    }

    /// The dimension that `dim` means, counted from the end if negative, or an error naming the shape.
    pub fn dim(&self, dim: isize) -> Result<usize> {
        let rank = self.rank() as isize;
        let d = if dim < 0 { dim + rank } else { dim };
        if d < 0 || d >= rank {
            return Err(Error::misuse(format!(
                "dimension {dim} is out of range for shape {self}, which has {rank} dimensions"
            )));
        }
        Ok(d as usize)
    }
}

impl PartialEq for Shape {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        if self.rank != other.rank {
            return false;
        }
        for i in 0..self.rank {
            if self.dims[i] != other.dims[i] {
                return false;
            }
        }
        true
    }
}
impl Eq for Shape {}

impl std::hash::Hash for Shape {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.dims().hash(state);
    }
}

impl Deref for Shape {
    type Target = [usize];
    #[inline]
    fn deref(&self) -> &[usize] {
        self.dims()
    }
}
impl DerefMut for Shape {
    #[inline]
    fn deref_mut(&mut self) -> &mut [usize] {
        &mut self.dims[..self.rank]
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, d) in self.dims().iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{d}")?;
        }
        f.write_str("]")
    }
}
impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What can be given where a shape is wanted: arrays, slices and vectors of lengths, a single length, or a [`Shape`].
pub trait IntoShape {
    /// The shape, or an error if it has too many dimensions.
    fn into_shape(self) -> Result<Shape>;
}
impl IntoShape for Shape {
    fn into_shape(self) -> Result<Shape> {
        Ok(self)
    }
}
impl IntoShape for &Shape {
    fn into_shape(self) -> Result<Shape> {
        Ok(*self)
    }
}
impl IntoShape for &[usize] {
    fn into_shape(self) -> Result<Shape> {
        Shape::try_new(self)
    }
}
impl IntoShape for &Vec<usize> {
    fn into_shape(self) -> Result<Shape> {
        Shape::try_new(self)
    }
}
impl IntoShape for Vec<usize> {
    fn into_shape(self) -> Result<Shape> {
        Shape::try_new(&self)
    }
}
impl<const N: usize> IntoShape for [usize; N] {
    fn into_shape(self) -> Result<Shape> {
        Shape::try_new(&self)
    }
}
impl<const N: usize> IntoShape for &[usize; N] {
    fn into_shape(self) -> Result<Shape> {
        Shape::try_new(self)
    }
}
impl IntoShape for usize {
    fn into_shape(self) -> Result<Shape> {
        Shape::try_new(&[self])
    }
}
impl IntoShape for () {
    fn into_shape(self) -> Result<Shape> {
        Ok(Shape::SCALAR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    fn s(d: &[usize]) -> Shape {
        Shape::try_new(d).expect("a short shape")
    }

    #[test]
    fn broadcasting_follows_the_trailing_dimensions() {
        assert_eq!(s(&[3, 1]).broadcast(&s(&[4])), Some(s(&[3, 4])));
        assert_eq!(s(&[]).broadcast(&s(&[2, 0])), Some(s(&[2, 0])));
        assert_eq!(s(&[2, 0]).broadcast(&s(&[2, 1])), Some(s(&[2, 0])));
        assert_eq!(s(&[2, 3]).broadcast(&s(&[2])), None);
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        assert!(s(&[usize::MAX, 2]).checked_elements(1).is_err());
        assert!(s(&[1 << 62]).checked_elements(8).is_err());
        assert_eq!(s(&[usize::MAX, 0]).checked_elements(8).ok(), Some(0));
        assert!(Shape::try_new(&[1; 9]).is_err());
    }

    #[test]
    fn dimensions_count_from_the_end() {
        assert_eq!(s(&[2, 3]).dim(-1).ok(), Some(1));
        assert!(s(&[2, 3]).dim(2).is_err());
        assert!(s(&[]).dim(0).is_err());
        assert_eq!(s(&[2, 3]).try_insert(1, 7).ok(), Some(s(&[2, 7, 3])));
        assert_eq!(s(&[2, 3, 4]).without(1), s(&[2, 4]));
    }
}
