//! Automatic differentiation by hand: hooks, detaching, freeing, custom functions, checkpoints, deep graphs, ownership.

use gradus_core::autodiff::{
    Backward, Function, Grads, Vjp, apply_function, checkpoint, grad, grad_allow_unused, no_grad, try_grad,
};
use gradus_core::rng::Key;
use gradus_core::tensor::copies_on_write;
use gradus_core::{Device, Result, Tensor, enable_grad};
use gradus_tests::panics::caught;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

fn cpu() -> Device {
    gradus_cpu::device()
}

fn leaf(data: &[f64]) -> Tensor {
    Tensor::from_slice(data, cpu()).requires_grad()
}

fn vec(t: &Tensor) -> Vec<f64> {
    t.to_vec().expect("a tensor on the CPU can be read")
}

fn grad_of(t: &Tensor) -> Vec<f64> {
    vec(&t.grad().expect("a gradient has arrived"))
}

#[test]
fn gradients_add_up_over_uses_walks_and_broadcasts() {
    let x = leaf(&[1.0, 2.0, 3.0]);
    (&x * &x + &x).sum().backward(); // used three times: 2x + 1
    assert_eq!(grad_of(&x), [3.0, 5.0, 7.0]);
    (&x * 10.0).sum().backward(); // a second walk adds
    assert_eq!(grad_of(&x), [13.0, 15.0, 17.0]);
    x.zero_grad();
    assert!(x.grad().is_none());
    let one = leaf(&[2.0]);
    (&one * Tensor::ones([4, 3], x.place())).sum().backward(); // stretched over 12 elements
    assert_eq!(grad_of(&one), [12.0]);
}

#[test]
fn a_leaf_that_two_results_share_gets_one_sum() {
    // Walking must add where two paths meet, not overwrite.
    let x = leaf(&[0.5]);
    let (a, b) = (x.sin(), x.exp());
    (&a * &b + &a + &b).sum().backward();
    let (s, c, e) = (0.5f64.sin(), 0.5f64.cos(), 0.5f64.exp());
    assert!((grad_of(&x)[0] - (c * e + s * e + c + e)).abs() < 1e-14);
}

#[test]
fn third_and_fourth_derivatives_are_right() {
    let x = leaf(&[0.7, -1.1]);
    let mut y = x.sin();
    let want: [fn(f64) -> f64; 4] = [f64::cos, |x| -x.sin(), |x| -x.cos(), f64::sin];
    for f in want {
        y = grad(&[&y.sum()], &[&x], Backward::graph()).swap_remove(0);
        for (have, x) in vec(&y).iter().zip([0.7, -1.1]) {
            assert!((have - f(x)).abs() < 1e-14);
        }
    }
}

#[test]
fn backward_twice_is_an_error_that_names_the_op_and_its_line() {
    let x = leaf(&[1.0, 2.0]);
    let line = line!() + 1;
    let y = x.exp().sum();
    y.backward();
    let error = y.try_backward().expect_err("what exp kept is gone").to_string();
    assert!(error.contains("exp"), "{error}");
    assert!(error.contains(&format!("{}:{line}", file!())), "{error} does not name line {line}");
    assert!(error.contains("retain"), "{error} does not say what to do");
    // With the graph retained, any number of walks, each adding.
    let x = leaf(&[1.0, 2.0]);
    let y = x.exp().sum();
    for _ in 0..3 {
        y.backward_with(None, Backward::retain());
    }
    assert_eq!(grad_of(&x), [3.0 * 1f64.exp(), 3.0 * 2f64.exp()]);
    // An op that keeps nothing can be walked again without asking.
    let z = (&x + 1.0).sum();
    z.backward();
    z.backward();
}

#[test]
fn detach_and_no_grad_cut_where_they_say() {
    let x = leaf(&[3.0]);
    (&x * &x.detach()).sum().backward();
    assert_eq!(grad_of(&x), [3.0]);
    assert!(!no_grad(|| &x * 2.0).is_tracked());
    assert!(no_grad(|| enable_grad(|| &x * 2.0)).is_tracked());
    // A panic inside restores recording.
    assert!(caught(|| no_grad(|| panic!("inside"))).is_some());
    assert!((&x * 2.0).is_tracked());
    // Only the first of two results depends on x.
    let e = (x.detach() * 2.0).sum().try_backward().expect_err("nothing is tracked").to_string();
    assert!(e.contains("requires a gradient"), "{e}");
}

