//! Dropout (Srivastava et al., JMLR 2014): in training, parts of the input are zeroed at random.

use crate::layer::layer;
use crate::{Cx, Module, Site};
use gradus_core::{Error, Result, Tensor};

macro_rules! dropouts {
    ($($(#[$doc:meta])* $t:ident => |$x:ident, $p:ident, $key:ident| $body:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            /// The probability of a part to be zeroed.
            pub p: f64,
            site: Site,
        }
        impl $t {
            /// Zeroes with probability `p`, between 0 and 1 (checked when it runs).
            pub fn new(p: f64) -> $t {
                $t { p, site: Site::default() }
            }
            fn described(&self) -> String {
                format!("p = {}", self.p)
            }
            #[track_caller]
            fn run(&self, $x: &Tensor, cx: &Cx) -> Result<Tensor> {
                if !(0.0..=1.0).contains(&self.p) {
                    return Err(Error::misuse(format!("{}: the probability must lie between 0 and 1; got {}", stringify!($t), self.p)));
                }
                if !cx.is_training() || self.p == 0.0 {
                    return Ok($x.clone());
                }
                let ($p, $key) = (self.p, cx.key(self.site.stream()));
                $body
            }
        }
        layer!($t, |self, x, cx| self.run(x, cx));
    )*};
}

dropouts! {
    /// Each element is zeroed with probability p, the rest divided by 1 − p; the identity outside training. The mask is a pure
    /// function of (seed, step, the layer's path, call). In PyTorch: `torch.nn.Dropout`.
    Dropout => |x, p, key| x.try_dropout(p, key);
    /// As [`Dropout`], but whole channels of x `[batch, channels, ..]` are zeroed (Tompson et al., 2015). In PyTorch:
    /// `torch.nn.Dropout1d`, `Dropout2d`, `Dropout3d`.
    ChannelDropout => |x, p, key| {
        if x.rank() < 2 {
            return Err(Error::misuse(format!("needs [batch, channels, ..], not shape {}", x.shape())));
        }
        let mut shape = *x.shape();
        for d in 2..x.rank() {
            shape = shape.with(d, 1);
        }
        x.try_mul(&Tensor::try_ones(shape, x.place())?.try_dropout(p, key)?)
    };
}
