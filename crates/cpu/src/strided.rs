//! Reading and writing strided views in blocks: a kernel sees dense slices that stay in the L1 cache, whatever the layout.

use crate::launch::In;
use gradus_core::Layout;
use gradus_core::shape::MAX_RANK;
use std::mem::MaybeUninit;

/// Elements in a block: three blocks of `f64` take 24 KiB of the 32 to 48 of an L1 cache.
pub(crate) const BLOCK: usize = 1024;

/// A layout with neighbouring dimensions merged where their strides chain, for fast walking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Walk {
    rank: usize,
    dims: [usize; MAX_RANK],
    strides: [isize; MAX_RANK],
    offset: usize,
    /// The elements lie one after another.
    pub(crate) dense: bool,
}

impl Walk {
    pub(crate) fn new(layout: &Layout) -> Walk {
        let mut w = Walk {
            rank: 0,
            dims: [1; MAX_RANK],
            strides: [0; MAX_RANK],
            offset: layout.offset(),
            dense: layout.is_dense(),
        };
        if w.dense {
            (w.rank, w.dims[0], w.strides[0]) = (1, layout.elements(), 1);
            return w;
        }
        for (&d, &s) in layout.shape().iter().zip(layout.strides()) {
            if d == 1 {
                continue;
            }
            if w.rank > 0 && w.strides[w.rank - 1] == s * d as isize {
                w.dims[w.rank - 1] *= d;
                w.strides[w.rank - 1] = s;
            } else {
                (w.dims[w.rank], w.strides[w.rank]) = (d, s);
                w.rank += 1;
            }
        }
        if w.rank == 0 {
            w.rank = 1; // one element: a row of one
        }
        w
    }

    /// The offset of the first element.
    pub(crate) fn offset(&self) -> usize {
        self.offset
    }

    /// The merged dimensions and their strides.
    pub(crate) fn dims(&self) -> (&[usize], &[isize]) {
        (&self.dims[..self.rank], &self.strides[..self.rank])
    }

    /// Calls `row(done, at, len, stride)` for each run along the innermost dimension in elements `start..start + len`.
    #[inline(always)]
    pub(crate) fn rows(&self, start: usize, len: usize, mut row: impl FnMut(usize, isize, usize, isize)) {
        if len == 0 {
            return; // a dimension may be empty
        }
        let last = self.rank - 1;
        let (n, step) = (self.dims[last], self.strides[last]);
        let mut index = [0usize; MAX_RANK];
        let (mut rest, mut at) = (start / n, self.offset as isize);
        let mut inner = start % n;
        for d in (0..last).rev() {
            index[d] = rest % self.dims[d];
            rest /= self.dims[d];
            at += index[d] as isize * self.strides[d];
        }
        let mut done = 0;
        while done < len {
            let run = (n - inner).min(len - done);
            row(done, at + inner as isize * step, run, step);
            done += run;
            inner = 0;
            for d in (0..last).rev() {
                index[d] += 1;
                at += self.strides[d];
                if index[d] < self.dims[d] {
                    break;
                }
                at -= self.strides[d] * self.dims[d] as isize;
                index[d] = 0;
            }
        }
    }

    /// Elements `start..start + buf.len()` of the view of `x`, copied into `buf`.
    #[inline(always)]
    pub(crate) fn gather<T: Copy>(&self, x: &[T], start: usize, buf: &mut [T]) {
        self.rows(start, buf.len(), |done, at, len, step| {
            let out = &mut buf[done..done + len];
            match step {
                1 => out.copy_from_slice(&x[at as usize..at as usize + len]),
                0 => out.fill(x[at as usize]),
                _ => out.iter_mut().enumerate().for_each(|(i, o)| *o = x[(at + i as isize * step) as usize]),
            }
        });
    }

    /// The elements of `values` put into places `start..` of the view of `x`, each combined with what is there.
    #[inline(always)]
    pub(crate) fn scatter<T: Copy>(&self, x: *mut T, start: usize, values: &[T], combine: impl Fn(T, T) -> T) {
        self.rows(start, values.len(), |done, at, len, step| {
            let values = &values[done..done + len];
            // SAFETY: the layout lies inside the buffer (core checked it), and no two threads have the same places.
            unsafe {
                if step == 1 {
                    let row = std::slice::from_raw_parts_mut(x.offset(at), len);
                    return row.iter_mut().zip(values).for_each(|(p, &v)| *p = combine(*p, v));
                }
                for (i, &v) in values.iter().enumerate() {
                    let p = x.offset(at + i as isize * step);
                    *p = combine(*p, v);
                }
            }
        });
    }
}

/// A block's worth of elements on the stack, left uninitialized until it is filled.
pub(crate) struct Scratch<T>([MaybeUninit<T>; BLOCK]);

impl<T: Copy + Default> Scratch<T> {
    #[inline(always)]
    pub(crate) fn new() -> Scratch<T> {
        Scratch([const { MaybeUninit::uninit() }; BLOCK])
    }
    /// The first `n` elements, set to the default value first.
    #[inline(always)]
    pub(crate) fn first(&mut self, n: usize) -> &mut [T] {
        let part = &mut self.0[..n];
        part.iter_mut().for_each(|x| {
            x.write(T::default());
        });
        // SAFETY: just initialized, and `MaybeUninit<T>` has the layout of `T`.
        unsafe { &mut *(part as *mut [MaybeUninit<T>] as *mut [T]) }
    }
}

/// An operand of an elementwise kernel: a view, or one value for every element.
pub(crate) enum Source<T> {
    /// Elements one after another, from an offset on.
    Dense(In<T>, usize),
    /// Elements anywhere; boxed, because the usual case is the dense one.
    Strided(In<T>, Box<Walk>),
    Value(T),
}

impl<T: Copy + Default> Source<T> {
    /// The elements of a buffer that a layout shows.
    pub(crate) fn new(x: In<T>, layout: &Layout) -> Source<T> {
        if layout.is_dense() {
            Source::Dense(x, layout.offset())
        } else {
            Source::Strided(x, Box::new(Walk::new(layout)))
        }
    }

    /// Elements `start..start + n` (at most a block) as a slice.
    #[inline(always)]
    pub(crate) fn block<'a>(&'a self, start: usize, n: usize, scratch: &'a mut Scratch<T>) -> &'a [T] {
        match self {
            Source::Dense(x, offset) => &x.slice()[offset + start..offset + start + n],
            Source::Strided(x, walk) => {
                let buf = scratch.first(n);
                walk.gather(x.slice(), start, buf);
                buf
            }
            Source::Value(v) => {
                let buf = scratch.first(n);
                buf.fill(*v);
                buf
            }
        }
    }
}
