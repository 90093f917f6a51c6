//! Picking and combining by index. An index out of range is an error that names it; scattering goes through the source in
//! order, each destination on one thread, so it is deterministic.

use crate::dense::MadeDense;
use crate::elementwise::{finish, with_dtype};
use crate::launch::{In, Out, fail, failure, launch, storage};
use crate::memory::CpuStorage;
use crate::simd::vectorized;
use crate::strided::Walk;
use crate::threads::for_chunks;
use gradus_core::backend::View;
use gradus_core::ops::{Index, ScatterOp};
use gradus_core::{Buffer, DType, Element, Error, Layout, Result};

/// Indices as a kernel reads them: when it runs, so that a replay sees new ones.
#[derive(Clone, Copy)]
struct Picks {
    x: In<i64>,
    walk: Walk,
    count: usize,
    len: usize,
}

impl Picks {
    fn of(index: View<'_>, x: View<'_>, how: Index) -> Result<Picks> {
        let (s, walk) = (storage(index.buffer)?, Walk::new(index.layout));
        Ok(Picks { x: In::of(s), walk, count: index.elements(), len: x.shape()[how.dim()] })
    }

    /// The indices, negative ones counted from the end; `None`, with the failure noted, if one is out of range.
    fn get(&self) -> Option<Vec<usize>> {
        let mut raw = vec![0i64; self.count];
        self.walk.gather(self.x.slice(), 0, &mut raw);
        let len = self.len as i64;
        if let Some(at) = raw.iter().position(|&i| i < -len || i >= len) {
            fail(Error::misuse(format!(
                "index {} (element {at} of the indices) is out of range for a dimension of length {len}",
                raw[at]
            )));
            return None;
        }
        Some(raw.into_iter().map(|i| (if i < 0 { i + len } else { i }) as usize).collect())
    }
}

/// For each element of an index of shape `index` used along `dim` of `x`: the place in dense `x` it names.
fn places(x: &Layout, index: &Layout, dim: usize, picks: &[usize]) -> Vec<usize> {
    let mut strides = x.shape().strides();
    let step = strides[dim] as usize;
    strides[dim] = 0;
    Layout::strided(*index.shape(), strides, 0).offsets().zip(picks).map(|(at, &i)| at + i * step).collect()
}

pub(crate) fn gather(x: View<'_>, index: View<'_>, how: Index) -> Result<Buffer> {
    let (picks, count, reads) = (Picks::of(index, x, how)?, index.elements(), storage(index.buffer)?);
    let mut made = MadeDense::default();
    let dense = made.of(x)?;
    let (from, offset) = (storage(dense.buffer)?, dense.layout.offset());
    let (lx, li) = (*x.layout, *index.layout);
    with_dtype!(x.dtype, T => {
        match how {
            Index::Along(dim) => {
                let to = CpuStorage::new(count * size_of::<T>())?;
                let (src, out) = (In::<T>::of(from), Out::<T>::of(&to));
                launch(&[from, reads], &[&to], move || {
                    let Some(picks) = picks.get() else { return };
                    let at = places(&lx, &li, dim, &picks);
                    let x = &src.slice()[offset..];
                    for_chunks(at.len().div_ceil(4096), at.len(), |c| {
                        let n = 4096.min(at.len() - c * 4096);
                        out.part(c * 4096, n).iter_mut().zip(&at[c * 4096..]).for_each(|(o, &p)| *o = x[p]);
                    });
                });
                failure()?;
                finish(to)
            }
            Index::Slices(dim) => {
                let (outer, len, inner) = split(x.layout, dim);
                let to = CpuStorage::new(outer * count * inner * size_of::<T>())?;
                let (src, out) = (In::<T>::of(from), Out::<T>::of(&to));
                launch(&[from, reads], &[&to], move || {
                    let Some(picks) = picks.get() else { return };
                    let x = &src.slice()[offset..];
                    let rows = (4096 / inner.max(1)).max(1);
                    for_chunks((outer * count).div_ceil(rows), outer * count * inner, |c| {
                        for r in c * rows..(outer * count).min((c + 1) * rows) {
                            let at = (r / count * len + picks[r % count]) * inner;
                            out.part(r * inner, inner).copy_from_slice(&x[at..at + inner]);
                        }
                    });
                });
                failure()?;
                finish(to)
            }
        }
    })
}

fn split(layout: &Layout, dim: usize) -> (usize, usize, usize) {
    let s = layout.shape();
    (s[..dim].iter().product(), s[dim], s[dim + 1..].iter().product())
}

