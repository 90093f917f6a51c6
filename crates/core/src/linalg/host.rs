//! The factorizations themselves, of one row-major matrix in `f64` on the host.

/// LU with partial pivoting: L (below the diagonal, ones on it) and U in one matrix.
pub struct Lu {
    n: usize,
    lu: Vec<f64>,
    /// Row `i` of the factors is row `rows[i]` of the matrix.
    rows: Vec<usize>,
    /// ±1: the permutation's.
    sign: f64,
}

impl Lu {
    /// The factors of `a` `[n, n]`.
    pub fn new(a: &[f64], n: usize) -> Lu {
        let (mut lu, mut rows, mut sign) = (a.to_vec(), (0..n).collect::<Vec<_>>(), 1.0);
        for k in 0..n {
            let pivot = (k..n).max_by(|&i, &j| lu[i * n + k].abs().total_cmp(&lu[j * n + k].abs())).unwrap_or(k);
            if pivot != k {
                (0..n).for_each(|j| lu.swap(k * n + j, pivot * n + j));
                rows.swap(k, pivot);
                sign = -sign;
            }
            let head = lu[k * n + k];
            if head == 0.0 {
                continue;
            }
            for i in k + 1..n {
                let f = lu[i * n + k] / head;
                lu[i * n + k] = f;
                for j in k + 1..n {
                    lu[i * n + j] -= f * lu[k * n + j];
                }
            }
        }
        Lu { n, lu, rows, sign }
    }

    /// The diagonal of U.
    pub fn diagonal(&self) -> impl Iterator<Item = f64> + '_ {
        (0..self.n).map(|i| self.lu[i * self.n + i])
    }

    /// The sign of the permutation.
    pub fn sign(&self) -> f64 {
        self.sign
    }

    /// Whether a pivot is 0: then there is no solution, or no only one.
    pub fn is_singular(&self) -> bool {
        self.diagonal().any(|d| d == 0.0)
    }

    /// X of A·X = B, for B `[n, k]`.
    pub fn solve(&self, b: &[f64], k: usize) -> Vec<f64> {
        let n = self.n;
        let mut x: Vec<f64> = self.rows.iter().flat_map(|&r| b[r * k..(r + 1) * k].iter().copied()).collect();
        for i in 0..n {
            for j in 0..i {
                let f = self.lu[i * n + j];
                (0..k).for_each(|c| x[i * k + c] -= f * x[j * k + c]);
            }
        }
        for i in (0..n).rev() {
            for j in i + 1..n {
                let f = self.lu[i * n + j];
                (0..k).for_each(|c| x[i * k + c] -= f * x[j * k + c]);
            }
            let d = self.lu[i * n + i];
            (0..k).for_each(|c| x[i * k + c] /= d);
        }
        x
    }
}

/// The lower L of A = L·Lᵀ, from A's lower triangle; `None` if A is not positive definite.
pub fn cholesky(a: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|k| l[i * n + k] * l[j * n + k]).sum();
            let rest = a[i * n + j] - dot;
            if i == j {
                if !(rest > 0.0) {
                    return None;
                }
                l[i * n + i] = rest.sqrt();
            } else {
                l[i * n + j] = rest / l[j * n + j];
            }
        }
    }
    Some(l)
}

/// Q `[m, k]` and R `[k, n]`, k = min(m, n), by Householder reflections, as LAPACK signs them.
pub fn qr(a: &[f64], m: usize, n: usize) -> (Vec<f64>, Vec<f64>) {
    let k = m.min(n);
    let (mut r, mut reflections) = (a.to_vec(), Vec::with_capacity(k));
    for j in 0..k {
        let norm = (j..m).fold(0.0f64, |s, i| s.hypot(r[i * n + j]));
        let mut v: Vec<f64> = (j..m).map(|i| r[i * n + j]).collect();
        // LAPACK leaves a column alone that has nothing below the diagonal.
        if v[1..].iter().all(|&x| x == 0.0) {
            reflections.push((v, 0.0));
            continue;
        }
        v[0] += norm.copysign(v[0]);
        let beta = 2.0 / v.iter().map(|x| x * x).sum::<f64>();
        reflect(&mut r, n, j, &v, beta);
        reflections.push((v, beta));
    }
    let mut q = vec![0.0; m * k];
    (0..k).for_each(|i| q[i * k + i] = 1.0);
    for (j, (v, beta)) in reflections.iter().enumerate().rev() {
        reflect(&mut q, k, j, v, *beta);
    }
    let upper = (0..k).flat_map(|i| (0..n).map(move |j| (i, j))).map(|(i, j)| if j < i { 0.0 } else { r[i * n + j] });
    (q, upper.collect())
}

