//! Convolution, pooling, normalization, attention, interpolation and losses.

use super::{Outcome, no_word, one};
use gradus_core::functional::attention::AttentionOptions;
use gradus_core::functional::convolution::ConvOptions;
use gradus_core::functional::fold::PatchOptions;
use gradus_core::functional::grid_sample::{GridSampleOptions, SampleMode, SamplePadding};
use gradus_core::functional::interpolate::{InterpolateMode, InterpolateOptions};
use gradus_core::functional::pooling::PoolOptions;
use gradus_core::functional::window::PerDim;
use gradus_core::ops::BinaryOp;
use gradus_core::{Error, Result, Tensor};
use gradus_tests::golden::{Call, NOT_COMPARED, UNTYPABLE};

pub(super) fn run(name: &str, c: &Call<'_>) -> Outcome {
    let name = name.strip_prefix("nn.functional.")?;
    convolution(name, c).or_else(|| pooling(name, c)).or_else(|| normalization(name, c)).or_else(|| other(name, c))
}

fn convolution(name: &str, c: &Call<'_>) -> Outcome {
    let (transposed, rank) = match name {
        "conv1d" => (false, 1),
        "conv2d" => (false, 2),
        "conv3d" => (false, 3),
        "conv_transpose1d" => (true, 1),
        "conv_transpose2d" => (true, 2),
        "conv_transpose3d" => (true, 3),
        _ => return None,
    };
    let run = || {
        let (x, w, b) = (c.x(0)?, c.x(1)?, c.tensor(2, "bias")?);
        let lens = |i, name| c.lens(i, name);
        let mut o = ConvOptions::default();
        if let Some(s) = lens(3, "stride")? {
            o = o.stride(&s[..]);
        }
        o = match c.word(4, "padding") {
            Some("same") => o.same(),
            Some("valid") => o,
            Some(word) => return Err(Error::misuse(format!("no padding is called {word}"))),
            None => lens(4, "padding")?.map_or(o, |p| o.padding(&p[..])),
        };
        let (groups, dilation) = if transposed { (6, 7) } else { (6, 5) };
        if let Some(d) = lens(dilation, "dilation")? {
            o = o.dilation(&d[..]);
        }
        o = o.groups(c.len(groups, "groups")?.unwrap_or(1));
        if transposed && let Some(p) = lens(5, "output_padding")? {
            o = o.output_padding(&p[..]);
        }
        let b = b.as_ref();
        match (transposed, rank) {
            (false, 1) => x.try_conv1d(&w, b, &o),
            (false, 2) => x.try_conv2d(&w, b, &o),
            (false, _) => x.try_conv3d(&w, b, &o),
            (true, 1) => x.try_conv_transpose1d(&w, b, &o),
            (true, 2) => x.try_conv_transpose2d(&w, b, &o),
            (true, _) => x.try_conv_transpose3d(&w, b, &o),
        }
    };
    one(run())
}

fn pool_options(c: &Call<'_>) -> Result<PoolOptions> {
    let lens = |i, name| Ok::<_, Error>(c.lens(i, name)?.filter(|l| !l.is_empty()));
    let kernel = lens(1, "kernel_size")?.ok_or_else(|| Error::misuse("no kernel size"))?;
    let mut o = PoolOptions::new(&kernel[..]);
    if let Some(s) = lens(2, "stride")? {
        o = o.stride(&s[..]);
    }
    if let Some(p) = lens(3, "padding")? {
        o = o.padding(&p[..]);
    }
    Ok(o)
}

