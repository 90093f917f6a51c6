//! Recurrent layers and their cells.
//!
//! The inputs of all steps are multiplied by the input weights at once; what is left to each step is one product with the state
//! and a few elementwise ops.

mod cells;
mod layers;
mod options;
mod sequence;
mod weights;

pub use cells::{GruCell, LstmCell, RnnCell};
pub use layers::{Gru, Lstm, LstmState, Rnn};
pub use options::RecurrentOptions;
pub use sequence::RnnActivation;
