//! Scans, orders, statistics and norms, beyond the table of reductions.

use super::{Entry, Fill, input, reals, spreads};
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = scans();
    entries.extend(orders());
    entries.extend(places());
    entries.extend(statistics());
    entries.extend(at_zeros());
    entries
}

fn scans() -> Vec<Entry> {
    let zeros = |shape: &[usize]| vec![input(shape, Fill::Zeros(-2.0, 2.0))];
    vec![
        Entry::new("cumsum", "torch.cumsum", "The sums of the elements up to each place of a dimension.")
            .one(reals(&[&[2, 5]]), |x| x[0].try_cumsum(1))
            .one(reals(&[&[4, 2, 2]]), |x| x[0].try_cumsum(0))
            .one(reals(&[&[]]), |x| x[0].try_cumsum(0))
            .large(reals(&[&[31, 70, 33]]), |x| x[0].try_cumsum(1)),
        Entry::new("cumprod", "torch.cumprod", "The products of the elements up to each place of a dimension.")
            .one(reals(&[&[2, 5]]), |x| x[0].try_cumprod(1))
            .one(zeros(&[7, 2]), |x| x[0].try_cumprod(0))
            .one(zeros(&[2, 8]), |x| x[0].try_cumprod(-1))
            .large(reals(&[&[31, 70, 33]]), |x| x[0].try_cumprod(1)),
        Entry::new("logcumsumexp", "torch.logcumsumexp", "ln Σ e^x of the elements up to each place of a dimension.")
            .one(reals(&[&[2, 5]]), |x| x[0].try_logcumsumexp(1))
            .one(reals(&[&[4, 2, 2]]), |x| x[0].try_logcumsumexp(0)),
    ]
}

fn orders() -> Vec<Entry> {
    vec![
        Entry::new("cummax", "torch.cummax", "The largest of the elements up to each place, and its place.")
            .case(spreads(&[&[2, 5]]), |x| x[0].try_cummax(1).map(|(v, i)| vec![v, i]))
            .case(spreads(&[&[7, 2]]), |x| x[0].try_cummax(0).map(|(v, i)| vec![v, i])),
        Entry::new("cummin", "torch.cummin", "The smallest of the elements up to each place, and its place.")
            .case(spreads(&[&[2, 5]]), |x| x[0].try_cummin(1).map(|(v, i)| vec![v, i])),
        Entry::new("kthvalue", "torch.kthvalue", "The k-th smallest, and its place.")
            .case(spreads(&[&[2, 5]]), |x| x[0].try_kthvalue(2, 1, false).map(|(v, i)| vec![v, i]))
            .case(spreads(&[&[4, 2]]), |x| x[0].try_kthvalue(4, 0, true).map(|(v, i)| vec![v, i])),
        Entry::new("mode", "torch.mode", "The most frequent element, and the last place that it has.")
            .case(spreads(&[&[2, 5]]), |x| x[0].try_mode(1, false).map(|(v, i)| vec![v, i]))
            .case(spreads(&[&[4, 2]]), |x| x[0].try_mode(0, true).map(|(v, i)| vec![v, i])),
        Entry::new("quantile", "torch.quantile", "Quantiles, linearly between the two nearest elements.")
            .one(spreads(&[&[2, 5]]), |x| x[0].try_quantile(&[0.3, 1.0], 1, false))
            .one(spreads(&[&[4, 2]]), |x| x[0].try_quantile(&[0.5], 0, true)),
        Entry::new("sort", "torch.sort", "A dimension sorted, and the places its elements came from.")
            .case(spreads(&[&[2, 5]]), |x| x[0].try_sort(1, false).map(|(v, i)| vec![v, i]))
            .case(spreads(&[&[4, 2]]), |x| x[0].try_sort(0, true).map(|(v, i)| vec![v, i]))
            .large(spreads(&[&[13, 4999]]), |x| Ok(x[0].try_sort(1, false)?.0)),
        Entry::new("topk", "torch.topk", "The k largest or smallest of a dimension in order, and their places.")
            .case(spreads(&[&[2, 6]]), |x| x[0].try_topk(3, 1, true).map(|(v, i)| vec![v, i]))
            .case(spreads(&[&[5, 2]]), |x| x[0].try_topk(2, 0, false).map(|(v, i)| vec![v, i]))
            .large(spreads(&[&[13, 4999]]), |x| Ok(x[0].try_topk(40, 1, true)?.0)),
        Entry::new("max_dim", "torch.max(x, dim)", "The largest along a dimension and its place.")
            .case(spreads(&[&[2, 5]]), |x| x[0].try_max_dim(1, false).map(|(v, i)| vec![v, i]))
            .case(spreads(&[&[3, 2, 2]]), |x| x[0].try_max_dim(0, true).map(|(v, i)| vec![v, i])),
        Entry::new("min_dim", "torch.min(x, dim)", "The smallest along a dimension and its place.")
            .case(spreads(&[&[2, 5]]), |x| x[0].try_min_dim(-1, false).map(|(v, i)| vec![v, i]))
            .case(spreads(&[&[3, 2, 2]]), |x| x[0].try_min_dim(0, true).map(|(v, i)| vec![v, i])),
        Entry::new("median", "torch.median", "The median along a dimension, the lower of two, and its place.")
            .case(spreads(&[&[2, 5]]), |x| x[0].try_median(1, false).map(|(v, i)| vec![v, i]))
            .case(spreads(&[&[4, 3]]), |x| x[0].try_median(0, true).map(|(v, i)| vec![v, i])),
    ]
}

