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

use crate::matmul::{Four, Tile};
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

/// One step of the sum, which walks on to the next without a division: it is a place in an inner volume (of a window, or for the
/// weight's gradient of the windows) and, beyond that, an input channel, an output channel or an image.
#[derive(CubeType)]
struct Walk {
    /// What the step adds to a row's address in the first factor.
    left: usize,
    /// What it adds to a column's address in the second.
    right: usize,
    /// Its place in the inner volume, the last dimension first.
    inner: Array<usize>,
}

/// How far apart two neighbours beyond the inner volume lie in the first factor and in the second.
#[cube]
fn jumps(w: &Windows, s: &Sizes, #[comptime] part: Part) -> (usize, usize) {
    match comptime!(part) {
        Part::Output => (volume(&w.size), volume(&w.input)),
        Part::Input => (s.inputs * volume(&w.size), volume(&w.output)),
        Part::Weight => (s.groups * s.outputs * volume(&w.output), s.groups * s.inputs * volume(&w.input)),
    }
}

/// The lengths of the inner volume.
#[cube]
fn inner<'a>(w: &'a Windows, #[comptime] part: Part) -> &'a Sequence<usize> {
    match comptime!(part) {
        Part::Weight => &w.output,
        _ => &w.size,
    }
}

#[cube]
impl Walk {
    /// The walk at step `d` of the sum.
    fn begin(d: usize, w: &Windows, s: &Sizes, #[comptime] part: Part) -> Walk {
        let rank = comptime!(w.input.len());
        let mut walk = Walk { left: 0, right: 0, inner: Array::<usize>::new(rank) };
        walk.jump(d, w, s, part);
        walk
    }

    /// To step `d` of the sum.
    fn jump(&mut self, d: usize, w: &Windows, s: &Sizes, #[comptime] part: Part) {
        let rank = comptime!(w.input.len());
        let lens = inner(w, part);
        let size = volume(lens);
        let (left, right) = jumps(w, s, part);
        let at = coordinates(d % size, lens);
        #[unroll]
        for i in 0..rank {
            self.inner[i] = at[i];
        }
        self.left = d / size * left + d % size;
        self.right = d / size * right;
    }

    /// One step on.
    fn advance(&mut self, w: &Windows, s: &Sizes, #[comptime] part: Part) {
        let rank = comptime!(w.input.len());
        let lens = inner(w, part);
        let mut carry = true.runtime();
        #[unroll]
        for i in 0..rank {
            let next = self.inner[i] + select(carry, 1usize, 0usize);
            carry = next == lens[comptime!(rank - 1 - i)];
            self.inner[i] = select(carry, 0usize, next);
        }
        let (left, right) = jumps(w, s, part);
        self.left += 1usize + select(carry, left - volume(lens), 0usize);
        self.right += select(carry, right, 0usize);
    }

