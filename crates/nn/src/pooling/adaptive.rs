//! Adaptive pools: as many windows as are wanted, whatever the input's lengths.

use crate::layer::layer;
use crate::{Cx, Module, Site};
use gradus_core::error::or_raise;
use gradus_core::{Error, Result, Tensor};

/// How many windows each spatial dimension gets, or `None` for as many as it has places: `7.into()`, `[3, 4].into()`,
/// `[Some(3), None].into()`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutputLens {
    lens: [Option<usize>; 3],
    /// How many were given; 1 stands for all dimensions.
    count: usize,
}

impl From<usize> for OutputLens {
    fn from(n: usize) -> OutputLens {
        OutputLens { lens: [Some(n); 3], count: 1 }
    }
}
impl From<&[Option<usize>]> for OutputLens {
    fn from(lens: &[Option<usize>]) -> OutputLens {
        if let [n] = lens {
            return OutputLens { lens: [*n; 3], count: 1 };
        }
        let mut all = OutputLens { lens: [None; 3], count: lens.len() };
        all.lens.iter_mut().zip(lens).for_each(|(a, b)| *a = *b);
        all
    }
}
impl<const N: usize> From<[Option<usize>; N]> for OutputLens {
    fn from(lens: [Option<usize>; N]) -> OutputLens {
        OutputLens::from(&lens[..])
    }
}
impl<const N: usize> From<[usize; N]> for OutputLens {
    fn from(lens: [usize; N]) -> OutputLens {
        OutputLens::from(lens.map(Some))
    }
}

impl OutputLens {
    /// The lengths for `x`, whose last `rank` dimensions are the spatial ones.
    fn of(&self, x: &Tensor, rank: usize) -> Result<Vec<usize>> {
        if self.count != 1 && self.count != rank {
            let given = self.count;
            return Err(Error::misuse(format!("{given} lengths are given, but there are {rank} spatial dimensions")));
        }
        let first = x.rank().saturating_sub(rank);
        Ok((0..rank).map(|d| self.lens[d].or(x.dims().get(first + d).copied()).unwrap_or(1)).collect())
    }
}

impl std::fmt::Display for OutputLens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lens = self.lens[..self.count.min(3)].iter().map(|n| n.map_or("·".to_owned(), |n| n.to_string()));
        write!(f, "{}", lens.collect::<Vec<_>>().join("×"))
    }
}

macro_rules! adaptive_pools {
    ($($what:literal $t:ident, $rank:literal, $shape:literal, |$x:ident, $n:ident| $pool:expr $(, at $try_at:ident)?;)*) => {$(
        #[doc = concat!($what, " of so many windows of `", $shape, "` (or without the batch) as are wanted: window o of n covers ⌊o·L/n⌋ to ⌈(o+1)·L/n⌉. In PyTorch: `torch.nn.", stringify!($t), "`.")]
        ///
        /// ```
        /// use gradus_core::Tensor;
        #[doc = concat!("use gradus_nn::{Cx, Layer, ", stringify!($t), "};")]
        #[doc = concat!("let x = Tensor::zeros(&[[2, 3].to_vec(), vec![7; ", stringify!($rank), "]].concat(), gradus_cpu::device());")]
        #[doc = concat!("let y = ", stringify!($t), "::new(4).call(&x, &Cx::eval());")]
        #[doc = concat!("assert_eq!(y.dims()[2..], [4; ", stringify!($rank), "]);")]
        /// ```
        #[derive(Module, Clone, Debug)]
        #[module(describe = $t::described)]
        pub struct $t {
            #[module(skip)]
            output: OutputLens,
            site: Site,
        }
        impl $t {
            /// So many windows in each spatial dimension; `None` keeps a length.
            pub fn new(output: impl Into<OutputLens>) -> $t {
                $t { output: output.into(), site: Site::default() }
            }
            $(
                /// The largest of each window, and their places in the input (counted row-major over the spatial dimensions; `i64`).
                /// Panics at the caller's line if the input does not fit. In PyTorch: `return_indices=True`.
                #[track_caller]
                pub fn with_indices(&self, x: &Tensor, cx: &Cx) -> (Tensor, Tensor) {
                    let _scope = cx.enter(self);
                    or_raise(self.output.of(x, $rank).and_then(|n| x.$try_at(&n[..])))
                }
            )?
            fn described(&self) -> String {
                format!("to {}", self.output)
            }
            #[track_caller]
            fn run(&self, $x: &Tensor) -> Result<Tensor> {
                let n = self.output.of($x, $rank)?;
                let $n = &n[..];
                $pool
            }
        }
        layer!($t, |self, x, _cx| self.run(x));
    )*};
}

adaptive_pools! {
    "Means" AdaptiveAvgPool1d, 1, "[batch, channels, length]", |x, n| x.try_adaptive_avg_pool1d(n);
    "Means" AdaptiveAvgPool2d, 2, "[batch, channels, height, width]", |x, n| x.try_adaptive_avg_pool2d(n);
    "Means" AdaptiveAvgPool3d, 3, "[batch, channels, depth, height, width]", |x, n| x.try_adaptive_avg_pool3d(n);
    "The largest" AdaptiveMaxPool1d, 1, "[batch, channels, length]",
        |x, n| x.try_adaptive_max_pool1d(n).map(|(y, _)| y), at try_adaptive_max_pool1d;
    "The largest" AdaptiveMaxPool2d, 2, "[batch, channels, height, width]",
        |x, n| x.try_adaptive_max_pool2d(n).map(|(y, _)| y), at try_adaptive_max_pool2d;
    "The largest" AdaptiveMaxPool3d, 3, "[batch, channels, depth, height, width]",
        |x, n| x.try_adaptive_max_pool3d(n).map(|(y, _)| y), at try_adaptive_max_pool3d;
}
