//! What tensor cores do, and the lanes of a plane with one another: all that a device must have for these kernels, and the same
//! through shared memory, for tests on devices that do not.
//!
//! A product of 16 × 16 numbers with 16 × 8 adds to 16 × 8 sums (`mma.m16n8k16` of NVIDIA's PTX, "Matrix fragments for
//! mma.m16n8k16 with floating point type"). Of lane `4·rank + quad` of a plane are
//! - of the left factor: four pairs of neighbours, of rows `rank` and `rank + 8` at columns `2·quad`, then of both at `2·quad + 8`;
//! - of the right factor: two pairs, one below the other: of column `rank`, rows `2·quad` and on, then `2·quad + 8` and on;
//! - of the sums: columns `2·quad` and `2·quad + 1` of row `rank`, then of row `rank + 8`.

use super::Cores;
use cubecl::cmma::MmaDefinition;
use cubecl::prelude::*;

/// Two numbers of an operand.
pub(super) type Pair<T> = Vector<T, Const<2>>;

/// Numbers in shared memory that the emulation of one plane needs: a left and a right factor.
pub(super) const SCRATCH: usize = 16 * 16 + 16 * 8;

/// Which row of eight is this lane's.
#[cube]
pub(super) fn rank() -> usize {
    UNIT_POS_X as usize / 4
}

/// Which of the four lanes of a row this is.
#[cube]
pub(super) fn quad() -> usize {
    UNIT_POS_X as usize % 4
}

/// Two numbers as a pair.
#[cube]
pub(super) fn pair<T: Numeric>(low: T, high: T) -> Pair<T> {
    let mut both = Pair::<T>::empty();
    both[0] = low;
    both[1] = high;
    both
}

/// Adds the product of two factors to the sums `at..at + 4`. All threads of a cube come here together.
#[cube]
pub(super) fn multiply<T: Numeric>(
    left: &Array<Pair<T>>,
    right: &Array<Pair<T>>,
    sums: &mut Array<f32>,
    at: usize,
    scratch: &mut SharedMemory<f32>,
    #[comptime] form: Cores,
) {
    if comptime!(form.emulated) {
        emulated::<T>(left, right, sums, at, scratch);
    } else {
        let mut both = Array::<Pair<f32>>::new(2usize);
        both[0] = pair::<f32>(sums[at], sums[at + 1]);
        both[1] = pair::<f32>(sums[at + 2], sums[at + 3]);
        MmaDefinition::<T, T, f32>::new(16usize, 8usize, 16usize).execute_inplace(left, right, &mut both);
        let (upper, lower) = (both[0], both[1]);
        sums[at] = upper[0];
        sums[at + 1] = upper[1];
        sums[at + 2] = lower[0];
        sums[at + 3] = lower[1];
    }
}

/// The lanes write their factors to shared memory, and each computes its sums.
#[cube]
fn emulated<T: Numeric>(
    left: &Array<Pair<T>>,
    right: &Array<Pair<T>>,
    sums: &mut Array<f32>,
    at: usize,
    scratch: &mut SharedMemory<f32>,
) {
    let here = UNIT_POS_Y as usize * SCRATCH;
    let there = here + 256;
    for i in 0..4usize {
        let place = here + (rank() + i % 2 * 8) * 16 + i / 2 * 8 + 2 * quad();
        let numbers = left[i];
        scratch[place] = f32::cast_from(numbers[0]);
        scratch[place + 1] = f32::cast_from(numbers[1]);
    }
    for i in 0..2usize {
        let place = there + (2 * quad() + 8 * i) * 8 + rank();
        let numbers = right[i];
        scratch[place] = f32::cast_from(numbers[0]);
        scratch[place + 8] = f32::cast_from(numbers[1]);
    }
    sync_cube();
    for e in 0..4usize {
        let row = here + (rank() + e / 2 * 8) * 16;
        let column = there + 2 * quad() + e % 2;
        let mut sum = sums[at + e];
        for d in 0..16usize {
            sum += scratch[row + d] * scratch[column + 8 * d];
        }
        sums[at + e] = sum;
    }
    sync_cube();
}

/// What the lane whose number differs in the bits of `mask` holds. All threads of a cube come here together.
#[cube]
fn neighbour(x: f32, mask: u32, scratch: &mut SharedMemory<f32>, #[comptime] form: Cores) -> f32 {
    if comptime!(form.emulated) {
        let first = UNIT_POS_Y * 32;
        scratch[(first + UNIT_POS_X) as usize] = x;
        sync_cube();
        let other = scratch[(first + (UNIT_POS_X ^ mask)) as usize];
        sync_cube();
        other
    } else {
        plane_shuffle_xor(x, mask)
    }
}

/// The largest of the four lanes' of each row, for this lane's two rows.
#[cube]
pub(super) fn largest_of_rows(x: &mut Array<f32>, scratch: &mut SharedMemory<f32>, #[comptime] form: Cores) {
    let unroll = comptime!(!form.emulated);
    #[unroll(unroll)]
    for i in 0..4usize {
        x[i / 2] = max(x[i / 2], neighbour(x[i / 2], 1 + i as u32 % 2, scratch, form));
    }
}

/// The sum of the four lanes' of each row, for this lane's two rows: the same bits in each lane.
#[cube]
pub(super) fn sums_of_rows(x: &mut Array<f32>, scratch: &mut SharedMemory<f32>, #[comptime] form: Cores) {
    let unroll = comptime!(!form.emulated);
    #[unroll(unroll)]
    for i in 0..4usize {
        x[i / 2] += neighbour(x[i / 2], 1 + i as u32 % 2, scratch, form);
    }
}
