//! Initial matrices: identity, Dirac, orthogonal, sparse.

use super::distributions::normal;
use gradus_core::tensor::permutation;
use gradus_core::{Error, Key, Result, Shape};

fn matrix(shape: &Shape) -> Result<(usize, usize)> {
    match *shape.dims() {
        [rows, columns] => Ok((rows, columns)),
        _ => Err(Error::misuse(format!("needs a matrix, not shape {shape}"))),
    }
}

/// 1 on the main diagonal.
pub(super) fn eye(shape: &Shape) -> Result<Vec<f64>> {
    let (rows, columns) = matrix(shape)?;
    let mut out = vec![0.0; rows * columns];
    out.iter_mut().step_by(columns + 1).take(rows.min(columns)).for_each(|x| *x = 1.0);
    Ok(out)
}

/// A weight `[out, in, size..]` whose output channel c of each group hands through input channel c.
pub(super) fn dirac(shape: &Shape, groups: usize) -> Result<Vec<f64>> {
    let (out, inputs, size) = match shape.dims() {
        [out, inputs, size @ ..] if (1..=3).contains(&size.len()) => (*out, *inputs, size),
        _ => {
            return Err(Error::misuse(format!(
                "needs the weight of a convolution, of 3 to 5 dimensions, not shape {shape}"
            )));
        }
    };
    if groups == 0 || out % groups != 0 {
        return Err(Error::misuse(format!("{out} outputs do not fall into {groups} equal groups")));
    }
    let field: usize = size.iter().product();
    let centre = size.iter().fold(0, |at, &d| at * d + d / 2);
    let mut values = vec![0.0; shape.elements()];
    let per_group = out / groups;
    for o in (0..out).filter(|o| o % per_group < inputs && field > 0) {
        values[(o * inputs + o % per_group) * field + centre] = 1.0;
    }
    Ok(values)
}

/// Orthonormal rows (or columns, if there are fewer), uniformly distributed: a normal matrix made orthogonal by
/// Gram–Schmidt, done twice for each row, which is as good as a QR decomposition with a positive diagonal.
/// (Giraud et al., "The loss of orthogonality in the Gram–Schmidt process", 2005.)
pub(super) fn orthogonal(shape: &Shape, gain: f64, key: &Key) -> Result<Vec<f64>> {
    let [rows, rest @ ..] = shape.dims() else {
        return Err(Error::misuse("needs two dimensions or more, not a scalar"));
    };
    if rest.is_empty() {
        return Err(Error::misuse(format!("needs two dimensions or more, not shape {shape}")));
    }
    let (rows, columns) = (*rows, rest.iter().product::<usize>());
    if rows == 0 || columns == 0 {
        return Ok(Vec::new());
    }
    let (few, many) = (rows.min(columns), rows.max(columns));
    let mut q = normal(few * many, 0.0, 1.0, key)?;
    for i in 0..few {
        let (done, rest) = q.split_at_mut(i * many);
        let row = &mut rest[..many];
        for _ in 0..2 {
            for earlier in done.chunks_exact(many) {
                let along = dot(earlier, row);
                row.iter_mut().zip(earlier).for_each(|(x, e)| *x -= along * e);
            }
        }
        let length = dot(row, row).sqrt();
        row.iter_mut().for_each(|x| *x /= length);
    }
    let at = |r: usize, c: usize| if rows <= columns { q[r * many + c] } else { q[c * many + r] };
    Ok((0..rows * columns).map(|i| gain * at(i / columns, i % columns)).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// A normal matrix with ⌈sparsity·rows⌉ zeros in each column, at random places.
pub(super) fn sparse(shape: &Shape, sparsity: f64, std: f64, key: &Key) -> Result<Vec<f64>> {
    let (rows, columns) = matrix(shape)?;
    if !(0.0..=1.0).contains(&sparsity) {
        return Err(Error::misuse(format!("the share of zeros lies between 0 and 1; got {sparsity}")));
    }
    let mut values = normal(rows * columns, 0.0, std, key)?;
    let zeros = ((sparsity * rows as f64).ceil() as usize).min(rows);
    let places = key.fold("zeros");
    for column in 0..columns {
        for row in permutation(rows, &places.fold_in(column as u64)).into_iter().take(zeros) {
            values[row * columns + column] = 0.0;
        }
    }
    Ok(values)
}
