//! Initial values: the distributions of `torch.nn.init`, drawn on the host as pure functions of a key, so that a model starts
//! from the same bits on every device.

mod distributions;
mod matrices;

use gradus_core::device::Place;
use gradus_core::error::or_raise;
use gradus_core::{DType, Device, Error, IntoShape, Key, Result, Shape, Tensor};

/// Where new parameters live, and the random numbers they start from. Constructors of layers take one.
///
/// Each layer takes one key, in the order of construction, and draws each of its parameters from a stream of that key: so an
/// option of one layer (no bias, another kernel) changes no other layer's values. [`part`](Self::part) makes a whole part of
/// a model independent of what is built before it.
///
/// ```
/// use gradus_nn::{Init, Linear};
/// let mut init = Init::new(gradus_cpu::device(), 42);
/// let (a, b) = (Linear::new(64, 32, &mut init), Linear::new(32, 10, &mut init));
/// assert_eq!(b.weight.dims(), [10, 32]);
/// ```
#[derive(Clone, Debug)]
pub struct Init {
    place: Place,
    key: Key,
    given: u64,
}

impl Init {
    /// Parameters on `place` (a device, meaning `f32` there, or `device.with(dtype)`), drawn from `key` (a seed, or a [`Key`]).
    pub fn new(place: impl Into<Place>, key: impl Into<Key>) -> Init {
        Init { place: place.into(), key: key.into().fold("init"), given: 0 }
    }
    /// Device and dtype of new parameters.
    pub fn place(&self) -> Place {
        self.place
    }
    /// The device of new parameters.
    pub fn device(&self) -> Device {
        self.place.device
    }
    /// The next layer's key.
    pub fn next_key(&mut self) -> Key {
        self.given += 1;
        self.key.fold_in(self.given - 1)
    }
    /// The initial values of a part of the model: independent of what else is built, in whatever order.
    pub fn part(&self, name: &str) -> Init {
        Init { place: self.place, key: self.key.fold(name), given: 0 }
    }
}

/// Which of a weight's two fans keeps its variance: the forward (in) or the backward pass (out).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Fan {
    /// Inputs of each output: `shape[1] · receptive field`.
    #[default]
    In,
    /// Outputs of each input: `shape[0] · receptive field`.
    Out,
}

/// The function behind a layer, for its gain: how much more its weights must vary to keep the variance. In PyTorch:
/// `torch.nn.init.calculate_gain`.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Nonlinearity {
    /// None, or a convolution: 1.
    Linear,
    /// 1.
    Sigmoid,
    /// 5/3.
    Tanh,
    /// √2.
    Relu,
    /// √(2/(1 + slope²)).
    LeakyRelu(f64),
    /// 3/4.
    Selu,
}

impl Nonlinearity {
    /// The gain.
    pub fn gain(self) -> f64 {
        match self {
            Nonlinearity::Linear | Nonlinearity::Sigmoid => 1.0,
            Nonlinearity::Tanh => 5.0 / 3.0,
            Nonlinearity::Relu => 2f64.sqrt(),
            Nonlinearity::LeakyRelu(slope) => (2.0 / (1.0 + slope * slope)).sqrt(),
            Nonlinearity::Selu => 0.75,
        }
    }
}

/// What a parameter starts from: the functions of `torch.nn.init`.
///
/// ```
/// use gradus_nn::init::Initializer;
/// let w = Initializer::Orthogonal { gain: 1.0 }.draw([4, 8], gradus_cpu::device(), 7);
/// let gram = w.matmul(&w.t()); // its rows are orthonormal
/// let off = (gram - gradus_core::Tensor::eye(4, gradus_cpu::device())).abs().amax(&[0, 1], false);
/// assert!(off.item::<f32>()? < 1e-5);
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Initializer {
    /// 0. In PyTorch: `zeros_`.
    Zeros,
    /// 1. In PyTorch: `ones_`.
    Ones,
    /// One number. In PyTorch: `constant_`.
    Constant(f64),
    /// Uniform on [low, high). In PyTorch: `uniform_`.
    Uniform {
        /// The least value.
        low: f64,
        /// Above every value.
        high: f64,
    },
    /// Normal. In PyTorch: `normal_`.
    Normal {
        /// The mean.
        mean: f64,
        /// The standard deviation.
        std: f64,
    },
    /// Normal, given that it lies in [low, high]. In PyTorch: `trunc_normal_`.
    TruncNormal {
        /// The mean, before the cut.
        mean: f64,
        /// The standard deviation, before the cut.
        std: f64,
        /// The least value.
        low: f64,
        /// The greatest value.
        high: f64,
    },
    /// 1 on the main diagonal of a matrix, else 0. In PyTorch: `eye_`.
    Eye,
    /// A convolution's weight `[out, in/groups, size..]` that hands as many channels through as it can. In PyTorch: `dirac_`.
    Dirac {
        /// Each of so many groups of outputs hands its own channels through.
        groups: usize,
    },
    /// Uniform on ±gain·√(6/(fan in + fan out)) (Glorot & Bengio, 2010). In PyTorch: `xavier_uniform_`.
    XavierUniform {
        /// See [`Nonlinearity::gain`].
        gain: f64,
    },
    /// Normal with std gain·√(2/(fan in + fan out)). In PyTorch: `xavier_normal_`.
    XavierNormal {
        /// See [`Nonlinearity::gain`].
        gain: f64,
    },
    /// Uniform on ±gain·√(3/fan) (He et al., 2015). In PyTorch: `kaiming_uniform_`.
    KaimingUniform {
        /// Which fan.
        fan: Fan,
        /// See [`Nonlinearity::gain`].
        gain: f64,
    },
    /// Normal with std gain/√fan. In PyTorch: `kaiming_normal_`.
    KaimingNormal {
        /// Which fan.
        fan: Fan,
        /// See [`Nonlinearity::gain`].
        gain: f64,
    },
    /// A matrix with orthonormal rows or columns, whichever are fewer, times gain (Saxe et al., 2013); further dimensions
    /// count as columns. In PyTorch: `orthogonal_`.
    Orthogonal {
        /// A factor.
        gain: f64,
    },
    /// A normal matrix with ⌈sparsity·rows⌉ zeros in each column (Martens, 2010). In PyTorch: `sparse_`.
    Sparse {
        /// The share of zeros.
        sparsity: f64,
        /// The standard deviation of the rest.
        std: f64,
    },
}