#[test]
fn what_takes_no_part_has_no_gradient_and_what_is_untracked_is_refused() {
    let (x, unused) = (leaf(&[1.0]), leaf(&[1.0]));
    let y = x.square().sum();
    let e = try_grad(&[&y], &[&x, &unused], Backward::retain()).expect_err("no part in it").to_string();
    assert!(e.contains("input 1, a f64 [1]") && e.contains("grad_allow_unused"), "{e}");
    let g = grad_allow_unused(&[&y], &[&x, &unused], Backward::default());
    assert_eq!(vec(g[0].as_ref().expect("x takes part")), [2.0]);
    assert!(g[1].is_none());
    assert!(x.grad().is_none(), "grad leaves the leaves alone");
    let constant = Tensor::from_slice(&[1.0], cpu());
    let e = try_grad(&[&x.sum()], &[&constant], Backward::default()).expect_err("a constant").to_string();
    assert!(e.contains("f64 [1]"), "{e}");
    let e = (&x + Tensor::ones([2, 3], x.place())).try_backward().expect_err("not a scalar").to_string();
    assert!(e.contains("[2, 3]") && e.contains("sum"), "{e}");
    let e = Tensor::from_slice(&[1i64], cpu()).try_requires_grad().expect_err("integers").to_string();
    assert!(e.contains("i64"), "{e}");
}

#[test]
fn gradients_of_intermediate_tensors_are_given() {
    let x = leaf(&[2.0]);
    let y = x.square();
    let z = y.exp().sum();
    let g = grad(&[&z], &[&y, &x], Backward::default());
    let e = 4f64.exp();
    assert_eq!(vec(&g[0]), [e]);
    assert_eq!(vec(&g[1]), [4.0 * e]);
}

#[test]
fn hooks_see_whole_gradients_once_and_may_replace_them() {
    let x = leaf(&[1.0, 2.0]);
    let y = x.square();
    let calls = Arc::new(AtomicUsize::new(0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (c, s) = (calls.clone(), seen.clone());
    let handle = y.register_hook(move |g| {
        c.fetch_add(1, Ordering::Relaxed);
        *s.lock().expect("no panic held it") = vec(g);
        Some(g * 10.0)
    });
    let loss = || (&y + &y * 3.0).sum(); // y is used twice: the hook sees the sum, 4
    loss().backward_with(None, Backward::retain());
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    assert_eq!(*seen.lock().expect("no panic held it"), [4.0, 4.0]);
    assert_eq!(grad_of(&x), [80.0, 160.0]);
    assert!(handle.remove());
    x.zero_grad();
    loss().backward_with(None, Backward::retain());
    assert_eq!(calls.load(Ordering::Relaxed), 1, "a removed hook is not called");
    assert_eq!(grad_of(&x), [8.0, 16.0]);
    // On a leaf, and two in order.
    x.zero_grad();
    x.register_hook(|g| Some(g + 1.0));
    x.register_hook(|g| Some(g * 2.0));
    x.sum().backward();
    assert_eq!(grad_of(&x), [4.0, 4.0]);
    assert!(caught(|| x.detach().register_hook(|_| None)).is_some());
}

#[derive(Debug)]
struct Cube;
impl Function for Cube {
    fn name(&self) -> &'static str {
        "cube"
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        assert!(!(x[0] * 1.0).is_tracked(), "forward runs without recording");
        Ok(vec![x[0] * x[0] * x[0], x[0] * 2.0])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        let first = cx.grad_or_zeros(0) * cx.x(0).square() * 3.0;
        [Some(first + cx.grad_or_zeros(1) * 2.0)].into_iter().collect()
    }
}

#[test]
fn custom_functions_have_any_order_and_several_outputs() {
    let x = leaf(&[2.0]);
    let out = apply_function(Cube, &[&x]);
    let g = grad(&[&(&out[0] + &out[1]).sum()], &[&x], Backward::graph()).swap_remove(0);
    assert_eq!(vec(&g), [14.0]);
    let h = grad(&[&g.sum()], &[&x], Backward::default()).swap_remove(0);
    assert_eq!(vec(&h), [12.0]);
    // One output alone: the other's gradient is zero.
    apply_function(Cube, &[&x])[1].sum().backward();
    assert_eq!(grad_of(&x), [2.0]);
}

#[derive(Debug)]
struct Careless(usize);
impl Function for Careless {
    fn name(&self) -> &'static str {
        "careless"
    }
    fn forward(&self, x: &[&Tensor]) -> Result<Vec<Tensor>> {
        Ok(vec![x[0] * 1.0])
    }
    fn backward(&self, cx: &Vjp<'_>) -> Grads {
        match self.0 {
            0 => Grads::new(),
            1 => [Some(Tensor::ones([5, 5], cx.grad().place()))].into_iter().collect(),
            _ => panic!("something broke in here"),
        }
    }
}

