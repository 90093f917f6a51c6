//! Places: the sums of slices that an index scatters, and the places of extremes, against loops that read as the definition does;
//! at sizes that need several pieces of work, for any number of threads.

use gradus_core::functional::attention::AttentionOptions;
use gradus_core::{DType, Device, Tensor};
use gradus_cpu::with_threads;

fn cpu() -> Device {
    gradus_cpu::device()
}

fn v(x: &Tensor) -> Vec<f32> {
    x.to_vec().expect("a read-back")
}

#[test]
fn scattered_slices_are_added_in_the_order_of_the_source() {
    // Outer dimensions, destinations, columns, sources: one and several strips of columns and bands of destinations.
    for [outer, len, inner, count] in
        [[1, 300, 256, 700], [2, 130, 300, 90], [3, 5, 1, 40], [1, 20_000, 2, 1000], [1, 1, 700, 9]]
    {
        let base = Tensor::randn([outer, len, inner], cpu(), 1);
        let index = Tensor::randint(-(len as i64), len as i64, [count], cpu(), 2);
        let source = Tensor::randn([outer, count, inner], cpu(), 3);
        let at: Vec<i64> = index.to_vec().expect("a read-back");
        // The base as it lies, one number in every place, and one that lies otherwise.
        let turned = base.transpose(0, 2).contiguous().transpose(0, 2);
        for base in [base, Tensor::full((), 0.5, cpu()).expand([outer, len, inner]), turned] {
            for add in [true, false] {
                let mut want = v(&base);
                let x = v(&source);
                for o in 0..outer {
                    for (i, &p) in at.iter().enumerate() {
                        let row = o * len + p.rem_euclid(len as i64) as usize;
                        for c in 0..inner {
                            let (y, x) = (&mut want[row * inner + c], x[(o * count + i) * inner + c]);
                            *y = if add { *y + x } else { x };
                        }
                    }
                }
                for n in [1, 2, 5] {
                    let run =
                        || if add { base.index_add(1, &index, &source) } else { base.index_copy(1, &index, &source) };
                    assert_eq!(
                        v(&with_threads(n, run)),
                        want,
                        "{outer}x{len}x{inner}, {count} sources, add: {add}, {n} threads"
                    );
                }
            }
        }
    }
}

#[test]
fn the_place_of_an_extreme_is_that_of_the_first() {
    for n in [1, 2, 31, 32, 33, 64, 1000] {
        // Few values, so that there are ties; zeros of both signs; a NaN, or two, in some rows.
        let x = (Tensor::randn([40, n], cpu(), n as u64) * 2.0).round();
        let mut x = v(&x);
        for r in (0..40).step_by(3) {
            x[r * n + r % n] = f32::NAN;
            x[r * n + (7 * r + 5) % n] = f32::NAN;
        }
        for dtype in [DType::F32, DType::F64, DType::Bf16, DType::I32] {
            let numbers: Vec<f32> = x.iter().map(|x| if dtype.is_float() { *x } else { x.max(-100.0) }).collect();
            let t = Tensor::from_vec(numbers.clone(), [40, n], cpu()).to_dtype(dtype);
            let place = |row: &[f32], better: fn(f32, f32) -> bool| {
                let first = |a: usize, b: usize| {
                    if !row[a].is_nan() && (row[b].is_nan() || better(row[b], row[a])) { b } else { a }
                };
                (1..n).fold(0, first)
            };
            let rows = || numbers.chunks_exact(n);
            let largest: Vec<usize> = rows().map(|row| place(row, |a, b| a > b)).collect();
            let least: Vec<usize> = rows().map(|row| place(row, |a, b| a < b)).collect();
            for (name, have, extreme, want) in [
                ("argmax", t.argmax(1, false), t.amax(&[1], false), largest),
                ("argmin", t.argmin(1, false), t.amin(&[1], false), least),
            ] {
                let at: Vec<i64> = have.to_vec().expect("a read-back");
                assert!(
                    at.iter().zip(&want).all(|(&a, &w)| a as usize == w),
                    "{name} of {n} {dtype}: {at:?} for {want:?}"
                );
                let numbers = v(&extreme.to_dtype(DType::F32));
                let same = |(r, &y): (usize, &f32)| {
                    y == numbers_at(&x, r * n + want[r], dtype)
                        || y.is_nan() && dtype.is_float() && x[r * n + want[r]].is_nan()
                };
                assert!(numbers.iter().enumerate().all(same), "{name}'s value of {n} {dtype}");
            }
        }
    }
}

/// What a number is as `dtype`, in which NaN counts as −100 where there is none.
fn numbers_at(x: &[f32], at: usize, dtype: DType) -> f32 {
    if dtype.is_float() { x[at] } else { x[at].max(-100.0) }
}

#[test]
fn causal_attention_is_that_of_a_mask() {
    for [queries, keys] in [[1, 1], [70, 70], [130, 100], [65, 300]] {
        let x: Vec<Tensor> = [queries, keys, keys]
            .iter()
            .enumerate()
            .map(|(i, &n)| Tensor::randn([2, 2, n, 16], cpu(), i as u64).requires_grad())
            .collect();
        let seen = Tensor::ones([queries, keys], cpu().with(DType::Bool)).tril(0);
        let run = |options: &AttentionOptions| {
            let y = x[0].attention(&x[1], &x[2], options);
            y.square().sum().backward();
            let grads: Vec<Tensor> = x.iter().map(|x| x.grad().expect("a gradient")).collect();
            x.iter().for_each(Tensor::zero_grad);
            std::iter::once(y).chain(grads).map(|t| v(&t)).collect::<Vec<_>>()
        };
        let (have, want) = (run(&AttentionOptions::causal()), run(&AttentionOptions::default().mask(&seen)));
        for (name, (have, want)) in ["y", "dq", "dk", "dv"].iter().zip(have.iter().zip(&want)) {
            let worst = have.iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst <= 1e-4, "{name} of {queries} queries and {keys} keys: {worst}");
        }
    }
}
