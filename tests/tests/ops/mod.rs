//! PyTorch's names as Gradus calls, a file a family. `None` for a name that is not mapped.

mod accepted;
mod elementwise;
mod indexing;
mod linear_algebra;
mod losses;
mod networks;
mod products;
mod reductions;
mod shapes;
mod subscript;

use gradus_core::{Error, Result, Tensor};
use gradus_tests::golden::{Call, UNTYPABLE};

pub use accepted::by_design;

type Outcome = Option<Result<Vec<Tensor>>>;

/// Ops that are not mapped, with the reason.
pub const NOT_MAPPED: [(&str, &str); 1] = [(
    "nn.functional.multi_head_attention_forward",
    "its only call drops probabilities by a draw of PyTorch's own generator; the layer is compared with the modules",
)];

/// Runs a call by PyTorch's name.
pub fn run(name: &str, c: &Call<'_>) -> Outcome {
    let families = [
        elementwise::run,
        shapes::run,
        reductions::run,
        indexing::run,
        products::run,
        linear_algebra::run,
        losses::run,
        networks::run,
    ];
    families.iter().find_map(|family| family(name, c))
}

/// One output.
fn one(y: Result<Tensor>) -> Outcome {
    Some(y.map(|y| vec![y]))
}

/// A word of PyTorch's that stands for nothing: in Rust such a choice is an enum, so that it cannot be named at all.
fn no_word<T>(what: &str, word: Option<&str>) -> Result<T> {
    Err(Error::misuse(format!("{UNTYPABLE}: no {what} is called {}", word.unwrap_or("so"))))
}

/// A function along dimensions. PyTorch lets 0 and −1 name a dimension of a scalar, which has none: it is lifted to one
/// dimension, and its results are scalars again.
fn lifted(x: &Tensor, f: impl Fn(&Tensor) -> Result<Vec<Tensor>>) -> Result<Vec<Tensor>> {
    if x.rank() > 0 {
        return f(x);
    }
    f(&x.try_reshape([1])?)?.iter().map(|y| y.try_reshape(())).collect()
}
