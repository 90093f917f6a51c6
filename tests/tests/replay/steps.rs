//! Whole training steps, recorded and replayed: the same bits as eager ones, whatever happens between two steps. For any device: who
//! includes this file says which.

use crate::{LONG, STEPS, UNCHECKED_POOLS, device, turn};
use gradus_core::capture::Captured;
use gradus_core::rng::Key;
use gradus_core::{Result, Slot, Tensor, backend::MemoryReport};
use gradus_nn::*;
use gradus_optim::*;
use std::cell::RefCell;

/// A batch: what goes in, and the classes that should come out.
type Draw = fn(rows: usize, step: u64) -> (Tensor, Tensor);

fn classes(n: usize, of: i64, step: u64) -> Tensor {
    Tensor::randint(0, of, [n], device(), Key::new(11).fold_in(step))
}

fn images(rows: usize, step: u64) -> (Tensor, Tensor) {
    (Tensor::randn([rows, 1, 8, 8], device(), Key::new(12).fold_in(step)), classes(rows, 10, step))
}

fn tokens(rows: usize, step: u64) -> (Tensor, Tensor) {
    (Tensor::randint(0, 17, [rows, 6], device(), Key::new(13).fold_in(step)), classes(rows * 6, 17, step))
}

fn mlp(init: &mut Init) -> Sequential {
    let net = Sequential::new().add(Flatten::default()).add(Linear::new(64, 24, init)).add(Relu);
    net.add(Dropout::new(0.3)).add(Linear::new(24, 10, init))
}

fn cnn(init: &mut Init) -> Sequential {
    let net = Sequential::new().add(Conv2d::new(1, 6, 3, init)).add(BatchNorm2d::new(6, init)).add(Relu);
    let net = net.add(MaxPool2d::new(2)).add(Dropout::new(0.2)).add(Flatten::default());
    net.add(Linear::new(54, 10, init))
}

#[derive(Module)]
struct Words {
    table: Embedding,
    rnn: Option<Lstm>,
    blocks: Option<TransformerEncoder>,
    out: Linear,
}

impl Layer for Words {
    #[track_caller]
    fn forward(&self, x: &Tensor, cx: &Cx) -> Tensor {
        let mut x = self.table.call(x, cx);
        if let Some(rnn) = &self.rnn {
            x = rnn.call(&x, cx);
        }
        if let Some(blocks) = &self.blocks {
            x = blocks.run(&x, &AttentionMask::causal(), cx);
        }
        self.out.call(&x, cx).flatten(0, 1)
    }
}

fn lstm(init: &mut Init) -> Words {
    let rnn = Lstm::new(RecurrentOptions::new(12, 16).layers(2).dropout(0.2), init);
    Words { table: Embedding::new(17, 12, init), rnn: Some(rnn), blocks: None, out: Linear::new(16, 17, init) }
}

fn gpt(init: &mut Init) -> Words {
    let options = TransformerOptions::new(12, 3).feed_forward(24).dropout(0.1).norm_first(true);
    let blocks = TransformerEncoder::new(options, 2, init).norm(LayerNorm::new([12], init));
    Words { table: Embedding::new(17, 12, init), rnn: None, blocks: Some(blocks), out: Linear::new(12, 17, init) }
}

/// A model in training.
struct Run<M> {
    model: M,
    optimizer: Optimizer,
    captured: Option<Captured>,
    step: Slot,
    done: u64,
    /// Multiplies the loss.
    weight: f64,
}

impl<M: Layer> Run<M> {
    fn new(make: fn(&mut Init) -> M, captured: Option<Captured>) -> Result<Run<M>> {
        let model = make(&mut Init::new(device(), 5)).with_paths();
        let rule = AdamW::new(3e-3).optimizer().schedule(Cosine::warmup(10, 300)).transform(ClipNorm::new(1.0));
        Ok(Run { optimizer: rule.build(&model)?, model, captured, step: Slot::new(0.0), done: 0, weight: 1.0 })
    }

