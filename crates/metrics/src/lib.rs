//! Streaming metrics, exact over a whole data set: batches are counted, not averaged, so their sizes do not matter.
//!
//! Definitions and edge cases follow scikit-learn (with `zero_division=0`). Counts are integers and sums are compensated `f64`,
//! so a value depends on neither the batch size nor the number of threads.
//!
//! | for | see |
//! |---|---|
//! | the share of right answers, also among the k best | [`Accuracy`], [`TopK`] |
//! | which class was taken for which; precision, recall, F1 | [`ConfusionMatrix`] |
//! | a mean weighted by samples (the loss) | [`Mean`] |
//! | regression: mean squared and absolute error, R² | [`Regression`] |
//! | your own | [`Metric`] |

mod accuracy;
mod confusion;
mod mean;
mod metric;
mod regression;

pub use accuracy::{Accuracy, TopK};
pub use confusion::{Average, ConfusionMatrix, Scores};
pub use mean::Mean;
pub use metric::Metric;
pub use regression::{Regression, Score};

/// What most programs need of this crate.
pub mod prelude {
    pub use crate::{Accuracy, Average, ConfusionMatrix, Metric, Regression, Score, TopK};
}
