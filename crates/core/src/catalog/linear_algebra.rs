//! Factorizations, solutions, determinants and norms of matrices, and distances of vectors.

use super::{Entry, Input, reals, spreads};
use crate::error::Result;
use crate::linalg::MatrixNorm;
use crate::tensor::Tensor;

pub(super) fn entries() -> Vec<Entry> {
    let mut entries = systems();
    entries.extend(factors());
    entries.extend(functions());
    entries.extend(distances());
    entries
}

fn matrices(shape: &[usize]) -> Vec<Input> {
    reals(&[shape])
}

/// A matrix far from singular: its diagonal raised.
fn regular(x: &Tensor) -> Result<Tensor> {
    let side = x.dims()[x.shape().dim(-1)?];
    x.try_add(&(Tensor::try_eye(side, x.place())? * 5.0))
}

/// A symmetric positive definite matrix.
fn positive(x: &Tensor) -> Result<Tensor> {
    let side = x.dims()[x.shape().dim(-2)?];
    x.try_matmul(&x.try_t()?)?.try_add(&Tensor::try_eye(side, x.place())?)
}

/// A matrix with singular values, and a symmetric part with eigenvalues, far from each other.
fn spread_out(x: &Tensor) -> Result<Tensor> {
    let (m, n) = (x.dims()[x.shape().dim(-2)?], x.dims()[x.shape().dim(-1)?]);
    let steps = Tensor::try_arange(1, 1 + m.min(n) as i64, 1, x.place())? * 3.0;
    let diagonal = steps.try_diag(0)?;
    let square = if m > n {
        Tensor::try_cat(&[&diagonal, &Tensor::try_zeros([m - n, n], x.place())?], 0)?
    } else {
        Tensor::try_cat(&[&diagonal, &Tensor::try_zeros([m, n - m], x.place())?], 1)?
    };
    (x * 0.5).try_add(&square)
}

fn systems() -> Vec<Entry> {
    vec![
        Entry::new("solve", "torch.linalg.solve", "X of A·X = B.")
            .on_host()
            .one(reals(&[&[3, 3], &[3, 2]]), |x| regular(&x[0])?.try_solve(&x[1]))
            .one(reals(&[&[2, 3, 3], &[2, 3]]), |x| regular(&x[0])?.try_solve(&x[1]))
            .one(reals(&[&[2, 1, 2, 2], &[3, 2, 1]]), |x| regular(&x[0])?.try_solve(&x[1])),
        Entry::new("solve_triangular", "torch.linalg.solve_triangular", "X of A·X = B for a triangular A.")
            .on_host()
            .one(reals(&[&[3, 3], &[3, 2]]), |x| regular(&x[0])?.try_solve_triangular(&x[1], true, false))
            .one(reals(&[&[3, 3], &[3, 2]]), |x| regular(&x[0])?.try_solve_triangular(&x[1], false, true)),
        Entry::new("inv", "torch.linalg.inv", "The inverse of a matrix.")
            .on_host()
            .one(matrices(&[3, 3]), |x| regular(&x[0])?.try_inv())
            .one(matrices(&[2, 2, 2]), |x| regular(&x[0])?.try_inv()),
        Entry::new("lstsq", "torch.linalg.lstsq", "X with the least ‖A·X − B‖.")
            .on_host()
            .one(reals(&[&[4, 2], &[4, 3]]), |x| spread_out(&x[0])?.try_lstsq(&x[1])),
        Entry::new("pinv", "torch.linalg.pinv", "The Moore–Penrose inverse.")
            .on_host()
            .one(matrices(&[4, 2]), |x| spread_out(&x[0])?.try_pinv(None))
            .one(matrices(&[2, 3]), |x| spread_out(&x[0])?.try_pinv(None)),
    ]
}

fn factors() -> Vec<Entry> {
    vec![
        Entry::new("cholesky", "torch.linalg.cholesky", "The triangular L of A = L·Lᵀ.")
            .on_host()
            .one(matrices(&[3, 3]), |x| positive(&x[0])?.try_cholesky(false))
            .one(matrices(&[2, 3, 3]), |x| positive(&x[0])?.try_cholesky(true)),
        Entry::new("qr", "torch.linalg.qr", "Orthonormal Q and triangular R of A = Q·R.")
            .on_host()
            .case(matrices(&[4, 3]), |x| spread_out(&x[0])?.try_qr().map(|(q, r)| vec![q, r]))
            .case(matrices(&[2, 3, 3]), |x| regular(&x[0])?.try_qr().map(|(q, r)| vec![q, r])),
        Entry::new("eigh", "torch.linalg.eigh", "Eigenvalues and eigenvectors of a symmetric matrix.")
            .on_host()
            .case(matrices(&[3, 3]), |x| spread_out(&x[0])?.try_eigh().map(|(l, v)| vec![l, v]))
            .case(matrices(&[2, 2]), |x| spread_out(&x[0])?.try_eigh().map(|(l, v)| vec![l, v])),
        Entry::new("svd", "torch.linalg.svd", "Singular values and vectors: U, s, V of A = U·diag(s)·Vᵀ.")
            .on_host()
            .case(matrices(&[3, 3]), |x| spread_out(&x[0])?.try_svd().map(|(u, s, v)| vec![u, s, v]))
            .case(matrices(&[4, 2]), |x| spread_out(&x[0])?.try_svd().map(|(u, s, v)| vec![u, s, v]))
            .case(matrices(&[2, 3]), |x| spread_out(&x[0])?.try_svd().map(|(u, s, v)| vec![u, s, v])),
        Entry::new("svdvals", "torch.linalg.svdvals", "The singular values.")
            .on_host()
            .one(matrices(&[2, 3, 2]), |x| x[0].try_svdvals()),
    ]
}

