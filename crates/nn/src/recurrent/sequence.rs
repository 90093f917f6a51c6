//! One step of each kind, and the run over a sequence.

use super::options::RecurrentOptions;
use super::weights::{Stack, Weights};
use gradus_core::functional::gru::GruStep;
use gradus_core::functional::gru_sequence::GruSequence;
use gradus_core::functional::lstm::LstmStep;
use gradus_core::functional::lstm_sequence::LstmSequence;
use gradus_core::{Error, Key, Result, Tensor};

/// The function behind a plain recurrent layer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum RnnActivation {
    /// tanh
    #[default]
    Tanh,
    /// max(x, 0)
    Relu,
}

/// The kinds of steps.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Rnn(RnnActivation),
    Lstm,
    Gru,
}

/// What goes from step to step: h, and an LSTM's c.
#[derive(Clone, Debug)]
pub(super) struct Carry {
    pub h: Tensor,
    pub c: Option<Tensor>,
}

impl Kind {
    /// How many gates stand one after another in the weights.
    pub fn gates(self) -> usize {
        match self {
            Kind::Rnn(_) => 1,
            Kind::Gru => 3,
            Kind::Lstm => 4,
        }
    }

    /// x·W_ihᵀ + b, of any number of steps: b holds both biases, but for a GRU, whose r stands before the second.
    pub fn inputs(self, w: &Weights, x: &Tensor) -> Result<Tensor> {
        match self {
            Kind::Gru => x.try_linear(&w.weight_ih, w.bias_ih.as_deref()),
            _ => x.try_linear(&w.weight_ih, w.bias()?.as_ref()),
        }
    }

    /// The state after a step, whose inputs' part of the gates is `gx`.
    pub fn step(self, w: &Weights, gx: &Tensor, carry: &Carry) -> Result<Carry> {
        match self {
            Kind::Rnn(activation) => {
                let sum = gx.try_add(&carry.h.try_linear(&w.weight_hh, None)?)?;
                let h = match activation {
                    RnnActivation::Tanh => sum.try_tanh()?,
                    RnnActivation::Relu => sum.try_relu()?,
                };
                Ok(Carry { h, c: None })
            }
            Kind::Lstm => lstm(w, gx, carry),
            Kind::Gru => {
                let gh = carry.h.try_linear(&w.weight_hh, w.bias_hh.as_deref())?; // n_h has the second bias
                Ok(Carry { h: Tensor::try_compose1(GruStep, &[gx, &gh, &carry.h])?, c: None })
            }
        }
    }
}

/// i, f, g, o = gates; c ← σ(f)·c + σ(i)·tanh(g); h ← σ(o)·tanh(c), perhaps projected.
fn lstm(w: &Weights, gx: &Tensor, carry: &Carry) -> Result<Carry> {
    let Some(c) = &carry.c else { return Err(Error::misuse("an LSTM's state has h and c")) };
    let mut next = Tensor::try_compose(LstmStep, &[gx, &carry.h.try_linear(&w.weight_hh, None)?, c])?;
    let (Some(c), Some(h)) = (next.pop(), next.pop()) else {
        return Err(Error::misuse("an LSTM's step gives h and c"));
    };
    let h = match &w.weight_hr {
        Some(projection) => h.try_linear(projection, None)?,
        None => h,
    };
    Ok(Carry { h, c: Some(c) })
}

/// A bias as it is, or zeros `[gates·n]`.
fn bias_or_zeros(w: &Weights, bias: Option<Tensor>) -> Result<Tensor> {
    bias.map_or_else(|| Tensor::try_zeros([w.weight_hh.dim(0)], w.weight_hh.place()), Ok)
}