#[test]
fn a_broken_custom_gradient_is_an_error_that_names_it() {
    for (how, says) in [(0, "0 entries for 1 inputs"), (1, "[5, 5]"), (2, "something broke in here")] {
        let x = leaf(&[1.0, 2.0]);
        let y = apply_function(Careless(how), &[&x])[0].sum();
        let mut outcome = None;
        caught(|| outcome = Some(y.try_backward()));
        let e = outcome.expect("try_backward does not panic").expect_err("an error").to_string();
        assert!(e.contains("careless") && e.contains(says), "{e}");
    }
}

#[test]
fn checkpoints_equal_plain_runs_to_second_order_with_captured_parameters() {
    let key = Key::new(4);
    let draw =
        |name: &str, shape: [usize; 2]| Tensor::randn(shape, cpu().with(gradus_core::DType::F64), key.fold(name));
    let run = |block: &dyn Fn(&Tensor, &Tensor, &Tensor) -> Tensor| {
        let (x, w, v) =
            (draw("x", [3, 4]).requires_grad(), draw("w", [4, 4]).requires_grad(), draw("v", [4, 2]).requires_grad());
        // The parameter is itself made of a leaf, and used outside as well.
        let w2 = &w * 0.5;
        let y = block(&x, &w2, &v);
        let loss = (&y * &y).sum() + w2.square().sum();
        let first = grad(&[&loss], &[&x, &w, &v], Backward::graph());
        let s = first.iter().fold(Tensor::zeros((), x.place()), |s, g| s + g.sin().sum());
        let second = grad(&[&s], &[&x, &w, &v], Backward::default());
        first.iter().map(Tensor::detach).chain(second).map(|t| vec(&t)).collect::<Vec<_>>()
    };
    let plain = run(&|x, w, v| x.matmul(w).tanh().matmul(v).sin());
    let runs = Arc::new(AtomicUsize::new(0));
    let saved = run(&|x, w, v| {
        let (w, v, runs) = (w.clone(), v.clone(), runs.clone());
        checkpoint(
            move |x| {
                runs.fetch_add(1, Ordering::Relaxed);
                let dropped = x[0].try_matmul(&w)?.try_tanh()?.try_dropout(0.0, 1)?;
                dropped.try_matmul(&v)?.try_sin()
            },
            &[x],
        )
    });
    assert_eq!(plain.len(), saved.len());
    for (a, b) in plain.iter().flatten().zip(saved.iter().flatten()) {
        assert!((a - b).abs() < 1e-12, "{a} and {b}");
    }
    assert!(runs.load(Ordering::Relaxed) >= 2, "the block is run again");
}

#[test]
fn a_checkpoint_draws_the_same_numbers_again() {
    let x = Tensor::ones([1000], cpu()).requires_grad();
    let y = checkpoint(|x| x[0].try_dropout(0.5, Key::new(1).fold("drop")), &[&x]);
    y.sum().backward();
    let (y, g) = (vec(&y), grad_of(&x));
    assert_eq!(y, g, "the mask of backward is the mask of forward");
    assert!(y.contains(&0.0) && y.contains(&2.0));
}

#[test]
fn a_million_nodes_run_backward_and_drop_on_a_small_stack() {
    let run = || {
        let x = Tensor::ones([1], cpu()).requires_grad();
        let mut y = x.clone();
        for _ in 0..1_000_000 {
            y = &y + &x;
        }
        y.sum().backward();
        assert_eq!(grad_of(&x), [1_000_001.0]);
        // And one that is dropped without a walk, through several outputs.
        let mut z = x.clone();
        for _ in 0..100_000 {
            z = z.topk(1, 0, true).0;
        }
        drop(z);
    };
    let thread = std::thread::Builder::new().stack_size(256 * 1024).spawn(run).expect("a thread can be started");
    thread.join().expect("no overflow");
}

#[test]
fn a_wide_graph_visits_each_node_once() {
    // Doubling 60 times: 2⁶⁰ paths, 60 nodes.
    let x = leaf(&[1.0]);
    let mut y = x.clone();
    for _ in 0..60 {
        y = &y + &y;
    }
    y.sum().backward();
    assert_eq!(grad_of(&x), [2f64.powi(60)]);
    let g = grad(&[&y.sum()], &[&x], Backward::default());
    assert_eq!(vec(&g[0]), [2f64.powi(60)]);
}

