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
//! A cube of `side × side` threads computes a tile of `side·rows × side·columns` results in steps of 16 of the sum, as in
//! [`crate::matmul`]. Each result is one thread's sum in ascending order in `f32`; the weight's long sum is cut into chunks of fixed length, whose
//! partial sums the host adds up in order. So the bits depend on shapes alone. All operands are dense. CPU reference: the
//! composites' definitions (`gradus_core::functional::conv`).

use crate::matmul::Tile;
use crate::window::{Spot, Windows, coordinates, volume};
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

/// What a step of the sum adds to a row's address in the first factor, to a column's in the second, and to a column's place in
/// each dimension. Sixteen steps are worked out at a time, by one thread each, so that the loads divide nothing.
#[cube]
fn work_out(
    d: usize,
    lefts: &mut SharedMemory<usize>,
    rights: &mut SharedMemory<usize>,
    places: &mut SharedMemory<usize>,
    slot: usize,
    w: &Windows,
    s: &Sizes,
    #[comptime] part: Part,
) {
    let rank = comptime!(w.input.len());
    match comptime!(part) {
        Part::Output => {
            let size = volume(&w.size);
            lefts[slot] = d;
            rights[slot] = d / size * volume(&w.input);
            let k = coordinates(d % size, &w.size);
            #[unroll]
            for i in 0..rank {
                places[slot * rank + i] = k[i] * w.dilation[comptime!(rank - 1 - i)];
            }
        }
        Part::Input => {
            let size = volume(&w.size);
            lefts[slot] = d / size * s.inputs * size + d % size;
            rights[slot] = d / size * volume(&w.output);
            let k = coordinates(d % size, &w.size);
            #[unroll]
            for i in 0..rank {
                places[slot * rank + i] = 0usize - k[i] * w.dilation[comptime!(rank - 1 - i)]; // wraps
            }
        }
        Part::Weight => {
            let windows = volume(&w.output);
            lefts[slot] = d / windows * (s.groups * s.outputs * windows) + d % windows;
            rights[slot] = d / windows * (s.groups * s.inputs * volume(&w.input));
            let o = coordinates(d % windows, &w.output);
            #[unroll]
            for i in 0..rank {
                places[slot * rank + i] = o[i] * w.stride[comptime!(rank - 1 - i)];
            }
        }
    }
}

/// Where in each dimension a column is before a step of the sum adds to it; what lies before the first place wraps.
#[cube]
fn origin(pos: usize, w: &Windows, #[comptime] part: Part) -> Sequence<usize> {
    let rank = comptime!(w.input.len());
    let mut places = Sequence::<usize>::new();
    match comptime!(part) {
        Part::Output => {
            let o = coordinates(pos, &w.output);
            #[unroll]
            for i in 0..rank {
                let d = comptime!(rank - 1 - i);
                places.push(o[i] * w.stride[d] - w.before[d]);
            }
        }
        Part::Input => {
            let at = coordinates(pos, &w.input);
            #[unroll]
            for i in 0..rank {
                places.push(at[i] + w.before[comptime!(rank - 1 - i)]);
            }
        }
        Part::Weight => {
            let k = coordinates(pos, &w.size);
            #[unroll]
            for i in 0..rank {
                let d = comptime!(rank - 1 - i);
                places.push(k[i] * w.dilation[d] - w.before[d]);
            }
        }
    }
    places
}

/// Where a column and a step meet in a plane of the second factor, if it is no padding.
#[cube]
fn meet(
    origin: &Sequence<usize>,
    places: &SharedMemory<usize>,
    slot: usize,
    w: &Windows,
    #[comptime] part: Part,
    #[comptime] dense: bool,
) -> Spot {
    let rank = comptime!(w.input.len());
    let mut at = 0usize.runtime();
    let mut step = 1usize.runtime();
    let mut inside = true.runtime();
    #[unroll]
    for i in 0..rank {
        let d = comptime!(rank - 1 - i);
        let mut place = origin[i] + places[slot * rank + i];
        let lens = match comptime!(part) {
            Part::Input => w.output[d],
            _ => w.input[d],
        };
        if comptime!(part == Part::Input && !dense) {
            let begin = place;
            place = begin / w.stride[d];
            inside = inside && place * w.stride[d] == begin;
        }
        inside = inside && place < lens;
        at += place * step;
        step *= lens;
    }
    Spot { at, inside }
}

