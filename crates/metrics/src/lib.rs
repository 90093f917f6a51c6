//! Streaming metrics, exact over a whole data set: batches are counted, not averaged, so their sizes do not matter.
//!
//! Definitions and edge cases follow scikit-learn (with `zero_division=0`). Counts are integers and sums are compensated `f64`,
//! so a value depends on neither the batch size nor the number of threads.
//!
//! | for | see |
//! |---|---|
//! | the share of right answers, also among the k best | [`Accuracy`], [`TopK`] |
//! | which class was taken for which; precision, recall, F1 | [`ConfusionMatrix`] |
//! | balanced accuracy, Matthews' correlation, Cohen's kappa, F-beta, Jaccard | [`ConfusionMatrix`] |
//! | areas under the ROC and precision-recall curves | [`RocAuc`], [`AveragePrecision`], [`roc_auc_of_classes`] |
//! | predicted probabilities: log loss, Brier score | [`LogLoss`], [`Brier`] |
//! | a mean weighted by samples (the loss) | [`Mean`] |
//! | regression: mean squared, absolute, median, largest and relative error, R², explained variance | [`Regression`] |
//! | your own | [`Metric`] |

mod accuracy;
mod agreement;
mod confusion;
mod mean;
mod metric;
mod probability;
mod ranking;
mod regression;

pub use accuracy::{Accuracy, TopK};
pub use confusion::{Average, ConfusionMatrix, Scores};
pub use mean::Mean;
pub use metric::Metric;
pub use probability::{Brier, LogLoss};
pub use ranking::{AveragePrecision, Pairing, RocAuc, average_precision, roc_auc, roc_auc_of_classes};
pub use regression::{Regression, Score};

/// What most programs need of this crate.
pub mod prelude {
    pub use crate::{
        Accuracy, Average, AveragePrecision, Brier, ConfusionMatrix, LogLoss, Metric, Regression, RocAuc, Score, TopK,
    };
}
