//! What the layers of a transformer are made by.

use gradus_core::ops::UnaryOp;

/// The function between the two matrices of a feed-forward block.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FeedForwardActivation {
    /// max(x, 0)
    #[default]
    Relu,
    /// x·Φ(x)
    Gelu,
}

impl FeedForwardActivation {
    pub(super) fn op(self) -> UnaryOp {
        match self {
            FeedForwardActivation::Relu => UnaryOp::Relu,
            FeedForwardActivation::Gelu => UnaryOp::Gelu,
        }
    }
}

/// The sizes and options of a transformer's layers, with PyTorch's defaults (but sequences are `[batch, length, width]`).
///
/// ```
/// use gradus_nn::TransformerOptions;
/// let options = TransformerOptions::new(64, 4).feed_forward(256).dropout(0.0).norm_first(true);
/// assert_eq!(options.hidden, 256);
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct TransformerOptions {
    /// Numbers of each token.
    pub width: usize,
    /// Heads of attention.
    pub heads: usize,
    /// Numbers between the matrices of a feed-forward block; 2048 unless told otherwise.
    pub hidden: usize,
    /// The probability of zeroing: of attention probabilities, of a feed-forward block's hidden numbers, and of each block's
    /// result; 0.1 unless told otherwise.
    pub dropout: f64,
    /// The function in feed-forward blocks.
    pub activation: FeedForwardActivation,
    /// Whether a block normalizes its input, not its result.
    pub norm_first: bool,
    /// Whether matrices and normalizations have biases.
    pub bias: bool,
    /// Added to the variance in normalizations.
    pub eps: f64,
}

impl TransformerOptions {
    /// Tokens of `width` numbers, attended to in `heads` heads.
    pub fn new(width: usize, heads: usize) -> TransformerOptions {
        TransformerOptions {
            width,
            heads,
            hidden: 2048,
            dropout: 0.1,
            activation: FeedForwardActivation::Relu,
            norm_first: false,
            bias: true,
            eps: 1e-5,
        }
    }
    /// With so many numbers between the matrices of a feed-forward block.
    pub fn feed_forward(mut self, hidden: usize) -> Self {
        self.hidden = hidden;
        self
    }
    /// With this probability of zeroing.
    pub fn dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }
    /// With this function in feed-forward blocks.
    pub fn activation(mut self, activation: FeedForwardActivation) -> Self {
        self.activation = activation;
        self
    }
    /// Whether a block normalizes its input, not its result.
    pub fn norm_first(mut self, first: bool) -> Self {
        self.norm_first = first;
        self
    }
    /// Whether matrices and normalizations have biases.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }
    /// With this number added to the variance in normalizations.
    pub fn eps(mut self, eps: f64) -> Self {
        self.eps = eps;
        self
    }
    pub(super) fn described(&self) -> String {
        let order = if self.norm_first { ", norm first" } else { "" };
        format!("{}, {} heads, feed-forward {}, dropout {}{order}", self.width, self.heads, self.hidden, self.dropout)
    }
}
