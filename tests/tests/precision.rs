//! Mixed precision: the dtype of each op by its class, gradients in the dtypes of their tensors, and every entry of the catalog
//! under a half precision against its own `f32`.

use gradus_core::autodiff::{Function, Grads, Vjp, apply_function};
use gradus_core::{DType, Device, Key, Precision, Tensor, allows_tf32, checkpoint, precision, with_precision};
use gradus_tests::report::{each_case, say};
use gradus_tests::{compare, sample};
use std::sync::atomic::{AtomicUsize, Ordering};

fn cpu() -> Device {
    gradus_cpu::device()
}

fn draw(name: &str, shape: &[usize]) -> Tensor {
    Tensor::randn(shape, cpu(), Key::new(5).fold(name))
}

fn half(f: impl FnOnce() -> Tensor) -> DType {
    with_precision(Precision::Bf16, f).dtype()
}

#[test]
fn each_class_has_its_dtype() {
    let (x, w) = (draw("x", &[2, 4]), draw("w", &[4, 4]));
    let b = x.to_dtype(DType::Bf16);
    assert_eq!(half(|| x.matmul(&w)), DType::Bf16);
    assert_eq!(half(|| x.linear(&w, None)), DType::Bf16);
    assert_eq!(half(|| b.linear(&w, Some(&w.select(0, 0)))), DType::Bf16);
    assert_eq!(half(|| x.matmul(&w).relu()), DType::Bf16, "what only chooses keeps its dtype");
    assert_eq!(half(|| &b + &x), DType::F32, "the widest");
    assert_eq!(half(|| &b * 2.0), DType::Bf16);
    assert_eq!(half(|| Tensor::cat(&[&b, &x], 0)), DType::F32);
    assert_eq!(b.softmax(-1).dtype(), DType::Bf16, "outside of the scope nothing is changed");
    assert_eq!(half(|| b.softmax(-1)), DType::F32);
    assert_eq!(half(|| b.sum()), DType::F32);
    assert_eq!(half(|| b.exp()), DType::F32);
    assert_eq!(half(|| b.amax(&[1], false)), DType::Bf16);
    assert_eq!(half(|| b.layer_norm([4], None, None, 1e-5)), DType::F32);
    assert_eq!(half(|| b.matmul(&x.t()).inv()), DType::F32, "a factorization");
    // Whole numbers and f64 take no part.
    let wide = x.to_dtype(DType::F64);
    assert_eq!(half(|| wide.matmul(&wide.t())), DType::F64);
    let whole = Tensor::from_slice(&[1i64, 2], cpu());
    assert_eq!(half(|| whole.sum()), DType::I64);
}

#[test]
fn the_scope_ends_with_a_panic_too() {
    let inside =
        std::panic::catch_unwind(|| with_precision(Precision::F16, || assert_eq!(precision(), Precision::F32)));
    assert!(inside.is_err());
    assert_eq!(precision(), Precision::F32);
    let nested = with_precision(Precision::F16, || with_precision(Precision::Bf16, precision));
    assert_eq!((nested, precision()), (Precision::Bf16, Precision::F32));
    // Another thread has its own.
    let other = with_precision(Precision::F16, || std::thread::spawn(precision).join().expect("it ends"));
    assert_eq!(other, Precision::F32);
}

#[test]
fn precisions_have_names() {
    for p in [Precision::F32, Precision::F16, Precision::Bf16] {
        assert_eq!(p.to_string().parse::<Precision>().expect("its own name"), p);
    }
    let e = "f8".parse::<Precision>().expect_err("there is none").to_string();
    assert!(e.contains("\"f8\"") && e.contains("bf16"), "{e}");
}

/// Two layers and a loss.
fn loss(x: &Tensor, w: &Tensor, v: &Tensor) -> Tensor {
    let hidden = x.linear(w, None).gelu();
    hidden.layer_norm([8], None, None, 1e-5).linear(v, None).cross_entropy(&Tensor::from_slice(&[0i64, 2, 1], cpu()))
}

