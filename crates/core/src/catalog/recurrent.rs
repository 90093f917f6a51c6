//! Steps and whole sequences of LSTMs and GRUs, and the composites of their gradients.

use super::networks::composed;
use super::{Entry, Input, reals};
use crate::error::{Error, Result};
use crate::functional::gru::{GruStep, GruStepGrad};
use crate::functional::gru_sequence::{GruSequence, GruSequenceGrad};
use crate::functional::lstm::{LstmStep, LstmStepGrad};
use crate::functional::lstm_sequence::{LstmGateGrad, LstmSequence, LstmSequenceGrad, LstmWeightGrad};
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    [lstm(), gru(), lstm_sequence(), gru_sequence()].into_iter().flatten().collect()
}

fn lstm() -> Vec<Entry> {
    let gates: &[&[usize]] = &[&[3, 8], &[3, 8], &[3, 2]];
    let large: &[&[usize]] = &[&[67, 4 * 61], &[67, 4 * 61], &[67, 61]];
    fn with_grads<'a>(shapes: &[&'a [usize]]) -> Vec<&'a [usize]> {
        [shapes, &shapes[2..], &shapes[2..]].concat()
    }
    vec![
        Entry::new(
            "lstm_step",
            "torch.ops.aten._thnn_fused_lstm_cell",
            "An LSTM's next h and c from its gates (i, f, g, o, of the input and of h) and c.",
        )
        .case(reals(gates), |x| composed(LstmStep, x))
        .case(reals(&[&[12], &[12], &[3]]), |x| composed(LstmStep, x))
        .large(reals(large), |x| composed(LstmStep, x).map(|mut y| y.swap_remove(0))),
        Entry::new(
            "lstm_step_grad",
            "torch.ops.aten._thnn_fused_lstm_cell_backward",
            "The gradients of an LSTM's step with respect to its gates and c.",
        )
        .case(reals(&with_grads(gates)), |x| composed(LstmStepGrad, x))
        .large(reals(&with_grads(large)), |x| composed(LstmStepGrad, x).map(|mut y| y.swap_remove(0))),
    ]
}

fn gru() -> Vec<Entry> {
    let gates: &[&[usize]] = &[&[3, 6], &[3, 6], &[3, 2]];
    let with_grad: &[&[usize]] = &[&[3, 6], &[3, 6], &[3, 2], &[3, 2]];
    vec![
        Entry::new(
            "gru_step",
            "torch.ops.aten._thnn_fused_gru_cell",
            "A GRU's next h from its gates (r, z, n, of the input and of h) and h.",
        )
        .case(reals(gates), |x| composed(GruStep, x))
        .case(reals(&[&[9], &[9], &[3]]), |x| composed(GruStep, x)),
        Entry::new(
            "gru_step_grad",
            "torch.ops.aten._thnn_fused_gru_cell_backward",
            "The gradients of a GRU's step with respect to its gates and h.",
        )
        .case(reals(with_grad), |x| composed(GruStepGrad, x)),
    ]
}

/// The length of the last dimension.
fn width(x: &Tensor) -> Result<usize> {
    x.dims().last().copied().ok_or_else(|| Error::misuse("a state has a width"))
}

