//! Max pooling undone in part: each value goes back to the place it was the largest of.

use super::pooling::PoolOptions;
use super::window::{PerDim, batched, spatial};
use crate::error::{Error, Result};
use crate::tensor::Tensor;

/// The spatial lengths that windows with these options came from: (L − 1)·stride − 2·padding + kernel, unless others are
/// asked for, which must be less than a stride away.
fn lengths(input: [usize; 3], options: &PoolOptions, output: Option<PerDim>, rank: usize) -> Result<[usize; 3]> {
    let size = options.kernel.lens("the kernel", rank, 1)?;
    let stride = options.stride.unwrap_or(options.kernel).lens("the stride", rank, 1)?;
    let padding = options.padding.lens("the padding", rank, 0)?;
    let wanted = output.map(|o| o.lens("the output size", rank, 1)).transpose()?;
    let mut lens = [1; 3];
    for d in 0..rank {
        let reach = input[d].saturating_sub(1).checked_mul(stride[d]).and_then(|n| n.checked_add(size[d]));
        let padded = padding[d].checked_mul(2);
        let natural = reach.zip(padded).and_then(|(n, p)| n.checked_sub(p)).filter(|&n| n > 0);
        let natural = natural.ok_or_else(|| {
            Error::misuse(format!("spatial dimension {d} of length {} gives a result without places", input[d]))
        })?;
        lens[d] = match wanted {
            Some(w) if w[d].abs_diff(natural) < stride[d] => w[d],
            Some(w) => {
                return Err(Error::misuse(format!(
                    "an output of {} places in spatial dimension {d} is not less than a stride of {} from {natural}",
                    w[d], stride[d]
                )));
            }
            None => natural,
        };
    }
    Ok(lens)
}

#[track_caller]
fn unpool(x: &Tensor, at: &Tensor, options: &PoolOptions, output: Option<PerDim>, rank: usize) -> Result<Tensor> {
    let named = |e: Error| e.in_op("max_unpool", [(x.dtype(), *x.shape()), (at.dtype(), *at.shape())]);
    if at.shape() != x.shape() || !at.dtype().is_int() {
        return Err(named(Error::misuse(format!("the places must be integers of shape {}", x.shape()))));
    }
    let (batch, had_batch) = batched(x, rank, "max_unpool")?;
    let lens = lengths(spatial(batch.shape()), options, output, rank).map_err(named)?;
    let (n, c) = (batch.dims()[0], batch.dims()[1]);
    let windows = spatial(batch.shape()).iter().product::<usize>();
    let places = lens.iter().try_fold(1usize, |n, &l| n.checked_mul(l));
    let places = places.ok_or_else(|| named(Error::misuse(format!("an output of {lens:?} places is too large"))))?;
    let zeros = Tensor::try_zeros([n, c, places], x.place())?;
    let at = at.try_reshape([n, c, windows])?;
    let y = zeros.try_scatter(2, &at, &batch.try_reshape([n, c, windows])?)?;
    y.try_reshape(if had_batch { [&[n, c], &lens[..rank]].concat() } else { [&[c], &lens[..rank]].concat() })
}

macro_rules! unpools {
    ($($rank:literal: $name:ident | $try_name:ident, $pool:ident;)*) => {
        impl Tensor {
            crate::fallible! {$(
                #[doc = concat!("Zeros, with each value in the place that `at` names, as [`", stringify!($pool), "_with_indices`](Self::", stringify!($pool), "_with_indices) gave it (counted row-major over the spatial dimensions). `output` gives the spatial lengths where rounding lost them. ∂: g at those places. In PyTorch: `torch.nn.functional.", stringify!($name), "`.")]
                pub fn $name | $try_name(&self, at: &Tensor, options: &PoolOptions, output: Option<PerDim>) -> Tensor {
                    unpool(self, at, options, output, $rank)
                }
            )*}
        }
    };
}
unpools! {
    1: max_unpool1d | try_max_unpool1d, max_pool1d;
    2: max_unpool2d | try_max_unpool2d, max_pool2d;
    3: max_unpool3d | try_max_unpool3d, max_pool3d;
}