    /// One step; its loss.
    fn step(&mut self, x: &Tensor, y: &Tensor) -> Result<f32> {
        self.step.set(self.done as f64);
        self.done += 1;
        self.optimizer.prepare()?;
        let (model, optimizer) = (&mut self.model, &mut self.optimizer);
        let (key, weight) = (Key::new(3).at_slot(&self.step), self.weight);
        let step = |x: &Tensor, y: &Tensor| -> Result<Tensor> {
            let loss = model.call(x, &Cx::new(Mode::Train, key)).cross_entropy(y) * weight;
            loss.try_backward()?;
            optimizer.step(model)?;
            model.zero_grad();
            Ok(loss.detach())
        };
        match &mut self.captured {
            None => step(x, y)?.item(),
            Some(captured) => captured.run(&[x, y], |x| Ok(vec![step(&x[0], &x[1])?]))?[0].item(),
        }
    }

    fn weights(&self) -> Result<Vec<(String, Vec<u8>)>> {
        self.model.state_dict().into_iter().map(|(name, t)| Ok((name, t.to_bytes()?))).collect()
    }

    fn replays(&self) -> u64 {
        self.captured.as_ref().map_or(0, Captured::replays)
    }
}

/// Many steps, each tenth with fewer rows: guarded and unchecked runs against an eager one. One after another: an eager step whose
/// running statistics are replaced makes any unchecked record of the process look anew.
fn same_for_all_steps<M: Layer>(make: fn(&mut Init) -> M, draw: Draw, flat: bool) -> Result<()> {
    let batch = |i: u64| draw(if i % 10 == 9 { 3 } else { 8 }, i);
    let mut eager = Run::new(make, None)?;
    let step = |i| {
        let (x, y) = batch(i);
        eager.step(&x, &y)
    };
    let losses = (0..STEPS).map(step).collect::<Result<Vec<_>>>()?;
    let forms = [("guarded", Some(Captured::new())), ("unchecked", flat.then(Captured::unchecked))];
    for (form, captured) in forms.into_iter().filter(|(_, captured)| captured.is_some()) {
        let mut run = Run::new(make, captured)?;
        for (i, want) in losses.iter().enumerate() {
            let (x, y) = batch(i as u64);
            let have = run.step(&x, &y)?;
            let why = run.captured.as_ref().and_then(Captured::why_eager);
            assert_eq!(have.to_bits(), want.to_bits(), "step {i}, {form}: {have} for {want} ({why:?})");
        }
        assert!(eager.weights()? == run.weights()?, "{form}: the weights differ after {STEPS} steps");
        let why = run.captured.as_ref().and_then(Captured::why_eager);
        assert!(run.replays() >= STEPS - 10, "{form}: {} replays ({why:?})", run.replays());
    }
    Ok(())
}

#[test]
fn an_mlp_trains_to_the_same_bits() -> Result<()> {
    let Some(_turn) = turn() else { return Ok(()) };
    same_for_all_steps(mlp, images, true)
}

#[test]
fn a_convolutional_net_trains_to_the_same_bits() -> Result<()> {
    let Some(_turn) = turn() else { return Ok(()) };
    same_for_all_steps(cnn, images, UNCHECKED_POOLS)
}

#[test]
fn an_lstm_trains_to_the_same_bits() -> Result<()> {
    let Some(_turn) = turn() else { return Ok(()) };
    same_for_all_steps(lstm, tokens, true)
}

#[test]
fn a_stack_of_transformer_blocks_trains_to_the_same_bits() -> Result<()> {
    let Some(_turn) = turn() else { return Ok(()) };
    same_for_all_steps(gpt, tokens, true)
}