pub(crate) fn scatter(op: ScatterOp, base: View<'_>, index: View<'_>, src: View<'_>, how: Index) -> Result<Buffer> {
    let (picks, reads) = (Picks::of(index, base, how)?, storage(index.buffer)?);
    let mut made = MadeDense::default();
    let dense = made.of(src)?;
    let (from, offset) = (storage(dense.buffer)?, dense.layout.offset());
    let dim = match how {
        Index::Along(dim) => dim,
        Index::Slices(dim) => {
            return with_dtype!(base.dtype, T => scatter_slices::<T>(op, base, (picks, reads), (from, offset), dim));
        }
    };
    let buffer = crate::elementwise::copy(base)?;
    let (to, lb, li) = (storage(&buffer)?, *base.layout, *index.layout);
    with_dtype!(base.dtype, T => {
        let (s, out) = (In::<T>::of(from), Out::<T>::of(to));
        launch(&[from, reads], &[to], move || {
            let Some(picks) = picks.get() else { return };
            let at = places(&lb, &li, dim, &picks);
            let (x, y) = (&s.slice()[offset..], out.slice());
            for (&p, &v) in at.iter().zip(x) {
                y[p] = meet(op, y[p], v);
            }
        });
    });
    failure()?;
    Ok(buffer)
}

/// Columns of a slice that a chunk takes at most ...
const WIDTH: usize = 256;
/// ... and elements: few enough to stay in the second cache between the base's copy and the last source.
const TILE: usize = 16 * 1024;

/// Scatters slices. A chunk takes a band of destination slices: it copies the base there, then goes in order through the sources
/// that land on it, so that each sum has the source's order whatever the number of threads.
fn scatter_slices<T: Element + Default>(
    op: ScatterOp,
    base: View<'_>,
    (picks, index): (Picks, &CpuStorage),
    (from, offset): (&CpuStorage, usize),
    dim: usize,
) -> Result<Buffer> {
    let (outer, len, inner) = split(base.layout, dim);
    let (held, to) = (storage(base.buffer)?, CpuStorage::new(outer * len * inner * size_of::<T>())?);
    let (b, s, out, walk) = (In::<T>::of(held), In::<T>::of(from), Out::<T>::of(&to), Walk::new(base.layout));
    let width = WIDTH.min(inner.max(1));
    let (strips, rows) = (inner.div_ceil(width), 1 << (TILE / width).ilog2());
    let bands = len.div_ceil(rows);
    launch(&[held, from, index], &[&to], move || {
        let Some(picks) = picks.get() else { return };
        let (x, (starts, order)) = (&s.slice()[offset..], by_band(&picks, rows, bands));
        for_chunks(outer * bands * strips, outer * (picks.len() + len) * inner / 4, |c| {
            let (o, band, c0) = (c / strips / bands, c / strips % bands, c % strips * width);
            let (n, first) = (width.min(inner - c0), o * len + band * rows);
            let copied = |at: usize, n: usize| walk.gather(b.slice(), at, out.part(at, n));
            let here = rows.min(len - band * rows);
            if strips == 1 {
                copied(first * inner, here * inner);
            } else {
                (first..first + here).for_each(|r| copied(r * inner + c0, n));
            }
            for &i in &order[starts[band]..starts[band + 1]] {
                let v = &x[(o * picks.len() + i) * inner + c0..][..n];
                let y = out.part((o * len + picks[i]) * inner + c0, n);
                meet_rows(op, y, v);
            }
        });
    });
    failure()?;
    finish(to)
}

/// The sources in the order of the bands of `rows` destinations (a power of two) that they land on, those of a band in their own
/// order, and where each of the `bands` begins.
fn by_band(picks: &[usize], rows: usize, bands: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut starts, band) = (vec![0; bands + 1], |p: usize| p >> rows.ilog2());
    picks.iter().for_each(|&p| starts[band(p) + 1] += 1);
    (0..bands).for_each(|b| starts[b + 1] += starts[b]);
    let (mut next, mut order) = (starts.clone(), vec![0; picks.len()]);
    for (i, &p) in picks.iter().enumerate() {
        order[next[band(p)]] = i;
        next[band(p)] += 1;
    }
    (starts, order)
}

vectorized! {
    fn meet_rows<T: Element>(op: ScatterOp, y: &mut [T], x: &[T]) {
        match op {
            ScatterOp::Set => y.copy_from_slice(x),
            ScatterOp::Add => y.iter_mut().zip(x).for_each(|(y, &x)| *y = meet(ScatterOp::Add, *y, x)),
        }
    }
}

#[inline(always)]
fn meet<T: Element>(op: ScatterOp, old: T, new: T) -> T {
    match op {
        ScatterOp::Set => new,
        ScatterOp::Add if T::DTYPE.is_float() => T::from_f64(old.to_f64() + new.to_f64()),
        ScatterOp::Add => T::from_i64(old.to_i64().wrapping_add(new.to_i64())),
    }
}
