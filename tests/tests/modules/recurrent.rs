//! Recurrent layers and cells.

use super::{Outcome, init};
use gradus_core::{Error, Result};
use gradus_nn::{Gru, GruCell, Lstm, LstmCell, LstmState, RecurrentOptions, Rnn, RnnActivation, RnnCell};
use gradus_tests::golden_modules::{Arguments, Built, called};

pub(super) fn build(name: &str, a: &Arguments<'_>) -> Outcome {
    Some(match name {
        "RNN" | "GRU" | "LSTM" => layer(name, a),
        "RNNCell" | "GRUCell" | "LSTMCell" => cell(name, a),
        _ => return None,
    })
}

fn activation(a: &Arguments<'_>, i: usize) -> Result<RnnActivation> {
    match a.word(i, "nonlinearity") {
        None | Some("tanh") => Ok(RnnActivation::Tanh),
        Some("relu") => Ok(RnnActivation::Relu),
        Some(other) => Err(Error::misuse(format!("no nonlinearity is called {other}"))),
    }
}

fn options(a: &Arguments<'_>) -> Result<RecurrentOptions> {
    let mut o = RecurrentOptions::new(a.len(0, "input_size")?, a.len(1, "hidden_size")?);
    o = o.layers(a.len_or(2, "num_layers", 1)?).bias(a.flag(99, "bias", true)).dropout(a.number(99, "dropout", 0.0)?);
    if a.flag(99, "bidirectional", false) {
        o = o.bidirectional();
    }
    match a.len_or(99, "proj_size", 0)? {
        0 => {}
        p => o = o.projection(p),
    }
    Ok(if a.flag(99, "batch_first", false) { o } else { o.time_first() })
}

fn layer(name: &str, a: &Arguments<'_>) -> Result<Box<dyn Built>> {
    let o = options(a)?;
    macro_rules! plain {
        ($layer:expr) => {
            called($layer, |l, i, cx| {
                let (y, h) = l.try_run(&i.x(0, "input")?, i.tensor(1, "hx")?.as_ref(), None, cx)?;
                Ok(vec![y, h])
            })
        };
    }
    Ok(match name {
        "RNN" => plain!(Rnn::try_new(o, activation(a, 99)?, &mut init())?),
        "GRU" => plain!(Gru::try_new(o, &mut init())?),
        _ => called(Lstm::try_new(o, &mut init())?, |l, i, cx| {
            let (y, end) = l.try_run(&i.x(0, "input")?, state(i)?.as_ref(), None, cx)?;
            Ok(vec![y, end.h, end.c])
        }),
    })
}

fn state(i: &Arguments<'_>) -> Result<Option<LstmState>> {
    Ok(i.tuple(1, "hx")?.map(|s| LstmState { h: s[0].clone(), c: s[1].clone() }))
}

fn cell(name: &str, a: &Arguments<'_>) -> Result<Box<dyn Built>> {
    let (inputs, hidden, bias) = (a.len(0, "input_size")?, a.len(1, "hidden_size")?, a.flag(2, "bias", true));
    macro_rules! plain {
        ($cell:expr) => {
            called($cell, |c, i, _| Ok(vec![c.try_forward(&i.x(0, "input")?, i.tensor(1, "hx")?.as_ref())?]))
        };
    }
    Ok(match name {
        "RNNCell" => plain!(RnnCell::try_new(inputs, hidden, activation(a, 3)?, &mut init())?.bias(bias)),
        "GRUCell" => plain!(GruCell::try_new(inputs, hidden, &mut init())?.bias(bias)),
        _ => called(LstmCell::try_new(inputs, hidden, &mut init())?.bias(bias), |c, i, _| {
            let end = c.try_forward(&i.x(0, "input")?, state(i)?.as_ref())?;
            Ok(vec![end.h, end.c])
        }),
    })
}