fn lstm_sequence() -> Vec<Entry> {
    // Steps, batch, inputs and width.
    fn inputs([t, b, i, n]: [usize; 4]) -> Vec<Input> {
        reals(&[&[t, b, i], &[4 * n, i], &[4 * n], &[4 * n, n], &[b, n], &[b, n]])
    }
    fn with_grads(sizes: [usize; 4]) -> Vec<Input> {
        let [t, b, _, n] = sizes;
        [inputs(sizes), reals(&[&[t, b, n], &[b, n]])].concat()
    }
    /// What forward keeps is a function of the inputs, which the definition works out for itself.
    fn kept(x: &[Tensor], reverse: bool) -> Result<[Tensor; 2]> {
        let [gates, w, mut h, mut c] = [
            x[0].detach().try_linear(&x[1].detach(), Some(&x[2].detach()))?,
            x[3].detach().try_t()?,
            x[4].detach(),
            x[5].detach(),
        ];
        let (gates, n) = (gates.try_unbind(0)?, width(&x[4])? as isize);
        let (mut activations, mut cells) = (Vec::new(), Vec::new());
        for i in 0..gates.len() {
            let s = gates[if reverse { gates.len() - 1 - i } else { i }].try_add(&h.try_matmul(&w)?)?;
            let part = |from: isize, to: isize| s.try_narrow(1, (from * n) as usize, ((to - from) * n) as usize);
            let (sigmoid, tanh, out) =
                (part(0, 2)?.try_sigmoid()?, part(2, 3)?.try_tanh()?, part(3, 4)?.try_sigmoid()?);
            let mut next = Tensor::try_compose(LstmStep, &[&s, &Tensor::try_zeros(*s.shape(), s.place())?, &c])?;
            c = next.swap_remove(1);
            h = next.swap_remove(0);
            activations.push(Tensor::try_cat(&[&sigmoid, &tanh, &out], 1)?);
            cells.push(c.clone());
        }
        let stacked = |all: Vec<Tensor>| Tensor::try_stack(&all.iter().collect::<Vec<_>>(), 0);
        Ok([stacked(activations)?, stacked(cells)?])
    }
    fn gate_grad(x: &[Tensor], reverse: bool) -> Result<Vec<Tensor>> {
        composed(LstmGateGrad { reverse }, &[x, &kept(x, reverse)?].concat())
    }
    /// All states are an input of its own.
    fn grad(x: &[Tensor], op: LstmSequenceGrad) -> Result<Vec<Tensor>> {
        composed(op, &[x, &kept(x, op.reverse)?].concat())
    }
    fn with_states(sizes: [usize; 4]) -> Vec<Input> {
        let [t, b, _, n] = sizes;
        [with_grads(sizes), reals(&[&[t, b, n]])].concat()
    }
    fn wanted(reverse: bool, inputs: bool, states: bool) -> LstmSequenceGrad {
        LstmSequenceGrad { reverse, inputs, states }
    }
    fn all_weights(x: &[Tensor], reverse: bool) -> Result<Tensor> {
        in_one(composed(LstmWeightGrad { reverse }, x)?)
    }
    /// The gradients as one vector, which depends on every input.
    fn in_one(all: Vec<Tensor>) -> Result<Tensor> {
        let flat = all.iter().map(|t| t.try_reshape([t.elements()])).collect::<Result<Vec<_>>>()?;
        Tensor::try_cat(&flat.iter().collect::<Vec<_>>(), 0)
    }
    let gradients = |[t, b, i, n]: [usize; 4]| reals(&[&[t, b, 4 * n], &[t, b, i], &[t, b, n], &[b, n]]);
    vec![
        Entry::new("lstm_sequence", "torch.ops.aten.lstm", "All steps of an LSTM: h of all steps, and the last c.")
            .case(inputs([3, 2, 3, 2]), |x| composed(LstmSequence { reverse: false }, x))
            .case(inputs([2, 1, 1, 3]), |x| composed(LstmSequence { reverse: true }, x))
            .large(inputs([5, 67, 3, 37]), |x| {
                composed(LstmSequence { reverse: true }, x).map(|mut y| y.swap_remove(0))
            })
            .large(inputs([4, 33, 40, 32]), |x| {
                composed(LstmSequence { reverse: false }, x).map(|mut y| y.swap_remove(1))
            })
            .large(inputs([2, 9, 1100, 32]), |x| {
                // Weights as small as a layer's: gates of dozens would make rounding errors of their sums as large as the gradients.
                let v = &x[1] * 0.02;
                let x = [&x[..1], &[v], &x[2..]].concat();
                composed(LstmSequence { reverse: false }, &x).map(|mut y| y.swap_remove(0))
            }),
        Entry::new(
            "lstm_gate_grad",
            "torch.ops.aten._thnn_fused_lstm_cell_backward",
            "The gradients of all steps of an LSTM with respect to its gates, and the first h and c.",
        )
        .case(with_grads([2, 2, 1, 2]), |x| gate_grad(x, false))
        .case(with_grads([2, 1, 2, 2]), |x| gate_grad(x, true))
        .large(with_grads([3, 67, 2, 37]), |x| gate_grad(x, false).map(|mut y| y.swap_remove(0))),
        Entry::new(
            "lstm_sequence_grad",
            "torch.ops.aten.lstm_backward",
            "The gradients of all steps of an LSTM with respect to its weights, its inputs, and the first h and c.",
        )
        .case(with_states([2, 2, 1, 2]), |x| grad(x, wanted(false, true, true)))
        .case(with_states([2, 1, 2, 2]), |x| grad(x, wanted(true, false, true)))
        .case(with_states([3, 2, 1, 1]), |x| grad(x, wanted(false, true, false)))
        .case(with_states([1, 1, 1, 1]), |x| grad(x, wanted(true, false, false)))
        .large(with_states([3, 67, 2, 37]), |x| in_one(grad(x, wanted(false, true, true))?))
        .large(with_states([9, 35, 11, 16]), |x| in_one(grad(x, wanted(true, true, true))?))
        .large(with_states([13, 6, 40, 32]), |x| in_one(grad(x, wanted(false, false, false))?)),
        Entry::new(
            "lstm_weight_grad",
            "torch.ops.aten.lstm_backward",
            "The gradients of an LSTM's weights from those of all steps' gates.",
        )
        .case(gradients([3, 2, 3, 2]), |x| composed(LstmWeightGrad { reverse: false }, x))
        .case(gradients([2, 1, 1, 2]), |x| composed(LstmWeightGrad { reverse: true }, x))
        .large(gradients([5, 67, 3, 37]), |x| all_weights(x, true))
        .large(gradients([4, 33, 40, 32]), |x| all_weights(x, false))
        .large(gradients([6, 50, 5, 16]), |x| all_weights(x, true)),
    ]
}

