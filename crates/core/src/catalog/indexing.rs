//! Picking and placing by index, joining and cutting, padding, and what depends on the data.

use super::{Entry, Fill, Input, input, reals};
use crate::ops::PadMode;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = picking();
    entries.extend(placing());
    entries.extend(joining());
    entries.extend(cutting());
    entries.extend(padding());
    entries.extend(data_dependent());
    entries
}

fn indices(shape: &[usize], below: i64) -> Input {
    input(shape, Fill::Int(0, below))
}

/// A tensor, an index below `below`, and perhaps a source.
fn indexed(x: &[usize], index: &[usize], below: i64, source: Option<&[usize]>) -> Vec<Input> {
    let mut inputs = reals(&[x]);
    inputs.push(indices(index, below));
    inputs.extend(source.map(|s| input(s, Fill::Real(-2.0, 2.0))));
    inputs
}

fn picking() -> Vec<Entry> {
    vec![
        Entry::new("gather", "torch.gather", "Elements picked along a dimension, one index each.")
            .one(indexed(&[4, 3], &[5, 2], 4, None), |x| x[0].try_gather(0, &x[1]))
            .one(indexed(&[2, 3, 4], &[2, 3, 6], 4, None), |x| x[0].try_gather(-1, &x[1]))
            .large(indexed(&[300, 211], &[400, 211], 300, None), |x| x[0].try_gather(0, &x[1])),
        Entry::new("index_select", "torch.index_select", "Slices of a dimension, one for each index.")
            .one(indexed(&[4, 3], &[6], 4, None), |x| x[0].try_index_select(0, &x[1]))
            .one(indexed(&[2, 4, 3], &[2, 2], 4, None), |x| x[0].try_index_select(1, &x[1]))
            .large(indexed(&[97, 301], &[400], 97, None), |x| x[0].try_index_select(0, &x[1])),
        Entry::new("take_along", "torch.take_along_dim", "Elements picked along a dimension, the others broadcast.")
            .one(indexed(&[4, 3], &[2, 1], 4, None), |x| x[0].try_take_along(0, &x[1]))
            .one(indexed(&[1, 4], &[3, 2], 4, None), |x| x[0].try_take_along(1, &x[1])),
        Entry::new("embedding", "torch.nn.functional.embedding", "The rows of a table that indices name.")
            .one(indexed(&[5, 3], &[4], 5, None), |x| x[0].try_embedding(&x[1]))
            .one(indexed(&[5, 3], &[2, 3], 5, None), |x| x[0].try_embedding(&x[1]))
            .large(indexed(&[61, 67], &[50, 40], 61, None), |x| x[0].try_embedding(&x[1])),
        Entry::new("one_hot", "torch.nn.functional.one_hot", "Rows with a 1 in the index's place.")
            .without_gradient()
            .one(vec![indices(&[4], 5)], |x| x[0].try_one_hot(5))
            .one(vec![indices(&[2, 3], 4)], |x| x[0].try_one_hot(6)),
    ]
}

fn placing() -> Vec<Entry> {
    // A row of distinct places, so that what replaces does not replace twice (there, only the last one has a gradient).
    let along =
        |x: &[usize], source: &[usize]| vec![input(x, Fill::Real(-2.0, 2.0)), input(source, Fill::Real(-2.0, 2.0))];
    vec![
        Entry::new("scatter_add", "torch.scatter_add", "Elements added into the places that an index names.")
            .one(indexed(&[4, 3], &[5, 2], 4, Some(&[5, 2])), |x| x[0].try_scatter_add(0, &x[1], &x[2]))
            .one(indexed(&[2, 4], &[2, 6], 4, Some(&[2, 6])), |x| x[0].try_scatter_add(-1, &x[1], &x[2]))
            .large(indexed(&[90, 211], &[400, 211], 90, Some(&[400, 211])), |x| x[0].try_scatter_add(0, &x[1], &x[2])),
        Entry::new("index_add", "torch.index_add", "Slices added to the slices that an index names.")
            .one(indexed(&[4, 3], &[6], 4, Some(&[6, 3])), |x| x[0].try_index_add(0, &x[1], &x[2]))
            .one(indexed(&[2, 4], &[3], 4, Some(&[2, 3])), |x| x[0].try_index_add(1, &x[1], &x[2]))
            .large(indexed(&[61, 203], &[400], 61, Some(&[400, 203])), |x| x[0].try_index_add(0, &x[1], &x[2])),
        Entry::new("scatter", "torch.scatter", "Elements put into the places that an index names.")
            .one(along(&[4, 3], &[4, 3]), |x| {
                let at = x[0].detach().try_argsort(0, false)?;
                x[0].try_scatter(0, &at, &x[1])
            })
            .one(along(&[2, 5], &[2, 3]), |x| {
                let at = x[0].detach().try_argsort(1, true)?.try_narrow(1, 0, 3)?;
                x[0].try_scatter(1, &at, &x[1])
            }),
        Entry::new("index_copy", "torch.index_copy", "Slices put into the slices that an index names.").one(
            along(&[4, 3], &[2, 3]),
            |x| {
                let at = x[0].detach().try_select(1, 0)?.try_argsort(0, false)?.try_narrow(0, 0, 2)?;
                x[0].try_index_copy(0, &at, &x[1])
            },
        ),
    ]
}

