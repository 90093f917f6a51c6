//! Gradients of a scaled loss: what is not finite is found wherever it is, and what undoes the scale changes no bit.

use crate::every_rule;
use gradus_core::tensor::to_device;
use gradus_core::{DType, Device, Result, Tensor, by_definition};
use gradus_nn::{Module, Param};
use gradus_optim::*;

/// On both sides of what a thread folds in one go.
const SIZES: [usize; 7] = [1, 0, 31, 33, 16_384, 16_385, 40_000];

/// Parameters of those sizes, whose gradients are all `g`.
fn with_gradients(g: f64, dtype: DType, device: Device) -> Result<Vec<Param>> {
    let place = device.with(dtype);
    let one = |&n: &usize| {
        let p = Param::new(Tensor::ones([n], place));
        p.set_grad(Tensor::full([n], g, place))?;
        Ok(p)
    };
    SIZES.iter().map(one).collect()
}

#[test]
fn what_is_not_finite_is_found_wherever_it_is_and_large_numbers_are_finite() -> Result<()> {
    let cpu = gradus_cpu::device();
    let both = |m: &Vec<Param>| -> Result<bool> {
        let finite = |m: &Vec<Param>| {
            let all: Vec<Tensor> = m.iter().filter_map(|p| p.grad()).collect();
            Tensor::try_all_finite(&all.iter().collect::<Vec<_>>())?.item::<bool>()
        };
        let (fused, defined) = (finite(m)?, by_definition(|| finite(m))?);
        assert_eq!(fused, defined);
        let one = gradus_cpu::with_threads(1, || finite(m))?;
        assert_eq!(fused, one);
        Ok(fused)
    };
    for (dtype, largest) in [(DType::F32, 3.4e38), (DType::F64, 1.7e308), (DType::F16, 65504.0), (DType::Bf16, 3.38e38)]
    {
        assert!(both(&with_gradients(largest, dtype, cpu)?)?, "{dtype}: no number is infinite, though their sum is");
        for (at, &n) in SIZES.iter().enumerate().filter(|(_, n)| **n > 0) {
            for (place, bad) in [(0, f64::INFINITY), (n / 2, f64::NAN), (n - 1, f64::NEG_INFINITY)] {
                let m = with_gradients(-1.0, dtype, cpu)?;
                let mut x = vec![-1.0; n];
                x[place] = bad;
                m[at].set_grad(Tensor::from_vec(x, [n], cpu).to_dtype(dtype))?;
                assert!(!both(&m)?, "{bad} at {place} of {n} in {dtype}");
            }
        }
    }
    // As they lie: of a transposed view every element counts, and none beside it.
    let mut x = vec![1.0f32; 60];
    x[59] = f32::NAN;
    let x = Tensor::from_vec(x, [6, 10], cpu);
    let within = |x: &Tensor| Tensor::try_all_finite(&[x])?.item::<bool>();
    assert!(!within(&x.t())? && within(&x.narrow(1, 0, 9).t())?);
    Ok(())
}

#[test]
fn one_gradient_among_those_of_other_dtypes_and_devices_is_found() -> Result<()> {
    let (cpu, other) = (gradus_cpu::device(), gradus_cpu::nth(1)?);
    for bad in 0..4 {
        let mut scale = LossScale::new();
        let places = [cpu.with(DType::F32), cpu.with(DType::F16), other.with(DType::F32), cpu.with(DType::F64)];
        let m: Vec<Param> = places.iter().map(|&p| Param::new(Tensor::ones([3], p))).collect();
        m.iter().zip(places).try_for_each(|(p, at)| p.set_grad(Tensor::ones([3], at)))?;
        assert_eq!(scale.checked(&m)?, Some(1.0 / 65536.0));
        m[bad].set_grad(Tensor::full([3], f64::NAN, places[bad]))?;
        assert_eq!(scale.checked(&m)?, None);
        assert!(m.iter().all(|p| p.grad().is_none()) && scale.skipped() == 1 && scale.scale() == 32768.0);
    }
    Ok(())
}

/// The bits of parameters and states after three steps on gradients of a loss that is scaled by `scale`.
fn scaled_run(builder: OptimizerBuilder, dtype: DType, scale: f64, by_the_way: bool) -> Result<Vec<u8>> {
    let place = gradus_cpu::device().with(dtype);
    let random = |shape: [usize; 2], key: u64| Tensor::randn(shape, place, key);
    let mut m: Vec<Param> = vec![Param::new(random([67, 31], 1)), Param::new(random([7, 1], 2))];
    let mut o = builder.build(&m)?;
    let mut scaling = LossScale::new().initial(scale);
    for t in 0..3 {
        m[0].set_grad((random([31, 67], 10 + t) * scale).t())?; // not dense
        m[1].set_grad(random([7, 1], 20 + t) * scale)?;
        match by_the_way {
            true => {
                let by = scaling.checked(&m)?.expect("they are finite");
                o.step_scaled(&mut m, by)?;
            }
            false => {
                assert!(scaling.unscale(&m)?, "they are finite");
                o.step(&mut m)?;
            }
        }
    }
    let mut bytes = Vec::new();
    for t in m.iter().map(|p| p.value()).chain(o.state_dict().tensors.values()) {
        bytes.extend(t.to_bytes()?);
    }
    Ok(bytes)
}