#[test]
fn a_loss_weight_that_changes_at_step_100_changes_the_result() -> Result<()> {
    let Some(_turn) = turn() else { return Ok(()) };
    let run = |captured: Option<Captured>, changes: bool| -> Result<_> {
        let mut run = Run::new(mlp, captured)?;
        for i in 0..150 {
            if changes && i == 100 {
                run.weight = 0.25;
            }
            let (x, y) = images(8, i);
            run.step(&x, &y)?;
        }
        assert!(run.captured.is_none() || run.replays() >= 140, "{} replays", run.replays());
        run.weights()
    };
    let changed = run(None, true)?;
    assert!(changed == run(Some(Captured::new()), true)?);
    assert!(changed != run(Some(Captured::new()), false)?);
    Ok(())
}

#[test]
fn parameters_that_are_loaded_replaced_or_held_between_replays_are_noticed() -> Result<()> {
    let Some(_turn) = turn() else { return Ok(()) };
    for unchecked in [false, true] {
        let mut eager = Run::new(mlp, None)?;
        let mut run = Run::new(mlp, Some(if unchecked { Captured::unchecked() } else { Captured::new() }))?;
        let start: Vec<_> = [&eager, &run].iter().map(|r| r.model.state_dict()).collect();
        let mut snapshots = Vec::new();
        for i in 0..60 {
            let (x, y) = images(8, i);
            for (r, start) in [&mut eager, &mut run].into_iter().zip(&start) {
                if i == 20 {
                    r.model.load_state_dict(start)?;
                }
                if i == 30 {
                    let doubled = (r.model.named_parameters()[0].1.detach() * 2.0).detach();
                    r.model.for_each_parameter_mut(&mut |name, p| {
                        if name == "1.weight" {
                            p.replace(doubled.clone()).expect("a parameter of the same dtype");
                        }
                    });
                }
                if i == 40 {
                    let t = r.model.named_parameters()[0].1.detach();
                    let bytes = t.to_bytes()?;
                    snapshots.push((t, bytes));
                }
            }
            let want = eager.step(&x, &y)?;
            assert_eq!(run.step(&x, &y)?.to_bits(), want.to_bits(), "step {i}, unchecked: {unchecked}");
        }
        assert!(eager.weights()? == run.weights()?);
        assert!(run.replays() >= 40, "{} replays", run.replays());
        for (t, bytes) in snapshots {
            assert!(t.to_bytes()? == bytes, "a snapshot changed under its holder");
        }
    }
    Ok(())
}

#[test]
fn what_a_guarded_step_keeps_never_changes_under_it() -> Result<()> {
    let Some(_turn) = turn() else { return Ok(()) };
    let mut w = Tensor::randn([4, 4], device(), 1).requires_grad();
    let kept: RefCell<Vec<(Tensor, Vec<u8>)>> = RefCell::default();
    let mut captured = Captured::new();
    for i in 0..40u64 {
        let x = Tensor::randn([4, 4], device(), Key::new(2).fold_in(i));
        captured.run(&[&x], |x| {
            let hidden = x[0].matmul(&w).tanh();
            if i % 7 == 6 {
                kept.borrow_mut().push((hidden.detach(), hidden.to_bytes()?));
                kept.borrow_mut().push((w.t().detach(), w.t().to_bytes()?));
            }
            hidden.square().mean().try_backward()?;
            let g = w.take_grad().expect("a gradient");
            if i % 11 == 10 {
                kept.borrow_mut().push((g.clone(), g.to_bytes()?));
            }
            let new = w.detach().try_sub(&(g * 0.1))?;
            w.write_value(&new)?;
            Ok(vec![])
        })?;
    }
    assert!(captured.replays() >= 10, "{} replays", captured.replays());
    for (i, (t, bytes)) in kept.borrow().iter().enumerate() {
        assert!(t.to_bytes()? == *bytes, "tensor {i} changed under its holder");
    }
    Ok(())
}

