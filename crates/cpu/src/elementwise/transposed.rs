//! Copies of views whose last dimension is not the one that lies side by side in memory, as of a transposed matrix.
//!
//! They go by square tiles as wide as a cache line, each through a small array: every line is then read once and written once,
//! even where lengths are powers of two and a column's lines would push each other out of the cache.

use super::finish;
use crate::launch::{In, Out, launch, storage};
use crate::memory::CpuStorage;
use crate::strided::Walk;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::{Buffer, Result};

/// Shorter sides leave most of a tile empty.
const SHORTEST: usize = 8;

/// A stack of transposed matrices.
pub(super) struct Transposed {
    /// The dimensions of the stack: length, stride in the view, and stride in the copy.
    stack: Vec<(usize, isize, usize)>,
    /// The matrix: a column of the view lies side by side in memory, `step` apart from the next.
    rows: usize,
    columns: usize,
    step: isize,
    /// How far apart rows of the copy are.
    row_step: usize,
    offset: usize,
}

impl Transposed {
    /// If a view is one.
    pub(super) fn of(x: View<'_>) -> Option<Transposed> {
        let walk = Walk::new(x.layout);
        let (dims, strides) = walk.dims();
        let last = dims.len() - 1;
        let side = (0..last).rev().find(|&d| strides[d] == 1)?;
        if strides[last] == 1 || dims[side] < SHORTEST || dims[last] < SHORTEST {
            return None;
        }
        let out = |d: usize| dims[d + 1..].iter().product::<usize>();
        Some(Transposed {
            stack: (0..last).filter(|&d| d != side).map(|d| (dims[d], strides[d], out(d))).collect(),
            rows: dims[side],
            columns: dims[last],
            step: strides[last],
            row_step: out(side),
            offset: walk.offset(),
        })
    }

    /// Where matrix `i` of the stack begins, in the view and in the copy.
    fn begin(&self, i: usize) -> (isize, usize) {
        let (mut rest, mut from, mut to) = (i, self.offset as isize, 0);
        for &(len, stride, out) in self.stack.iter().rev() {
            from += (rest % len) as isize * stride;
            to += rest % len * out;
            rest /= len;
        }
        (from, to)
    }

    /// The copy, by tiles of `SIDE × SIDE`.
    pub(super) fn copy<T: Copy + Default + Send + Sync + 'static, const SIDE: usize>(
        self,
        x: View<'_>,
    ) -> Result<Buffer> {
        let (from, to) = (storage(x.buffer)?, CpuStorage::new(x.elements() * size_of::<T>())?);
        let (source, out, elements) = (In::<T>::of(from), Out::<T>::of(&to), x.elements());
        let bands = self.rows.div_ceil(SIDE);
        launch(&[from], &[&to], move || {
            let matrices: usize = self.stack.iter().map(|s| s.0).product();
            for_chunks(matrices * bands, elements / 2, |i| {
                let ((from, to), row) = (self.begin(i / bands), i % bands * SIDE);
                let height = SIDE.min(self.rows - row);
                let mut tile = [[T::default(); SIDE]; SIDE];
                for column in (0..self.columns).step_by(SIDE) {
                    let width = SIDE.min(self.columns - column);
                    for j in 0..width {
                        let at = from + row as isize + (column + j) as isize * self.step;
                        let side_by_side = &source.slice()[at as usize..][..height];
                        tile.iter_mut().zip(side_by_side).for_each(|(line, &v)| line[j] = v);
                    }
                    for (i, line) in tile[..height].iter().enumerate() {
                        out.part(to + (row + i) * self.row_step + column, width).copy_from_slice(&line[..width]);
                    }
                }
            });
        });
        finish(to)
    }
}

#[cfg(test)]
mod tests {
    use gradus_core::Tensor;

    #[test]
    fn transposed_copies_hold_what_the_view_shows() {
        // Sides on both sides of a tile, a stack around the matrix and between its sides, and a flip.
        let cpu = crate::device();
        for dims in [[1, 8, 1, 9], [2, 16, 1, 16], [3, 17, 2, 40], [1, 100, 3, 33]] {
            let x = Tensor::randn(dims, cpu, 1);
            for view in [x.permute(&[0, 3, 2, 1]), x.flip(&[1]).permute(&[2, 3, 0, 1])] {
                let copy = view.contiguous();
                let n = view.dims();
                for i in 0..n[0] * n[1] * n[2] {
                    // A line by itself is read another way.
                    let line = |t: &Tensor| {
                        let at = [i / (n[1] * n[2]), i / n[2] % n[1], i % n[2]];
                        at.iter().fold(t.clone(), |t, &at| t.select(0, at as isize)).to_vec::<f32>().expect("numbers")
                    };
                    assert_eq!(line(&copy), line(&view), "{dims:?}, line {i}");
                }
            }
        }
    }
}
