//! Convolutions of any type, groups and number of dimensions: matrix products that read shifted images.
//!
//! An image is copied into [`planes`](super::planes), in which each tap of all windows is the image shifted by a constant; [`tiles`](super::tiles) then holds the
//! inner loops of a matrix product that reads it there. The transposed convolution is a convolution for each remainder of the
//! stride ([`phases`](super::phases)). Work is cut by images (and, for the weight's gradient, output channels) whatever the number of threads; sums over
//! images are added in a fixed order.

use super::epilogue::Epilogue;
use super::phases::{Phase, Phases};
use super::planes::{Planes, Vectors, copy_planes, copy_vectors};
use super::tiles::{Correlation, PACK, Product, SLACK, correlations, products};
use super::unravel;
use crate::dense::Dense;
use crate::elementwise::finish;
use crate::launch::{Out, launch, storage};
use crate::memory::CpuStorage;
use crate::pool::trailing;
use crate::reduce::Shared;
use crate::room::with_room;
use crate::threads::for_chunks;
use crate::vector::{Real, lanes};
use gradus_core::Result;
use gradus_core::backend::View;
use gradus_core::composite::Fused;
use gradus_core::functional::conv::Conv;
use gradus_core::functional::window::Window;
use smallvec::smallvec;

/// The same convolution with its last dimension in the last place, where planes have their rows.
fn in_rows(conv: &Conv) -> Conv {
    Conv { window: trailing(&conv.window), ..*conv }
}

/// The lengths that a kernel's loops are made of.
#[derive(Clone, Copy)]
struct Sizes {
    images: usize,
    groups: usize,
    /// Channels of x in a group.
    channels: usize,
    /// Channels of y in a group.
    outs: usize,
    /// Places of a channel of x.
    x_channel: usize,
    /// Places of a channel of y.
    y_channel: usize,
    /// Taps of one channel.
    taps: usize,
}

impl Sizes {
    fn new(conv: &Conv, images: usize, channels: usize, outs: usize) -> Sizes {
        let (w, groups) = (&conv.window, conv.groups);
        let (x_channel, y_channel) = (w.input.iter().product(), w.windows());
        Sizes {
            images,
            groups,
            channels: channels / groups,
            outs: outs / groups,
            x_channel,
            y_channel,
            taps: w.places(),
        }
    }
    /// An estimate of the time that one image takes, in nanoseconds.
    fn work(&self) -> usize {
        self.groups * self.outs * self.y_channel / 50 * self.channels * self.taps
    }
}

/// One pass of products over an image: forward has one, the transposed convolution one for each remainder of the stride.
struct Pass {
    /// Each input channel's taps, one channel after another.
    taps: Vec<usize>,
    /// The same taps' places among the weight's taps.
    weights: Vec<usize>,
    windows: Vectors,
    /// Where its packed weights begin.
    packed: usize,
}

/// A convolution as passes over planes.
struct Plan {
    planes: Planes,
    passes: Vec<Pass>,
    groups: usize,
    /// Channels read and written, in a group.
    reads: usize,
    writes: usize,
    in_channel: usize,
    out_channel: usize,
    /// How far apart, among the weights, the channels read and written are.
    read_step: usize,
    write_step: usize,
    /// Places of the results that no pass reaches are there.
    leaves_gaps: bool,
}

impl Plan {
    /// y from x.
    fn forward(w: &Window, s: &Sizes, lanes: usize) -> Plan {
        let padded = std::array::from_fn(|d| (w.output[d] - 1) * w.stride[d] + w.span(d));
        let at: [Vec<usize>; 3] = std::array::from_fn(|d| (0..w.size[d]).map(|k| k * w.dilation[d]).collect());
        let planes = Planes::new(w.input, w.before, padded, w.stride, [&at[0], &at[1], &at[2]]);
        let tap = |k: usize| {
            let k = unravel(k, w.size);
            planes.shifted(std::array::from_fn(|d| k[d] * w.dilation[d]))
        };
        let steps = [w.output[1] * w.output[2], w.output[2], 1];
        let pass = Pass {
            taps: taps(&planes, s.channels, (0..s.taps).map(tap)),
            windows: Vectors::over(&planes, [0; 3], w.output, lanes, 0, steps),
            weights: (0..s.taps).collect(),
            packed: 0,
        };
        Plan {
            planes,
            passes: vec![pass],
            groups: s.groups,
            reads: s.channels,
            writes: s.outs,
            in_channel: s.x_channel,
            out_channel: s.y_channel,
            read_step: s.taps,
            write_step: s.channels * s.taps,
            leaves_gaps: false,
        }
    }

