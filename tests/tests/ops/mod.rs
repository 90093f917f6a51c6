//! PyTorch's names as Gradus calls, a file a family. `None` for a name that is not mapped.

mod elementwise;
mod indexing;
mod networks;
mod products;
mod reductions;
mod shapes;

use gradus_core::{Result, Tensor};
use gradus_tests::golden::Call;

type Outcome = Option<Result<Vec<Tensor>>>;

/// Runs a call by PyTorch's name.
pub fn run(name: &str, c: &Call<'_>) -> Outcome {
    let families = [elementwise::run, shapes::run, reductions::run, indexing::run, products::run, networks::run];
    families.iter().find_map(|family| family(name, c))
}

/// One output.
fn one(y: Result<Tensor>) -> Outcome {
    Some(y.map(|y| vec![y]))
}

/// A function along dimensions. PyTorch lets 0 and −1 name a dimension of a scalar, which has none: it is lifted to one
/// dimension, and its results are scalars again.
fn lifted(x: &Tensor, f: impl Fn(&Tensor) -> Result<Vec<Tensor>>) -> Result<Vec<Tensor>> {
    if x.rank() > 0 {
        return f(x);
    }
    f(&x.try_reshape([1])?)?.iter().map(|y| y.try_reshape(())).collect()
}
