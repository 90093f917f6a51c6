//! Initial values: their distributions against torch.nn.init's formulas, and what their keys promise.

use gradus_core::{DType, Key, Shape, Tensor};
use gradus_nn::init::{Fan, Initializer, Nonlinearity, fans};
use gradus_nn::{Conv2d, Embedding, Init, Linear, Module, MultiheadAttention};

const SEED: u64 = 20_261_121;

fn draw(how: Initializer, shape: &[usize]) -> Vec<f64> {
    println!("seed {SEED}");
    how.draw(shape, gradus_cpu::device().with(DType::F64), SEED).to_vec::<f64>().expect("readable")
}

/// Mean, standard deviation, least and greatest.
fn moments(x: &[f64]) -> (f64, f64, f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let var = x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    (
        mean,
        var.sqrt(),
        x.iter().copied().fold(f64::INFINITY, f64::min),
        x.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    )
}

/// Five standard errors: of the mean, std/√n; of the std, at most std/√n too for these distributions (kurtosis ≤ 3).
fn check(x: &[f64], mean: f64, std: f64) {
    let (m, s, ..) = moments(x);
    let tolerance = 5.0 * std / (x.len() as f64).sqrt();
    assert!((m - mean).abs() < tolerance, "mean {m} instead of {mean} ± {tolerance}");
    assert!((s - std).abs() < tolerance, "std {s} instead of {std} ± {tolerance}");
}

fn check_uniform(x: &[f64], bound: f64) {
    check(x, 0.0, bound / 3f64.sqrt());
    let (_, _, low, high) = moments(x);
    assert!(low >= -bound && high < bound, "{low}..{high} leaves ±{bound}");
    assert!(low < -0.99 * bound && high > 0.99 * bound, "{low}..{high} does not fill ±{bound}");
}

const WEIGHT: [usize; 4] = [64, 16, 3, 3]; // fan in 144, fan out 576

#[test]
fn fans_and_gains_are_pytorchs() {
    let of = |dims: &[usize]| fans(&Shape::try_new(dims).expect("a shape"));
    assert_eq!(of(&WEIGHT).ok(), Some((144, 576)));
    assert_eq!(of(&[7, 5]).ok(), Some((5, 7)));
    assert!(of(&[7]).is_err());
    // torch.nn.init.calculate_gain
    for (f, gain) in [
        (Nonlinearity::Linear, 1.0),
        (Nonlinearity::Sigmoid, 1.0),
        (Nonlinearity::Tanh, 1.666_666_666_666_666_7),
        (Nonlinearity::Relu, std::f64::consts::SQRT_2),
        (Nonlinearity::LeakyRelu(0.2), 1.386_750_490_563_073),
        (Nonlinearity::Selu, 0.75),
    ] {
        assert!((f.gain() - gain).abs() < 1e-15, "{f:?}");
    }
}

#[test]
fn distributions_have_their_moments() {
    check_uniform(&draw(Initializer::Uniform { low: -0.5, high: 0.5 }, &[20_000]), 0.5);
    check(&draw(Initializer::Normal { mean: 2.0, std: 0.3 }, &[20_000]), 2.0, 0.3);
    check_uniform(&draw(Initializer::XavierUniform { gain: 2.0 }, &WEIGHT), 2.0 * (6.0f64 / 720.0).sqrt());
    check(&draw(Initializer::XavierNormal { gain: 0.5 }, &WEIGHT), 0.0, 0.5 * (2.0f64 / 720.0).sqrt());
    let gain = Nonlinearity::Relu.gain();
    check_uniform(&draw(Initializer::KaimingUniform { fan: Fan::In, gain }, &WEIGHT), (6.0f64 / 144.0).sqrt());
    check_uniform(&draw(Initializer::KaimingUniform { fan: Fan::Out, gain }, &WEIGHT), (6.0f64 / 576.0).sqrt());
    check(&draw(Initializer::KaimingNormal { fan: Fan::In, gain }, &WEIGHT), 0.0, (2.0f64 / 144.0).sqrt());
    check_uniform(&draw(Initializer::layer_default(), &WEIGHT), 1.0 / 12.0);
}

/// The moments of truncated normals are scipy.stats.truncnorm's.
#[test]
fn truncated_normals_stay_inside_and_have_their_moments() {
    for (low, high, mean, std) in [
        (-2.0, 2.0, 0.0, 0.879_625_661_034_239_8),
        (0.5, f64::INFINITY, 1.141_077_770_368_064_8, 0.518_150_950_164_021_6),
        (6.0, 7.0, 6.157_210_903_378_302, 0.150_825_664_650_852_9),
    ] {
        let x = draw(Initializer::TruncNormal { mean: 0.0, std: 1.0, low, high }, &[20_000]);
        let (m, s, least, greatest) = moments(&x);
        assert!(least >= low && greatest <= high, "{least}..{greatest} leaves {low}..{high}");
        let tolerance = 8.0 * std / (x.len() as f64).sqrt(); // skewed: heavier tails than a normal's
        assert!(
            (m - mean).abs() < tolerance && (s - std).abs() < tolerance,
            "{low}..{high}: {m} ± {s} instead of {mean} ± {std}"
        );
    }
}