    /// x from y.
    fn transposed(w: &Window, s: &Sizes, lanes: usize) -> Plan {
        let Phases { all, reach, padded, leaves_gaps } = Phases::new(w);
        let planes = Planes::new(w.output, reach, padded, [1; 3], [&[0]; 3]);
        let row = [w.input[1] * w.input[2], w.input[2], 1];
        let steps = std::array::from_fn(|d| row[d] * w.stride[d]);
        let mut packed = 0;
        let pass = |phase: Phase| {
            let start = (0..3).map(|d| phase.at[d] * row[d]).sum();
            let pass = Pass {
                taps: taps(&planes, s.outs, phase.starts.iter().map(|&at| planes.place(at))),
                windows: Vectors::over(&planes, phase.first, phase.count, lanes, start, steps),
                packed,
                weights: phase.taps,
            };
            packed += pass.taps.len() * s.groups * s.channels.next_multiple_of(PACK);
            pass
        };
        let passes = all.into_iter().map(pass).collect();
        Plan {
            planes,
            passes,
            groups: s.groups,
            reads: s.outs,
            writes: s.channels,
            in_channel: s.y_channel,
            out_channel: s.x_channel,
            read_step: s.channels * s.taps,
            write_step: s.taps,
            leaves_gaps,
        }
    }

    /// Numbers of all packed weights.
    fn packed(&self) -> usize {
        self.passes.iter().map(|p| p.taps.len() * self.groups * self.writes.next_multiple_of(PACK)).sum()
    }

    /// The weights of each group and block of [`PACK`] written channels, tap by tap; zeros for channels beyond the last.
    fn pack<T: Real>(&self, w: &[T], out: &Out<T>) {
        let blocks = self.writes.div_ceil(PACK);
        for pass in &self.passes {
            let block = pass.taps.len() * PACK;
            for_chunks(self.groups * blocks, self.packed(), |i| {
                let (group, first) = (i / blocks, i % blocks * PACK);
                let w = &w[group * self.reads * self.writes * self.read_step.min(self.write_step)..];
                let out = out.part(pass.packed + i * block, block);
                for (t, out) in out.chunks_exact_mut(PACK).enumerate() {
                    let at = t / pass.weights.len() * self.read_step + pass.weights[t % pass.weights.len()];
                    for (c, out) in out.iter_mut().enumerate() {
                        *out = if first + c < self.writes { w[at + (first + c) * self.write_step] } else { T::ZERO };
                    }
                }
            });
        }
    }

    /// Writes one image's results: of several groups, all channels; of one, those of some blocks of [`PACK`].
    fn run<T: Real>(&self, image: &[T], packed: &[T], bias: &[T], out: &mut [T], blocks: std::ops::Range<usize>) {
        let (from, to) = (blocks.start * PACK, (blocks.end * PACK).min(self.writes));
        let room = self.reads * self.planes.channel();
        with_room(room + SLACK, |x| {
            for group in 0..self.groups {
                let channels = &image[group * self.reads * self.in_channel..][..self.reads * self.in_channel];
                // SAFETY: `room` is as many channels as `reads`, and `SLACK` more follow.
                unsafe { copy_planes(&self.planes, channels, x) };
                x[room..].fill(T::ZERO);
                let out = &mut out[group * self.writes * self.out_channel..][..(to - from) * self.out_channel];
                let bias = if bias.is_empty() { bias } else { &bias[group * self.writes + from..] };
                if self.leaves_gaps {
                    for (c, out) in out.chunks_exact_mut(self.out_channel).enumerate() {
                        out.fill(bias.get(c).copied().unwrap_or(T::ZERO));
                    }
                }
                for pass in &self.passes {
                    let block = pass.taps.len() * PACK;
                    let weights = &packed[pass.packed + (group * self.writes.div_ceil(PACK) + blocks.start) * block..];
                    let p = Product {
                        weights,
                        taps: &pass.taps,
                        x,
                        windows: &pass.windows,
                        bias,
                        rows: to - from,
                        out_channel: self.out_channel,
                    };
                    // SAFETY: the planes were made for these windows and taps; `out` holds the channels written, alone.
                    unsafe { products(p, out.as_mut_ptr()) }
                }
            }
        });
    }
}