impl Initializer {
    /// What PyTorch's linear layers and convolutions start from, `kaiming_uniform_(a=√5)`: uniform on ±1/√(fan in).
    pub fn layer_default() -> Initializer {
        Initializer::KaimingUniform { fan: Fan::In, gain: Nonlinearity::LeakyRelu(5f64.sqrt()).gain() }
    }

    /// A tensor of `shape`, a pure function of `key`. Panics at the caller's line if the shape does not suit the initializer.
    #[track_caller]
    pub fn draw(&self, shape: impl IntoShape, place: impl Into<Place>, key: impl Into<Key>) -> Tensor {
        or_raise(self.try_draw(shape, place, key))
    }

    /// As [`draw`](Self::draw), with misuse returned as an error.
    pub fn try_draw(&self, shape: impl IntoShape, place: impl Into<Place>, key: impl Into<Key>) -> Result<Tensor> {
        let (shape, place, key) = (shape.into_shape()?, place.into(), key.into());
        shape.checked_elements(8)?; // the host draws in f64: refuse what cannot fit before trying
        if let Initializer::Zeros | Initializer::Ones | Initializer::Constant(_) = self {
            return Tensor::try_full(shape, self.constant(), place);
        }
        let values = self.values(&shape, &key).map_err(|e| e.context(format!("{self:?} for shape {shape}")))?;
        if place.dtype == DType::F64 {
            return Tensor::try_from_vec(values, shape, place.device);
        }
        let values: Vec<f32> = values.into_iter().map(|x| x as f32).collect();
        Tensor::try_from_vec(values, shape, place.device)?.try_to_dtype(place.dtype)
    }

    fn constant(&self) -> f64 {
        match *self {
            Initializer::Ones => 1.0,
            Initializer::Constant(c) => c,
            _ => 0.0,
        }
    }

    fn values(&self, shape: &Shape, key: &Key) -> Result<Vec<f64>> {
        use distributions::{normal, trunc_normal, uniform};
        let n = shape.elements();
        match *self {
            Initializer::Zeros | Initializer::Ones | Initializer::Constant(_) => Ok(vec![self.constant(); n]),
            Initializer::Uniform { low, high } => uniform(n, low, high, key),
            Initializer::Normal { mean, std } => normal(n, mean, std, key),
            Initializer::TruncNormal { mean, std, low, high } => trunc_normal(n, (mean, std), (low, high), key),
            Initializer::Eye => matrices::eye(shape),
            Initializer::Dirac { groups } => matrices::dirac(shape, groups),
            Initializer::XavierUniform { gain } => {
                let bound = gain * (6.0 / fan_sum(shape)?).sqrt();
                uniform(n, -bound, bound, key)
            }
            Initializer::XavierNormal { gain } => normal(n, 0.0, gain * (2.0 / fan_sum(shape)?).sqrt(), key),
            Initializer::KaimingUniform { fan, gain } => {
                let bound = gain * (3.0 / fan_of(shape, fan)?).sqrt();
                uniform(n, -bound, bound, key)
            }
            Initializer::KaimingNormal { fan, gain } => normal(n, 0.0, gain / fan_of(shape, fan)?.sqrt(), key),
            Initializer::Orthogonal { gain } => matrices::orthogonal(shape, gain, key),
            Initializer::Sparse { sparsity, std } => matrices::sparse(shape, sparsity, std, key),
        }
    }
}

/// Fan in and fan out of a weight `[out, in, receptive field..]`. In PyTorch: `_calculate_fan_in_and_fan_out`.
pub fn fans(shape: &Shape) -> Result<(usize, usize)> {
    match shape.dims() {
        [out, inputs, field @ ..] => {
            let field: usize = field.iter().product();
            Ok((inputs * field, out * field))
        }
        _ => Err(Error::misuse(format!("fan in and fan out need two dimensions or more; the shape is {shape}"))),
    }
}

fn fan_of(shape: &Shape, fan: Fan) -> Result<f64> {
    let (fan_in, fan_out) = fans(shape)?;
    // An empty weight has no variance to keep; its fan must not divide by zero.
    Ok(match fan {
        Fan::In => fan_in,
        Fan::Out => fan_out,
    }
    .max(1) as f64)
}

fn fan_sum(shape: &Shape) -> Result<f64> {
    let (fan_in, fan_out) = fans(shape)?;
    Ok((fan_in + fan_out).max(1) as f64)
}
