//! Steps and sequences of LSTMs and GRUs.

use crate::adapter::{devices, turn};
use crate::{agrees, normal};
use gradus_core::Tensor;
use gradus_core::functional::gru::GruStep;
use gradus_core::functional::gru_sequence::GruSequence;
use gradus_core::functional::lstm::LstmStep;

#[test]
fn an_lstm_s_step_is_its_definition() {
    let _turn = turn();
    let step = |x: &[Tensor]| Ok(Tensor::try_compose(LstmStep, &x.iter().collect::<Vec<_>>())?.into_vec());
    for gpu in devices() {
        for [rows, n] in [[1, 1], [3, 17], [33, 5]] {
            let x = [normal(&[rows, 4 * n], "x"), normal(&[rows, 4 * n], "h"), normal(&[rows, n], "c")];
            agrees(gpu, &format!("lstm_step of {rows} rows of {n}"), &x, 1, true, &step);
        }
        // A step of a sequence: gates that lie between those of other steps.
        let x = [normal(&[3, 5, 8], "x"), normal(&[3, 8], "h"), normal(&[3, 2], "c")];
        let within =
            |x: &[Tensor]| Ok(Tensor::try_compose(LstmStep, &[&x[0].try_select(1, 2)?, &x[1], &x[2]])?.into_vec());
        agrees(gpu, "lstm_step of a sequence's gates", &x, 1, true, &within);
    }
}

#[test]
fn a_gru_s_step_is_its_definition() {
    let _turn = turn();
    let step = |x: &[Tensor]| Ok(Tensor::try_compose(GruStep, &x.iter().collect::<Vec<_>>())?.into_vec());
    for gpu in devices() {
        for [rows, n] in [[1, 1], [3, 17], [33, 5]] {
            let x = [normal(&[rows, 3 * n], "x"), normal(&[rows, 3 * n], "s"), normal(&[rows, n], "h")];
            agrees(gpu, &format!("gru_step of {rows} rows of {n}"), &x, 1, true, &step);
        }
        let x = [normal(&[3, 5, 6], "x"), normal(&[3, 6], "s"), normal(&[3, 2], "h")];
        let within =
            |x: &[Tensor]| Ok(Tensor::try_compose(GruStep, &[&x[0].try_select(1, 2)?, &x[1], &x[2]])?.into_vec());
        agrees(gpu, "gru_step of a sequence's gates", &x, 1, true, &within);
        // A sequence is a product and a step for each of its steps, and what stacks them.
        let x = [normal(&[4, 3, 15], "x"), normal(&[15, 5], "w"), normal(&[3, 5], "h"), normal(&[15], "b")];
        let sequence = |x: &[Tensor]| {
            let x: Vec<&Tensor> = x.iter().collect();
            Ok(Tensor::try_compose(GruSequence { reverse: true }, &x)?.into_vec())
        };
        agrees(gpu, "gru_sequence", &x, 4 * 2 + 4, true, &sequence);
    }
}
