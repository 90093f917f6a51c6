//! Strided views inside kernels: from the position of an element in row-major order to its place in the buffer.
//!
//! A view may have any rank up to eight, signed strides (a flip), zero strides (an expansion) and an offset, so every
//! kernel of this crate reads its operands where they lie; nothing is copied to be made dense first. The number of
//! dimensions is a compile-time constant of a kernel; [`fold`] merges dimensions that chain before a launch, so that most
//! launches have one dimension and no division at all.

use cubecl::prelude::*;

/// Strides (in elements, signed) and offset of one operand.
#[derive(CubeType, CubeLaunch)]
pub struct Place {
    /// The step of each dimension.
    pub strides: Sequence<isize>,
    /// Where the first element lies.
    pub offset: isize,
}

/// The buffer index of the element at row-major position `pos` of a view of the given `shape`:
/// `offset + Σ_d coordinate_d(pos) · stride_d`.
#[cube]
pub fn locate(pos: usize, shape: &Sequence<usize>, place: &Place) -> isize {
    let rank = comptime!(shape.len());
    let mut rest = pos;
    let mut at = place.offset;
    #[unroll]
    for i in 0..rank {
        let d = comptime!(rank - 1 - i);
        if comptime!(d == 0) {
            at += isize::cast_from(rest) * place.strides[d];
        } else {
            let n = shape[d];
            at += isize::cast_from(rest % n) * place.strides[d];
            rest /= n;
        }
    }
    at
}

/// Merges the dimensions of a shape that chain in every operand (`stride[d] = stride[d+1] · length[d+1]`) and drops those
/// of length 1. The result has at least one dimension, and visits the same elements in the same order.
pub fn fold(shape: &[usize], operands: &[&[isize]]) -> (Vec<usize>, Vec<Vec<isize>>) {
    let mut lengths: Vec<usize> = Vec::with_capacity(shape.len().max(1));
    let mut strides: Vec<Vec<isize>> = vec![Vec::with_capacity(shape.len().max(1)); operands.len()];
    for d in (0..shape.len()).filter(|&d| shape[d] != 1) {
        let chains = !lengths.is_empty()
            && operands.iter().zip(&strides).all(|(o, s)| s.last() == Some(&(o[d] * shape[d] as isize)));
        if chains {
            let last = lengths.len() - 1;
            lengths[last] *= shape[d];
            operands.iter().zip(&mut strides).for_each(|(o, s)| s[last] = o[d]);
        } else {
            lengths.push(shape[d]);
            operands.iter().zip(&mut strides).for_each(|(o, s)| s.push(o[d]));
        }
    }
    if lengths.is_empty() {
        lengths.push(1);
        strides.iter_mut().for_each(|s| s.push(0));
    }
    (lengths, strides)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_operands_fold_to_one_dimension() {
        assert_eq!(fold(&[2, 3, 4], &[&[12, 4, 1], &[12, 4, 1]]), (vec![24], vec![vec![1], vec![1]]));
        assert_eq!(fold(&[], &[&[]]), (vec![1], vec![vec![0]]));
        assert_eq!(fold(&[1, 5, 1], &[&[9, -1, 7]]), (vec![5], vec![vec![-1]]));
    }

    #[test]
    fn dimensions_fold_only_where_every_operand_chains() {
        let (shape, strides) = fold(&[2, 3, 4], &[&[12, 4, 1], &[0, 4, 1]]);
        assert_eq!(shape, [2, 12]);
        assert_eq!(strides, [[12, 1], [0, 1]]);
        // An expansion over both dimensions is one expansion.
        assert_eq!(fold(&[2, 3], &[&[0, 0]]), (vec![6], vec![vec![0]]));
        // A flip of the whole is one flip.
        assert_eq!(fold(&[2, 3], &[&[-3, -1]]), (vec![6], vec![vec![-1]]));
    }
}