/// One tile of the part; `first` holds the weight, or y for the weight's gradient; `second` x, or y for the input. `bias` is
/// read only if `with_bias`; `dense` says that all strides are 1. With chunks, `out` holds the partial sums of each, one after
/// the other.
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
    #[comptime] cut: Tile,
    #[comptime] with_bias: bool,
    #[comptime] dense: bool,
    #[define(T, Out)] _types: [StorageType; 2],
) {
    if CUBE_POS < tiles {
        let rank = comptime!(w.input.len());
        let side = comptime!(cut.side);
        let threads = comptime!(side * side);
        let tall = comptime!(side * cut.rows);
        let wide = comptime!(side * cut.columns);
        let mut tile_a = SharedMemory::<f32>::new(comptime!(16 * tall)); // [sum 16][row]
        let mut tile_b = SharedMemory::<f32>::new(comptime!(16 * wide)); // [sum 16][column]
        let mut lefts = SharedMemory::<usize>::new(16usize);
        let mut rights = SharedMemory::<usize>::new(16usize);
        let mut places = SharedMemory::<usize>::new(comptime!(16 * rank));
        let tx = UNIT_POS_X as usize;
        let ty = UNIT_POS_Y as usize;
        let me = ty * side + tx;

        let (in_places, out_places, size) = (volume(&w.input), volume(&w.output), volume(&w.size));
        let rows = match comptime!(part) {
            Part::Input => s.inputs,
            _ => s.outputs,
        };
        let (planes, plane) = match comptime!(part) {
            Part::Output => (s.images, out_places),
            Part::Input => (s.images, in_places),
            Part::Weight => (s.inputs, size),
        };
        let depth = match comptime!(part) {
            Part::Output => s.inputs * size,
            Part::Input => s.outputs * size,
            Part::Weight => s.images * out_places,
        };
        let columns = planes * plane;
        let across = (columns + wide - 1) / wide;
        let down = (rows + tall - 1) / tall;
        let col0 = CUBE_POS % across * wide;
        let row0 = CUBE_POS / across % down * tall;
        let layer = CUBE_POS / (across * down);
        let group = layer % s.groups;
        let begin = layer / s.groups * s.chunk;
        let end = min(begin + s.chunk, depth);

        // This thread loads the same row and the same column in each step: a tile's sides divide the number of threads.
        let my_row = row0 + me % tall;
        let my_col = col0 + me % wide;
        let at_row = match comptime!(part) {
            Part::Output => (group * s.outputs + my_row) * (s.inputs * size),
            Part::Input => (group * s.outputs * s.inputs + my_row) * size,
            Part::Weight => (group * s.outputs + my_row) * out_places,
        };
        let at_column = match comptime!(part) {
            Part::Output => (my_col / plane * (s.groups * s.inputs) + group * s.inputs) * in_places,
            Part::Input => (my_col / plane * (s.groups * s.outputs) + group * s.outputs) * out_places,
            Part::Weight => (group * s.inputs + my_col / plane) * in_places,
        };
        let from = origin(my_col % plane, &w, part);

        let mut sums = Array::<f32>::new(comptime!(cut.rows * cut.columns));
        #[unroll]
        for i in 0..comptime!(cut.rows * cut.columns) {
            sums[i] = f32::new(0.0);
        }
        let mut at = begin;
        while at < end {
            if me < 16 {
                work_out(at + me, &mut lefts, &mut rights, &mut places, me, &w, &s, part);
            }
            sync_cube();
            for i in 0..comptime!(16 * cut.rows / side) {
                let e = me + i * threads;
                let slot = e / tall;
                let mut v = f32::new(0.0);
                if at + slot < end && my_row < rows {
                    v = f32::cast_from(first[at_row + lefts[slot]]);
                }
                tile_a[e] = v;
            }
            for i in 0..comptime!(16 * cut.columns / side) {
                let e = me + i * threads;
                let slot = e / wide;
                let mut v = f32::new(0.0);
                if at + slot < end && my_col < columns {
                    let spot = meet(&from, &places, slot, &w, part, dense);
                    if spot.inside {
                        v = f32::cast_from(second[at_column + rights[slot] + spot.at]);
                    }
                }
                tile_b[e] = v;
            }
            sync_cube();
            let steps = min(16usize, end - at);
            for k in 0..steps {
                let mut vb = Array::<f32>::new(comptime!(cut.columns));
                #[unroll]
                for j in 0..comptime!(cut.columns) {
                    vb[j] = tile_b[k * wide + tx + comptime!(side * j)];
                }
                #[unroll]
                for i in 0..comptime!(cut.rows) {
                    let va = tile_a[k * tall + ty + comptime!(side * i)];
                    #[unroll]
                    for j in 0..comptime!(cut.columns) {
                        sums[comptime!(i * cut.columns + j)] += va * vb[j];
                    }
                }
            }
            at += 16;
        }
        #[unroll]
        for i in 0..comptime!(cut.rows) {
            #[unroll]
            for j in 0..comptime!(cut.columns) {
                let row = row0 + ty + comptime!(side * i);
                let col = col0 + tx + comptime!(side * j);
                if row < rows && col < columns {
                    let channel = group * rows + row;
                    let mut v = sums[comptime!(i * cut.columns + j)];
                    if comptime!(with_bias) {
                        v += f32::cast_from(bias[channel]);
                    }
                    let to = match comptime!(part) {
                        Part::Weight => (layer / s.groups * s.groups * rows + channel) * columns + col,
                        _ => (col / plane * (s.groups * rows) + channel) * plane + col % plane,
                    };
                    out[to] = Out::cast_from(v);
                }
            }
        }
    }
}