/// All steps at once, where nothing but the kind's own formula stands between them: the outputs and the last state. `None` for what is
/// run step by step.
fn whole(kind: Kind, w: &Weights, x: &Tensor, start: &Carry, reverse: bool) -> Result<Option<(Tensor, Carry)>> {
    let last = |y: &Tensor| match y.dim(0) {
        0 => Ok(start.h.clone()),
        _ => y.try_select(0, if reverse { 0 } else { -1 }),
    };
    match (kind, &start.c) {
        (Kind::Lstm, Some(c)) if w.weight_hr.is_none() => {
            let bias = bias_or_zeros(w, w.bias()?)?;
            let inputs = [x, &w.weight_ih, &bias, &w.weight_hh, &start.h, c];
            let mut out = Tensor::try_compose(LstmSequence { reverse }, &inputs)?;
            let (Some(c), Some(y)) = (out.pop(), out.pop()) else {
                return Err(Error::misuse("an LSTM's sequence gives all h and the last c"));
            };
            Ok(Some((y.clone(), Carry { h: last(&y)?, c: Some(c) })))
        }
        (Kind::Gru, _) => {
            let (gx, bias) = (kind.inputs(w, x)?, bias_or_zeros(w, w.bias_hh.as_deref().cloned())?);
            let y = Tensor::try_compose1(GruSequence { reverse }, &[&gx, &w.weight_hh, &start.h, &bias])?;
            Ok(Some((y.clone(), Carry { h: last(&y)?, c: None })))
        }
        _ => Ok(None),
    }
}

/// Which steps count for each sequence of a batch.
struct Lengths {
    lens: Vec<usize>,
    /// For each step at which some sequence has ended: where it has not, `[batch, 1]`.
    on: Vec<Option<Tensor>>,
}

impl Lengths {
    fn new(lens: &[usize], steps: usize, like: &Tensor) -> Result<Lengths> {
        let batch = like.dim(1);
        if lens.len() != batch || lens.iter().any(|&n| n > steps) {
            return Err(Error::misuse(format!("lengths {lens:?} do not suit {batch} sequences of {steps} steps")));
        }
        let on = (0..steps)
            .map(|t| {
                if lens.iter().all(|&n| n > t) {
                    return Ok(None);
                }
                let on: Vec<bool> = lens.iter().map(|&n| n > t).collect();
                Tensor::try_from_vec(on, [batch, 1], like.device()).map(Some)
            })
            .collect::<Result<_>>()?;
        Ok(Lengths { lens: lens.to_vec(), on })
    }
}

/// One layer in one direction: outputs `[steps, batch, state]` for x `[steps, batch, inputs]`, and the last state. A sequence that
/// has ended keeps its state, and gives zeros.
fn run(
    kind: Kind,
    w: &Weights,
    x: &Tensor,
    start: Carry,
    lengths: Option<&Lengths>,
    reverse: bool,
) -> Result<(Tensor, Carry)> {
    if lengths.is_none()
        && let Some(ran) = whole(kind, w, x, &start, reverse)?
    {
        return Ok(ran);
    }
    let gx = kind.inputs(w, x)?.try_unbind(0)?;
    let steps = gx.len();
    let (mut carry, mut outputs) = (start, Vec::with_capacity(steps));
    for i in 0..steps {
        let t = if reverse { steps - 1 - i } else { i };
        let next = kind.step(w, &gx[t], &carry)?;
        match lengths.and_then(|l| l.on[t].as_ref()) {
            None => {
                outputs.push(next.h.clone());
                carry = next;
            }
            Some(on) => {
                outputs.push(next.h.try_masked_fill(&on.try_logical_not()?, 0.0)?);
                let c = match (&next.c, &carry.c) {
                    (Some(new), Some(old)) => Some(new.try_where(on, old)?),
                    _ => None,
                };
                carry = Carry { h: next.h.try_where(on, &carry.h)?, c };
            }
        }
    }
    if reverse {
        outputs.reverse();
    }
    let y = match outputs.is_empty() {
        true => Tensor::try_zeros([0, x.dim(1), w.weight_hh.dim(1)], x.place())?,
        false => Tensor::try_stack(&outputs.iter().collect::<Vec<_>>(), 0)?,
    };
    Ok((y, carry))
}

/// What a whole stack is run with.
pub(super) struct Run<'a> {
    pub kind: Kind,
    pub options: &'a RecurrentOptions,
    pub stack: &'a Stack,
    /// States of all layers and directions, `[layers·directions, batch, state]`; zeros if absent.
    pub state: Option<[&'a Tensor; 2]>,
    pub lens: Option<&'a [usize]>,
    /// Keys for dropout between layers; none outside training.
    pub keys: &'a dyn Fn() -> Option<Key>,
}