fn pooling(name: &str, c: &Call<'_>) -> Outcome {
    if let Some(adaptive) = name.strip_prefix("adaptive_") {
        return Some(adaptive_pooling(adaptive, c));
    }
    let rank = name.strip_prefix("avg_pool").or(name.strip_prefix("max_pool"))?.chars().next()?.to_digit(10)?;
    let avg = || {
        let o = pool_options(c)?.ceil_mode(c.flag(4, "ceil_mode", false)).count_include_pad(c.flag(
            5,
            "count_include_pad",
            true,
        ));
        let o = c.int(6, "divisor_override")?.map_or(o, |by| o.divisor(by as i64));
        let x = c.x(0)?;
        Ok(vec![match rank {
            1 => x.try_avg_pool1d(&o)?,
            2 => x.try_avg_pool2d(&o)?,
            _ => x.try_avg_pool3d(&o)?,
        }])
    };
    let max = || {
        let mut o = pool_options(c)?.ceil_mode(c.flag(5, "ceil_mode", false));
        if let Some(d) = c.lens(4, "dilation")? {
            o = o.dilation(&d[..]);
        }
        let x = c.x(0)?;
        let (y, at) = match rank {
            1 => x.try_max_pool1d_with_indices(&o)?,
            2 => x.try_max_pool2d_with_indices(&o)?,
            _ => x.try_max_pool3d_with_indices(&o)?,
        };
        Ok(if c.flag(6, "return_indices", false) { vec![y, at] } else { vec![y] })
    };
    Some(if name.starts_with("avg") { avg() } else { max() })
}

fn adaptive_pooling(name: &str, c: &Call<'_>) -> Result<Vec<Tensor>> {
    let x = c.x(0)?;
    let rank = name.chars().find_map(|d| d.to_digit(10)).unwrap_or(1) as usize;
    let v = c.arg(1, "output_size");
    // `None` keeps a length.
    let lens: Vec<usize> = match gradus_tests::golden::items(v) {
        Some(items) => {
            let first = x.rank().checked_sub(rank).ok_or_else(|| Error::misuse("too few dimensions"))?;
            items
                .iter()
                .enumerate()
                .map(|(i, n)| match n.as_i64() {
                    None => Ok(x.dims().get(first + i).copied().unwrap_or(0)),
                    Some(n) => usize::try_from(n).map_err(|_| Error::misuse(format!("{UNTYPABLE}: a length of {n}"))),
                })
                .collect::<Result<_>>()?
        }
        None => c.lens(1, "output_size")?.unwrap_or_default(),
    };
    let n = &lens[..];
    let indices = c.flag(2, "return_indices", false);
    let with = |(y, at): (Tensor, Tensor)| if indices { vec![y, at] } else { vec![y] };
    Ok(match name {
        "avg_pool1d" => vec![x.try_adaptive_avg_pool1d(n)?],
        "avg_pool2d" => vec![x.try_adaptive_avg_pool2d(n)?],
        "avg_pool3d" => vec![x.try_adaptive_avg_pool3d(n)?],
        "max_pool1d" => with(x.try_adaptive_max_pool1d(n)?),
        "max_pool2d" => with(x.try_adaptive_max_pool2d(n)?),
        _ => with(x.try_adaptive_max_pool3d(n)?),
    })
}

fn normalization(name: &str, c: &Call<'_>) -> Outcome {
    let eps = |i| Ok::<_, Error>(c.number(i, "eps")?.unwrap_or(1e-5));
    one(match name {
        "layer_norm" => c.x(0).and_then(|x| {
            let shape = c.lens(1, "normalized_shape")?.unwrap_or_default();
            x.try_layer_norm(&shape, c.tensor(2, "weight")?.as_ref(), c.tensor(3, "bias")?.as_ref(), eps(4)?)
        }),
        "rms_norm" => c.x(0).and_then(|x| {
            let shape = c.lens(1, "normalized_shape")?.unwrap_or_default();
            x.try_rms_norm(&shape, c.tensor(2, "weight")?.as_ref(), c.number(3, "eps")?)
        }),
        "group_norm" => c.x(0).and_then(|x| {
            let groups = c.len(1, "num_groups")?.unwrap_or(0);
            x.try_group_norm(groups, c.tensor(2, "weight")?.as_ref(), c.tensor(3, "bias")?.as_ref(), eps(4)?)
        }),
        "batch_norm" => batch_norm(c),
        "instance_norm" => instance_norm(c),
        "local_response_norm" => c.x(0).and_then(|x| {
            let number = |i, name, default: f64| Ok::<_, Error>(c.number(i, name)?.unwrap_or(default));
            let (size, alpha) = (c.len(1, "size")?.unwrap_or(0), number(2, "alpha", 1e-4)?);
            x.try_local_response_norm(size, alpha, number(3, "beta", 0.75)?, number(4, "k", 1.0)?)
        }),
        _ => return None,
    })
}