/// Each channel's taps, from a window's place.
fn taps(planes: &Planes, channels: usize, at: impl Iterator<Item = usize> + Clone) -> Vec<usize> {
    (0..channels).flat_map(|c| at.clone().map(move |at| c * planes.channel() + at)).collect()
}

/// y from x.
pub(super) fn forward<T: Real>(conv: &Conv, x: &[View<'_>], then: Epilogue<T>) -> Result<Fused> {
    let conv = in_rows(conv);
    let s = Sizes::new(&conv, x[0].shape()[0], x[0].shape()[1], x[1].shape()[0]);
    convolve::<T>(x, s, Plan::forward(&conv.window, &s, lanes::<T>()), then)
}

/// x from y.
pub(super) fn transposed<T: Real>(conv: &Conv, x: &[View<'_>], then: Epilogue<T>) -> Result<Fused> {
    let conv = in_rows(conv);
    let s = Sizes::new(&conv, x[0].shape()[0], x[1].shape()[1] * conv.groups, x[1].shape()[0]);
    convolve::<T>(x, s, Plan::transposed(&conv.window, &s, lanes::<T>()), then)
}

fn convolve<T: Real>(x: &[View<'_>], s: Sizes, plan: Plan, then: Epilogue<T>) -> Result<Fused> {
    let (size, image, result) =
        (size_of::<T>(), plan.groups * plan.reads * plan.in_channel, plan.groups * plan.writes * plan.out_channel);
    let (to, room) = (CpuStorage::new(s.images * result * size)?, CpuStorage::new(plan.packed() * size)?);
    let (out, packed) = (Out::<T>::of(&to), Out::<T>::of(&room));
    let inputs = Dense::<T>::all(x)?;
    let reads = x.iter().map(|v| storage(v.buffer)).collect::<Result<Vec<_>>>()?;
    // Few images are cut into blocks of output channels, too.
    let blocks = plan.writes.div_ceil(PACK);
    let cuts = if plan.groups == 1 { blocks.min(8usize.div_ceil(s.images)) } else { 1 };
    launch(&reads, &[&to, &room], move || {
        plan.pack(inputs[1].slice(), &packed);
        let bias = inputs.get(2).map_or(&[][..], |b| b.slice());
        for_chunks(s.images * cuts, s.work() * s.images, |i| {
            let (n, cut) = (i / cuts, i % cuts);
            let range = blocks * cut / cuts..blocks * (cut + 1) / cuts;
            let len = (range.len() * PACK).min(plan.writes - range.start * PACK) * plan.out_channel * plan.groups;
            let out = out.part(n * result + range.start * PACK * plan.out_channel, len);
            plan.run(&inputs[0].slice()[n * image..][..image], packed.slice(), bias, out, range);
            then.finish(out);
        });
    });
    Ok(Fused::one(finish(to)?))
}

/// The gradients of the taps, and of the bias.
pub(super) fn weight_grad<T: Real>(conv: &Conv, bias: bool, x: &[View<'_>]) -> Result<Fused> {
    let conv = in_rows(conv);
    let s = Sizes::new(&conv, x[0].shape()[0], x[0].shape()[1], x[1].shape()[1]);
    let plan = Plan::forward(&conv.window, &s, lanes::<T>());
    let size = size_of::<T>();
    let (weights, outs) = (s.groups * s.outs * s.channels * s.taps, s.groups * s.outs);
    let (tw, tb) = (CpuStorage::new(weights * size)?, CpuStorage::new(outs * size)?);
    let inputs = [Dense::<T>::of(x[0])?, Dense::<T>::of(x[1])?];
    let (dw, db) = (Out::<T>::of(&tw), Out::<T>::of(&tb));
    // Output channels in blocks; where these are few, images in parts as well, whose sums are added in order.
    let block = 32usize;
    let blocks = s.outs.div_ceil(block);
    let parts = (8 / (s.groups * blocks)).clamp(1, s.images);
    let sums = CpuStorage::new(parts * (weights + outs) * size)?;
    let partial = Out::<T>::of(&sums);
    launch(&[storage(x[0].buffer)?, storage(x[1].buffer)?], &[&tw, &tb, &sums], move || {
        let chunks = s.groups * blocks * parts;
        for_chunks(chunks, s.work() * s.images, |i| {
            let (part, group, first) = (i / (s.groups * blocks), i / blocks % s.groups, i % blocks * block);
            let rows = block.min(s.outs - first);
            let images = s.images * part / parts..s.images * (part + 1) / parts;
            let channel = group * s.outs + first;
            let at = part * (weights + outs);
            let dw = partial.part(at + channel * s.channels * s.taps, rows * s.channels * s.taps);
            let db = partial.part(at + weights + channel, rows);
            correlate_part(&plan, &s, inputs[0].slice(), inputs[1].slice(), images, group, first, rows, dw, db);
        });
        let sums = Shared::of(partial.slice());
        for (out, first, len) in [(&dw, 0, weights), (&db, weights, outs)] {
            crate::threads::for_ranges(len, 1 << 14, 200 * parts, |start, n| {
                let out = out.part(start, n);
                out.copy_from_slice(sums.part(first + start, n));
                for part in 1..parts {
                    let more = sums.part(part * (weights + outs) + first + start, n);
                    out.iter_mut().zip(more).for_each(|(o, x)| *o = *o + *x);
                }
            });
        }
    });
    let mut outputs = smallvec![finish(tw)?];
    if bias {
        outputs.push(finish(tb)?);
    }
    Ok(Fused { outputs, ..Fused::default() })
}

/// The weight's and bias's gradients of some output channels of a group, from some images.
fn correlate_part<T: Real>(
    plan: &Plan,
    s: &Sizes,
    x: &[T],
    g: &[T],
    images: std::ops::Range<usize>,
    group: usize,
    first: usize,
    rows: usize,
    dw: &mut [T],
    db: &mut [T],
) {
    let (windows, lanes) = (&plan.passes[0].windows, lanes::<T>());
    let (x_image, g_channel) = (s.channels * plan.planes.channel(), windows.starts.len() * lanes);
    let g_image = rows * g_channel;
    // As many images at a time as stay in the second cache.
    let batch = ((384 << 10) / (size_of::<T>() * (x_image + g_image))).clamp(1, images.len().max(1));
    dw.fill(T::ZERO);
    db.fill(T::ZERO);
    with_room(batch * (x_image + g_image) + SLACK, |room| {
        let (xs, gs) = room.split_at_mut(batch * x_image + SLACK);
        for start in images.clone().step_by(batch) {
            let count = batch.min(images.end - start);
            for i in 0..count {
                let channel = ((start + i) * s.groups + group) * s.channels;
                let from = &x[channel * s.x_channel..][..s.channels * s.x_channel];
                // SAFETY: `x_image` is as many channels, and `SLACK` more follow.
                unsafe { copy_planes(&plan.planes, from, &mut xs[i * x_image..]) };
                let channel = ((start + i) * s.groups + group) * s.outs + first;
                for r in 0..rows {
                    let to = &mut gs[i * g_image + r * g_channel..][..g_channel];
                    // SAFETY: the channel holds every window, and `to` was made for as many vectors.
                    unsafe { copy_vectors(windows, &g[(channel + r) * s.y_channel..][..s.y_channel], to) };
                    db[r] = db[r] + total(to);
                }
            }
            xs[count * x_image..][..SLACK].fill(T::ZERO);
            let c = Correlation {
                g: gs,
                x: xs,
                taps: &plan.passes[0].taps,
                starts: &windows.starts,
                images: count,
                x_image,
                g_image,
                rows,
            };
            // SAFETY: the planes were made for these windows and taps; `dw` holds `rows` times as many numbers as taps.
            unsafe { correlations(c, dw.as_mut_ptr()) }
        }
    });
}

crate::simd::vectorized! {
    fn total<T: Real>(x: &[T]) -> T {
        crate::lanes::sums([x], |[x]| [x])[0]
    }
}
