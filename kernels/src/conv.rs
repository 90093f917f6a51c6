//! Convolution and its two gradients as matrix products whose factors are read through windows, never unfolded in memory
//! (implicit GEMM: Chetlur et al., "cuDNN: efficient primitives for deep learning", 2014).
//!
//! For each group of channels, with c its input channels, o its output channels, k the places of a window, p the windows and
//! i the places of the input:
//!
//! | part | rows × columns | sum over | formula |
//! |---|---|---|---|
//! | output | o × (image, p) | (c, k) | y\[o, p\] = Σ w\[o, c, k\] · x\[c, seen(p, k)\] + b\[o\] |
//! | input | c × (image, i) | (o, k) | dx\[c, i\] = Σ w\[o, c, k\] · y\[o, seer(i, k)\] + b\[c\] |
//! | weight | o × (c, k) | (image, p) | dw\[o, c, k\] = Σ y\[o, p\] · x\[c, seen(p, k)\] |
//!
//! A cube of 16 × 16 threads computes a tile of 16·R × 16·S results in steps of 16 of the sum, as in [`crate::matmul`]. Each
//! result is one thread's sum in ascending order in `f32`; the weight's long sum is cut into chunks of fixed length, whose
//! partial sums the host adds up in order. So the bits depend on shapes alone. All operands are dense. CPU reference: the
//! composites' definitions (`gradus_core::functional::conv`).

use crate::window::{Spot, Windows, coordinates, seen, seer, volume};
use cubecl::prelude::*;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// y, of the weight and x.
    Output,
    /// x or its gradient, of the weight and y.
    Input,
    /// The weight's gradient, of y and x.
    Weight,
}

/// The sizes of a convolution besides its windows.
#[derive(CubeType, CubeLaunch)]
pub struct Sizes {
    /// Images in the batch.
    pub images: usize,
    /// Channels fall into so many groups.
    pub groups: usize,
    /// Input channels of a group.
    pub inputs: usize,
    /// Output channels of a group.
    pub outputs: usize,
    /// The longest sum of one thread; a longer one is cut into chunks.
    pub chunk: usize,
    /// How many chunks there are; more than 1 for the weight alone.
    pub chunks: usize,
}

/// A column or a step of the sum, split: an image or channel, and the coordinates within it.
#[derive(CubeType)]
struct Split {
    outer: usize,
    inner: Sequence<usize>,
}

#[cube]
fn split(pos: usize, lens: &Sequence<usize>) -> Split {
    let n = volume(lens);
    Split { outer: pos / n, inner: coordinates(pos % n, lens) }
}