/// The same wherever `backward` is called, and for a checkpointed block.
#[test]
fn gradients_are_those_of_the_forward_pass_and_in_the_masters_dtype() {
    let (x, w, v) = (draw("x", &[3, 4]), draw("w", &[8, 4]).requires_grad(), draw("v", &[3, 8]).requires_grad());
    let gradients = |y: Tensor| {
        y.backward();
        [&w, &v].map(|t| t.take_grad().expect("it takes part"))
    };
    let plain = gradients(loss(&x, &w, &v));
    let outside = gradients(with_precision(Precision::Bf16, || loss(&x, &w, &v)));
    let inside = with_precision(Precision::Bf16, || gradients(loss(&x, &w, &v)));
    let again = gradients(with_precision(Precision::Bf16, || {
        let (w, v) = (w.clone(), v.clone());
        checkpoint(move |a| Ok(loss(&a[0], &w, &v)), &[&x])
    }));
    for i in 0..2 {
        let values = [&plain, &outside, &inside, &again].map(|g| g[i].to_vec::<f64>().expect("readable"));
        assert!([&outside, &inside, &again].iter().all(|g| g[i].dtype() == DType::F32));
        assert_eq!(values[1], values[2], "the place of backward matters");
        assert_eq!(values[1], values[3], "a checkpoint matters");
        assert_ne!(values[0], values[1], "nothing was computed in half precision");
        let scale = compare::scale(&values[0]);
        assert!(values[0].iter().zip(&values[1]).all(|(a, b)| (a - b).abs() <= 0.05 * scale), "{values:?}");
    }
}

/// Every entry runs with `f32` operands under a half precision, and is what its `f32` is but for the roundings of its operands and
/// results.
#[test]
fn the_catalog_runs_under_half_precision() {
    let mut changed = 0;
    each_case(
        "f32 operands under f16 and bf16",
        |_, c| !c.large,
        |_, case, key| {
            let text = |e: gradus_core::Error| e.to_string();
            for half in [Precision::F16, Precision::Bf16] {
                // Numbers that the half dtype has, so that operands are not rounded on their way in.
                let dtype = half.half().expect("a half precision");
                let narrow = sample::inputs(case, dtype, key, cpu()).map_err(text)?;
                let wide = |x: &Tensor| if x.dtype() == dtype { x.try_to_dtype(DType::F32) } else { Ok(x.clone()) };
                let x = narrow.iter().map(wide).collect::<Result<Vec<_>, _>>().map_err(text)?;
                let want = (case.run)(&x).map_err(text)?;
                let have = with_precision(half, || (case.run)(&x)).map_err(text)?;
                for (i, (a, b)) in have.iter().zip(&want).enumerate() {
                    let same = a.dtype() == b.dtype() || a.dtype() == dtype && b.dtype() == DType::F32;
                    if !same {
                        return Err(format!("{half:?}: output {i} is {}, in f32 {}", a.dtype(), b.dtype()));
                    }
                    changed += usize::from(a.dtype() != b.dtype());
                    let (a, b) = (compare::read("output", a)?, compare::read("output", b)?);
                    compare::numbers(&format!("{half:?}: output {i}"), &a, &b, compare::epsilon(dtype) * 8.0)?;
                }
            }
            Ok(true)
        },
    );
    say(&format!("catalog: {changed} outputs were in half precision"));
    assert!(changed > 40, "only {changed} outputs were in half precision");
}

/// Notes whether products might round to TF32 while its gradient was computed.
#[derive(Debug)]
struct Notes(&'static AtomicUsize);

impl Function for Notes {
    fn name(&self) -> &'static str {
        "notes"
    }
    fn forward(&self, x: &[&Tensor]) -> gradus_core::Result<Vec<Tensor>> {
        Ok(vec![x[0].square()])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        self.0.fetch_add(if allows_tf32() { 1 } else { 100 }, Ordering::Relaxed);
        [Some(cx.grad() * cx.x(0) * 2.0)].into_iter().collect()
    }
}

/// TF32 is what a call was made under, not what its gradient is asked for under; and on the CPU it changes nothing.
#[test]
fn tf32_holds_for_the_gradients_of_the_calls_made_under_it() {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let x = draw("x", &[3, 4]).requires_grad();
    with_precision(Precision::Tf32, || apply_function(Notes(&COUNT), &[&x])[0].sum()).backward();
    assert_eq!(COUNT.swap(0, Ordering::Relaxed), 1);
    let y = apply_function(Notes(&COUNT), &[&x])[0].sum();
    with_precision(Precision::Tf32, || y.backward());
    assert_eq!(COUNT.swap(0, Ordering::Relaxed), 100);

    let (x, w, v) = (draw("x", &[3, 4]), draw("w", &[8, 4]).requires_grad(), draw("v", &[3, 8]).requires_grad());
    let gradients = |precision| {
        with_precision(precision, || loss(&x, &w, &v)).backward();
        [&w, &v].map(|t| t.take_grad().expect("it takes part").to_vec::<f32>().expect("readable"))
    };
    assert_eq!(gradients(Precision::Tf32), gradients(Precision::F32));
    assert_eq!("tf32".parse::<Precision>().expect("there is one"), Precision::Tf32);
    assert_eq!(Precision::Tf32.to_string(), "tf32");
}
