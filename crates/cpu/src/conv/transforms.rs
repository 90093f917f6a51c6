//! Winograd's transforms for F(2×2, 3×3), of a register's channels at a time ([`winograd`](super::winograd) has their use).
//!
//! Each is one pass over rows and one over columns. They are macros and not functions of closures, since what a closure calls
//! is compiled without the instruction set.

use crate::vector::Vector;

macro_rules! two_passes {
    ($(#[$meta:meta])* $name:ident, $from:literal to $to:literal, ($($x:ident),*$(; $half:ident)?) => $pass:expr) => {
        $(#[$meta])*
        #[inline(always)]
        #[allow(clippy::needless_range_loop)] // the loops must unroll
        pub(super) unsafe fn $name<V: Vector>(d: [[V; $from]; $from]$(, $half: V)?) -> [[V; $to]; $to] {
            // SAFETY: the instruction set by V.
            unsafe {
                let (mut rows, mut out) = ([[V::zero(); $to]; $from], [[V::zero(); $to]; $to]);
                for i in 0..$from {
                    let [$($x),*] = d[i];
                    rows[i] = $pass;
                }
                for j in 0..$to {
                    let mut column = [V::zero(); $from];
                    for i in 0..$from {
                        column[i] = rows[i][j];
                    }
                    let [$($x),*] = column;
                    let column: [V; $to] = $pass;
                    for i in 0..$to {
                        out[i][j] = column[i];
                    }
                }
                out
            }
        }
    };
}
two_passes!(
    /// Bᵀ·d·B.
    spread_input, 4 to 4, (a, b, c, d) => [a.sub(c), b.add(c), c.sub(b), b.sub(d)]
);
two_passes!(
    /// Aᵀ·m·A.
    gather_output, 4 to 2, (a, b, c, d) => [a.add(b).add(c), b.sub(c).sub(d)]
);
two_passes!(
    /// A·g·Aᵀ.
    spread_grad, 2 to 4, (a, b) => [a, a.add(b), a.sub(b), V::zero().sub(b)]
);
two_passes!(
    /// G·w·Gᵀ.
    spread_taps, 3 to 4, (a, b, c; half) => {
        let (ends, middle) = (V::zero().fma(a.add(c), half), V::zero().fma(b, half));
        [a, ends.add(middle), ends.sub(middle), c]
    }
);
two_passes!(
    /// Gᵀ·u·G.
    gather_taps, 4 to 3, (a, b, c, d; half) => {
        let (sum, difference) = (V::zero().fma(b.add(c), half), V::zero().fma(b.sub(c), half));
        [a.add(sum), difference, sum.add(d)]
    }
);

/// N×N registers: row i, column j at `p + i·row + j·column`.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // the loops must unroll
pub(super) unsafe fn load_square<V: Vector, const N: usize>(p: *const V::T, row: usize, column: usize) -> [[V; N]; N] {
    // SAFETY: by the caller.
    unsafe {
        let mut square = [[V::zero(); N]; N];
        for i in 0..N {
            for j in 0..N {
                square[i][j] = V::load(p.add(i * row + j * column));
            }
        }
        square
    }
}

/// Writes them.
#[inline(always)]
pub(super) unsafe fn store_square<V: Vector, const N: usize>(
    square: [[V; N]; N],
    p: *mut V::T,
    row: usize,
    column: usize,
) {
    for (i, line) in square.iter().enumerate() {
        for (j, v) in line.iter().enumerate() {
            // SAFETY: by the caller.
            unsafe { v.store(p.add(i * row + j * column)) }
        }
    }
}