/// Outputs in the layout of x, then h and c of all layers and directions.
pub(super) type Ran = (Tensor, Tensor, Option<Tensor>);

impl Run<'_> {
    /// Over sequences in the layer's layout, or one without the batch `[steps, inputs]`.
    pub fn over(&self, x: &Tensor) -> Result<Ran> {
        let o = self.options;
        if !matches!(x.rank(), 2 | 3) || x.dim(-1) != o.inputs || !x.dtype().is_float() {
            let layout = if o.time_first { "steps, batch" } else { "batch, steps" };
            let message = format!("needs sequences [{layout}, {}], or one without the batch", o.inputs);
            return Err(Error::misuse(message).in_op("recurrent", [(x.dtype(), *x.shape())]));
        }
        if x.rank() == 2 {
            let state = self.state.map(|s| s.map(|t| t.try_unsqueeze(1)));
            let state = match state {
                Some([h, c]) => Some([h?, c?]),
                None => None,
            };
            let run = Run { state: state.as_ref().map(|[h, c]| [h, c]), ..*self };
            let (y, h, c) = run.stacked(&x.try_unsqueeze(1)?)?;
            return Ok((y.try_squeeze(1)?, h.try_squeeze(1)?, c.map(|c| c.try_squeeze(1)).transpose()?));
        }
        if o.time_first {
            return self.stacked(x);
        }
        let (y, h, c) = self.stacked(&x.try_transpose(0, 1)?)?;
        Ok((y.try_transpose(0, 1)?, h, c))
    }

    /// Over `[steps, batch, inputs]`.
    fn stacked(&self, x: &Tensor) -> Result<Ran> {
        let (o, directions) = (self.options, self.options.directions());
        let lengths = self.lens.map(|l| Lengths::new(l, x.dim(0), x)).transpose()?;
        // Lengths that leave nothing out need no masks.
        let lengths = lengths.as_ref().filter(|l| l.lens.iter().any(|&n| n < x.dim(0)));
        let (mut x, mut hs, mut cs) = (x.clone(), Vec::new(), Vec::new());
        for layer in 0..o.layers {
            let mut outputs = Vec::new();
            for d in 0..directions {
                let i = layer * directions + d;
                let start = self.start(i, &x)?;
                let (y, end) = run(self.kind, &self.stack.all[i], &x, start, lengths, d == 1)?;
                outputs.push(y);
                hs.push(end.h);
                cs.extend(end.c);
            }
            x = match &outputs[..] {
                [y] => y.clone(),
                _ => Tensor::try_cat(&outputs.iter().collect::<Vec<_>>(), -1)?,
            };
            if layer + 1 < o.layers
                && o.dropout > 0.0
                && let Some(key) = (self.keys)()
            {
                x = x.try_dropout(o.dropout, key)?;
            }
        }
        let stacked = |all: &[Tensor]| Tensor::try_stack(&all.iter().collect::<Vec<_>>(), 0);
        let c = if cs.is_empty() { None } else { Some(stacked(&cs)?) };
        Ok((x, stacked(&hs)?, c))
    }

    /// The state that layer and direction `i` begins with.
    fn start(&self, i: usize, x: &Tensor) -> Result<Carry> {
        let (o, batch, lstm) = (self.options, x.dim(1), self.kind == Kind::Lstm);
        let widths = [o.state_width(), o.hidden];
        let Some(state) = self.state else {
            let zeros = |n: usize| Tensor::try_zeros([batch, n], x.place());
            return Ok(Carry { h: zeros(widths[0])?, c: lstm.then(|| zeros(widths[1])).transpose()? });
        };
        for (t, n) in state.iter().zip(widths).take(1 + usize::from(lstm)) {
            let want = [o.layers * o.directions(), batch, n];
            if t.dims() != want {
                return Err(Error::misuse(format!("an initial state of shape {want:?} would fit, not {}", t.shape())));
            }
        }
        let [h, c] = state.map(|t| t.try_select(0, i as isize));
        Ok(Carry { h: h?, c: if lstm { Some(c?) } else { None } })
    }
}
