//! Layouts: where a view's elements lie in its buffer.
//!
//! A view operation (permute, slice, expand, flip, diagonal, unfold) only computes a new layout; strides are signed and
//! counted in elements, so that a flip is a negative stride and an expansion is a zero one.

use crate::shape::{MAX_RANK, Shape};
use smallvec::SmallVec;

/// Shape, strides and offset (in elements) of a view of a buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    shape: Shape,
    strides: [isize; MAX_RANK],
    offset: usize,
    dense: bool,
}

/// [`Layout::write_dense`] writes each of these: one more does not compile here before it is written there.
const _: fn(&Layout) = |Layout { shape: _, strides: _, offset: _, dense: _ }| {};

impl Layout {
    /// The row-major layout of a whole buffer.
    #[inline]
    pub fn dense(shape: Shape) -> Layout {
        Layout { shape, strides: shape.strides(), offset: 0, dense: true }
    }

    /// As [`dense`](Self::dense), part by part.
    ///
    /// # Safety
    /// `place` is valid for a layout to be written there.
    #[inline(always)]
    pub(crate) unsafe fn write_dense(place: *mut Layout, shape: &Shape) {
        // SAFETY: as of `place`; each field is written.
        unsafe {
            (&raw mut (*place).shape).write(*shape);
            (&raw mut (*place).strides).write(shape.strides());
            (&raw mut (*place).offset).write(0);
            (&raw mut (*place).dense).write(true);
        }
    }

    /// The layout of a whole buffer in which the dimensions lie in this order, the outermost first.
    pub fn in_order(shape: &Shape, order: &[usize]) -> Layout {
        let (mut strides, mut step) = ([0; MAX_RANK], 1);
        for &d in order.iter().rev() {
            strides[d] = step;
            step *= shape[d] as isize;
        }
        Layout::strided(*shape, strides, 0)
    }

    /// A layout with the given strides and offset.
    pub fn strided(shape: Shape, strides: [isize; MAX_RANK], offset: usize) -> Layout {
        let mut l = Layout { shape, strides, offset, dense: false };
        l.dense = l.computes_dense();
        l
    }

    /// The shape.
    #[inline]
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The step of each dimension, in elements.
    #[inline]
    pub fn strides(&self) -> &[isize] {
        &self.strides[..self.shape.rank()]
    }

    /// Where the first element lies, in elements.
    #[inline]
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Number of elements.
    #[inline]
    pub fn elements(&self) -> usize {
        self.shape.elements()
    }

    /// Whether the elements lie one after another in row-major order, from [`Layout::offset`] on.
    #[inline]
    pub fn is_dense(&self) -> bool {
        self.dense
    }

    fn computes_dense(&self) -> bool {
        if self.shape.elements() == 0 {
            return true;
        }
        let mut step = 1isize;
        for i in (0..self.shape.rank()).rev() {
            if self.shape[i] != 1 {
                if self.strides[i] != step {
                    return false;
                }
                step *= self.shape[i] as isize;
            }
        }
        true
    }

    /// The dimensions in another order: dimension `i` of the result is `order[i]` of this.
    pub fn permute(&self, order: &[usize]) -> Layout {
        let (mut shape, mut strides) = (self.shape, [0; MAX_RANK]);
        for (i, &o) in order.iter().enumerate() {
            shape[i] = self.shape[o];
            strides[i] = self.strides[o];
        }
        Layout::strided(shape, strides, self.offset)
    }

    /// This layout stretched to `shape`, whose trailing dimensions must equal it or meet a 1.
    pub fn expand(&self, shape: &Shape) -> Layout {
        if self.shape == *shape {
            return *self;
        }
        let lead = shape.rank() - self.shape.rank();
        let mut strides = [0isize; MAX_RANK];
        for i in 0..self.shape.rank() {
            strides[lead + i] = if self.shape[i] == shape[lead + i] { self.strides[i] } else { 0 };
        }
        Layout::strided(*shape, strides, self.offset)
    }

    /// `len` elements of dimension `dim`, from `start` on, each `step` apart (negative: backwards).
    pub fn slice(&self, dim: usize, start: usize, len: usize, step: isize) -> Layout {
        let mut l = *self;
        l.shape[dim] = len;
        // What is empty keeps its offset: it reads nothing, and must not point outside the buffer.
        if l.shape.elements() > 0 {
            l.offset = (l.offset as isize + start as isize * l.strides[dim]) as usize;
        }
        // A single place has no next one, so its step, which may be any number, does not count.
        if len > 1 {
            l.strides[dim] *= step;
        }
        Layout::strided(l.shape, l.strides, l.offset)
    }

    /// The diagonal of dimensions `d1` and `d2`, `offset` above the main one, as a new last dimension of length `len`.
    pub fn diagonal(&self, offset: isize, d1: usize, d2: usize, len: usize) -> Layout {
        let mut strides = [0isize; MAX_RANK];
        let mut dims: SmallVec<[usize; MAX_RANK]> = SmallVec::new();
        for i in (0..self.shape.rank()).filter(|&i| i != d1 && i != d2) {
            strides[dims.len()] = self.strides[i];
            dims.push(self.shape[i]);
        }
        strides[dims.len()] = self.strides[d1] + self.strides[d2];
        dims.push(len);
        let shape = shape_of(&dims);
        let skip = || if offset >= 0 { offset * self.strides[d2] } else { -offset * self.strides[d1] };
        let at = if shape.elements() > 0 { (self.offset as isize + skip()) as usize } else { self.offset };
        Layout::strided(shape, strides, at)
    }