fn joining() -> Vec<Entry> {
    use crate::tensor::Tensor;
    vec![
        Entry::new("cat", "torch.cat", "Tensors one after another along a dimension.")
            .one(reals(&[&[2, 3], &[2, 1], &[2, 2]]), |x| Tensor::try_cat(&x.iter().collect::<Vec<_>>(), 1))
            .one(reals(&[&[1, 3], &[0, 3], &[2, 3]]), |x| Tensor::try_cat(&x.iter().collect::<Vec<_>>(), 0))
            .one(reals(&[&[2, 3]]), |x| Tensor::try_cat(&[&x[0], &x[0]], -1)),
        Entry::new("stack", "torch.stack", "Tensors of one shape along a new dimension.")
            .one(reals(&[&[2, 3], &[2, 3]]), |x| Tensor::try_stack(&[&x[0], &x[1], &x[0]], 1))
            .one(reals(&[&[], &[]]), |x| Tensor::try_stack(&[&x[0], &x[1]], 0)),
        Entry::new("roll", "torch.roll", "Moved along a dimension; what falls off one end comes in at the other.")
            .one(reals(&[&[2, 5]]), |x| x[0].try_roll(2, 1))
            .one(reals(&[&[2, 5]]), |x| x[0].try_roll(-7, 1)),
    ]
}

fn cutting() -> Vec<Entry> {
    vec![
        Entry::new("split", "torch.split", "Cut into parts of one size; the last may be shorter.")
            .case(reals(&[&[7, 2]]), |x| x[0].try_split(3, 0))
            .case(reals(&[&[2, 4]]), |x| x[0].try_split(2, -1)),
        Entry::new("split_sizes", "torch.split", "Cut into parts of given sizes.")
            .case(reals(&[&[2, 6]]), |x| x[0].try_split_sizes(&[1, 0, 3, 2], 1)),
        Entry::new("chunk", "torch.chunk", "Cut into at most n parts of one size.")
            .case(reals(&[&[7, 2]]), |x| x[0].try_chunk(3, 0))
            .case(reals(&[&[2, 2]]), |x| x[0].try_chunk(5, 1)),
        Entry::new("unbind", "torch.unbind", "Every place of a dimension, each without that dimension.")
            .case(reals(&[&[3, 2, 2]]), |x| x[0].try_unbind(0))
            .case(reals(&[&[2, 3]]), |x| x[0].try_unbind(-1)),
    ]
}

fn padding() -> Vec<Entry> {
    let mut pad =
        Entry::new("pad", "torch.nn.functional.pad", "By a constant, by reflection, by the border, or around.");
    for mode in [PadMode::Constant(0.7), PadMode::Reflect, PadMode::Replicate, PadMode::Circular] {
        pad = pad
            .one(reals(&[&[2, 4]]), move |x| x[0].try_pad(&[(2, 1)], mode))
            .one(reals(&[&[3, 4]]), move |x| x[0].try_pad(&[(1, 2), (2, 0)], mode))
            .one(reals(&[&[2, 4]]), move |x| x[0].try_pad(&[(-1, 2)], mode));
    }
    vec![pad]
}

fn data_dependent() -> Vec<Entry> {
    vec![
        Entry::new("masked_select", "torch.masked_select", "The elements where a mask holds, in a row.")
            .on_host()
            .one([vec![input(&[3, 4], Fill::Bool)], reals(&[&[3, 4]])].concat(), |x| x[1].try_masked_select(&x[0]))
            .one([vec![input(&[4], Fill::Bool)], reals(&[&[2, 4]])].concat(), |x| x[1].try_masked_select(&x[0])),
        Entry::new("nonzero", "torch.nonzero", "The places of the elements that are not zero.")
            .on_host()
            .without_gradient()
            .one(vec![input(&[3, 4], Fill::Zeros(-2.0, 2.0))], |x| x[0].try_nonzero())
            .one(vec![input(&[5], Fill::Bool)], |x| x[0].try_nonzero()),
        Entry::new(
            "unique",
            "torch.unique",
            "The distinct elements, each element's place among them, and how often each occurs.",
        )
        .on_host()
        .without_gradient()
        .case(vec![input(&[3, 4], Fill::Int(0, 5))], |x| x[0].try_unique().map(|(v, i, n)| vec![v, i, n]))
        .case(vec![input(&[7], Fill::Zeros(-2.0, 2.0))], |x| x[0].detach().try_unique().map(|(v, i, n)| vec![v, i, n])),
    ]
}
