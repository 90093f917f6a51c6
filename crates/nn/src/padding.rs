//! Layers that put something around their input: a row each.

use crate::layer::layer;
use crate::{Module, Site};
use gradus_core::ops::PadMode;
use gradus_core::{Error, Result, Tensor};

/// How much goes before and after each spatial dimension, in the tensor's order (PyTorch's tuples begin with the last
/// dimension): `2.into()` for all sides, `[(1, 2), (0, 3)].into()` for each. Negative amounts take off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sides {
    amounts: [(isize, isize); 3],
    /// How many dimensions were given; 0 stands for all.
    count: usize,
}

impl From<isize> for Sides {
    fn from(n: isize) -> Sides {
        Sides { amounts: [(n, n); 3], count: 0 }
    }
}
impl From<&[(isize, isize)]> for Sides {
    fn from(amounts: &[(isize, isize)]) -> Sides {
        let mut all = Sides { amounts: [(0, 0); 3], count: amounts.len().max(1) };
        all.amounts.iter_mut().zip(amounts).for_each(|(a, b)| *a = *b);
        all
    }
}
impl<const N: usize> From<[(isize, isize); N]> for Sides {
    fn from(amounts: [(isize, isize); N]) -> Sides {
        Sides::from(&amounts[..])
    }
}

impl Sides {
    fn of(&self, rank: usize) -> Result<&[(isize, isize)]> {
        if self.count != 0 && self.count != rank {
            let n = self.count;
            return Err(Error::misuse(format!(
                "padding is given for {n} dimensions, but there are {rank} spatial ones"
            )));
        }
        Ok(&self.amounts[..rank])
    }
}

macro_rules! paddings {
    ($($what:literal $t:ident, $rank:literal $(with $value:ident $default:literal)?, $mode:expr;)*) => {$(
        #[doc = concat!($what, " around the last ", stringify!($rank), " dimension(s) of `[batch, channels, spatial..]` (or without the batch). In PyTorch: `torch.nn.", stringify!($t), "`.")]
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, Layer, ", stringify!($t), "};")]
        #[doc = concat!("let x = Tensor::ones(&[[2, 3].to_vec(), vec![4; ", stringify!($rank), "]].concat(), gradus_cpu::device());")]
        #[doc = concat!("let y = ", stringify!($t), "::new(1", $(", ", $default,)? ").call(&x, &Cx::eval());")]
        #[doc = concat!("assert_eq!(y.dims()[2..], [6; ", stringify!($rank), "]);")]
        /// ```
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            #[module(skip)]
            sides: Sides,
            $(/// What is put there.
            pub $value: f64,)?
            site: Site,
        }
        impl $t {
            /// With so much on each side.
            pub fn new(sides: impl Into<Sides> $(, $value: f64)?) -> $t {
                $t { sides: sides.into(), $($value,)? site: Site::default() }
            }
            fn described(&self) -> String {
                let all = self.sides.amounts[..$rank].iter().map(|(a, b)| format!("{a}/{b}"));
                all.collect::<Vec<_>>().join(", ")
            }
            #[track_caller]
            fn run(&self, x: &Tensor) -> Result<Tensor> {
                if x.rank() < $rank {
                    return Err(Error::misuse(concat!("needs an input of ", stringify!($rank), " dimensions at least"))
                        .in_op("pad", [(x.dtype(), *x.shape())]));
                }
                $(let $value = self.$value;)?
                x.try_pad(self.sides.of($rank)?, $mode)
            }
        }
        layer!($t, |self, x, _cx| self.run(x));
    )*};
}
paddings! {
    "One number" ConstantPad1d, 1 with value "0.5", PadMode::Constant(value);
    "One number" ConstantPad2d, 2 with value "0.5", PadMode::Constant(value);
    "One number" ConstantPad3d, 3 with value "0.5", PadMode::Constant(value);
    "Zeros" ZeroPad1d, 1, PadMode::Constant(0.0);
    "Zeros" ZeroPad2d, 2, PadMode::Constant(0.0);
    "Zeros" ZeroPad3d, 3, PadMode::Constant(0.0);
    "The input mirrored at its border, which is not repeated," ReflectionPad1d, 1, PadMode::Reflect;
    "The input mirrored at its border, which is not repeated," ReflectionPad2d, 2, PadMode::Reflect;
    "The input mirrored at its border, which is not repeated," ReflectionPad3d, 3, PadMode::Reflect;
    "The border's elements" ReplicationPad1d, 1, PadMode::Replicate;
    "The border's elements" ReplicationPad2d, 2, PadMode::Replicate;
    "The border's elements" ReplicationPad3d, 3, PadMode::Replicate;
    "The input from its other end" CircularPad1d, 1, PadMode::Circular;
    "The input from its other end" CircularPad2d, 2, PadMode::Circular;
    "The input from its other end" CircularPad3d, 3, PadMode::Circular;
}