fn batch_norm(c: &Call<'_>) -> Result<Tensor> {
    let x = c.x(0)?;
    let (mean, var) = (c.tensor(1, "running_mean")?, c.tensor(2, "running_var")?);
    let (w, b) = (c.tensor(3, "weight")?, c.tensor(4, "bias")?);
    let (momentum, eps) = (c.number(6, "momentum")?.unwrap_or(0.1), c.number(7, "eps")?.unwrap_or(1e-5));
    if !c.flag(5, "training", false) {
        let (Some(mean), Some(var)) = (mean, var) else { return Err(Error::misuse("needs running statistics")) };
        return x.try_batch_norm(&mean, &var, w.as_ref(), b.as_ref(), eps);
    }
    if x.elements() == 0 {
        // Nothing to learn statistics from.
        return x.try_batch_norm(&x, &x, w.as_ref(), b.as_ref(), eps);
    }
    let (y, m, v) = x.try_batch_norm_train(w.as_ref(), b.as_ref(), eps)?;
    let n = x.elements() as f64 / x.dims()[1] as f64;
    let mix = |old: Tensor, new: Tensor| old.detach().try_lerp(&new.detach(), momentum);
    if let (Some(mean), Some(var)) = (mean, var) {
        c.replace(1, "running_mean", mix(mean, m)?);
        c.replace(2, "running_var", mix(var, v.try_binary_scalar(BinaryOp::Mul, n / (n - 1.0))?)?);
    }
    Ok(y)
}

/// Each image and channel by itself: batch normalization with a batch of one for each.
fn instance_norm(c: &Call<'_>) -> Result<Tensor> {
    let x = c.x(0)?;
    let (mean, var) = (c.tensor(1, "running_mean")?, c.tensor(2, "running_var")?);
    let (w, b) = (c.tensor(3, "weight")?, c.tensor(4, "bias")?);
    let (momentum, eps) = (c.number(6, "momentum")?.unwrap_or(0.1), c.number(7, "eps")?.unwrap_or(1e-5));
    if !c.flag(5, "use_input_stats", true) {
        let (Some(mean), Some(var)) = (mean, var) else { return Err(Error::misuse("needs running statistics")) };
        return x.try_batch_norm(&mean, &var, w.as_ref(), b.as_ref(), eps);
    }
    if let (Some(mean), Some(var)) = (mean, var) {
        let dims: Vec<isize> = (2..x.rank() as isize).collect();
        let each = x.detach();
        let m = each.try_mean_dims(&dims, false)?.try_mean_dims(&[0], false)?;
        let v = each.try_var(&dims, 1.0, false)?.try_mean_dims(&[0], false)?;
        c.replace(1, "running_mean", mean.detach().try_lerp(&m, momentum)?);
        c.replace(2, "running_var", var.detach().try_lerp(&v, momentum)?);
    }
    x.try_instance_norm(w.as_ref(), b.as_ref(), eps)
}

fn max_unpool(name: &str, c: &Call<'_>) -> Result<Tensor> {
    let (x, at) = (c.x(0)?, c.x(1)?);
    let lens = |i, name| Ok::<_, Error>(c.lens(i, name)?.filter(|l| !l.is_empty()));
    let kernel = lens(2, "kernel_size")?.ok_or_else(|| Error::misuse("no kernel size"))?;
    let mut o = PoolOptions::new(&kernel[..]);
    o = lens(3, "stride")?.map_or(o, |s| o.stride(&s[..]));
    o = lens(4, "padding")?.map_or(o, |p| o.padding(&p[..]));
    let rank = name.chars().find_map(|d| d.to_digit(10)).unwrap_or(1) as usize;
    // The whole shape, or the spatial lengths.
    let output = lens(5, "output_size")?.map(|s| PerDim::from(&s[s.len().saturating_sub(rank)..]));
    match rank {
        1 => x.try_max_unpool1d(&at, &o, output),
        2 => x.try_max_unpool2d(&at, &o, output),
        _ => x.try_max_unpool3d(&at, &o, output),
    }
}

