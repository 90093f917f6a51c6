//! Picking and placing by several indices, masks and reductions, and places in sorted rows.

use super::{Entry, Fill, Input, input, reals, spreads};
use crate::functional::embedding_bag::{BagMode, EmbeddingBagOptions};
use crate::ops::ScatterReduceOp;
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = indices();
    entries.extend(replaced());
    entries.extend(reduced());
    entries.extend(sorted());
    entries
}

fn real(shape: &[usize]) -> Input {
    input(shape, Fill::Real(-2.0, 2.0))
}
fn ints(shape: &[usize], below: i64) -> Input {
    input(shape, Fill::Int(0, below))
}
fn mask(shape: &[usize]) -> Input {
    input(shape, Fill::Bool)
}

fn indices() -> Vec<Entry> {
    vec![
        Entry::new("index", "torch.Tensor.__getitem__", "The elements that several index tensors name.")
            .one(vec![real(&[3, 4]), ints(&[5], 3), ints(&[5], 4)], |x| x[0].try_index(&[Some(&x[1]), Some(&x[2])]))
            .one(vec![real(&[3, 2, 4]), ints(&[2, 1], 3), ints(&[3], 4)], |x| {
                x[0].try_index(&[Some(&x[1]), None, Some(&x[2])])
            })
            .one(vec![real(&[2, 3]), ints(&[4], 3)], |x| x[0].try_index(&[None, Some(&x[1])])),
        Entry::new("index_put", "torch.index_put", "Elements put, or added, where several index tensors name.")
            .one(vec![real(&[3, 4]), ints(&[5], 3), ints(&[5], 4), real(&[5])], |x| {
                x[0].try_index_put(&[Some(&x[1]), Some(&x[2])], &x[3], true)
            })
            .one(vec![real(&[3, 4]), real(&[2, 1])], |x| {
                let rows = Tensor::try_arange(0, 4, 2, x[0].device().with(crate::DType::I64))?;
                x[0].try_index_put(&[Some(&rows)], &x[1], false)
            }),
        Entry::new("index_fill", "torch.index_fill", "Slices filled with a number.")
            .one(vec![real(&[3, 4]), ints(&[3], 4), real(&[])], |x| x[0].try_index_fill(1, &x[1], &x[2])),
        Entry::new("repeat_each", "torch.repeat_interleave", "Each slice repeated as often as a tensor says.")
            .on_host()
            .one(vec![real(&[4, 2]), ints(&[4], 3)], |x| x[0].try_repeat_each(&x[1], 0)),
        Entry::new("unique_slices", "torch.unique", "The distinct slices of a dimension.")
            .on_host()
            .without_gradient()
            .case(vec![ints(&[6, 2], 2)], |x| x[0].try_unique_slices(0).map(|(v, i, n)| vec![v, i, n])),
    ]
}

fn replaced() -> Vec<Entry> {
    vec![
        Entry::new("select_scatter", "torch.select_scatter", "A slice replaced.")
            .one(reals(&[&[3, 4], &[3]]), |x| x[0].try_select_scatter(&x[1], 1, 2))
            .one(reals(&[&[3, 4], &[4]]), |x| x[0].try_select_scatter(&x[1], 0, -1)),
        Entry::new("slice_scatter", "torch.slice_scatter", "A range of a dimension replaced.")
            .one(reals(&[&[5, 2], &[2, 2]]), |x| x[0].try_slice_scatter(&x[1], 0, Some(1), None, 2))
            .one(reals(&[&[5, 2], &[3, 2]]), |x| x[0].try_slice_scatter(&x[1], 0, None, Some(3), 1)),
        Entry::new("masked_scatter", "torch.masked_scatter", "Elements put in a row where a mask holds.")
            .one(vec![real(&[3, 4]), mask(&[3, 4]), real(&[12])], |x| x[0].try_masked_scatter(&x[1], &x[2]))
            .one(vec![real(&[4]), mask(&[2, 4]), real(&[8])], |x| x[0].try_masked_scatter(&x[1], &x[2])),
    ]
}

fn reduced() -> Vec<Entry> {
    use ScatterReduceOp::{Max, Mean, Min, Prod, Sum};
    let mut reduce = Entry::new("scatter_reduce", "torch.scatter_reduce", "Elements reduced into indexed places.");
    for op in [Sum, Mean, Prod, Max, Min] {
        for include in [true, false] {
            let spread = |shape: &[usize]| input(shape, Fill::Spread(-2.0, 2.3));
            reduce = reduce
                .one(vec![spread(&[4, 3]), ints(&[5, 2], 4), spread(&[5, 2])], move |x| {
                    // No source is near an element of the base.
                    x[0].try_scatter_reduce(0, &x[1], &(&x[2] * 1.13), op, include)
                })
                .one(vec![spread(&[2, 3]), ints(&[2, 6], 3), spread(&[2, 6])], move |x| {
                    x[0].try_scatter_reduce(-1, &x[1], &(&x[2] * 1.13), op, include)
                });
        }
    }
    let mut bags =
        Entry::new("embedding_bag", "torch.nn.functional.embedding_bag", "Rows of a table, one for each bag.");
    for mode in [BagMode::Sum, BagMode::Mean, BagMode::Max] {
        bags = bags
            .one(vec![input(&[5, 3], Fill::Spread(-2.0, 2.0)), ints(&[2, 4], 5)], move |x| {
                x[0].try_embedding_bag(&x[1], &EmbeddingBagOptions::new(mode))
            })
            .one(vec![input(&[5, 3], Fill::Spread(-2.0, 2.0)), ints(&[6], 5)], move |x| {
                let offsets = Tensor::try_arange(0, 6, 2, x[0].device().with(crate::DType::I64))?;
                let padding = Some(2);
                x[0].try_embedding_bag(
                    &x[1],
                    &EmbeddingBagOptions { offsets: Some(offsets), padding, ..EmbeddingBagOptions::new(mode) },
                )
            });
    }
    let weighted = bags.one(vec![real(&[5, 3]), ints(&[2, 4], 5), real(&[2, 4])], |x| {
        let weights = Some(x[2].clone());
        x[0].try_embedding_bag(&x[1], &EmbeddingBagOptions { weights, ..EmbeddingBagOptions::new(BagMode::Sum) })
    });
    vec![reduce, weighted]
}

fn sorted() -> Vec<Entry> {
    vec![
        Entry::new("searchsorted", "torch.searchsorted", "Where queries belong in sorted rows.")
            .without_gradient()
            .one(spreads(&[&[7], &[2, 3]]), |x| x[0].detach().try_sort(0, false)?.0.try_searchsorted(&x[1], false))
            .one(vec![ints(&[2, 6], 4), ints(&[2, 5], 4)], |x| {
                x[0].try_sort(1, false)?.0.try_searchsorted(&x[1], true)
            }),
        Entry::new(
            "searchsorted_by",
            "torch.searchsorted(sorter=..)",
            "Where queries belong in rows that an order sorts.",
        )
        .without_gradient()
        .one(spreads(&[&[2, 7], &[2, 3]]), |x| x[0].try_searchsorted_by(&x[0].try_argsort(1, false)?, &x[1], false)),
        Entry::new("bucketize", "torch.bucketize", "The bucket of each element.").without_gradient().one(
            spreads(&[&[2, 3], &[5]]),
            |x| {
                let boundaries = x[1].detach().try_sort(0, false)?.0;
                x[0].try_bucketize(&boundaries, false)
            },
        ),
    ]
}