#[test]
fn no_value_changes_under_a_holder() {
    let mut w = Tensor::from_slice(&[1.0, 2.0], cpu()).requires_grad();
    let y = w.square().sum(); // keeps w's value for backward
    let (clone, view) = (w.detach(), w.detach().flip(&[0]));
    let copies = copies_on_write();
    w.write_value(&Tensor::from_slice(&[10.0, 20.0], cpu())).expect("same shape");
    assert!(copies_on_write() > copies, "the copy is counted");
    assert_eq!(vec(&w.detach()), [10.0, 20.0]);
    assert_eq!(vec(&clone), [1.0, 2.0]);
    assert_eq!(vec(&view), [2.0, 1.0]);
    y.backward();
    assert_eq!(grad_of(&w), [2.0, 4.0], "backward uses what was saved, and the leaf stays the same leaf");
    // Held alone, it is written in place: no copy.
    drop((clone, view, y));
    w.zero_grad();
    let copies = copies_on_write();
    w.write_value(&Tensor::from_slice(&[5.0, 6.0], cpu())).expect("same shape");
    let mine = copies_on_write() - copies;
    assert!(mine <= 4, "writing alone copied {mine} times"); // other tests of this process may count meanwhile
    assert_eq!(vec(&w.detach()), [5.0, 6.0]);
    // A gradient that somebody holds does not change when more arrives.
    w.sum().backward();
    let held = w.grad().expect("a gradient");
    w.sum().backward();
    assert_eq!(vec(&held), [1.0, 1.0]);
    assert_eq!(grad_of(&w), [2.0, 2.0]);
    // Two leaves that were given one gradient do not share what they gather.
    let (a, b) = (leaf(&[1.0]), leaf(&[1.0]));
    (&a + &b).sum().backward();
    a.sum().backward();
    assert_eq!((grad_of(&a), grad_of(&b)), (vec![2.0], vec![1.0]));
    let e = w.write_value(&Tensor::zeros([3], w.place())).expect_err("another shape").to_string();
    assert!(e.contains("[2]") && e.contains("[3]"), "{e}");
}

#[test]
fn the_seed_of_a_walk_must_fit() {
    let x = leaf(&[1.0, 2.0]);
    let y = &x * 3.0;
    y.backward_with(Some(&Tensor::from_slice(&[1.0, 10.0], cpu())), Backward::default());
    assert_eq!(grad_of(&x), [3.0, 30.0]);
    let e = (&x * 3.0)
        .try_backward_with(Some(&Tensor::ones([3], x.place())), Backward::default())
        .expect_err("3 for 2")
        .to_string();
    assert!(e.contains("[3]") && e.contains("[2]"), "{e}");
}

#[test]
fn gradients_reach_leaves_through_casts_and_halves() {
    use gradus_core::DType::{Bf16, F16, F32, F64};
    let x = Tensor::from_slice(&[1.5f32, -2.0], cpu()).requires_grad();
    let y = x.to_dtype(F64).square().to_dtype(F16).to_dtype(Bf16).sum();
    y.backward();
    let g = x.grad().expect("a gradient");
    assert_eq!((g.dtype(), vec(&g)), (F32, vec![3.0, -4.0]));
    // Mixed dtypes promote, and each leaf gets its own dtype back.
    let (a, b) = (x.to_dtype(F16).detach().requires_grad(), x.detach().requires_grad());
    (&a * &b).sum().backward();
    assert_eq!(a.grad().expect("a gradient").dtype(), F16);
    assert_eq!(b.grad().expect("a gradient").dtype(), F32);
}

#[test]
fn threads_walk_their_own_graphs_over_shared_leaves() {
    let x = Tensor::ones([64], cpu()).requires_grad();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..50 {
                    (&x * 2.0).sum().backward();
                }
            });
        }
    });
    assert_eq!(grad_of(&x), vec![400.0; 64]);
}

/// Tied weights: a checkpointed block that sees a weight, and what was made with that weight before it. The weight's gradient by way
/// of the block's input must be counted once, and what earlier ops saved must stay.
#[test]
fn checkpoint_stops_at_what_flows_in() {
    let device = gradus_cpu::device();
    let run = |checkpointed: bool| {
        let w = Tensor::from_vec(vec![0.5f64, -1.5, 2.0], [3], device).requires_grad();
        let x = (&w * &w).exp();
        let block = |x: &[Tensor]| x[0].try_mul(&x[1]);
        let y = match checkpointed {
            true => {
                let first = gradus_core::autodiff::checkpoint(block, &[&x, &w]);
                first + gradus_core::autodiff::checkpoint(block, &[&x, &w])
            }
            false => (&x * &w) * 2.0,
        };
        y.sum().backward();
        w.grad().expect("a gradient").to_vec::<f64>().expect("readable")
    };
    let (have, want) = (run(true), run(false));
    assert!(have.iter().zip(&want).all(|(a, b)| (a - b).abs() < 1e-12 * b.abs()), "{have:?} instead of {want:?}");
}