fn grid_sample(c: &Call<'_>) -> Result<Tensor> {
    let options = GridSampleOptions {
        mode: match c.word(2, "mode") {
            None | Some("bilinear") => SampleMode::Linear,
            Some("nearest") => SampleMode::Nearest,
            Some("bicubic") => SampleMode::Cubic,
            word => return no_word("mode", word),
        },
        padding: match c.word(3, "padding_mode") {
            None | Some("zeros") => SamplePadding::Zeros,
            Some("border") => SamplePadding::Border,
            Some("reflection") => SamplePadding::Reflection,
            word => return no_word("padding", word),
        },
        align_corners: c.flag(4, "align_corners", false),
    };
    c.x(0)?.try_grid_sample(&c.x(1)?, &options)
}

fn other(name: &str, c: &Call<'_>) -> Outcome {
    one(match name {
        "scaled_dot_product_attention" => c.x(0).and_then(|q| {
            if c.number(4, "dropout_p")?.is_some_and(|p| p > 0.0) {
                return Err(Error::misuse(format!("{NOT_COMPARED}: the mask is a draw of PyTorch's generator")));
            }
            let mut o =
                if c.flag(5, "is_causal", false) { AttentionOptions::causal() } else { AttentionOptions::default() };
            if let Some(mask) = c.tensor(3, "attn_mask")? {
                o = o.mask(&mask);
            }
            if let Some(scale) = c.number(9, "scale")? {
                o = o.scale(scale);
            }
            if c.flag(9, "enable_gqa", false) {
                o = o.grouped();
            }
            q.try_attention(&c.x(1)?, &c.x(2)?, &o)
        }),
        "pixel_shuffle" => c.x(0).and_then(|x| x.try_pixel_shuffle(c.len(1, "upscale_factor")?.unwrap_or(0))),
        "pixel_unshuffle" => c.x(0).and_then(|x| x.try_pixel_unshuffle(c.len(1, "downscale_factor")?.unwrap_or(0))),
        "channel_shuffle" => c.x(0).and_then(|x| x.try_channel_shuffle(c.len(1, "groups")?.unwrap_or(0))),
        "max_unpool1d" | "max_unpool2d" | "max_unpool3d" => max_unpool(name, c),
        "grid_sample" => grid_sample(c),
        "unfold" => c.x(0).and_then(|x| {
            let kernel = c.lens(1, "kernel_size")?.ok_or_else(|| Error::misuse("no kernel size"))?;
            let mut o = PatchOptions::new(&kernel[..]);
            o = c.lens(2, "dilation")?.map_or(o, |n| o.dilation(&n[..]));
            o = c.lens(3, "padding")?.map_or(o, |n| o.padding(&n[..]));
            x.try_im2col(&c.lens(4, "stride")?.map_or(o, |n| o.stride(&n[..])))
        }),
        n if n.starts_with("interpolate.") => c.x(0).and_then(|x| {
            let mode = match &n[12..] {
                "nearest" => InterpolateMode::Nearest,
                "area" => InterpolateMode::Area,
                "bicubic" => InterpolateMode::Cubic,
                _ => InterpolateMode::Linear,
            };
            let o = InterpolateOptions::new(mode).align_corners(c.flag(9, "align_corners", false));
            match c.lens(1, "size")? {
                Some(size) => x.try_interpolate(&size[..], &o),
                // The sizes first, and the scale from them.
                None if c.flag(9, "recompute_scale_factor", false) => {
                    let factor = c.number(9, "scale_factor")?.unwrap_or(1.0);
                    let size: Vec<usize> =
                        x.dims().iter().skip(2).map(|&n| (n as f64 * factor).floor() as usize).collect();
                    x.try_interpolate(&size[..], &o)
                }
                None => x.try_interpolate_by(c.number(9, "scale_factor")?.unwrap_or(1.0), &o),
            }
        }),
        _ => return None,
    })
}