    /// What the step adds to a column's place in dimension `d`.
    fn place(&self, w: &Windows, #[comptime] d: usize, #[comptime] part: Part) -> usize {
        let at = self.inner[comptime!(w.input.len() - 1 - d)];
        match comptime!(part) {
            Part::Output => at * w.dilation[d],
            Part::Input => 0usize - at * w.dilation[d], // wraps
            Part::Weight => at * w.stride[d],
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
fn meet(origin: &Sequence<usize>, walk: &Walk, w: &Windows, #[comptime] part: Part, #[comptime] dense: bool) -> Spot {
    let rank = comptime!(w.input.len());
    let mut at = walk.right;
    let mut stride = 1usize.runtime();
    let mut inside = true.runtime();
    #[unroll]
    for i in 0..rank {
        let d = comptime!(rank - 1 - i);
        let mut place = origin[i] + walk.place(w, d, part);
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
        at += place * stride;
        stride *= lens;
    }
    Spot { at, inside }
}

/// What one thread loads: of each sixteen steps of the sum some fours, always of the same row of the first factor or the same
/// column of the second, as a tile's sides divide the number of threads.
#[derive(CubeType)]
struct Line {
    /// Its place in the tile.
    place: usize,
    /// How many lines the tile has.
    #[cube(comptime)]
    lines: usize,
    /// Where it begins in the factor.
    base: usize,
    /// Whether there is such a row or column.
    exists: bool,
    /// Whether it is a column, and then its [`origin`].
    #[cube(comptime)]
    column: bool,
    origin: Sequence<usize>,
    /// The first four that this thread loads, and how many. A narrow tile leaves some threads without: theirs would be the fifth.
    four: usize,
    #[cube(comptime)]
    fours: usize,
    /// The next step.
    walk: Walk,
}

#[cube]
impl Line {
    /// Loads this thread's part of the sixteen steps from `start` on; beyond the last line and the end of the sum, and where there
    /// is padding, there are zeros.
    fn load<T: Numeric>(
        &mut self,
        factor: &Array<T>,
        tile: &mut SharedMemory<Four<f32>>,
        start: usize,
        end: usize,
        w: &Windows,
        s: &Sizes,
        #[comptime] part: Part,
        #[comptime] dense: bool,
    ) {
        if self.four < 4 {
            let first = start + self.four * 4;
            // A thread that loads all sixteen has walked on to the next.
            if comptime!(self.fours < 4) {
                self.walk.jump(first, w, s, part);
            }
            for i in 0..self.fours {
                let mut four = Four::<f32>::empty();
                #[unroll]
                for j in 0..4 {
                    let mut v = f32::new(0.0);
                    if first + i * 4 + j < end && self.exists {
                        if comptime!(self.column) {
                            let spot = meet(&self.origin, &self.walk, w, part, dense);
                            if spot.inside {
                                v = f32::cast_from(factor[self.base + spot.at]);
                            }
                        } else {
                            v = f32::cast_from(factor[self.base + self.walk.left]);
                        }
                    }
                    four[j] = v;
                    self.walk.advance(w, s, part);
                }
                tile[(self.four + i) * self.lines + self.place] = four;
            }
        }
    }
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
        let side = comptime!(cut.side);
        let tall = comptime!(side * cut.rows);
        let wide = comptime!(side * cut.columns);
        let mut tile_a = SharedMemory::<Four<f32>>::new(comptime!(4 * tall)); // [sum 4][row][sum 4]
        let mut tile_b = SharedMemory::<Four<f32>>::new(comptime!(4 * wide)); // [sum 4][column][sum 4]
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

        let (fours_a, fours_b) = comptime!(((4 * cut.rows).div_ceil(side), (4 * cut.columns).div_ceil(side)));
        let (my_row, four_a) = (row0 + me % tall, me / tall * fours_a);
        let mut row = Line {
            place: me % tall,
            lines: tall,
            base: match comptime!(part) {
                Part::Output => (group * s.outputs + my_row) * (s.inputs * size),
                Part::Input => (group * s.outputs * s.inputs + my_row) * size,
                Part::Weight => (group * s.outputs + my_row) * out_places,
            },
            exists: my_row < rows,
            column: false,
            origin: Sequence::new(),
            four: four_a,
            fours: fours_a,
            walk: Walk::begin(begin + 4 * four_a, &w, &s, part),
        };
        let (my_col, four_b) = (col0 + me % wide, me / wide * fours_b);
        let mut column = Line {
            place: me % wide,
            lines: wide,
            base: match comptime!(part) {
                Part::Output => (my_col / plane * (s.groups * s.inputs) + group * s.inputs) * in_places,
                Part::Input => (my_col / plane * (s.groups * s.outputs) + group * s.outputs) * out_places,
                Part::Weight => (group * s.inputs + my_col / plane) * in_places,
            },
            exists: my_col < columns,
            column: true,
            origin: origin(my_col % plane, &w, part),
            four: four_b,
            fours: fours_b,
            walk: Walk::begin(begin + 4 * four_b, &w, &s, part),
        };

        let mut sums = Array::<f32>::new(comptime!(cut.rows * cut.columns));
        #[unroll]
        for i in 0..comptime!(cut.rows * cut.columns) {
            sums[i] = f32::new(0.0);
        }
        let mut at = begin;
        while at < end {
            row.load(first, &mut tile_a, at, end, &w, &s, part, dense);
            column.load(second, &mut tile_b, at, end, &w, &s, part, dense);
            sync_cube();
            // Beyond the end of the sum both factors are 0, and adding +0·0 changes no sum.
            let fours = (min(16usize, end - at) + 3) / 4;
            for k in 0..fours {
                let mut vb = Array::<Four<f32>>::new(comptime!(cut.columns));
                #[unroll]
                for j in 0..comptime!(cut.columns) {
                    vb[j] = tile_b[k * wide + tx + comptime!(side * j)];
                }
                #[unroll]
                for i in 0..comptime!(cut.rows) {
                    let va = tile_a[k * tall + ty + comptime!(side * i)];
                    #[unroll]
                    for j in 0..comptime!(cut.columns) {
                        let b = vb[j];
                        #[unroll]
                        for l in 0..4 {
                            sums[comptime!(i * cut.columns + j)] += va[l] * b[l];
                        }
                    }
                }
            }
            sync_cube();
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
