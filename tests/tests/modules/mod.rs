//! PyTorch's modules as Gradus layers and losses, a file a family. `None` for a name that is not mapped.

mod activations;
mod losses;
mod norms;
mod recurrent;
mod transformers;
mod windows;

use gradus_core::Result;
use gradus_nn::Init;
use gradus_tests::golden_modules::{Arguments, Built, layer};

type Outcome = Option<Result<Box<dyn Built>>>;

/// The module that PyTorch makes of a name and its constructor's arguments.
pub fn build(name: &str, a: &Arguments<'_>) -> Outcome {
    let name = name.strip_prefix("nn.")?;
    let families =
        [activations::build, losses::build, windows::build, norms::build, recurrent::build, transformers::build];
    families.iter().find_map(|family| family(name, a))
}

/// Where parameters live before PyTorch's values are loaded.
fn init() -> Init {
    Init::new(gradus_cpu::device(), 0)
}

/// A layer that is called with its input.
fn one<L: gradus_nn::Layer + 'static>(l: Result<L>) -> Outcome {
    Some(l.map(|l| layer(l)))
}
