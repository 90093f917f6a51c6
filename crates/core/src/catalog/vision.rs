//! Channels and places exchanged, pooling undone, patches, sampling by grids, diagonals and turns.

use super::{Entry, Fill, Input, input, reals, spreads};
use crate::functional::fold::PatchOptions;
use crate::functional::grid_sample::{GridSampleOptions, SampleMode, SamplePadding};
use crate::functional::pooling::PoolOptions;
use crate::functional::rearrange::GridOrder;
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = channels();
    entries.extend(unpools());
    entries.extend(patches());
    entries.push(grids());
    entries.extend(matrices());
    entries
}

fn channels() -> Vec<Entry> {
    vec![
        Entry::new("pixel_shuffle", "torch.nn.functional.pixel_shuffle", "Channels become places.")
            .one(reals(&[&[1, 8, 2, 3]]), |x| x[0].try_pixel_shuffle(2)),
        Entry::new("pixel_unshuffle", "torch.nn.functional.pixel_unshuffle", "Places become channels.")
            .one(reals(&[&[2, 4, 6]]), |x| x[0].try_pixel_unshuffle(2)),
        Entry::new("channel_shuffle", "torch.nn.functional.channel_shuffle", "Channels dealt out to groups in turn.")
            .one(reals(&[&[2, 6, 2, 2]]), |x| x[0].try_channel_shuffle(3)),
        Entry::new(
            "local_response_norm",
            "torch.nn.functional.local_response_norm",
            "Normalized by neighbouring channels.",
        )
        .one(reals(&[&[2, 5, 3]]), |x| x[0].try_local_response_norm(3, 0.3, 0.75, 1.0))
        .one(reals(&[&[1, 4, 2, 2]]), |x| x[0].try_local_response_norm(2, 0.3, 0.5, 2.0)),
    ]
}

fn unpools() -> Vec<Entry> {
    vec![
        Entry::new("max_unpool1d", "torch.nn.functional.max_unpool1d", "Values put back where they were the largest.")
            .one(spreads(&[&[2, 2, 6]]), |x| {
                let o = PoolOptions::new(2);
                let (y, at) = x[0].try_max_pool1d_with_indices(&o)?;
                y.try_max_unpool1d(&at, &o, None)
            }),
        Entry::new("max_unpool2d", "torch.nn.functional.max_unpool2d", "Values put back where they were the largest.")
            .one(spreads(&[&[2, 1, 4, 5]]), |x| {
                let o = PoolOptions::new(2);
                let (y, at) = x[0].try_max_pool2d_with_indices(&o)?;
                y.try_max_unpool2d(&at, &o, Some([4, 5].into()))
            }),
        Entry::new("max_unpool3d", "torch.nn.functional.max_unpool3d", "Values put back where they were the largest.")
            .one(spreads(&[&[1, 2, 2, 4, 2]]), |x| {
                let o = PoolOptions::new([1, 2, 2]);
                let (y, at) = x[0].try_max_pool3d_with_indices(&o)?;
                y.try_max_unpool3d(&at, &o, None)
            }),
    ]
}

fn patches() -> Vec<Entry> {
    vec![
        Entry::new("im2col", "torch.nn.functional.unfold", "The patches of an image as columns.")
            .one(reals(&[&[2, 2, 4, 3]]), |x| x[0].try_im2col(&PatchOptions::new(2)))
            .one(reals(&[&[1, 5, 5]]), |x| {
                x[0].try_im2col(&PatchOptions::new([2, 3]).stride([2, 1]).padding(1).dilation([1, 2]))
            }),
        Entry::new("col2im", "torch.nn.functional.fold", "Columns of patches summed into an image.")
            .one(reals(&[&[2, 8, 6]]), |x| x[0].try_col2im([4, 3], &PatchOptions::new(2)))
            .one(reals(&[&[4, 9]]), |x| x[0].try_col2im([4, 4], &PatchOptions::new(2).stride(2).padding(1))),
    ]
}

/// An image and a grid whose points keep away from the middles of places and from the edges.
fn image(x: &[usize], grid: &[usize]) -> Vec<Input> {
    vec![input(x, Fill::Real(-2.0, 2.0)), input(grid, Fill::Real(-1.4, 1.4))]
}

fn grids() -> Entry {
    let mut entry =
        Entry::new("grid_sample", "torch.nn.functional.grid_sample", "An image sampled at the points of a grid.");
    for padding in [SamplePadding::Zeros, SamplePadding::Border, SamplePadding::Reflection] {
        for (mode, align_corners) in
            [(SampleMode::Linear, false), (SampleMode::Cubic, true), (SampleMode::Nearest, true)]
        {
            let o = GridSampleOptions { mode, padding, align_corners };
            entry = entry.one(image(&[2, 2, 3, 4], &[2, 2, 3, 2]), move |x| {
                // The nearest place has no slope; the grid's gradient is 0 there, and stays in the graph.
                Ok(x[0].try_grid_sample(&x[1], &o)? + (&x[1] * 0.0).try_sum()?)
            });
        }
    }
    let o = GridSampleOptions { align_corners: true, ..GridSampleOptions::default() };
    entry.one(image(&[1, 2, 2, 3, 2], &[1, 2, 1, 2, 3]), move |x| x[0].try_grid_sample(&x[1], &o))
}

fn matrices() -> Vec<Entry> {
    vec![
        Entry::new("diag", "torch.diag", "A vector as a diagonal, or a matrix's diagonal.")
            .one(reals(&[&[3]]), |x| x[0].try_diag(-1))
            .one(reals(&[&[3, 4]]), |x| x[0].try_diag(1)),
        Entry::new("diag_embed", "torch.diag_embed", "Vectors as diagonals of matrices.")
            .one(reals(&[&[2, 3]]), |x| x[0].try_diag_embed(0, -2, -1))
            .one(reals(&[&[2, 3]]), |x| x[0].try_diag_embed(1, 0, 2)),
        Entry::new("rot90", "torch.rot90", "Turned by quarters.")
            .one(reals(&[&[2, 3]]), |x| x[0].try_rot90(1, 0, 1))
            .one(reals(&[&[2, 3, 2]]), |x| x[0].try_rot90(-1, 1, 2))
            .one(reals(&[&[2, 3]]), |x| x[0].try_rot90(2, 1, 0)),
        Entry::new("meshgrid", "torch.meshgrid", "Vectors stretched to the grid of all of them.")
            .case(reals(&[&[3], &[2]]), |x| Tensor::try_meshgrid(&[&x[0], &x[1]], GridOrder::Matrix))
            .case(reals(&[&[3], &[2], &[2]]), |x| Tensor::try_meshgrid(&[&x[0], &x[1], &x[2]], GridOrder::Cartesian)),
    ]
}