#[test]
fn a_step_that_leaves_its_record_anywhere_goes_on_eagerly() -> Result<()> {
    let Some(_turn) = turn() else { return Ok(()) };
    // At each of its calls in turn, a step does something else once: the graph so far must still be walked.
    let run = |mut captured: Option<Captured>, odd: Option<usize>| -> Result<Vec<u8>> {
        let mut w = Tensor::randn([3, 3], device(), 1).requires_grad();
        for i in 0..8u64 {
            let x = Tensor::randn([3, 3], device(), Key::new(2).fold_in(i));
            let mut step = |x: &Tensor| -> Result<Tensor> {
                let at = |n: usize| if i == 5 && odd == Some(n) { 0.5 } else { 1.0 };
                let mut h = x.matmul(&w) * at(0);
                h = h.tanh() * at(1);
                h = h.matmul(&w.t()) * at(2);
                let loss = h.square().mean() * at(3);
                loss.try_backward()?;
                let g = w.take_grad().expect("a gradient") * at(4);
                let new = w.detach().try_sub(&(g * 0.1))?;
                w.write_value(&new)?;
                Ok(loss)
            };
            match &mut captured {
                None => drop(step(&x)?),
                Some(c) => drop(c.run(&[&x], |x| Ok(vec![step(&x[0])?]))?),
            }
        }
        if let Some(c) = captured {
            assert!(c.replays() >= 4, "{} replays ({:?})", c.replays(), c.why_eager());
        }
        w.to_bytes()
    };
    for odd in [None, Some(0), Some(1), Some(2), Some(3), Some(4)] {
        assert!(run(None, odd)? == run(Some(Captured::new()), odd)?, "a step that differs at {odd:?}");
    }
    Ok(())
}

#[test]
fn a_step_that_needs_more_memory_than_its_records_may_take_runs_eagerly() -> Result<()> {
    let Some(_turn) = turn() else { return Ok(()) };
    let (mut eager, mut run) = (Run::new(mlp, None)?, Run::new(mlp, Some(Captured::new().memory(4 << 10)))?);
    for i in 0..10 {
        let (x, y) = images(8, i);
        assert_eq!(eager.step(&x, &y)?.to_bits(), run.step(&x, &y)?.to_bits(), "step {i}");
    }
    assert!(eager.weights()? == run.weights()?);
    let why = run.captured.as_ref().and_then(Captured::why_eager).unwrap_or_default();
    assert!(run.replays() == 0 && why.contains("a record may take"), "{why}");
    Ok(())
}

#[test]
fn reading_back_is_an_error_at_its_line_only_where_the_step_is_not_run_again() -> Result<()> {
    let Some(_turn) = turn() else { return Ok(()) };
    let x = Tensor::ones([2], device());
    let step = |x: &[Tensor]| -> Result<Vec<Tensor>> {
        let scale: f32 = x[0].sum().item()?;
        Ok(vec![&x[0] * scale])
    };
    let mut unchecked = Captured::unchecked();
    unchecked.run(&[&x], step)?;
    let error = unchecked.run(&[&x], step).expect_err("a read-back in an unchecked step").to_string();
    assert!(error.contains("steps.rs:"), "{error}");
    let mut guarded = Captured::new();
    for i in 0..9u8 {
        let x = &x * f64::from(i / 3 + 1);
        let y = guarded.run(&[&x], step)?;
        assert_eq!(y[0].to_vec::<f32>()?, step(&[x])?[0].to_vec::<f32>()?, "run {i}");
    }
    Ok(())
}

#[test]
fn memory_does_not_grow_over_many_replays() -> Result<()> {
    let Some(_turn) = turn() else { return Ok(()) };
    use gradus_core::Backend;
    let report = || -> MemoryReport { Backend::memory(device().backend()) };
    let mut run = Run::new(mlp, Some(Captured::new()))?;
    let mut after_warm_up = 0;
    for i in 0..LONG {
        let (x, y) = images(if i % 10 == 9 { 3 } else { 8 }, i % 20);
        run.step(&x, &y)?;
        if i == 100 {
            after_warm_up = report().in_use;
        }
    }
    // Other tests of this program run at the same time, but none holds a megabyte.
    assert!(report().in_use < after_warm_up + (8 << 20), "{} bytes, then {}", after_warm_up, report().in_use);
    assert!(run.replays() > LONG - 100);
    Ok(())
}
