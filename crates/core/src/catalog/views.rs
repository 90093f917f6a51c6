//! Views, reshapes and repetitions.

use super::{Entry, reals};
use crate::shape::Shape;
use crate::tensor::{SliceSpec, Tensor};

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = reshapes();
    entries.extend(orders());
    entries.extend(windows());
    entries.extend(repeats());
    entries
}

fn reshapes() -> Vec<Entry> {
    vec![
        Entry::new("reshape", "torch.reshape", "The same elements, row-major, under another shape.")
            .one(reals(&[&[2, 3, 2]]), |x| x[0].try_reshape([3, 4]))
            .one(reals(&[&[2, 3, 2]]), |x| x[0].try_transpose(0, 1)?.try_reshape([12]))
            .one(reals(&[&[]]), |x| x[0].try_reshape([1, 1])),
        Entry::new(
            "view_as",
            "torch.Tensor.view",
            "The elements under another shape, one length of which is worked out.",
        )
        .one(reals(&[&[2, 6]]), |x| x[0].try_view_as(&[3, -1])),
        Entry::new("flatten", "torch.flatten", "Several dimensions joined into one.")
            .one(reals(&[&[2, 3, 2]]), |x| x[0].try_flatten(1, -1))
            .one(reals(&[&[2, 3, 2]]), |x| x[0].try_permute(&[2, 0, 1])?.try_flatten(0, 1))
            .one(reals(&[&[]]), |x| x[0].try_flatten(0, -1)),
        Entry::new("unsqueeze", "torch.unsqueeze", "A new dimension of length 1.")
            .one(reals(&[&[2, 3]]), |x| x[0].try_unsqueeze(1))
            .one(reals(&[&[2, 3]]), |x| x[0].try_unsqueeze(-1)),
        Entry::new("squeeze", "torch.squeeze", "A dimension of length 1 dropped.")
            .one(reals(&[&[2, 1, 3]]), |x| x[0].try_squeeze(-2))
            .one(reals(&[&[2, 1, 3]]), |x| x[0].try_squeeze(0)),
        Entry::new("squeeze_all", "torch.squeeze", "Every dimension of length 1 dropped.")
            .one(reals(&[&[1, 2, 1, 3]]), |x| x[0].try_squeeze_all()),
        Entry::new("contiguous", "torch.Tensor.contiguous", "The elements dense and row-major.")
            .one(reals(&[&[2, 3]]), |x| x[0].try_t()?.try_contiguous()),
    ]
}

fn orders() -> Vec<Entry> {
    vec![
        Entry::new("permute", "torch.permute", "The dimensions in another order.")
            .one(reals(&[&[2, 3, 4]]), |x| x[0].try_permute(&[2, 0, 1]))
            .one(reals(&[&[2, 3, 4]]), |x| x[0].try_permute(&[-1, -2, -3])),
        Entry::new("transpose", "torch.transpose", "Two dimensions exchanged.")
            .one(reals(&[&[2, 3, 2]]), |x| x[0].try_transpose(0, -1)),
        Entry::new("t", "torch.t", "The last two dimensions exchanged.").one(reals(&[&[2, 3]]), |x| x[0].try_t()),
        Entry::new("movedim", "torch.movedim", "One dimension moved to another place.")
            .one(reals(&[&[2, 3, 4]]), |x| x[0].try_movedim(0, 2))
            .one(reals(&[&[2, 3, 4]]), |x| x[0].try_movedim(-1, 0)),
        Entry::new("flip", "torch.flip", "The named dimensions backwards.")
            .one(reals(&[&[2, 3]]), |x| x[0].try_flip(&[1]))
            .one(reals(&[&[2, 3, 2]]), |x| x[0].try_flip(&[0, -1])),
    ]
}

fn windows() -> Vec<Entry> {
    vec![
        Entry::new("narrow", "torch.narrow", "Some places of a dimension, one after another.")
            .one(reals(&[&[2, 5]]), |x| x[0].try_narrow(1, 1, 3))
            .one(reals(&[&[2, 5]]), |x| x[0].try_narrow(0, 1, 0)),
        Entry::new("slice", "torch.Tensor.__getitem__", "Places of a dimension in steps, which may go backwards.")
            .one(reals(&[&[7, 2]]), |x| x[0].try_slice(0, Some(1), None, 2))
            .one(reals(&[&[7, 2]]), |x| x[0].try_slice(0, None, None, -3))
            .one(reals(&[&[2, 7]]), |x| x[0].try_slice(-1, Some(-2), Some(0), -2)),
        Entry::new("select", "torch.select", "One place of a dimension, which is dropped.")
            .one(reals(&[&[3, 4]]), |x| x[0].try_select(1, 2))
            .one(reals(&[&[3, 4]]), |x| x[0].try_select(0, -1)),
        Entry::new("i", "torch.Tensor.__getitem__", "A view of some places, named by ranges.")
            .one(reals(&[&[3, 4, 2]]), |x| x[0].try_i((1, 1..3)))
            .one(reals(&[&[3, 4, 2]]), |x| x[0].try_i((SliceSpec::from(..).by(-2), SliceSpec::New, -1))),
        Entry::new("diagonal", "torch.diagonal", "The diagonal of two dimensions as a new last one.")
            .one(reals(&[&[3, 4]]), |x| x[0].try_diagonal(0, 0, 1))
            .one(reals(&[&[3, 4]]), |x| x[0].try_diagonal(-1, 0, 1))
            .one(reals(&[&[2, 3, 4]]), |x| x[0].try_diagonal(1, 2, 0)),
        Entry::new("unfold", "torch.Tensor.unfold", "Every window of a dimension; they may overlap.")
            .one(reals(&[&[7]]), |x| x[0].try_unfold(0, 3, 2))
            .one(reals(&[&[5, 2]]), |x| x[0].try_unfold(0, 3, 1)),
    ]
}

fn repeats() -> Vec<Entry> {
    vec![
        Entry::new("expand", "torch.Tensor.expand", "Stretched to a shape without copying.")
            .one(reals(&[&[2, 1, 3]]), |x| x[0].try_expand([4, 2, 5, 3]))
            .one(reals(&[&[]]), |x| x[0].try_expand([2, 2])),
        Entry::new("sum_to", "torch.Tensor.sum_to_size", "Summed where it was stretched: the adjoint of expand.")
            .one(reals(&[&[4, 2, 5, 3]]), |x| x[0].try_sum_to(Shape::try_new(&[2, 1, 3])?)),
        Entry::new("repeat", "torch.Tensor.repeat", "Tiled.")
            .one(reals(&[&[2, 3]]), |x| x[0].try_repeat(&[2, 1, 2]))
            .one(reals(&[&[2, 3]]), |x| x[0].try_repeat(&[3, 2])),
        Entry::new("repeat_interleave", "torch.repeat_interleave", "Each place of a dimension repeated in a row.")
            .one(reals(&[&[2, 3]]), |x| x[0].try_repeat_interleave(2, 1))
            .one(reals(&[&[2, 3]]), |x: &[Tensor]| x[0].try_repeat_interleave(3, 0)),
    ]
}