#[test]
fn an_update_that_undoes_the_scale_by_the_way_gives_the_bits_of_a_pass_over_the_gradients() -> Result<()> {
    let muon: fn() -> OptimizerBuilder = || Muon::new(0.05).into();
    for dtype in [DType::F32, DType::F64, DType::F16, DType::Bf16] {
        for builder in every_rule().into_iter().chain([muon]) {
            let name = format!("{:?} in {dtype}", builder());
            let clips: [fn(OptimizerBuilder) -> OptimizerBuilder; 4] = [
                |b| b,
                |b| b.transform(ClipNorm::new(0.3)),
                |b| b.transform(ClipValue::new(0.5)).transform(ClipNorm::new(0.3)),
                |b| b.transform(L2::new(0.1)),
            ];
            for with in clips {
                let run = |by_the_way| scaled_run(with(builder()), dtype, 128.0, by_the_way);
                assert!(run(true)? == run(false)?, "{name}");
            }
        }
        let (of_1, of_128) = (AdamW::new(0.1), AdamW::new(0.1));
        let apart = dtype.is_half(); // whose gradients are rounded by the scale
        let same = scaled_run(of_1.into(), dtype, 1.0, true)? == scaled_run(of_128.into(), dtype, 128.0, true)?;
        assert!(same || apart, "a scale of 128 is undone in {dtype}");
    }
    Ok(())
}

/// The squares of these gradients are no numbers of `f32`, as long as they have the loss's scale.
#[test]
fn a_norm_is_that_of_the_gradients_without_their_scale() -> Result<()> {
    let cpu = gradus_cpu::device();
    let by = 2f64.powi(-100);
    for p in [2.0, 3.0, f64::INFINITY] {
        let mut m = vec![Param::new(Tensor::zeros([2], cpu))];
        m[0].set_grad(Tensor::from_slice(&[3.0f32, -4.0], cpu) * 2f64.powi(100))?;
        let mut o = Sgd::new(1.0).optimizer().transform(ClipNorm::new(1.0).p(p)).build(&m)?;
        let norm = o.step_scaled(&mut m, by)?.gradient_norm.expect("it was taken").item::<f64>()?;
        let want = if p.is_finite() { (3f64.powf(p) + 4f64.powf(p)).powf(1.0 / p) } else { 4.0 };
        assert!((norm - want).abs() < 1e-5, "{norm}, not {want}");
        let moved = m[0].to_vec::<f32>()?;
        assert!(
            (moved[0] + 3.0 / want as f32).abs() < 1e-5 && (moved[1] - 4.0 / want as f32).abs() < 1e-5,
            "{moved:?}"
        );
    }
    Ok(())
}

#[test]
fn an_overflow_touches_neither_parameters_nor_state() -> Result<()> {
    let device = gradus_cpu::device();
    for bad in [f64::NAN, f64::INFINITY] {
        let mut m = with_gradients(0.5, DType::F32, device)?;
        let mut o = AdamW::new(0.1).optimizer().transform(ClipNorm::new(1.0)).build(&m)?;
        let mut scale = LossScale::new().initial(4.0);
        let by = scale.checked(&m)?.expect("they are finite");
        o.step_scaled(&mut m, by)?;
        let all = |m: &Vec<Param>, o: &Optimizer| -> Result<Vec<u8>> {
            let mut bytes = Vec::new();
            for t in m.iter().map(|p| p.value()).chain(o.state_dict().tensors.values()) {
                bytes.extend(to_device(&t.detach(), device)?.to_bytes()?);
            }
            Ok(bytes)
        };
        let before = all(&m, &o)?;
        m[3].set_grad(Tensor::full([SIZES[3]], bad, device))?;
        assert_eq!(scale.checked(&m)?, None);
        assert!(all(&m, &o)? == before && o.steps() == 1);
        assert!(m.named_parameters().iter().all(|(_, p)| p.grad().is_none()) && scale.scale() == 2.0);
    }
    Ok(())
}

/// Below a scale of 1 the division makes gradients larger: what then overflows is found, too.
#[test]
fn a_scale_below_one_finds_what_overflows_without_it() -> Result<()> {
    let m = with_gradients(1e38, DType::F32, gradus_cpu::device())?;
    let mut scale = LossScale::new().initial(0.125);
    assert_eq!(scale.checked(&m)?, None);
    let m = with_gradients(1e30, DType::F32, gradus_cpu::device())?;
    assert_eq!(scale.checked(&m)?, Some(1.0));
    assert_eq!(m[0].grad().expect("it stays").to_vec::<f32>()?, [1e30 * 16.0]);
    Ok(())
}