/// One tile of the part; `first` holds the weight, or y for the weight's gradient; `second` x, or y for the input. `bias` is
/// read only if `with_bias`. With chunks, `out` holds the partial sums of each, one after the other.
#[cube(launch_unchecked, address_type = "dynamic")]
pub fn conv_kernel<T: Numeric, Out: Numeric>(
    first: &Array<T>,
    second: &Array<T>,
    bias: &Array<T>,
    out: &mut Array<Out>,
    w: Windows,
    s: Sizes,
    tiles: usize,
    #[comptime] part: Part,
    #[comptime] r: usize,
    #[comptime] q: usize,
    #[comptime] with_bias: bool,
    #[define(T, Out)] _types: [StorageType; 2],
) {
    if CUBE_POS < tiles {
        let tall = comptime!(16 * r);
        let wide = comptime!(16 * q);
        let mut tile_a = SharedMemory::<f32>::new(comptime!(16 * 16 * r)); // [sum 16][row 16·R]
        let mut tile_b = SharedMemory::<f32>::new(comptime!(16 * 16 * q)); // [sum 16][column 16·S]
        let tx = UNIT_POS_X as usize;
        let ty = UNIT_POS_Y as usize;
        let me = ty * 16 + tx;

        let rows = match comptime!(part) {
            Part::Input => s.inputs,
            _ => s.outputs,
        };
        let columns = match comptime!(part) {
            Part::Output => s.images * volume(&w.output),
            Part::Input => s.images * volume(&w.input),
            Part::Weight => s.inputs * volume(&w.size),
        };
        let depth = match comptime!(part) {
            Part::Output => s.inputs * volume(&w.size),
            Part::Input => s.outputs * volume(&w.size),
            Part::Weight => s.images * volume(&w.output),
        };
        let across = (columns + wide - 1) / wide;
        let down = (rows + tall - 1) / tall;
        let col0 = CUBE_POS % across * wide;
        let row0 = CUBE_POS / across % down * tall;
        let layer = CUBE_POS / (across * down);
        let group = layer % s.groups;
        let begin = layer / s.groups * s.chunk;
        let end = min(begin + s.chunk, depth);

        // This thread loads the same row and the same column in each step.
        let my_row = row0 + me % tall;
        let my_col = col0 + me % wide;
        let column = match comptime!(part) {
            Part::Output => split(my_col, &w.output),
            Part::Input => split(my_col, &w.input),
            Part::Weight => split(my_col, &w.size),
        };

        let mut sums = Array::<f32>::new(comptime!(r * q));
        #[unroll]
        for i in 0..comptime!(r * q) {
            sums[i] = f32::new(0.0);
        }
        let mut at = begin;
        while at < end {
            #[unroll]
            for i in 0..r {
                let e = me + comptime!(i * 256);
                let d = at + e / tall;
                let mut v = f32::new(0.0);
                if d < end && my_row < rows {
                    v = f32::cast_from(first[left(my_row, d, group, &w, &s, part)]);
                }
                tile_a[e] = v;
            }
            #[unroll]
            for i in 0..q {
                let e = me + comptime!(i * 256);
                let d = at + e / wide;
                let mut v = f32::new(0.0);
                if d < end && my_col < columns {
                    let spot = right(&column, d, group, &w, &s, part);
                    if spot.inside {
                        v = f32::cast_from(second[spot.at]);
                    }
                }
                tile_b[e] = v;
            }
            sync_cube();
            let steps = min(16usize, end - at);
            for k in 0..steps {
                #[unroll]
                for i in 0..r {
                    let va = tile_a[k * tall + ty + comptime!(16 * i)];
                    #[unroll]
                    for j in 0..q {
                        sums[comptime!(i * q + j)] += va * tile_b[k * wide + tx + comptime!(16 * j)];
                    }
                }
            }
            sync_cube();
            at += 16;
        }
        #[unroll]
        for i in 0..r {
            #[unroll]
            for j in 0..q {
                let row = row0 + ty + comptime!(16 * i);
                let col = col0 + tx + comptime!(16 * j);
                if row < rows && col < columns {
                    let channel = group * rows + row;
                    let mut v = sums[comptime!(i * q + j)];
                    if comptime!(with_bias) {
                        v += f32::cast_from(bias[channel]);
                    }
                    let to = match comptime!(part) {
                        Part::Weight => ((layer / s.groups * s.groups + group) * rows + row) * columns + col,
                        _ => {
                            let places = columns / s.images;
                            (col / places * (s.groups * rows) + channel) * places + col % places
                        }
                    };
                    out[to] = Out::cast_from(v);
                }
            }
        }
    }
}

/// Where step `d` of row `row` lies in the first factor.
#[cube]
fn left(row: usize, d: usize, group: usize, w: &Windows, s: &Sizes, #[comptime] part: Part) -> usize {
    match comptime!(part) {
        Part::Output => (group * s.outputs + row) * (s.inputs * volume(&w.size)) + d,
        Part::Input => {
            let places = volume(&w.size);
            ((group * s.outputs + d / places) * s.inputs + row) * places + d % places
        }
        Part::Weight => {
            let windows = volume(&w.output);
            (d / windows * (s.groups * s.outputs) + group * s.outputs + row) * windows + d % windows
        }
    }
}

/// Where step `d` of a column lies in the second factor, if it is no padding.
#[cube]
fn right(column: &Split, d: usize, group: usize, w: &Windows, s: &Sizes, #[comptime] part: Part) -> Spot {
    match comptime!(part) {
        Part::Output => {
            let step = split(d, &w.size);
            let spot = seen(&column.inner, &step.inner, w);
            let plane = column.outer * (s.groups * s.inputs) + group * s.inputs + step.outer;
            Spot { at: plane * volume(&w.input) + spot.at, inside: spot.inside }
        }
        Part::Input => {
            let step = split(d, &w.size);
            let spot = seer(&column.inner, &step.inner, w);
            let plane = column.outer * (s.groups * s.outputs) + group * s.outputs + step.outer;
            Spot { at: plane * volume(&w.output) + spot.at, inside: spot.inside }
        }
        Part::Weight => {
            let step = split(d, &w.output);
            let spot = seen(&step.inner, &column.inner, w);
            let plane = step.outer * (s.groups * s.inputs) + group * s.inputs + column.outer;
            Spot { at: plane * volume(&w.input) + spot.at, inside: spot.inside }
        }
    }
}