fn places() -> Vec<Entry> {
    vec![
        Entry::new("argsort", "torch.argsort", "The stable order that sorts a dimension.")
            .without_gradient()
            .one(spreads(&[&[2, 5]]), |x| x[0].try_argsort(1, false))
            .one(spreads(&[&[5, 2]]), |x| x[0].try_argsort(0, true))
            .large(spreads(&[&[13, 4999]]), |x| x[0].try_argsort(1, false)),
        Entry::new("argmax", "torch.argmax", "The place of the largest along a dimension.")
            .without_gradient()
            .one(spreads(&[&[2, 5]]), |x| x[0].try_argmax(1, false))
            .one(spreads(&[&[2, 5]]), |x| x[0].try_argmax(0, true))
            .large(spreads(&[&[257, 301]]), |x| x[0].try_argmax(0, false)),
        Entry::new("argmin", "torch.argmin", "The place of the smallest along a dimension.")
            .without_gradient()
            .one(spreads(&[&[2, 5]]), |x| x[0].try_argmin(-1, false))
            .one(spreads(&[&[2, 5]]), |x| x[0].try_argmin(0, true)),
    ]
}

fn statistics() -> Vec<Entry> {
    let mut norm = Entry::new("norm", "torch.linalg.vector_norm", "The p-norm over dimensions.");
    for p in [1.0, 2.0, 3.0, 0.5, 1.5, -1.0, f64::INFINITY, f64::NEG_INFINITY] {
        let fill = Fill::Spread(0.3, 2.0);
        norm = norm.one(vec![input(&[2, 3], fill)], move |x| x[0].try_norm(p, &[], false));
        norm = norm.one(vec![input(&[2, 3], Fill::Spread(-2.0, -0.3))], move |x| x[0].try_norm(p, &[1], true));
    }
    vec![
        Entry::new("var", "torch.var", "The variance over dimensions.")
            .one(reals(&[&[2, 5]]), |x| x[0].try_var(&[], 1, false))
            .one(reals(&[&[2, 5]]), |x| x[0].try_var(&[1], 0, true))
            .one(reals(&[&[2, 3, 2]]), |x| x[0].try_var(&[0, -1], 1, false))
            .large(reals(&[&[130, 601]]), |x| x[0].try_var(&[0], 1, false)),
        Entry::new("std", "torch.std", "The standard deviation over dimensions.")
            .one(reals(&[&[2, 5]]), |x| x[0].try_std(&[], 1, false))
            .one(reals(&[&[4, 3]]), |x| x[0].try_std(&[0], 0, true)),
        norm.large(reals(&[&[130, 601]]), |x| x[0].try_norm(2.0, &[], false)),
        Entry::new("logsumexp", "torch.logsumexp", "ln Σ e^x over dimensions.")
            .one(reals(&[&[2, 5]]), |x| x[0].try_logsumexp(&[1], false))
            .one(reals(&[&[2, 3, 2]]), |x| x[0].try_logsumexp(&[0, 2], true))
            .large(reals(&[&[130, 601]]), |x| x[0].try_logsumexp(&[0], false)),
    ]
}

/// Products of elements some of which are zero: where a gradient by division fails.
fn at_zeros() -> Vec<Entry> {
    let zeros = |shape: &[usize]| vec![input(shape, Fill::Zeros(-2.0, 2.0))];
    let prod = |x: &[Tensor]| x[0].try_prod();
    vec![
        Entry::new("prod_dims", "torch.prod", "The product over dimensions, of elements some of which are zero.")
            .one(zeros(&[2]), prod)
            .one(zeros(&[5]), prod)
            .one(zeros(&[2, 4]), |x| x[0].try_prod_dims(&[1], true))
            .one(zeros(&[2, 3, 2]), |x| x[0].try_prod_dims(&[0, 2], false))
            .one(zeros(&[3, 2]), |x| x[0].try_prod_dims(&[0], false)),
    ]
}