    /// Windows of `size` elements of dimension `dim`, each `step` after the last; the window is a new last dimension.
    pub fn unfold(&self, dim: usize, size: usize, step: usize) -> Layout {
        let rank = self.shape.rank();
        let mut dims: SmallVec<[usize; MAX_RANK]> = SmallVec::from_slice(&self.shape);
        let mut strides = self.strides;
        dims[dim] = (self.shape[dim] - size) / step + 1;
        // A single window has no next one, so the distance, which may be any number, does not count.
        if dims[dim] > 1 {
            strides[dim] = self.strides[dim] * step as isize;
        }
        strides[rank] = self.strides[dim];
        dims.push(size);
        Layout::strided(shape_of(&dims), strides, self.offset)
    }

    /// The same elements under another shape without moving them, if their strides allow it.
    pub fn reshape(&self, shape: &Shape) -> Option<Layout> {
        if self.dense {
            return Some(Layout { shape: *shape, strides: shape.strides(), offset: self.offset, dense: true });
        }
        // Old dimensions of length 1 carry no stride worth keeping. The rest is cut into groups of old and new dimensions
        // that hold equally many elements; within a group the old strides must chain.
        let old: SmallVec<[(usize, isize); MAX_RANK]> =
            self.shape.iter().zip(self.strides()).filter(|(d, _)| **d != 1).map(|(&d, &s)| (d, s)).collect();
        let mut strides = [1isize; MAX_RANK];
        let (mut i, mut j) = (0, 0);
        while i < old.len() && j < shape.rank() {
            let (i0, j0) = (i, j);
            let (mut have, mut want) = (old[i].0, shape[j]);
            (i, j) = (i + 1, j + 1);
            while have != want {
                if want < have {
                    want *= shape.get(j)?;
                    j += 1;
                } else {
                    have *= old.get(i)?.0;
                    i += 1;
                }
            }
            if old[i0..i].windows(2).any(|w| w[0].1 != w[1].1 * w[1].0 as isize) {
                return None;
            }
            let mut step = old[i - 1].1;
            for k in (j0..j).rev() {
                strides[k] = step;
                step *= shape[k] as isize;
            }
        }
        Some(Layout::strided(*shape, strides, self.offset))
    }

    /// The offsets of the elements, in row-major order of the shape.
    pub fn offsets(&self) -> Offsets {
        Offsets { layout: *self, index: [0; MAX_RANK], at: self.offset as isize, left: self.elements() }
    }
}

fn shape_of(dims: &[usize]) -> Shape {
    Shape::try_new(dims).unwrap_or(Shape::SCALAR) // callers check the rank first
}

/// Iterates over a layout's element offsets in row-major order. See [`Layout::offsets`].
pub struct Offsets {
    layout: Layout,
    index: [usize; MAX_RANK],
    at: isize,
    left: usize,
}

impl Iterator for Offsets {
    type Item = usize;
    fn next(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        self.left -= 1;
        let here = self.at as usize;
        for d in (0..self.layout.shape.rank()).rev() {
            self.index[d] += 1;
            self.at += self.layout.strides[d];
            if self.index[d] < self.layout.shape[d] {
                break;
            }
            self.at -= self.layout.strides[d] * self.layout.shape[d] as isize;
            self.index[d] = 0;
        }
        Some(here)
    }
    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}
impl ExactSizeIterator for Offsets {}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(d: &[usize]) -> Shape {
        Shape::try_new(d).expect("a short shape")
    }
    fn at(l: &Layout) -> Vec<usize> {
        l.offsets().collect()
    }

    #[test]
    fn views_read_the_right_elements() {
        let l = Layout::dense(shape(&[2, 3]));
        assert_eq!(at(&l.permute(&[1, 0])), [0, 3, 1, 4, 2, 5]);
        assert_eq!(at(&l.slice(1, 2, 2, -1)), [2, 1, 5, 4]);
        assert_eq!(at(&l.expand(&shape(&[2, 2, 3])))[6..], [0, 1, 2, 3, 4, 5]);
        assert_eq!(at(&l.diagonal(1, 0, 1, 2)), [1, 5]);
        assert_eq!(at(&Layout::dense(shape(&[5])).unfold(0, 3, 2)), [0, 1, 2, 2, 3, 4]);
    }

    #[test]
    fn dimensions_lie_in_the_order_that_is_asked_for() {
        let heads = Layout::in_order(&shape(&[2, 3, 4, 5]), &[0, 2, 1, 3]);
        assert_eq!(heads.strides(), Layout::dense(shape(&[2, 4, 3, 5])).permute(&[0, 2, 1, 3]).strides());
        assert_eq!(heads.shape(), &shape(&[2, 3, 4, 5]));
        assert!(Layout::in_order(&shape(&[2, 1, 4, 5]), &[0, 2, 1, 3]).is_dense());
        assert!(Layout::in_order(&shape(&[2, 0, 4]), &[0, 2, 1]).is_dense());
    }

    #[test]
    fn reshape_moves_nothing_or_says_so() {
        let t = Layout::dense(shape(&[4, 6])).permute(&[1, 0]); // [6, 4], strides [1, 6]
        assert!(t.reshape(&shape(&[24])).is_none());
        let split = t.reshape(&shape(&[2, 3, 1, 2, 2])).expect("splitting dimensions needs no copy");
        assert_eq!(at(&split), at(&t));
        let cut = Layout::dense(shape(&[4, 6])).slice(1, 0, 4, 1);
        assert!(cut.reshape(&shape(&[16])).is_none());
        assert_eq!(at(&cut.reshape(&shape(&[2, 2, 4])).expect("rows stay rows")), at(&cut));
        let scalar = Layout::dense(Shape::SCALAR).expand(&shape(&[3, 2]));
        assert_eq!(at(&scalar.reshape(&shape(&[6])).expect("stride 0 chains")), [0; 6]);
    }
}
