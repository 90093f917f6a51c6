//! Convolutions, pools and paddings.

use super::{Outcome, init, one};
use gradus_core::functional::pooling::PoolOptions;
use gradus_core::functional::window::PerDim;
use gradus_core::{Error, Result};
use gradus_nn::*;
use gradus_tests::golden_modules::{Arguments, Built, called, layer};

pub(super) fn build(name: &str, a: &Arguments<'_>) -> Outcome {
    convolution(name, a)
        .or_else(|| max_pool(name, a))
        .or_else(|| mean_pool(name, a))
        .or_else(|| adaptive(name, a))
        .or_else(|| padding(name, a))
}

macro_rules! convolution {
    ($t:ident, $a:ident $(, $transposed:ident)?) => {
        || {
            let (inputs, outputs) = ($a.len(0, "in_channels")?, $a.len(1, "out_channels")?);
            let lens = |i, name| Ok::<_, Error>($a.lens(i, name)?.map(|n| PerDim::from(&n[..])));
            let kernel = lens(2, "kernel_size")?.unwrap_or(1.into());
            let mut c = $t::try_new(inputs, outputs, kernel, $a.len_or(98, "groups", 1)?, &mut init())?;
            if let Some(stride) = lens(3, "stride")? {
                c = c.stride(stride);
            }
            if $a.word(4, "padding") == Some("same") {
                convolution!(@same c $($transposed)?);
            } else if let Some(p) = lens(4, "padding")? {
                c = c.padding(p);
            }
            if let Some(d) = lens(98, "dilation")? {
                c = c.dilation(d);
            }
            Ok(layer(c.bias($a.flag(98, "bias", true))))
        }
    };
    (@same $c:ident transposed) => {
        return Err(Error::misuse("a transposed convolution has no 'same' padding"))
    };
    (@same $c:ident) => {
        $c = $c.same()
    };
}

fn convolution(name: &str, a: &Arguments<'_>) -> Outcome {
    let made: &dyn Fn() -> Result<Box<dyn Built>> = match name {
        "Conv1d" => &convolution!(Conv1d, a),
        "Conv2d" => &convolution!(Conv2d, a),
        "Conv3d" => &convolution!(Conv3d, a),
        "ConvTranspose1d" => &convolution!(ConvTranspose1d, a, transposed),
        "ConvTranspose2d" => &convolution!(ConvTranspose2d, a, transposed),
        "ConvTranspose3d" => &convolution!(ConvTranspose3d, a, transposed),
        _ => return None,
    };
    Some(made())
}

fn options(a: &Arguments<'_>) -> Result<PoolOptions> {
    let lens = |i, name| Ok::<_, Error>(a.lens(i, name)?.map(|n| PerDim::from(&n[..])));
    let mut o = PoolOptions::new(lens(0, "kernel_size")?.ok_or_else(|| Error::misuse("no kernel size"))?);
    if let Some(s) = lens(1, "stride")? {
        o = o.stride(s);
    }
    if let Some(p) = lens(2, "padding")? {
        o = o.padding(p);
    }
    Ok(o)
}

/// A pool that gives places, too, where `return_indices` asks for them.
macro_rules! indexed {
    ($pool:expr, $a:ident) => {{
        let pool = $pool;
        if $a.flag(98, "return_indices", false) {
            called(pool, |p, i, cx| {
                let (y, at) = p.with_indices(&i.x(0, "input")?, cx);
                Ok(vec![y, at])
            })
        } else {
            layer(pool)
        }
    }};
}

fn max_pool(name: &str, a: &Arguments<'_>) -> Outcome {
    let max = || {
        let mut o = options(a)?.ceil_mode(a.flag(5, "ceil_mode", false));
        if let Some(d) = a.lens(3, "dilation")? {
            o = o.dilation(&d[..]);
        }
        Ok::<_, Error>(o)
    };
    Some(match name {
        "MaxPool1d" => max().map(|o| indexed!(MaxPool1d::from(o), a)),
        "MaxPool2d" => max().map(|o| indexed!(MaxPool2d::from(o), a)),
        "MaxPool3d" => max().map(|o| indexed!(MaxPool3d::from(o), a)),
        "FractionalMaxPool2d" | "FractionalMaxPool3d" => fractional(name, a),
        _ => return None,
    })
}

fn fractional(name: &str, a: &Arguments<'_>) -> Result<Box<dyn Built>> {
    let kernel = a.lens(0, "kernel_size")?.unwrap_or_default();
    let samples = a.x(98, "_random_samples")?;
    let ratio = a.number(98, "output_ratio", 0.5)?;
    macro_rules! made {
        ($t:ident, $rank:literal) => {
            match a.lens(1, "output_size")? {
                Some(n) => $t::new(&kernel[..], &n[..]),
                None => $t::with_ratio(&kernel[..], [ratio; $rank]),
            }
            .samples(samples)
        };
    }
    Ok(match name {
        "FractionalMaxPool2d" => indexed!(made!(FractionalMaxPool2d, 2), a),
        _ => indexed!(made!(FractionalMaxPool3d, 3), a),
    })
}

