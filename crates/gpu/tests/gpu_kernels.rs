//! Each family of the backend against a plain loop, on whatever devices there are: sizes on both sides of every
//! switch between kernels, strided and flipped views, NaN, ties, and what is refused.
#![cfg(any(feature = "wgpu", feature = "cuda"))]

mod adapter;
mod reference;

use adapter::{devices, turn};
use gradus_core::backend::{Dims, MatmulSpec, Operand, WriteMode};
use gradus_core::ops::{ArgReduceOp, BinaryOp, CompareOp, Index, ReduceOp, ScanOp, ScatterOp, UnaryOp};
use gradus_core::rng::{self, Distribution, Key};
use gradus_core::{Backend, Buffer, DType, Element, Layout, Scalar, Shape, View};
use reference::{Numbers, assert_close};

macro_rules! on_gpu {
    ($(fn $name:ident($gpu:ident) $body:block)*) => {$(
        #[test]
        fn $name() {
            let _turn = turn();
            for device in devices() {
                let $gpu = device.backend();
                println!("on {device}");
                $body
            }
        }
    )*};
}

fn up<T: Element>(gpu: &dyn Backend, data: &[T]) -> Buffer {
    gpu.upload(T::DTYPE, T::bytes(data)).expect("the upload fits")
}

fn down<T: Element>(gpu: &dyn Backend, buffer: &Buffer, elements: usize) -> Vec<T> {
    let layout = Layout::dense(Shape::try_new(&[elements]).expect("a short shape"));
    let mut bytes = vec![0u8; elements * T::DTYPE.size()];
    gpu.download(View { buffer, layout: &layout, dtype: T::DTYPE }, &mut bytes).expect("the device works");
    T::from_bytes(&bytes)
}

fn dense(shape: &[usize]) -> Layout {
    Layout::dense(Shape::try_new(shape).expect("a short shape"))
}

/// What `x` holds where `layout` says.
fn through<T: Copy>(x: &[T], layout: &Layout) -> Vec<T> {
    layout.offsets().map(|i| x[i]).collect()
}

/// Views of 120 elements of every awkward sort: permuted, flipped, sliced, expanded, with an odd offset.
fn views() -> Vec<Layout> {
    let l = dense(&[4, 5, 6]);
    vec![
        l,
        l.permute(&[2, 0, 1]),
        l.slice(0, 3, 4, -1),
        l.slice(2, 5, 3, -2).permute(&[1, 2, 0]),
        l.slice(1, 1, 3, 1).slice(2, 1, 5, 1),
        dense(&[5, 1]).expand(&Shape::try_new(&[3, 5, 7]).expect("a short shape")),
        dense(&[]),
        dense(&[0, 3]),
    ]
}

