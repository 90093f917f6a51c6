//! Normalizations, and layers of one matrix.

use super::{Outcome, init, one};
use gradus_core::Result;
use gradus_nn::*;
use gradus_tests::golden_modules::{Arguments, Built, called};

macro_rules! batch_norm {
    ($t:ident, $a:ident) => {
        one((|| {
            let norm = $t::try_new($a.len(0, "num_features")?, &mut init())?.eps($a.number(1, "eps", 1e-5)?);
            // A given null averages all batches evenly.
            let momentum = match $a.has(2, "momentum") {
                true if $a.get(2, "momentum").is_null() => None,
                _ => Some($a.number(2, "momentum", 0.1)?),
            };
            let norm = norm.momentum(momentum).affine($a.flag(3, "affine", true));
            let norm = if $a.flag(98, "bias", true) { norm } else { norm.bias_if(false) };
            Ok(norm.track($a.flag(4, "track_running_stats", true)))
        })())
    };
}

macro_rules! instance_norm {
    ($t:ident, $a:ident) => {
        one((|| {
            let norm = $t::try_new($a.len(0, "num_features")?, &mut init())?.eps($a.number(1, "eps", 1e-5)?);
            let mut norm = norm.momentum($a.number(2, "momentum", 0.1)?);
            if $a.flag(3, "affine", false) {
                norm = norm.affine(&init());
            }
            if $a.flag(4, "track_running_stats", false) {
                norm = norm.track(&init());
            }
            Ok(if $a.flag(98, "bias", true) { norm } else { norm.without_bias() })
        })())
    };
}

pub(super) fn build(name: &str, a: &Arguments<'_>) -> Outcome {
    match name {
        "BatchNorm1d" => batch_norm!(BatchNorm1d, a),
        "BatchNorm2d" => batch_norm!(BatchNorm2d, a),
        "BatchNorm3d" => batch_norm!(BatchNorm3d, a),
        "InstanceNorm1d" => instance_norm!(InstanceNorm1d, a),
        "InstanceNorm2d" => instance_norm!(InstanceNorm2d, a),
        "InstanceNorm3d" => instance_norm!(InstanceNorm3d, a),
        "GroupNorm" => one(group_norm(a)),
        "LayerNorm" => one(layer_norm(a)),
        "RMSNorm" => one(rms_norm(a)),
        "LocalResponseNorm" => one(local_response_norm(a)),
        "Linear" => one(linear(a)),
        "Bilinear" => Some(bilinear(a)),
        "Embedding" => one(embedding(a)),
        _ => None,
    }
}

fn group_norm(a: &Arguments<'_>) -> Result<GroupNorm> {
    let norm = GroupNorm::try_new(a.len(0, "num_groups")?, a.len(1, "num_channels")?, &mut init())?;
    let norm = norm.eps(a.number(2, "eps", 1e-5)?).affine(a.flag(3, "affine", true));
    Ok(if a.flag(98, "bias", true) { norm } else { norm.bias(false) })
}

fn layer_norm(a: &Arguments<'_>) -> Result<LayerNorm> {
    let shape = a.lens(0, "normalized_shape")?.unwrap_or_default();
    let norm = LayerNorm::try_new(&shape[..], &mut init())?.eps(a.number(1, "eps", 1e-5)?);
    let norm = norm.affine(a.flag(2, "elementwise_affine", true));
    Ok(if a.flag(3, "bias", true) { norm } else { norm.bias(false) })
}

fn rms_norm(a: &Arguments<'_>) -> Result<RmsNorm> {
    let shape = a.lens(0, "normalized_shape")?.unwrap_or_default();
    let norm = RmsNorm::try_new(&shape[..], &mut init())?.affine(a.flag(2, "elementwise_affine", true));
    Ok(if a.get(1, "eps").is_null() { norm } else { norm.eps(a.number(1, "eps", 0.0)?) })
}

fn local_response_norm(a: &Arguments<'_>) -> Result<LocalResponseNorm> {
    let norm = LocalResponseNorm::new(a.len(0, "size")?).alpha(a.number(1, "alpha", 1e-4)?);
    Ok(norm.beta(a.number(2, "beta", 0.75)?).k(a.number(3, "k", 1.0)?))
}

fn bilinear(a: &Arguments<'_>) -> Result<Box<dyn Built>> {
    let (m, n) = (a.len(0, "in1_features")?, a.len(1, "in2_features")?);
    let form = Bilinear::try_new(m, n, a.len(2, "out_features")?, &mut init())?.bias(a.flag(3, "bias", true));
    Ok(called(form, |l, i, cx| Ok(vec![l.pair(&i.x(0, "input1")?, &i.x(1, "input2")?, cx)])))
}

fn linear(a: &Arguments<'_>) -> Result<Linear> {
    let linear = Linear::try_new(a.len(0, "in_features")?, a.len(1, "out_features")?, &mut init())?;
    Ok(linear.bias(a.flag(2, "bias", true)))
}

fn embedding(a: &Arguments<'_>) -> Result<Embedding> {
    let table = Embedding::try_new(a.len(0, "num_embeddings")?, a.len(1, "embedding_dim")?, &mut init())?;
    match a.get(2, "padding_idx").is_null() {
        true => Ok(table),
        false => table.try_padding_index(a.len(2, "padding_idx")?),
    }
}
