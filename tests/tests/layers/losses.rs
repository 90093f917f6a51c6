//! The table of losses.

use super::rows::{classes, rows};
use super::{Row, indices, loss, ones, pair_loss, shown};
use gradus_nn::loss::*;

fn half(shape: &[usize]) -> gradus_core::Tensor {
    ones(shape) * 0.5
}

pub(super) fn losses() -> Vec<Row> {
    rows! {
        CrossEntropy, "torch.nn.CrossEntropyLoss", "−Σ_c t_c·ln softmax(x)_c, of classes or class probabilities", |i| loss(CrossEntropy::new(), ones(&[4, 3]), classes(4));
        Nll, "torch.nn.NLLLoss", "−p at the target, of log-probabilities p", |i| loss(Nll::new(), ones(&[4, 3]).log_softmax(1), classes(4));
        LinearCrossEntropy, "torch.nn.LinearCrossEntropyLoss", "the cross-entropy of x·Wᵀ + b, in chunks that never hold all logits", |i| loss(LinearCrossEntropy::new(5, 3, i), ones(&[4, 5]), classes(4));
        Bce, "torch.nn.BCELoss", "−t·ln p − (1−t)·ln(1−p)", |i| loss(Bce::new(), half(&[4]), ones(&[4]));
        BceWithLogits, "torch.nn.BCEWithLogitsLoss", "−t·ln σ(x) − (1−t)·ln(1−σ(x))", |i| loss(BceWithLogits::new(), ones(&[4]), ones(&[4]));
        Mse, "torch.nn.MSELoss", "d², d = x − t", |i| loss(Mse::default(), half(&[4]), ones(&[4]));
        L1, "torch.nn.L1Loss", "|d|", |i| loss(L1::default(), half(&[4]), ones(&[4]));
        SmoothL1, "torch.nn.SmoothL1Loss", "d²/(2·beta) where |d| < beta, else |d| − beta/2", |i| loss(SmoothL1::default(), half(&[4]), ones(&[4]));
        Huber, "torch.nn.HuberLoss", "d²/2 where |d| < delta, else delta·(|d| − delta/2)", |i| loss(Huber::default(), half(&[4]), ones(&[4]));
        KlDiv, "torch.nn.KLDivLoss", "t·(ln t − x)", |i| loss(KlDiv::new(), half(&[4, 3]).log(), half(&[4, 3]));
        PoissonNll, "torch.nn.PoissonNLLLoss", "eˣ − t·x, or x − t·ln(x + eps)", |i| loss(PoissonNll::new(), half(&[4]), ones(&[4]));
        GaussianNll, "torch.nn.GaussianNLLLoss", "½·(ln v + (m − t)²/v), of mean m, target t and variance v", |i| pair_loss(GaussianNll::new(), half(&[4]), ones(&[4]), ones(&[4]));
        Ctc, "torch.nn.CTCLoss", "−ln p(labels), summed over their alignments", |i| {
            let (x, labels) = (ones(&[5, 2, 4]).log_softmax(-1), indices(&[2, 2]) + 1i64);
            shown(Ctc::new(), &[&x, &labels], |l, _| Ok(vec![l.try_forward(&x, &labels, &[5, 5], &[2, 2])?]))
        };
        HingeEmbedding, "torch.nn.HingeEmbeddingLoss", "x where y is 1, max(0, margin − x) where it is −1", |i| loss(HingeEmbedding::new(), half(&[4]), ones(&[4]));
        MarginRanking, "torch.nn.MarginRankingLoss", "max(0, margin − y·(a − b))", |i| pair_loss(MarginRanking::new(), half(&[4]), ones(&[4]), ones(&[4]));
        SoftMargin, "torch.nn.SoftMarginLoss", "ln(1 + e^(−y·x))", |i| loss(SoftMargin::new(), half(&[4]), ones(&[4]));
        MultiMargin, "torch.nn.MultiMarginLoss", "Σ_{i≠t} max(0, margin − x_t + x_i)^p/classes", |i| loss(MultiMargin::new(), half(&[4, 3]), classes(4));
        MultiLabelMargin, "torch.nn.MultiLabelMarginLoss", "Σ_j Σ_i max(0, 1 − x_j + x_i)/classes, j the targets, i the others", |i| loss(MultiLabelMargin::new(), half(&[4, 3]), indices(&[4, 3]));
        MultiLabelSoftMargin, "torch.nn.MultiLabelSoftMarginLoss", "the mean over classes of −y·ln σ(x) − (1−y)·ln σ(−x)", |i| loss(MultiLabelSoftMargin::new(), half(&[4, 3]), ones(&[4, 3]));
        CosineEmbedding, "torch.nn.CosineEmbeddingLoss", "1 − cos(a, b) where y is 1, max(0, cos(a, b) − margin) where it is −1", |i| pair_loss(CosineEmbedding::new(), half(&[4, 3]), ones(&[4, 3]), ones(&[4]));
        TripletMargin, "torch.nn.TripletMarginLoss", "max(0, d(a, p) − d(a, n) + margin)", |i| pair_loss(TripletMargin::new(), half(&[4, 3]), ones(&[4, 3]), ones(&[4, 3]));
        InfoNce, "", "−ln(e^(qᵢ·kᵢ/τ)/Σⱼ e^(qᵢ·kⱼ/τ))", |i| loss(InfoNce::new(), half(&[4, 3]), ones(&[4, 3]));
        Focal, "", "−w_t·(1 − p_t)^gamma·ln p_t", |i| loss(Focal::new(2.0), half(&[4, 3]), classes(4));
        BinaryFocal, "torchvision.ops.sigmoid_focal_loss", "−α_t·(1 − p_t)^gamma·ln p_t", |i| loss(BinaryFocal::new(2.0), half(&[4]), ones(&[4]));
        Dice, "", "1 − (2·Σ p·t + smooth)/(Σ p + Σ t + smooth)", |i| loss(Dice::new(), half(&[2, 3, 4]), ones(&[2, 3, 4]));
    }
}