fn mean_pool(name: &str, a: &Arguments<'_>) -> Outcome {
    macro_rules! avg {
        ($t:ident) => {
            one((|| {
                let o = options(a)?.ceil_mode(a.flag(3, "ceil_mode", false));
                let pool = $t::from(o.count_include_pad(a.flag(4, "count_include_pad", true)));
                Ok(match a.len_or(5, "divisor_override", 0)? {
                    0 => pool,
                    n => pool.divisor(n as i64),
                })
            })())
        };
    }
    macro_rules! power {
        ($t:ident) => {
            one((|| {
                let kernel = a.lens(1, "kernel_size")?.unwrap_or_default();
                let pool =
                    $t::new(a.number(0, "norm_type", 2.0)?, &kernel[..]).ceil_mode(a.flag(3, "ceil_mode", false));
                Ok(match a.lens(2, "stride")? {
                    Some(s) => pool.stride(&s[..]),
                    None => pool,
                })
            })())
        };
    }
    match name {
        "AvgPool1d" => avg!(AvgPool1d),
        "AvgPool2d" => avg!(AvgPool2d),
        "AvgPool3d" => avg!(AvgPool3d),
        "LPPool1d" => power!(LpPool1d),
        "LPPool2d" => power!(LpPool2d),
        "LPPool3d" => power!(LpPool3d),
        _ => None,
    }
}

fn adaptive(name: &str, a: &Arguments<'_>) -> Outcome {
    let v = a.get(0, "output_size");
    let lens: OutputLens = match (v.as_u64(), gradus_tests::golden::items(v)) {
        (Some(n), _) => (n as usize).into(),
        (None, Some(items)) => {
            let lens: Vec<Option<usize>> = items.iter().map(|n| n.as_u64().map(|n| n as usize)).collect();
            lens[..].into()
        }
        (None, None) => return None,
    };
    Some(Ok(match name {
        "AdaptiveAvgPool1d" => layer(AdaptiveAvgPool1d::new(lens)),
        "AdaptiveAvgPool2d" => layer(AdaptiveAvgPool2d::new(lens)),
        "AdaptiveAvgPool3d" => layer(AdaptiveAvgPool3d::new(lens)),
        "AdaptiveMaxPool1d" => indexed!(AdaptiveMaxPool1d::new(lens), a),
        "AdaptiveMaxPool2d" => indexed!(AdaptiveMaxPool2d::new(lens), a),
        "AdaptiveMaxPool3d" => indexed!(AdaptiveMaxPool3d::new(lens), a),
        _ => return None,
    }))
}

/// PyTorch's tuples begin with the last dimension.
fn sides(a: &Arguments<'_>) -> Result<Sides> {
    let v = a.get(0, "padding");
    if let Some(n) = v.as_i64() {
        return Ok((n as isize).into());
    }
    let n: Option<Vec<isize>> =
        gradus_tests::golden::items(v).and_then(|i| i.iter().map(|n| n.as_i64().map(|n| n as isize)).collect());
    let n = n.ok_or_else(|| Error::misuse("no padding"))?;
    let pairs: Vec<(isize, isize)> = n.chunks_exact(2).rev().map(|p| (p[0], p[1])).collect();
    Ok(pairs[..].into())
}

fn padding(name: &str, a: &Arguments<'_>) -> Outcome {
    let value = || a.number(1, "value", 0.0);
    match name {
        "ConstantPad1d" => one(sides(a).and_then(|s| Ok(ConstantPad1d::new(s, value()?)))),
        "ConstantPad2d" => one(sides(a).and_then(|s| Ok(ConstantPad2d::new(s, value()?)))),
        "ConstantPad3d" => one(sides(a).and_then(|s| Ok(ConstantPad3d::new(s, value()?)))),
        "ZeroPad1d" => one(sides(a).map(ZeroPad1d::new)),
        "ZeroPad2d" => one(sides(a).map(ZeroPad2d::new)),
        "ZeroPad3d" => one(sides(a).map(ZeroPad3d::new)),
        "ReflectionPad1d" => one(sides(a).map(ReflectionPad1d::new)),
        "ReflectionPad2d" => one(sides(a).map(ReflectionPad2d::new)),
        "ReflectionPad3d" => one(sides(a).map(ReflectionPad3d::new)),
        "ReplicationPad1d" => one(sides(a).map(ReplicationPad1d::new)),
        "ReplicationPad2d" => one(sides(a).map(ReplicationPad2d::new)),
        "ReplicationPad3d" => one(sides(a).map(ReplicationPad3d::new)),
        "CircularPad1d" => one(sides(a).map(CircularPad1d::new)),
        "CircularPad2d" => one(sides(a).map(CircularPad2d::new)),
        "CircularPad3d" => one(sides(a).map(CircularPad3d::new)),
        _ => None,
    }
}