/// (I − β·v·vᵀ) times rows `from..` of a matrix with `n` columns.
fn reflect(a: &mut [f64], n: usize, from: usize, v: &[f64], beta: f64) {
    for c in 0..n {
        let dot: f64 = v.iter().enumerate().map(|(i, x)| x * a[(from + i) * n + c]).sum();
        v.iter().enumerate().for_each(|(i, x)| a[(from + i) * n + c] -= beta * dot * x);
    }
}

/// How often Jacobi's rotations sweep over a matrix at most; they converge in a handful.
const SWEEPS: usize = 60;

/// The rotation (cosine, sine) that makes [[p, r], [r, q]] diagonal.
fn rotation(p: f64, q: f64, r: f64) -> (f64, f64) {
    let theta = (q - p) / (2.0 * r);
    let t = 1f64.copysign(theta) / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    (c, t * c)
}

/// The eigenvalues, ascending, of a symmetric matrix, and its eigenvectors as columns, each with its largest element positive.
pub fn eigh(a: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut a = a.to_vec();
    let mut v = vec![0.0; n * n];
    (0..n).for_each(|i| v[i * n + i] = 1.0);
    for _ in 0..SWEEPS {
        let mut still = true;
        for p in 0..n {
            for q in p + 1..n {
                let r = a[p * n + q];
                if r == 0.0 || r.abs() <= f64::EPSILON * 0.01 * (a[p * n + p].abs() * a[q * n + q].abs()).sqrt() {
                    continue;
                }
                still = false;
                let (c, s) = rotation(a[p * n + p], a[q * n + q], r);
                for i in 0..n {
                    let (x, y) = (a[i * n + p], a[i * n + q]);
                    (a[i * n + p], a[i * n + q]) = (c * x - s * y, s * x + c * y);
                }
                for i in 0..n {
                    let (x, y) = (a[p * n + i], a[q * n + i]);
                    (a[p * n + i], a[q * n + i]) = (c * x - s * y, s * x + c * y);
                    let (x, y) = (v[i * n + p], v[i * n + q]);
                    (v[i * n + p], v[i * n + q]) = (c * x - s * y, s * x + c * y);
                }
            }
        }
        if still {
            break;
        }
    }
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| a[i * n + i].total_cmp(&a[j * n + j]));
    let values = order.iter().map(|&i| a[i * n + i]).collect();
    let mut vectors = vec![0.0; n * n];
    for (to, &from) in order.iter().enumerate() {
        let sign = sign_of_largest((0..n).map(|i| v[i * n + from]));
        (0..n).for_each(|i| vectors[i * n + to] = sign * v[i * n + from]);
    }
    (values, vectors)
}

/// ±1: the sign of the element that is largest in magnitude, the first of equals.
fn sign_of_largest(x: impl Iterator<Item = f64>) -> f64 {
    x.fold(0.0f64, |best, x| if x.abs() > best.abs() { x } else { best }).signum()
}

/// U `[m, k]`, the singular values `[k]`, descending, and V `[n, k]`, k = min(m, n), of `a` `[m, n]`; each column of V with its
/// largest element positive.
pub fn svd(a: &[f64], m: usize, n: usize) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
    if m < n {
        let t: Vec<f64> = (0..n).flat_map(|j| (0..m).map(move |i| a[i * n + j])).collect();
        let (v, s, u) = svd(&t, n, m);
        return (u, s, v);
    }
    // Columns, made orthogonal by rotations from the right.
    let mut u: Vec<Vec<f64>> = (0..n).map(|j| (0..m).map(|i| a[i * n + j]).collect()).collect();
    let mut v: Vec<Vec<f64>> = (0..n).map(|j| (0..n).map(|i| f64::from(i == j)).collect()).collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    for _ in 0..SWEEPS {
        let mut still = true;
        for p in 0..n {
            for q in p + 1..n {
                let (pp, qq, pq) = (dot(&u[p], &u[p]), dot(&u[q], &u[q]), dot(&u[p], &u[q]));
                if pq == 0.0 || pq.abs() <= f64::EPSILON * (pp * qq).sqrt() {
                    continue;
                }
                still = false;
                let (c, s) = rotation(pp, qq, pq);
                for w in [&mut u, &mut v] {
                    let (left, right) = w.split_at_mut(q);
                    for (x, y) in left[p].iter_mut().zip(&mut right[0]) {
                        (*x, *y) = (c * *x - s * *y, s * *x + c * *y);
                    }
                }
            }
        }
        if still {
            break;
        }
    }
    let norms: Vec<f64> = u.iter().map(|x| dot(x, x).sqrt()).collect();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&i, &j| norms[j].total_cmp(&norms[i]));
    let floor = norms.iter().fold(0.0f64, |s, &x| s.max(x)) * f64::EPSILON * m as f64;
    let mut left: Vec<Vec<f64>> = Vec::with_capacity(n);
    for &j in &order {
        let column = if norms[j] > floor { u[j].iter().map(|x| x / norms[j]).collect() } else { completed(&left, m) };
        left.push(column);
    }
    let (mut flat_u, mut flat_v) = (vec![0.0; m * n], vec![0.0; n * n]);
    for (to, &from) in order.iter().enumerate() {
        let sign = sign_of_largest(v[from].iter().copied());
        (0..m).for_each(|i| flat_u[i * n + to] = sign * left[to][i]);
        (0..n).for_each(|i| flat_v[i * n + to] = sign * v[from][i]);
    }
    (flat_u, order.iter().map(|&j| norms[j]).collect(), flat_v)
}