fn gru_sequence() -> Vec<Entry> {
    fn inputs(t: usize, b: usize, n: usize) -> Vec<Input> {
        reals(&[&[t, b, 3 * n], &[3 * n, n], &[b, n], &[3 * n]])
    }
    /// As an LSTM's; the states after the steps are among the inputs too.
    fn grad(x: &[Tensor], reverse: bool) -> Result<Vec<Tensor>> {
        let (gates, mut h, n) = (x[0].detach().try_unbind(0)?, x[2].detach(), width(&x[2])?);
        let (w, b) = (x[1].detach(), x[3].detach());
        let (mut kept, mut states) = (Vec::new(), Vec::new());
        for i in 0..gates.len() {
            let gx = &gates[if reverse { gates.len() - 1 - i } else { i }];
            let gh = h.try_linear(&w, Some(&b))?;
            let r_z = gx.try_narrow(1, 0, 2 * n)?.try_add(&gh.try_narrow(1, 0, 2 * n)?)?.try_sigmoid()?;
            let part = gh.try_narrow(1, 2 * n, n)?;
            let (r, z) = (r_z.try_narrow(1, 0, n)?, r_z.try_narrow(1, n, n)?);
            let new = gx.try_narrow(1, 2 * n, n)?.try_add(&r.try_mul(&part)?)?.try_tanh()?;
            h = new.try_add(&z.try_mul(&h.try_sub(&new)?)?)?;
            kept.push(Tensor::try_cat(&[&r_z, &new, &part], 1)?);
            states.push(h.clone());
        }
        if reverse {
            states.reverse();
        }
        let stacked = |all: Vec<Tensor>| Tensor::try_stack(&all.iter().collect::<Vec<_>>(), 0);
        let mut all = x[..4].to_vec();
        all.extend([stacked(states)?, x[4].clone(), stacked(kept)?]);
        composed(GruSequenceGrad { reverse }, &all)
    }
    let with_grad = |t, b, n| [inputs(t, b, n), reals(&[&[t, b, n]])].concat();
    vec![
        Entry::new("gru_sequence", "torch.ops.aten.gru", "All steps of a GRU from the gates of its inputs.")
            .case(inputs(3, 2, 2), |x| composed(GruSequence { reverse: false }, x))
            .case(inputs(2, 1, 3), |x| composed(GruSequence { reverse: true }, x))
            .large(inputs(5, 67, 37), |x| composed(GruSequence { reverse: true }, x).map(|mut y| y.swap_remove(0))),
        Entry::new(
            "gru_sequence_grad",
            "torch.ops.aten._thnn_fused_gru_cell_backward",
            "The gradients of all steps of a GRU with respect to the gates of its inputs and of h, and the first h.",
        )
        .case(with_grad(2, 2, 2), |x| grad(x, false))
        .case(with_grad(2, 1, 2), |x| grad(x, true))
        .large(with_grad(3, 67, 37), |x| grad(x, false).map(|mut y| y.swap_remove(1))),
    ]
}
