//! What recurrent layers are made by.

/// The sizes and options of a recurrent layer. By default: one layer, one direction, with biases, `[batch, steps, inputs]`.
///
/// ```
/// use gradus_nn::RecurrentOptions;
/// let options = RecurrentOptions::new(16, 32).layers(2).bidirectional().dropout(0.1);
/// assert_eq!(options.width(), 64);
/// ```
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct RecurrentOptions {
    /// Numbers of each step's input.
    pub inputs: usize,
    /// Numbers of the state.
    pub hidden: usize,
    /// How many layers lie on one another.
    pub layers: usize,
    /// Whether each layer also runs from the end, and gives both results side by side.
    pub bidirectional: bool,
    /// Whether there are biases.
    pub bias: bool,
    /// The probability, in training, of an element of a layer's output to be zeroed before the next layer.
    pub dropout: f64,
    /// To how many numbers an LSTM's state is projected before it is given and fed back (Sak et al., 2014).
    pub projection: Option<usize>,
    /// Whether sequences are `[steps, batch, inputs]`, PyTorch's default, in place of `[batch, steps, inputs]`.
    pub time_first: bool,
}

impl RecurrentOptions {
    /// From `inputs` to `hidden` numbers.
    pub fn new(inputs: usize, hidden: usize) -> RecurrentOptions {
        RecurrentOptions {
            inputs,
            hidden,
            layers: 1,
            bidirectional: false,
            bias: true,
            dropout: 0.0,
            projection: None,
            time_first: false,
        }
    }
    /// With so many layers on one another.
    pub fn layers(mut self, layers: usize) -> Self {
        self.layers = layers;
        self
    }
    /// With each layer running from the end, too.
    pub fn bidirectional(mut self) -> Self {
        self.bidirectional = true;
        self
    }
    /// Whether there are biases.
    pub fn bias(mut self, bias: bool) -> Self {
        self.bias = bias;
        self
    }
    /// With this probability of dropping between layers.
    pub fn dropout(mut self, p: f64) -> Self {
        self.dropout = p;
        self
    }
    /// With states projected to so many numbers (LSTM alone).
    pub fn projection(mut self, width: usize) -> Self {
        self.projection = Some(width);
        self
    }
    /// For sequences `[steps, batch, inputs]`. In PyTorch: `batch_first=False`, its default.
    pub fn time_first(mut self) -> Self {
        self.time_first = true;
        self
    }
    /// Numbers of each step's output.
    pub fn width(&self) -> usize {
        self.state_width() * self.directions()
    }
    /// 1, or 2 if bidirectional.
    pub fn directions(&self) -> usize {
        1 + usize::from(self.bidirectional)
    }
    /// Numbers of the state that is given and fed back.
    pub(super) fn state_width(&self) -> usize {
        self.projection.unwrap_or(self.hidden)
    }
    /// `16 → 32, 2 layers, bidirectional`.
    pub(super) fn described(&self) -> String {
        let mut out = format!("{} → {}", self.inputs, self.hidden);
        if self.layers != 1 {
            out += &format!(", {} layers", self.layers);
        }
        if self.bidirectional {
            out += ", bidirectional";
        }
        if let Some(p) = self.projection {
            out += &format!(", projected to {p}");
        }
        if self.dropout > 0.0 {
            out += &format!(", dropout {}", self.dropout);
        }
        out + if self.bias { "" } else { ", no bias" }
    }
}

impl From<(usize, usize)> for RecurrentOptions {
    /// From so many inputs to so many numbers of the state.
    fn from((inputs, hidden): (usize, usize)) -> RecurrentOptions {
        RecurrentOptions::new(inputs, hidden)
    }
}