/// A unit vector of `m` elements orthogonal to those given: what remains of the axis that they cover least.
fn completed(columns: &[Vec<f64>], m: usize) -> Vec<f64> {
    let covered = |i: usize| columns.iter().map(|c| c[i] * c[i]).sum::<f64>();
    let axis = (0..m).min_by(|&i, &j| covered(i).total_cmp(&covered(j))).unwrap_or(0);
    let mut x: Vec<f64> = (0..m).map(|i| f64::from(i == axis)).collect();
    for _ in 0..2 {
        for c in columns {
            let dot: f64 = c.iter().zip(&x).map(|(a, b)| a * b).sum();
            x.iter_mut().zip(c).for_each(|(x, c)| *x -= dot * c);
        }
    }
    let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
    x.iter().map(|x| x / norm).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(m: usize, n: usize) -> Vec<f64> {
        (0..m * n).map(|i| ((i * 37 + 11) % 23) as f64 / 7.0 - 1.5).collect()
    }
    fn product(a: &[f64], b: &[f64], m: usize, k: usize, n: usize) -> Vec<f64> {
        (0..m * n).map(|at| (0..k).map(|i| a[at / n * k + i] * b[i * n + at % n]).sum()).collect()
    }
    fn transposed(a: &[f64], m: usize, n: usize) -> Vec<f64> {
        (0..m * n).map(|at| a[at % m * n + at / m]).collect()
    }
    fn close(a: &[f64], b: &[f64]) {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12), "{a:?}\n{b:?}");
    }
    fn identity(n: usize) -> Vec<f64> {
        (0..n * n).map(|i| f64::from(i / n == i % n)).collect()
    }

    #[test]
    fn factors_multiply_back() {
        for (m, n) in [(5, 3), (3, 5), (4, 4), (1, 3), (3, 1), (0, 2)] {
            let (a, k) = (sample(m, n), m.min(n));
            let (q, r) = qr(&a, m, n);
            close(&product(&q, &r, m, k, n), &a);
            close(&product(&transposed(&q, m, k), &q, k, m, k), &identity(k));
            let (u, s, v) = svd(&a, m, n);
            let us: Vec<f64> = u.iter().enumerate().map(|(i, u)| u * s[i % k.max(1)]).collect();
            close(&product(&us, &transposed(&v, n, k), m, k, n), &a);
            close(&product(&transposed(&u, m, k), &u, k, m, k), &identity(k));
        }
        let a = product(&sample(4, 4), &transposed(&sample(4, 4), 4, 4), 4, 4, 4);
        let (values, v) = eigh(&a, 4);
        let scaled: Vec<f64> = v.iter().enumerate().map(|(i, x)| x * values[i % 4]).collect();
        close(&product(&scaled, &transposed(&v, 4, 4), 4, 4, 4), &a);
    }

    #[test]
    fn what_is_singular_is_found_out() {
        assert!(Lu::new(&[1.0, 2.0, 2.0, 4.0], 2).is_singular());
        assert!(cholesky(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
        // A matrix of rank one still has whole orthogonal factors.
        let (u, s, _) = svd(&[1.0, 2.0, 2.0, 4.0, 3.0, 6.0], 3, 2);
        assert!(s[1].abs() < 1e-12);
        close(&product(&transposed(&u, 3, 2), &u, 2, 3, 2), &identity(2));
    }
}
