//! Recurrent layers over whole sequences.

use super::options::RecurrentOptions;
use super::sequence::{Kind, Ran, RnnActivation, Run};
use super::weights::Stack;
use crate::init::Init;
use crate::layer::layer;
use crate::{Cx, Module, Site};
use gradus_core::error::or_raise;
use gradus_core::{Error, Result, Tensor};

/// An LSTM's states, `[layers·directions, batch, ..]`, the layers' directions one after another.
#[derive(Clone, Debug)]
pub struct LstmState {
    /// What is given and fed back, `[.., hidden]` (or `[.., projection]`).
    pub h: Tensor,
    /// The cells, `[.., hidden]`.
    pub c: Tensor,
}

macro_rules! recurrent_layers {
    ($($(#[$doc:meta])* $t:ident, $example:literal, state $state:ty, $split:expr, $join:expr;)*) => {$(
        $(#[$doc])*
        ///
        /// Parameters have PyTorch's names and layouts (`weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, then `_l1` and so on,
        /// and `_reverse` for the direction from the end), and start uniform on ±1/√hidden.
        ///
        /// As a [`Layer`](crate::Layer) it maps sequences `[batch, steps, inputs]` (or one without the batch) to
        /// `[batch, steps, width]`, from zero states. [`run`](Self::run) takes and gives states, and takes sequences of several lengths.
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, Init, RecurrentOptions, ", stringify!($t), "};")]
        /// let device = gradus_cpu::device();
        /// let options = RecurrentOptions::new(8, 16).layers(2).bidirectional();
        #[doc = $example]
        /// let x = Tensor::ones([2, 5, 8], device);
        /// let (y, _state) = rnn.run(&x, None, Some(&[5, 3]), &Cx::eval()); // the second sequence has 3 steps
        /// assert_eq!(y.dims(), [2, 5, 32]);
        /// ```
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            #[module(flatten)]
            stack: Stack,
            #[module(skip)]
            options: RecurrentOptions,
            #[module(skip)]
            kind: Kind,
            site: Site,
        }

        impl $t {
            /// Its sizes and options.
            pub fn options(&self) -> &RecurrentOptions {
                &self.options
            }
            fn described(&self) -> String {
                self.options.described()
            }

            /// The outputs for x and the last states, from these states (zeros if absent). Of sequence b, the first `lens[b]` steps count:
            /// beyond them the outputs are 0, the last state is the one after them, and the direction from the end begins there. (What
            /// PyTorch does with packed sequences.) Panics at the caller's line if shapes do not fit.
            #[track_caller]
            pub fn run(&self, x: &Tensor, state: Option<&$state>, lens: Option<&[usize]>, cx: &Cx) -> (Tensor, $state) {
                let _scope = cx.enter(self);
                let (y, state) = or_raise(self.try_run(x, state, lens, cx));
                (cx.passed(self, y), state)
            }
            /// As [`run`](Self::run), with misuse returned as an error.
            pub fn try_run(&self, x: &Tensor, state: Option<&$state>, lens: Option<&[usize]>, cx: &Cx) -> Result<(Tensor, $state)> {
                let keys = || cx.is_training().then(|| cx.key(self.site.stream()));
                let run = Run {
                    kind: self.kind,
                    options: &self.options,
                    stack: &self.stack,
                    state: state.map($split),
                    lens,
                    keys: &keys,
                };
                let ran: Ran = run.over(x)?;
                $join(ran)
            }
            fn made(kind: Kind, options: RecurrentOptions, init: &mut Init) -> Result<$t> {
                Ok($t { stack: Stack::try_new(kind.gates(), &options, init)?, options, kind, site: Site::default() })
            }
        }

        layer!($t, |self, x, cx| self.try_run(x, None, None, cx).map(|(y, _)| y));
    )*};
}

fn plain((y, h, _): Ran) -> Result<(Tensor, Tensor)> {
    Ok((y, h))
}

recurrent_layers! {
    /// h ← act(W_ih·x + b_ih + W_hh·h + b_hh), step by step, with tanh or ReLU (Elman, 1990). In PyTorch: `torch.nn.RNN`.
    Rnn, "let rnn = Rnn::new(options, &mut Init::new(device, 0));", state Tensor, |h| [h, h], plain;
    /// A gated recurrent unit (Cho et al., 2014), step by step, with σ the logistic function: r = σ(W_ir·x + b_ir + W_hr·h + b_hr),
    /// z likewise, n = tanh(W_in·x + b_in + r·(W_hn·h + b_hn)), h ← (1 − z)·n + z·h. In the weights: r, z, n. In PyTorch: `torch.nn.GRU`.
    Gru, "let rnn = Gru::new(options, &mut Init::new(device, 0));", state Tensor, |h| [h, h], plain;
    /// Long short-term memory (Hochreiter & Schmidhuber, 1997), step by step: i, f, o = σ(W_i·x + b_i + W_h·h + b_h), g likewise with
    /// tanh, c ← f·c + i·g, h ← o·tanh(c). In the weights: i, f, g, o. In PyTorch: `torch.nn.LSTM`.
    Lstm, "let rnn = Lstm::new(options, &mut Init::new(device, 0));", state LstmState, |s| [&s.h, &s.c], |(y, h, c): Ran| {
        let c = c.ok_or_else(|| Error::misuse("an LSTM's state has h and c"))?;
        Ok((y, LstmState { h, c }))
    };
}

impl Rnn {
    /// With these sizes and options (or `(inputs, hidden)`), and tanh. Panics at the caller's line on misuse.
    #[track_caller]
    pub fn new(options: impl Into<RecurrentOptions>, init: &mut Init) -> Rnn {
        or_raise(Rnn::try_new(options, RnnActivation::Tanh, init))
    }
    /// With this activation, and misuse returned as an error.
    pub fn try_new(options: impl Into<RecurrentOptions>, activation: RnnActivation, init: &mut Init) -> Result<Rnn> {
        let options = options.into();
        no_projection("RNN", &options)?;
        Rnn::made(Kind::Rnn(activation), options, init)
    }
}

impl Gru {
    /// With these sizes and options (or `(inputs, hidden)`). Panics at the caller's line on misuse.
    #[track_caller]
    pub fn new(options: impl Into<RecurrentOptions>, init: &mut Init) -> Gru {
        or_raise(Gru::try_new(options, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(options: impl Into<RecurrentOptions>, init: &mut Init) -> Result<Gru> {
        let options = options.into();
        no_projection("GRU", &options)?;
        Gru::made(Kind::Gru, options, init)
    }
}

impl Lstm {
    /// With these sizes and options (or `(inputs, hidden)`). Panics at the caller's line on misuse.
    #[track_caller]
    pub fn new(options: impl Into<RecurrentOptions>, init: &mut Init) -> Lstm {
        or_raise(Lstm::try_new(options, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(options: impl Into<RecurrentOptions>, init: &mut Init) -> Result<Lstm> {
        Lstm::made(Kind::Lstm, options.into(), init)
    }
}

fn no_projection(name: &str, options: &RecurrentOptions) -> Result<()> {
    match options.projection {
        Some(p) => {
            Err(Error::misuse(format!("an LSTM's state can be projected, to {p} numbers; that of a {name} cannot")))
        }
        None => Ok(()),
    }
}
