//! Equal tensors whose elements lie elsewhere: transposed, apart, backwards, and not at their buffer's beginning.

use gradus_core::{Result, Tensor};

/// A way to lay out the same elements.
#[derive(Clone, Copy, Debug)]
pub enum Disguise {
    /// Column-major.
    Transposed,
    /// Every second place of a larger buffer, from its second place on.
    Apart,
    /// Backwards in memory.
    Backwards,
    /// In the middle of a larger buffer, dense.
    Offset,
}

impl Disguise {
    /// Every one.
    pub const ALL: [Disguise; 4] = [Disguise::Transposed, Disguise::Apart, Disguise::Backwards, Disguise::Offset];

    /// A view equal to `x`, laid out this way. (Built by views and copies alone, so it checks these as well.)
    pub fn of(self, x: &Tensor) -> Result<Tensor> {
        let rank = x.rank() as isize;
        let dims: Vec<isize> = (0..rank).collect();
        if rank == 0 {
            // A scalar has no layout but its offset.
            return Tensor::try_stack(&[x, x, x], 0)?.try_select(0, 1);
        }
        match self {
            Disguise::Transposed => {
                let order: Vec<isize> = dims.iter().rev().copied().collect();
                x.try_permute(&order)?.try_contiguous()?.try_permute(&order)
            }
            Disguise::Apart => {
                let twice = Tensor::try_stack(&[x, x], -1)?; // [.., n, 2]
                let last = x.dim(-1);
                twice.try_flatten(-2, -1)?.try_slice(-1, Some(1), None, 2)?.try_narrow(-1, 0, last)
            }
            Disguise::Backwards => x.try_flip(&dims)?.try_contiguous()?.try_flip(&dims),
            Disguise::Offset => Tensor::try_cat(&[x, x, x], 0)?.try_narrow(0, x.dim(0), x.dim(0)),
        }
    }
}
