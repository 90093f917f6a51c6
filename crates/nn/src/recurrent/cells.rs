//! Recurrent cells: one step, for loops of one's own.

use super::layers::LstmState;
use super::options::RecurrentOptions;
use super::sequence::{Carry, Kind, RnnActivation};
use super::weights::Weights;
use crate::init::Init;
use crate::{Module, Site};
use gradus_core::error::or_raise;
use gradus_core::{Error, Result, Tensor};

macro_rules! cells {
    ($($(#[$doc:meta])* $t:ident, $layer:literal;)*) => {$(
        $(#[$doc])*
        #[doc = concat!("One step of [`", $layer, "`](crate::", $layer, "), whose formula it has.")]
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            #[module(flatten)]
            weights: Weights,
            #[module(skip)]
            options: RecurrentOptions,
            #[module(skip)]
            kind: Kind,
            site: Site,
        }
        impl $t {
            fn made(kind: Kind, inputs: usize, hidden: usize, init: &mut Init) -> Result<$t> {
                let options = RecurrentOptions::new(inputs, hidden);
                let key = init.next_key();
                Ok($t { weights: Weights::try_new(kind.gates(), &options, init, &key)?, options, kind, site: Site::default() })
            }
            /// Whether it has biases.
            pub fn bias(mut self, bias: bool) -> $t {
                self.weights.bias_ih = self.weights.bias_ih.filter(|_| bias);
                self.weights.bias_hh = self.weights.bias_hh.filter(|_| bias);
                self
            }
            fn described(&self) -> String {
                self.options.described()
            }
            /// The states after a step, from h and c `[batch, hidden]` (without the batch as x).
            fn step(&self, x: &Tensor, state: Option<[&Tensor; 2]>) -> Result<Carry> {
                let o = &self.options;
                let fits = |t: &Tensor, n: usize| t.dim(-1) == n && t.rank() == x.rank() && t.dims()[..x.rank() - 1] == x.dims()[..x.rank() - 1];
                if !matches!(x.rank(), 1 | 2) || x.dim(-1) != o.inputs || state.is_some_and(|s| s.iter().any(|t| t.rank() == 0 || !fits(t, o.hidden))) {
                    let message = format!("needs an input [batch, {}] and states [batch, {}], or all without the batch", o.inputs, o.hidden);
                    return Err(Error::misuse(message).in_op("recurrent cell", [(x.dtype(), *x.shape())]));
                }
                let carry = match state {
                    Some([h, c]) => Carry { h: h.clone(), c: Some(c.clone()) },
                    None => {
                        let zeros = Tensor::try_zeros([&x.dims()[..x.rank() - 1], &[o.hidden]].concat(), x.place())?;
                        Carry { h: zeros.clone(), c: Some(zeros) }
                    }
                };
                self.kind.step(&self.weights, &self.kind.inputs(&self.weights, x)?, &carry)
            }
        }
    )*};
}

cells! {
    /// In PyTorch: `torch.nn.RNNCell`.
    ///
    /// ```
    /// use gradus_core::Tensor;
    /// use gradus_nn::{Init, RnnCell};
    /// let device = gradus_cpu::device();
    /// let cell = RnnCell::new(8, 16, &mut Init::new(device, 0));
    /// let h = cell.forward(&Tensor::ones([2, 8], device), None);
    /// assert_eq!(h.dims(), [2, 16]);
    /// ```
    RnnCell, "Rnn";
    /// In PyTorch: `torch.nn.GRUCell`.
    ///
    /// ```
    /// use gradus_core::Tensor;
    /// use gradus_nn::{GruCell, Init};
    /// let device = gradus_cpu::device();
    /// let cell = GruCell::new(8, 16, &mut Init::new(device, 0));
    /// let h = cell.forward(&Tensor::ones([2, 8], device), None);
    /// assert_eq!(h.dims(), [2, 16]);
    /// ```
    GruCell, "Gru";
    /// In PyTorch: `torch.nn.LSTMCell`.
    ///
    /// ```
    /// use gradus_core::Tensor;
    /// use gradus_nn::{Init, LstmCell};
    /// let device = gradus_cpu::device();
    /// let cell = LstmCell::new(8, 16, &mut Init::new(device, 0));
    /// let state = cell.forward(&Tensor::ones([2, 8], device), None);
    /// assert_eq!(state.c.dims(), [2, 16]);
    /// ```
    LstmCell, "Lstm";
}

impl RnnCell {
    /// From `inputs` to `hidden` numbers, with tanh. Panics at the caller's line if it is too large to be held.
    #[track_caller]
    pub fn new(inputs: usize, hidden: usize, init: &mut Init) -> RnnCell {
        or_raise(RnnCell::try_new(inputs, hidden, RnnActivation::Tanh, init))
    }
    /// With this activation, and misuse returned as an error.
    pub fn try_new(inputs: usize, hidden: usize, activation: RnnActivation, init: &mut Init) -> Result<RnnCell> {
        RnnCell::made(Kind::Rnn(activation), inputs, hidden, init)
    }
    /// The state after a step, from `h` (zeros if absent). Panics at the caller's line if shapes do not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, h: Option<&Tensor>) -> Tensor {
        or_raise(self.try_forward(x, h))
    }
    /// As [`forward`](Self::forward), with misuse returned as an error.
    pub fn try_forward(&self, x: &Tensor, h: Option<&Tensor>) -> Result<Tensor> {
        self.step(x, h.map(|h| [h, h])).map(|carry| carry.h)
    }
}

impl GruCell {
    /// From `inputs` to `hidden` numbers. Panics at the caller's line if it is too large to be held.
    #[track_caller]
    pub fn new(inputs: usize, hidden: usize, init: &mut Init) -> GruCell {
        or_raise(GruCell::try_new(inputs, hidden, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(inputs: usize, hidden: usize, init: &mut Init) -> Result<GruCell> {
        GruCell::made(Kind::Gru, inputs, hidden, init)
    }
    /// The state after a step, from `h` (zeros if absent). Panics at the caller's line if shapes do not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, h: Option<&Tensor>) -> Tensor {
        or_raise(self.try_forward(x, h))
    }
    /// As [`forward`](Self::forward), with misuse returned as an error.
    pub fn try_forward(&self, x: &Tensor, h: Option<&Tensor>) -> Result<Tensor> {
        self.step(x, h.map(|h| [h, h])).map(|carry| carry.h)
    }
}

impl LstmCell {
    /// From `inputs` to `hidden` numbers. Panics at the caller's line if it is too large to be held.
    #[track_caller]
    pub fn new(inputs: usize, hidden: usize, init: &mut Init) -> LstmCell {
        or_raise(LstmCell::try_new(inputs, hidden, init))
    }
    /// As [`new`](Self::new), with misuse returned as an error.
    pub fn try_new(inputs: usize, hidden: usize, init: &mut Init) -> Result<LstmCell> {
        LstmCell::made(Kind::Lstm, inputs, hidden, init)
    }
    /// The states after a step, from `state` (zeros if absent). Panics at the caller's line if shapes do not fit.
    #[track_caller]
    pub fn forward(&self, x: &Tensor, state: Option<&LstmState>) -> LstmState {
        or_raise(self.try_forward(x, state))
    }
    /// As [`forward`](Self::forward), with misuse returned as an error.
    pub fn try_forward(&self, x: &Tensor, state: Option<&LstmState>) -> Result<LstmState> {
        let Carry { h, c } = self.step(x, state.map(|s| [&s.h, &s.c]))?;
        Ok(LstmState { h, c: c.ok_or_else(|| Error::misuse("an LSTM's state has h and c"))? })
    }
}