on_gpu! {
    fn copies_and_casts_read_any_view(gpu) {
        let x: Vec<f32> = (0..120).map(|i| i as f32 * 0.75 - 40.0).collect();
        let buffer = up(gpu, &x);
        for layout in views() {
            let view = View { buffer: &buffer, layout: &layout, dtype: DType::F32 };
            let n = layout.elements();
            assert_eq!(down::<f32>(gpu, &gpu.copy(view).expect("copies"), n), through(&x, &layout), "{layout:?}");
            let long: Vec<i64> = through(&x, &layout).iter().map(|&v| v as i64).collect();
            assert_eq!(down::<i64>(gpu, &gpu.cast(view, DType::I64).expect("casts"), n), long);
        }
    }

    fn floats_become_integers_as_on_the_cpu(gpu) {
        let x = [0.0f32, -0.9, 1.9, 254.5, 255.5, 300.0, -5.0, 3e9, -3e9, 5e9, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
        let (buffer, layout) = (up(gpu, &x), dense(&[x.len()]));
        let view = View { buffer: &buffer, layout: &layout, dtype: DType::F32 };
        let cast = |to| gpu.cast(view, to).expect("casts");
        assert_eq!(down::<i32>(gpu, &cast(DType::I32), x.len()), x.map(|v| v as i32));
        assert_eq!(down::<u32>(gpu, &cast(DType::U32), x.len()), x.map(|v| v as u32));
        assert_eq!(down::<bool>(gpu, &cast(DType::Bool), x.len()), x.map(|v| v != 0.0));
        if gpu.supports(DType::U8) {
            assert_eq!(down::<u8>(gpu, &cast(DType::U8), x.len()), x.map(|v| v as u8));
        }
        let small = [-1i32, 255, 256, 511, 0, 7];
        let (buffer, layout) = (up(gpu, &small), dense(&[small.len()]));
        let view = View { buffer: &buffer, layout: &layout, dtype: DType::I32 };
        if gpu.supports(DType::U8) {
            assert_eq!(down::<u8>(gpu, &gpu.cast(view, DType::U8).expect("casts"), 6), small.map(|v| v as u8));
        }
        assert_eq!(down::<f32>(gpu, &gpu.cast(view, DType::F32).expect("casts"), 6), small.map(|v| v as f32));
    }

    fn writing_touches_only_its_places(gpu) {
        for mode in [WriteMode::Store, WriteMode::Add] {
            let base: Vec<f32> = (0..120).map(|i| i as f32).collect();
            let mut expected = base.clone();
            let at = dense(&[4, 5, 6]).slice(2, 5, 3, -2).slice(0, 1, 2, 1);
            let src: Vec<f32> = (0..at.elements()).map(|i| 1000.0 + i as f32).collect();
            for (place, v) in at.offsets().zip(&src) {
                expected[place] = if mode == WriteMode::Add { expected[place] + v } else { *v };
            }
            let (mut dst, from) = (up(gpu, &base), up(gpu, &src));
            let layout = dense(at.shape());
            gpu.write(&mut dst, &at, View { buffer: &from, layout: &layout, dtype: DType::F32 }, mode).expect("writes");
            assert_eq!(down::<f32>(gpu, &dst, 120), expected, "{mode:?}");
        }
    }

    fn unary_functions_agree_with_f64(gpu) {
        let mut numbers = Numbers::new(1);
        for &op in UnaryOp::ALL {
            let Some((lo, hi, f)) = reference::unary(op) else { continue };
            let x = numbers.reals(1000, lo, hi);
            let (buffer, layout) = (up(gpu, &x), dense(&[x.len()]));
            let out = gpu.unary(op, View { buffer: &buffer, layout: &layout, dtype: DType::F32 }).expect("it runs");
            let y: Vec<f32> = down(gpu, &out, x.len());
            assert_close(op.name(), &y, &x.iter().map(|&v| f(f64::from(v))).collect::<Vec<_>>());
        }
    }

    fn nan_and_infinity_pass_as_they_should(gpu) {
        let x = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-40, 200.0, -200.0];
        let (buffer, layout) = (up(gpu, &x), dense(&[x.len()]));
        let view = View { buffer: &buffer, layout: &layout, dtype: DType::F32 };
        let run = |op| down::<f32>(gpu, &gpu.unary(op, view).expect("it runs"), x.len());
        let test = |op| down::<bool>(gpu, &gpu.unary(op, view).expect("it runs"), x.len());
        for op in [UnaryOp::Relu, UnaryOp::Tanh, UnaryOp::Sigmoid, UnaryOp::Gelu, UnaryOp::Softplus, UnaryOp::Erf, UnaryOp::Abs] {
            let y = run(op);
            assert!(y[0].is_nan(), "{} of NaN is {}", op.name(), y[0]);
            assert!(y[6..].iter().all(|v| v.is_finite()), "{}: {y:?}", op.name());
        }
        assert_eq!(run(UnaryOp::Relu)[1..4], [f32::INFINITY, 0.0, 0.0]);
        assert_eq!(run(UnaryOp::Sign)[..5], [0.0, 1.0, -1.0, 0.0, 0.0], "0 for NaN, as on the CPU and in PyTorch");
        assert_eq!(run(UnaryOp::Sigmoid)[1..4], [1.0, 0.0, 0.5]);
        assert_eq!(run(UnaryOp::Tanh)[1..4], [1.0, -1.0, 0.0]);
        assert_eq!(test(UnaryOp::IsNan), x.map(f32::is_nan));
        assert_eq!(test(UnaryOp::IsInf), x.map(f32::is_infinite));
        assert_eq!(test(UnaryOp::IsFinite), x.map(f32::is_finite));
        assert_eq!(test(UnaryOp::LogicalNot), x.map(|v| v == 0.0));
    }

    fn binary_functions_broadcast_and_agree_with_f64(gpu) {
        let mut numbers = Numbers::new(2);
        let shape = Shape::try_new(&[3, 4, 5]).expect("a short shape");
        let (la, lb) = (dense(&[3, 1, 5]).expand(&shape), dense(&[4, 5]).slice(1, 4, 5, -1).expand(&shape));
        for &op in BinaryOp::ALL {
            let Some((a_range, b_range, f)) = reference::binary(op) else { continue };
            let (a, b) = (numbers.reals(15, a_range.0, a_range.1), numbers.reals(20, b_range.0, b_range.1));
            let (ba, bb) = (up(gpu, &a), up(gpu, &b));
            let va = Operand::View(View { buffer: &ba, layout: &la, dtype: DType::F32 });
            let vb = Operand::View(View { buffer: &bb, layout: &lb, dtype: DType::F32 });
            let (xa, xb) = (through(&a, &la), through(&b, &lb));
            let wanted: Vec<f64> = xa.iter().zip(&xb).map(|(&x, &y)| f(f64::from(x), f64::from(y))).collect();
            let y: Vec<f32> = down(gpu, &gpu.binary(op, va.clone(), vb.clone()).expect("it runs"), 60);
            assert_close(op.name(), &y, &wanted);
            // A number on either side.
            let s = f64::from(xa[0]);
            let y: Vec<f32> = down(gpu, &gpu.binary(op, Operand::Scalar(Scalar::Float(s)), vb).expect("it runs"), 60);
            assert_close(op.name(), &y, &xb.iter().map(|&y| f(s, f64::from(y))).collect::<Vec<_>>());
            let s = f64::from(xb[0]);
            let y: Vec<f32> = down(gpu, &gpu.binary(op, va, Operand::Scalar(Scalar::Float(s))).expect("it runs"), 60);
            assert_close(op.name(), &y, &xa.iter().map(|&x| f(f64::from(x), s)).collect::<Vec<_>>());
        }
    }

    fn integers_divide_and_shift_as_on_the_cpu(gpu) {
        let a = [7i32, -7, 7, -7, 6, -6, 0, 5, i32::MAX, 1];
        let b = [3i32, 3, -3, -3, 3, 3, 5, 31, 2, 40];
        let (ba, bb, layout) = (up(gpu, &a), up(gpu, &b), dense(&[a.len()]));
        let view = |buffer| Operand::View(View { buffer, layout: &layout, dtype: DType::I32 });
        let run = |op| down::<i32>(gpu, &gpu.binary(op, view(&ba), view(&bb)).expect("it runs"), a.len());
        let by = |f: &dyn Fn(i32, i32) -> i32| a.iter().zip(&b).map(|(&x, &y)| f(x, y)).collect::<Vec<_>>();
        assert_eq!(run(BinaryOp::FloorDivide), by(&|x, y| (f64::from(x) / f64::from(y)).floor() as i32));
        assert_eq!(run(BinaryOp::Remainder), by(&|x, y| x - y * (f64::from(x) / f64::from(y)).floor() as i32));
        assert_eq!(run(BinaryOp::Fmod), by(&|x, y| x % y));
        assert_eq!(run(BinaryOp::Add), by(&i32::wrapping_add));
        assert_eq!(run(BinaryOp::Mul), by(&i32::wrapping_mul));
        assert_eq!(run(BinaryOp::Maximum), by(&i32::max));
        assert_eq!(run(BinaryOp::BitXor), by(&|x, y| x ^ y));
        assert_eq!(run(BinaryOp::ShiftLeft), by(&|x, y| if (0..32).contains(&y) { x << y } else { 0 }));
        assert_eq!(run(BinaryOp::ShiftRight), by(&|x, y| if (0..32).contains(&y) { x >> y } else { x >> 31 }));
    }

    fn comparisons_follow_ieee(gpu) {
        let a = [1.0f32, 2.0, f32::NAN, f32::NAN, f32::INFINITY, -0.0, 3.0];
        let b = [2.0f32, 2.0, 1.0, f32::NAN, f32::INFINITY, 0.0, 1.0];
        let (ba, bb, layout) = (up(gpu, &a), up(gpu, &b), dense(&[a.len()]));
        let view = |buffer| Operand::View(View { buffer, layout: &layout, dtype: DType::F32 });
        let run = |op| down::<bool>(gpu, &gpu.compare(op, view(&ba), view(&bb)).expect("it runs"), a.len());
        let by = |f: &dyn Fn(f32, f32) -> bool| a.iter().zip(&b).map(|(&x, &y)| f(x, y)).collect::<Vec<_>>();
        assert_eq!(run(CompareOp::Eq), by(&|x, y| x == y));
        assert_eq!(run(CompareOp::Ne), by(&|x, y| x != y));
        assert_eq!(run(CompareOp::Lt), by(&|x, y| x < y));
        assert_eq!(run(CompareOp::Le), by(&|x, y| x <= y));
        assert_eq!(run(CompareOp::Gt), by(&|x, y| x > y));
        assert_eq!(run(CompareOp::Ge), by(&|x, y| x >= y));
        assert_eq!(run(CompareOp::LogicalAnd), by(&|x, y| x != 0.0 && y != 0.0));
        assert_eq!(run(CompareOp::LogicalOr), by(&|x, y| x != 0.0 || y != 0.0));
        assert_eq!(run(CompareOp::LogicalXor), by(&|x, y| (x != 0.0) != (y != 0.0)));
        let condition = up(gpu, &by(&|x, y| x < y));
        let (va, vb) = (View { buffer: &ba, layout: &layout, dtype: DType::F32 }, View { buffer: &bb, layout: &layout, dtype: DType::F32 });
        let chosen = gpu.select(View { buffer: &condition, layout: &layout, dtype: DType::Bool }, vb, va).expect("it runs");
        assert_eq!(down::<f32>(gpu, &chosen, a.len())[..2], [2.0, 2.0]);
    }

    fn reductions_agree_with_f64_on_every_path(gpu) {
        let mut numbers = Numbers::new(3);
        // One thread a result; one cube; chunks of cubes.
        for (shape, axes) in [
            (vec![4, 5, 6], vec![1]),
            (vec![4, 5, 6], vec![0, 2]),
            (vec![3, 1000], vec![1]),
            (vec![1000, 3], vec![0]),
            (vec![70_000], vec![0]),
            (vec![2, 9_000, 2], vec![1]),
            (vec![5000, 300], vec![1]),
            (vec![3, 4], vec![]),
        ] {
            let n: usize = shape.iter().product();
            let x = numbers.reals(n, 0.5, 1.5);
            let whole = dense(&shape);
            let flipped = whole.slice(0, shape[0] - 1, shape[0], -1);
            let dims = axes.iter().fold(Dims::default(), |s, &d| s.with(d));
            let buffer = up(gpu, &x);
            for layout in [whole, flipped] {
                let view = View { buffer: &buffer, layout: &layout, dtype: DType::F32 };
                for op in [ReduceOp::Sum, ReduceOp::Mean, ReduceOp::Max, ReduceOp::Min] {
                    let wanted = reference::reduce(&through(&x, &layout), &shape, dims, op);
                    let y: Vec<f32> = down(gpu, &gpu.reduce(op, view, dims).expect("it runs"), wanted.len());
                    assert_close(&format!("{} of {shape:?} over {axes:?}", op.name()), &y, &wanted);
                }
            }
        }
    }

    fn reductions_of_integers_bools_and_nothing(gpu) {
        let x: Vec<i32> = (0..1000).map(|i| (i * 37) % 101 - 50).collect();
        let (buffer, layout) = (up(gpu, &x), dense(&[1000]));
        let view = View { buffer: &buffer, layout: &layout, dtype: DType::I32 };
        let all = Dims::all(1);
        let sum: i64 = x.iter().map(|&v| i64::from(v)).sum();
        assert_eq!(down::<i64>(gpu, &gpu.reduce(ReduceOp::Sum, view, all).expect("it runs"), 1), [sum]);
        assert_eq!(down::<i32>(gpu, &gpu.reduce(ReduceOp::Max, view, all).expect("it runs"), 1), [50]);
        assert_eq!(down::<bool>(gpu, &gpu.reduce(ReduceOp::Any, view, all).expect("it runs"), 1), [true]);
        assert_eq!(down::<bool>(gpu, &gpu.reduce(ReduceOp::All, view, all).expect("it runs"), 1), [false]);
        let none = dense(&[3, 0]);
        let view = View { buffer: &buffer, layout: &none, dtype: DType::F32 };
        let last = Dims::default().with(1);
        assert_eq!(down::<f32>(gpu, &gpu.reduce(ReduceOp::Sum, view, last).expect("it runs"), 3), [0.0; 3]);
        assert_eq!(down::<f32>(gpu, &gpu.reduce(ReduceOp::Prod, view, last).expect("it runs"), 3), [1.0; 3]);
        assert!(down::<f32>(gpu, &gpu.reduce(ReduceOp::Mean, view, last).expect("it runs"), 3).iter().all(|v| v.is_nan()));
        let mut x = vec![1.0f32; 600];
        x[400] = f32::NAN;
        let (buffer, layout) = (up(gpu, &x), dense(&[600]));
        let view = View { buffer: &buffer, layout: &layout, dtype: DType::F32 };
        for op in [ReduceOp::Max, ReduceOp::Min] {
            assert!(down::<f32>(gpu, &gpu.reduce(op, view, all).expect("it runs"), 1)[0].is_nan(), "{}", op.name());
        }
    }

    fn the_place_of_an_extreme_is_the_first(gpu) {
        for n in [7usize, 5000] {
            let mut x: Vec<f32> = (0..n * 2).map(|i| ((i * 31) % 13) as f32).collect();
            for (row, place) in [(0, n / 2), (1, n - 1)] {
                x[row * n + place] = f32::NAN;
            }
            for clean in [false, true] {
                if clean {
                    x.iter_mut().filter(|v| v.is_nan()).for_each(|v| *v = 0.5);
                }
                let (buffer, layout) = (up(gpu, &x), dense(&[2, n]));
                let view = View { buffer: &buffer, layout: &layout, dtype: DType::F32 };
                for op in [ArgReduceOp::Max, ArgReduceOp::Min] {
                    let wanted: Vec<i64> = x.chunks(n).map(|row| reference::first_extreme(row, op == ArgReduceOp::Max) as i64).collect();
                    assert_eq!(down::<i64>(gpu, &gpu.arg_reduce(op, view, 1).expect("it runs"), 2), wanted, "{op:?} of {n}");
                }
            }
        }
    }

    fn cumulative_sums_along_any_dimension(gpu) {
        let mut numbers = Numbers::new(4);
        for (shape, dim) in [(vec![4, 5, 6], 1), (vec![3, 2000], 1), (vec![70_000], 0), (vec![700, 3], 0)] {
            let x = numbers.reals(shape.iter().product(), -1.0, 1.0);
            let (buffer, layout) = (up(gpu, &x), dense(&shape));
            let view = View { buffer: &buffer, layout: &layout, dtype: DType::F32 };
            let y: Vec<f32> = down(gpu, &gpu.scan(ScanOp::Sum, view, dim).expect("it runs"), x.len());
            assert_close(&format!("cumsum of {shape:?} along {dim}"), &y, &reference::cumsum(&x, &shape, dim));
        }
    }

    fn sorting_is_stable_and_puts_nan_last(gpu) {
        for (shape, dim) in [(vec![4usize, 5, 6], 1), (vec![3, 1000], 1), (vec![33, 2], 0), (vec![5, 1], 1)] {
            let n: usize = shape.iter().product();
            // Many ties, so that stability shows.
            let mut x: Vec<f32> = (0..n).map(|i| ((i * 7919) % 17) as f32).collect();
            x.iter_mut().step_by(11).for_each(|v| *v = f32::NAN);
            let (buffer, layout) = (up(gpu, &x), dense(&shape));
            let view = View { buffer: &buffer, layout: &layout, dtype: DType::F32 };
            for descending in [false, true] {
                let order: Vec<i64> = down(gpu, &gpu.argsort(view, dim, descending).expect("it runs"), n);
                assert_eq!(order, reference::argsort(&x, &shape, dim, descending), "{shape:?} along {dim}, descending {descending}");
            }
        }
    }

    fn products_of_any_strides_and_sizes(gpu) {
        let mut numbers = Numbers::new(5);
        for [batch, m, k, n] in [[1usize, 3, 4, 5], [2, 17, 33, 9], [3, 70, 20, 65], [1, 1, 300, 1], [1, 130, 5, 130], [2, 2, 0, 3], [1, 512, 512, 512]] {
            let (a, b) = (numbers.reals(batch * m * k, -1.0, 1.0), numbers.reals(k * n, -1.0, 1.0));
            let (ba, bb) = (up(gpu, &a), up(gpu, &b));
            // The left operand is held transposed and flipped; the right one is shared by all batches.
            let la = dense(&[batch, k, m]).permute(&[0, 2, 1]);
            let la = if m > 0 { la.slice(1, m - 1, m, -1) } else { la };
            let lb = dense(&[k, n]).expand(&Shape::try_new(&[batch, k, n]).expect("a short shape"));
            let bias = numbers.reals(n, -1.0, 1.0);
            let (bbias, lbias) = (up(gpu, &bias), dense(&[n]));
            let spec = MatmulSpec { bias: Some(View { buffer: &bbias, layout: &lbias, dtype: DType::F32 }), activation: Some(UnaryOp::Relu) };
            let (va, vb) = (View { buffer: &ba, layout: &la, dtype: DType::F32 }, View { buffer: &bb, layout: &lb, dtype: DType::F32 });
            let y: Vec<f32> = down(gpu, &gpu.matmul(va, vb, &spec).expect("it runs"), batch * m * n);
            let mut wanted = reference::matmul(&through(&a, &la), &through(&b, &lb), [batch, m, k, n]);
            wanted.chunks_mut(n).for_each(|row| row.iter_mut().zip(&bias).for_each(|(v, &c)| *v = (*v + f64::from(c)).max(0.0)));
            assert_close(&format!("{batch} products of {m}x{k} and {k}x{n}"), &y, &wanted);
        }
    }

    fn integer_products_are_exact(gpu) {
        let (a, b) = ([1i64, -2, 3, 4, 5, 6], [7i64, 8, 9, 10, 11, -12]);
        let (ba, bb, la, lb) = (up(gpu, &a), up(gpu, &b), dense(&[2, 3]), dense(&[3, 2]));
        let (va, vb) = (View { buffer: &ba, layout: &la, dtype: DType::I64 }, View { buffer: &bb, layout: &lb, dtype: DType::I64 });
        let y: Vec<i64> = down(gpu, &gpu.matmul(va, vb, &MatmulSpec::default()).expect("it runs"), 4);
        assert_eq!(y, [7 - 18 + 33, 8 - 20 - 36, 28 + 45 + 66, 32 + 50 - 72]);
    }

    fn picking_by_index(gpu) {
        let x: Vec<f32> = (0..60).map(|i| i as f32).collect();
        let (buffer, layout) = (up(gpu, &x), dense(&[3, 4, 5]));
        let view = View { buffer: &buffer, layout: &layout, dtype: DType::F32 };
        let index = [3i64, 0, 2, 2, 1, 3];
        let (ib, along, slices) = (up(gpu, &index), dense(&[3, 2, 1]), dense(&[2, 3]));
        let y: Vec<f32> = down(gpu, &gpu.gather(view, View { buffer: &ib, layout: &along, dtype: DType::I64 }, Index::Along(1)).expect("it runs"), 6);
        assert_eq!(y, (0..6).map(|p| x[(p / 2) * 20 + index[p] as usize * 5]).collect::<Vec<_>>());
        let y: Vec<f32> = down(gpu, &gpu.gather(view, View { buffer: &ib, layout: &slices, dtype: DType::I64 }, Index::Slices(1)).expect("it runs"), 90);
        let wanted: Vec<f32> = (0..90).map(|p| x[(p / 30) * 20 + index[p / 5 % 6] as usize * 5 + p % 5]).collect();
        assert_eq!(y, wanted);
    }

    fn scattering_is_exact_and_ordered(gpu) {
        let mut numbers = Numbers::new(6);
        // Few sources, and enough to be sorted first; a base longer than the index elsewhere.
        for (base, index) in [([3usize, 4, 5], [3usize, 6, 5]), ([2, 7, 3], [2, 100, 3]), ([4, 3, 6], [2, 50, 4])] {
            let b = numbers.reals(base.iter().product(), -1.0, 1.0);
            let n: usize = index.iter().product();
            let (s, i) = (numbers.reals(n, -1.0, 1.0), (0..n).map(|_| numbers.below(base[1]) as i64).collect::<Vec<_>>());
            let (bb, bs, bi) = (up(gpu, &b), up(gpu, &s), up(gpu, &i));
            let (lb, ls) = (dense(&base), dense(&index));
            for op in [ScatterOp::Add, ScatterOp::Set] {
                let view = |buffer, layout, dtype| View { buffer, layout, dtype };
                let out = gpu.scatter(op, view(&bb, &lb, DType::F32), view(&bi, &ls, DType::I64), view(&bs, &ls, DType::F32), Index::Along(1));
                let y: Vec<f32> = down(gpu, &out.expect("it runs"), b.len());
                // The same order of additions in f32: the same bits.
                assert_eq!(y, reference::scatter(&b, base, &i, &s, index, op), "{op:?} onto {base:?}");
            }
        }
    }

    fn adding_slices_is_exact_and_ordered(gpu) {
        let mut numbers = Numbers::new(7);
        for tokens in [[2usize, 3], [4, 40]] {
            let (rows, width, n) = (9usize, 4usize, tokens[0] * tokens[1]);
            let b = numbers.reals(rows * width, -1.0, 1.0);
            let (s, i) = (numbers.reals(n * width, -1.0, 1.0), (0..n).map(|_| numbers.below(rows) as i64).collect::<Vec<_>>());
            let mut wanted = b.clone();
            for (t, &row) in i.iter().enumerate() {
                (0..width).for_each(|c| wanted[row as usize * width + c] += s[t * width + c]);
            }
            let (bb, bs, bi) = (up(gpu, &b), up(gpu, &s), up(gpu, &i));
            let (lb, li, ls) = (dense(&[rows, width]), dense(&tokens), dense(&[tokens[0], tokens[1], width]));
            let view = |buffer, layout, dtype| View { buffer, layout, dtype };
            let out = gpu.scatter(ScatterOp::Add, view(&bb, &lb, DType::F32), view(&bi, &li, DType::I64), view(&bs, &ls, DType::F32), Index::Slices(0));
            assert_eq!(down::<f32>(gpu, &out.expect("it runs"), b.len()), wanted, "{tokens:?}");
        }
    }

    fn random_numbers_have_the_cpu_s_bits(gpu) {
        let key = Key::new(0x1234_5678_9abc_def0).fold("layer").at(3);
        let n = 1003;
        let words: Vec<u32> = (0..n).map(|i| key.block(i as u32 / 4)[i % 4]).collect();
        let draw = |d, dtype| gpu.random(d, &key, n, dtype).expect("it draws");
        assert_eq!(down::<u32>(gpu, &draw(Distribution::Bits, DType::U32), n), words);
        let uniform: Vec<f32> = words.iter().map(|&w| rng::uniform(w)).collect();
        assert_eq!(down::<f32>(gpu, &draw(Distribution::Uniform, DType::F32), n), uniform);
        let heads: Vec<bool> = uniform.iter().map(|&u| f64::from(u) < 0.3).collect();
        assert_eq!(down::<bool>(gpu, &draw(Distribution::Bernoulli(0.3), DType::Bool), n), heads);
        let dice: Vec<i64> = words.iter().map(|&w| 5 + rng::below(w, 1000) as i64).collect();
        assert_eq!(down::<i64>(gpu, &draw(Distribution::Integers(5, 1005), DType::I64), n), dice);
        let normal: Vec<f64> = (0..n)
            .map(|i| {
                let block = key.block(i as u32 / 4);
                let (a, b) = rng::normal_pair(block[i % 4 / 2 * 2], block[i % 4 / 2 * 2 + 1]);
                if i % 2 == 0 { a } else { b }
            })
            .collect();
        let drawn: Vec<f32> = down(gpu, &draw(Distribution::Normal, DType::F32), n);
        for (x, y) in drawn.iter().zip(&normal) {
            let ulps = (f64::from(*x) - y).abs() / (y.abs() * f64::from(f32::EPSILON)).max(f64::from(f32::EPSILON) * 0.25);
            assert!(ulps <= 4.0, "{x} is {ulps} ulp from {y}");
        }
    }

    fn negative_indices_count_from_the_end(gpu) {
        let (x, index) = (up(gpu, &[1.0f32, 2.0, 3.0]), up(gpu, &[-1i64, 0, -3]));
        let l = dense(&[3]);
        let view = |buffer, dtype| View { buffer, layout: &l, dtype };
        let y = gpu.gather(view(&x, DType::F32), view(&index, DType::I64), Index::Along(0)).expect("it runs");
        assert_eq!(down::<f32>(gpu, &y, 3), [3.0, 1.0, 1.0]);
        for how in [Index::Along(0), Index::Slices(0)] {
            let (base, src, at) = (view(&x, DType::F32), view(&y, DType::F32), view(&index, DType::I64));
            let sum = gpu.scatter(ScatterOp::Add, base, at, src, how).expect("it runs");
            assert_eq!(down::<f32>(gpu, &sum, 3), [1.0 + 1.0 + 1.0, 2.0, 3.0 + 3.0]);
        }
    }

    fn an_index_out_of_range_is_named_when_waited_for_and_the_device_works_on(gpu) {
        let (x, index) = (up(gpu, &[1.0f32, 2.0, 3.0]), up(gpu, &[0i64, 7]));
        let (lx, li) = (dense(&[3]), dense(&[2]));
        let (vx, vi) = (View { buffer: &x, layout: &lx, dtype: DType::F32 }, View { buffer: &index, layout: &li, dtype: DType::I64 });
        let says = |error: gradus_core::Error, parts: &[&str]| {
            let text = error.to_string();
            assert!(parts.iter().all(|part| text.contains(part)), "{text} does not say {parts:?}");
        };
        let y = gpu.gather(vx, vi, Index::Along(0)).expect("it is launched");
        let error = gpu.download(View { buffer: &y, layout: &li, dtype: DType::F32 }, &mut [0u8; 8]).expect_err("7 is out of range");
        says(error, &["index 7", "length 3", "gather", gpu.name()]);
        assert_eq!(down::<f32>(gpu, &x, 3), [1.0, 2.0, 3.0]);
        gpu.synchronize().expect("the error was told once");

        // Of two mistakes the first is told, whoever waits.
        let base = View { layout: &li, ..vx };
        let sum = gpu.scatter(ScatterOp::Add, base, vi, View { buffer: &y, layout: &li, dtype: DType::F32 }, Index::Along(0)).expect("it is launched");
        let _ = gpu.gather(vx, vi, Index::Slices(0)).expect("it is launched");
        says(gpu.synchronize().expect_err("7 is out of range"), &["index 7", "length 2", "scatter_add"]);
        gpu.synchronize().expect("the error was told once");
        assert_eq!(down::<f32>(gpu, &sum, 2)[1], 2.0, "what is out of range is added to nothing");
    }

    fn an_absurd_allocation_is_refused_and_the_device_works_on(gpu) {
        let before = gpu.memory().in_use;
        let error = gpu.empty(1 << 50, DType::F32).expect_err("a petabyte does not fit");
        assert!(error.to_string().contains(&(4usize << 50).to_string()), "{error}");
        assert_eq!(gpu.memory().in_use, before);
        assert_eq!(down::<f32>(gpu, &up(gpu, &[4.0f32]), 1), [4.0]);
    }

    fn halves_accumulate_in_f32(gpu) {
        if !gpu.supports(DType::F16) {
            println!("skipped: {} has no f16", gpu.name());
            return;
        }
        use half::f16;
        let x: Vec<f16> = (0..3000).map(|_| f16::from_f32(0.1)).collect();
        let (buffer, layout) = (up(gpu, &x), dense(&[3000]));
        let view = View { buffer: &buffer, layout: &layout, dtype: DType::F16 };
        let sum: Vec<f16> = down(gpu, &gpu.reduce(ReduceOp::Sum, view, Dims::all(1)).expect("it runs"), 1);
        let exact: f64 = x.iter().map(|v| v.to_f64()).sum();
        assert_eq!(sum[0], f16::from_f64(exact));
    }
}

#[test]
fn devices_that_are_not_there_are_refused_with_what_to_do() {
    let error = gradus_gpu::wgpu(99).expect_err("no machine has a hundred adapters").to_string();
    assert!(error.contains("wgpu:99"), "{error}");
    if let Err(error) = gradus_gpu::cuda(0) {
        let text = error.to_string();
        assert!(text.contains("cuda:0") && (text.contains("install") || text.contains("feature")), "{text}");
    }
    println!("{:#?}", gradus_gpu::list());
}