#[test]
fn matrices_are_what_their_names_say() {
    assert_eq!(draw(Initializer::Eye, &[2, 3]), [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]);
    assert_eq!(draw(Initializer::Constant(0.5), &[2]), [0.5; 2]);
    // torch.nn.init.dirac_(torch.empty(4, 2, 3), 2): the middle of channel c for output c of each group
    let mut dirac = vec![0.0; 24];
    for (out, channel) in [(0, 0), (1, 1), (2, 0), (3, 1)] {
        dirac[(out * 2 + channel) * 3 + 1] = 1.0;
    }
    assert_eq!(draw(Initializer::Dirac { groups: 2 }, &[4, 2, 3]), dirac);
    for shape in [[6, 4], [4, 6], [5, 5]] {
        let q = Initializer::Orthogonal { gain: 1.5 }.draw(shape, gradus_cpu::device().with(DType::F64), SEED);
        let q = if shape[0] <= shape[1] { q } else { q.t() };
        let n = q.dim(0);
        let off = (q.matmul(&q.t()) - Tensor::eye(n, q.place()) * 2.25).abs().amax(&[0, 1], false);
        assert!(off.item::<f64>().expect("a number") < 1e-13, "{shape:?}");
    }
    let sparse = draw(Initializer::Sparse { sparsity: 0.25, std: 1.0 }, &[10, 3]);
    for column in 0..3 {
        assert_eq!(
            (0..10).filter(|row| sparse[row * 3 + column] == 0.0).count(),
            3,
            "⌈0.25·10⌉ zeros in column {column}"
        );
    }
}

#[test]
fn misuse_is_an_error_that_names_it() {
    let place = gradus_cpu::device();
    for (how, shape, says) in [
        (Initializer::Uniform { low: 1.0, high: f64::NAN }, &[2][..], "NaN"),
        (Initializer::Normal { mean: 0.0, std: -1.0 }, &[2], "-1"),
        (Initializer::TruncNormal { mean: 0.0, std: 1.0, low: 2.0, high: 1.0 }, &[2], "low < high"),
        (Initializer::XavierUniform { gain: 1.0 }, &[2], "two dimensions"),
        (Initializer::Orthogonal { gain: 1.0 }, &[2], "two dimensions"),
        (Initializer::Eye, &[2, 2, 2], "matrix"),
        (Initializer::Dirac { groups: 3 }, &[4, 2, 3], "3 equal groups"),
        (Initializer::Sparse { sparsity: 2.0, std: 1.0 }, &[2, 2], "between 0 and 1"),
        (Initializer::Normal { mean: 0.0, std: 1.0 }, &[1 << 40, 1 << 40], "bytes"),
    ] {
        let error = how.try_draw(shape, place, 0).expect_err("misuse").to_string();
        assert!(error.contains(says), "{how:?}: {error}");
    }
}

#[test]
fn an_option_of_one_layer_changes_no_other() {
    let second = |bias: bool| {
        let mut init = Init::new(gradus_cpu::device(), 3);
        let _first = Linear::new(4, 4, &mut init).bias(bias);
        Linear::new(4, 4, &mut init).weight.to_vec::<f32>().expect("readable")
    };
    assert_eq!(second(true), second(false));
    let of = |key: Key| {
        Linear::new(4, 4, &mut Init::new(gradus_cpu::device(), key)).weight.to_vec::<f32>().expect("readable")
    };
    assert_ne!(of(Key::new(1)), of(Key::new(2)));
    let init = Init::new(gradus_cpu::device(), 3);
    let [a, b] = ["encoder", "decoder"]
        .map(|part| Linear::new(4, 4, &mut init.part(part)).weight.to_vec::<f32>().expect("readable"));
    assert_ne!(a, b);
}

#[test]
fn layers_start_as_pytorchs_do() {
    let mut init = Init::new(gradus_cpu::device(), SEED);
    let values = |t: &Tensor| t.to_vec::<f64>().expect("readable");
    let fc = Linear::new(100, 200, &mut init);
    check_uniform(&values(&fc.weight), 0.1);
    let (_, _, low, high) = moments(&values(fc.bias.as_ref().expect("a bias")));
    assert!(low >= -0.1 && high < 0.1 && high - low > 0.15, "{low}..{high}");
    let conv = Conv2d::grouped(16, 64, 5, 4, &mut init);
    assert_eq!(conv.weight.dims(), [64, 4, 5, 5]);
    check_uniform(&values(&conv.weight), 0.1);
    check(&values(&Embedding::new(200, 100, &mut init).weight), 0.0, 1.0);
    let attention = MultiheadAttention::new(48, 4, &mut init);
    check_uniform(&values(attention.in_proj_weight.as_ref().expect("one weight")), (6.0f64 / (144.0 + 48.0)).sqrt());
    check_uniform(&values(&attention.out_proj.weight), 1.0 / 48f64.sqrt());
    let state = attention.state_dict();
    let names: Vec<&str> = state.keys().map(String::as_str).collect();
    assert_eq!(names, ["in_proj_bias", "in_proj_weight", "out_proj.bias", "out_proj.weight"]);
    assert!([&state["in_proj_bias"], &state["out_proj.bias"]].iter().all(|b| values(b).iter().all(|&x| x == 0.0)));
}