fn functions() -> Vec<Entry> {
    let norms = [
        MatrixNorm::Frobenius,
        MatrixNorm::Nuclear,
        MatrixNorm::Spectral,
        MatrixNorm::SpectralMin,
        MatrixNorm::Columns,
        MatrixNorm::ColumnsMin,
        MatrixNorm::Rows,
        MatrixNorm::RowsMin,
    ];
    let norm = Entry::new("matrix_norm", "torch.linalg.matrix_norm", "A norm of a matrix.").on_host();
    vec![
        Entry::new("det", "torch.linalg.det", "The determinant of a matrix.")
            .on_host()
            .one(matrices(&[3, 3]), |x| x[0].try_det())
            .one(matrices(&[2, 2, 2]), |x| x[0].try_det())
            .one(matrices(&[1, 1]), |x| x[0].try_det()),
        Entry::new("slogdet", "torch.linalg.slogdet", "The determinant's sign, and the logarithm of its magnitude.")
            .on_host()
            .one(matrices(&[3, 3]), |x| Ok(regular(&x[0])?.try_slogdet()?.1)),
        Entry::new("matrix_exp", "torch.linalg.matrix_exp", "e^A.")
            .on_host()
            .one(matrices(&[3, 3]), |x| x[0].try_matrix_exp())
            .one(matrices(&[2, 2, 2]), |x| (&x[0] * 3.0).try_matrix_exp()),
        Entry::new("matrix_power", "torch.linalg.matrix_power", "Aⁿ.")
            .on_host()
            .one(matrices(&[2, 2]), |x| x[0].try_matrix_power(5))
            .one(matrices(&[2, 2]), |x| x[0].try_matrix_power(0))
            .one(matrices(&[2, 2]), |x| regular(&x[0])?.try_matrix_power(-3)),
        norms.into_iter().fold(norm, |entry, kind| {
            entry
                .one(spreads(&[&[3, 2]]), move |x| x[0].try_matrix_norm(kind, (0, 1), false))
                .one(spreads(&[&[2, 2, 3]]), move |x| x[0].try_matrix_norm(kind, (-1, 0), true))
        }),
        Entry::new("kron", "torch.kron", "The Kronecker product.")
            .one(reals(&[&[2, 3], &[2, 2]]), |x| x[0].try_kron(&x[1]))
            .one(reals(&[&[2], &[2, 2, 2]]), |x| x[0].try_kron(&x[1])),
    ]
}

fn distances() -> Vec<Entry> {
    vec![
        Entry::new("cdist", "torch.cdist", "The distances of every row of one to every row of the other.")
            .one(spreads(&[&[3, 2], &[4, 2]]), |x| x[0].try_cdist(&x[1], 2.0))
            .one(spreads(&[&[2, 3, 2], &[2, 2]]), |x| x[0].try_cdist(&x[1], 1.0))
            .one(spreads(&[&[3, 2], &[2, 2]]), |x| x[0].try_cdist(&x[1], 2.5)),
        Entry::new("dist", "torch.dist", "The distance of two tensors.")
            .one(reals(&[&[2, 3], &[2, 3]]), |x| x[0].try_dist(&x[1], 2.0))
            .one(reals(&[&[2, 1, 3], &[4, 1]]), |x| x[0].try_dist(&x[1], 3.0)),
        Entry::new("pairwise_distance", "torch.nn.functional.pairwise_distance", "The distance of each pair of rows.")
            .one(reals(&[&[3, 4], &[3, 4]]), |x| x[0].try_pairwise_distance(&x[1], 2.0, 1e-6, false))
            .one(reals(&[&[3, 4], &[4]]), |x| x[0].try_pairwise_distance(&x[1], 3.0, 1e-6, true)),
        Entry::new(
            "cosine_similarity",
            "torch.nn.functional.cosine_similarity",
            "The cosine of the angle of two vectors.",
        )
        .one(reals(&[&[3, 4], &[3, 4]]), |x| x[0].try_cosine_similarity(&x[1], 1, 1e-8))
        .one(reals(&[&[2, 1, 3], &[2, 3]]), |x| x[0].try_cosine_similarity(&x[1], -1, 1e-8)),
        Entry::new("normalize", "torch.nn.functional.normalize", "Vectors over their norms.")
            .one(reals(&[&[3, 4]]), |x| x[0].try_normalize(2.0, 1, 1e-12))
            .one(reals(&[&[3, 4]]), |x| x[0].try_normalize(3.0, 0, 1e-12)),
        Entry::new("bilinear", "torch.nn.functional.bilinear", "A bilinear form of two vectors.")
            .one(reals(&[&[2, 3], &[2, 2], &[4, 3, 2], &[4]]), |x| x[0].try_bilinear(&x[1], &x[2], Some(&x[3])))
            .one(reals(&[&[3], &[2], &[4, 3, 2]]), |x| x[0].try_bilinear(&x[1], &x[2], None)),
    ]
}
