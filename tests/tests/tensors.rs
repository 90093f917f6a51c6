//! Tensors by hand: views against copies, sizes that overflow, printing, promotion, errors at the caller's line.

use gradus_core::capture::Captured;
use gradus_core::ops::PadMode;
use gradus_core::{DType, Device, Element, ErrorKind, Shape, SliceSpec, Tensor};
use gradus_tests::panics::caught;

fn cpu() -> Device {
    gradus_cpu::device()
}

fn count(dims: &[usize]) -> Tensor {
    Tensor::arange(0, dims.iter().product::<usize>(), 1, cpu().with(DType::I64)).reshape(dims)
}

fn ints(t: &Tensor) -> Vec<i64> {
    t.to_vec().expect("a tensor on the CPU can be read")
}

/// A deterministic stream of choices.
struct Choices(u64);
impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as usize) % n
    }
}

/// One random view of `x`, as (what it is, the view).
fn random_view(x: &Tensor, c: &mut Choices) -> (String, Tensor) {
    let rank = x.rank();
    let d = c.below(rank);
    let n = x.dims()[d];
    let dim = d as isize - if c.below(2) == 0 { rank as isize } else { 0 };
    match c.below(9) {
        0 => {
            let e = c.below(rank);
            (format!("transpose({dim}, {e})"), x.transpose(dim, e as isize))
        }
        1 => (format!("flip({dim})"), x.flip(&[dim])),
        2 => {
            let (a, b) = (c.below(n + 2) as isize - 1, c.below(n + 3) as isize - 1);
            let step = [1, 2, 3, -1, -2][c.below(5)];
            (format!("slice({dim}, {a}, {b}, {step})"), x.slice(dim, Some(a), Some(b), step))
        }
        3 if n > 0 => {
            let size = 1 + c.below(n);
            let step = 1 + c.below(2);
            if rank < 6 {
                (format!("unfold({dim}, {size}, {step})"), x.unfold(dim, size, step))
            } else {
                ("x".into(), x.clone())
            }
        }
        4 if rank < 6 => (format!("unsqueeze({d})"), x.unsqueeze(d as isize)),
        5 if rank > 1 => {
            let e = (d + 1) % rank;
            let offset = c.below(3) as isize - 1;
            (format!("diagonal({offset}, {d}, {e})"), x.diagonal(offset, d as isize, e as isize))
        }
        6 if rank < 6 => {
            let dims: Vec<usize> = [2].iter().chain(x.dims()).copied().collect();
            (format!("expand({dims:?})"), x.expand(&dims))
        }
        7 if rank > 1 => (format!("flatten to {}", x.elements()), x.reshape([x.elements()])),
        8 if n.is_multiple_of(2) => {
            let mut dims = x.dims().to_vec();
            dims[d] = n / 2;
            dims.insert(d, 2);
            if dims.len() < 7 { (format!("reshape({dims:?})"), x.reshape(&dims)) } else { ("x".into(), x.clone()) }
        }
        _ => (format!("narrow({dim}, 0, {n})"), x.narrow(dim, 0, n)),
    }
}

#[test]
fn chains_of_views_equal_chains_of_copies() {
    for seed in 0..400u64 {
        let mut c = Choices(seed);
        let mut lazy = count([&[4, 6], &[3, 4, 2][..], &[8][..], &[2, 3, 2, 2][..]][c.below(4)]);
        let mut eager = lazy.clone();
        let mut chain = Vec::new();
        for _ in 0..5 {
            if lazy.rank() == 0 || lazy.elements() > 5000 {
                break;
            }
            let at = c.0;
            let (what, next) = random_view(&lazy, &mut c);
            // The same view of a dense copy.
            let (_, of_copy) = random_view(&eager, &mut Choices(at));
            chain.push(what);
            lazy = next;
            eager = Tensor::from_vec(ints(&of_copy), of_copy.dims(), cpu());
            assert_eq!(lazy.dims(), eager.dims(), "seed {seed}: {chain:?}");
            assert_eq!(ints(&lazy), ints(&eager), "seed {seed}: {chain:?}");
            // Kernels read the view as they read the copy.
            assert_eq!(ints(&lazy.sum()), ints(&eager.sum()), "seed {seed}: sum of {chain:?}");
            assert_eq!(ints(&(&lazy + 1i64)), ints(&(&eager + 1i64)), "seed {seed}: {chain:?} + 1");
        }
    }
}

#[test]
fn views_share_memory_where_they_can() {
    let x = count(&[4, 6]);
    for view in [
        x.t(),
        x.flip(&[0]),
        x.slice(1, None, None, -2),
        x.expand([3, 4, 6]),
        x.reshape([2, 2, 6]),
        x.diagonal(0, 0, 1),
        x.unfold(1, 3, 1),
    ] {
        assert!(std::sync::Arc::ptr_eq(view.view().buffer, x.view().buffer), "{:?} was copied", view.dims());
    }
    assert!(!std::sync::Arc::ptr_eq(x.t().reshape([24]).view().buffer, x.view().buffer), "this one cannot be a view");
    assert!(x.contiguous().is_same(&x));
}

#[test]
fn slices_follow_python() {
    let x = count(&[7]);
    let s = |a: Option<isize>, b: Option<isize>, step: isize| ints(&x.slice(0, a, b, step));
    assert_eq!(s(Some(-3), None, 1), [4, 5, 6]);
    assert_eq!(s(None, None, -3), [6, 3, 0]);
    assert_eq!(s(Some(5), Some(1), -2), [5, 3]);
    assert_eq!(s(Some(5), Some(-1000), -2), [5, 3, 1]);
    assert_eq!(s(Some(100), Some(200), 1), [0i64; 0]);
    assert_eq!(s(Some(4), Some(2), 1), [0i64; 0]);
    assert_eq!(s(None, Some(-1), isize::MAX), [0]);
    assert_eq!(s(None, None, isize::MIN), [6]);
    let m = count(&[3, 4]);
    assert_eq!(ints(&m.i((-1, 1..3))), [9, 10]);
    assert_eq!(ints(&m.i((SliceSpec::from(..).by(-1), 0))), [8, 4, 0]);
    assert_eq!(m.i((SliceSpec::New, .., 1)).dims(), [1, 3]);
    assert_eq!(m.i((.., 2..=3)).dims(), [3, 2]);
}

#[test]
fn sizes_that_overflow_are_refused_before_allocation() {
    let big = usize::MAX / 2;
    let refused = |t: gradus_core::Result<Tensor>| t.expect_err("far too large").to_string();
    assert!(refused(Tensor::try_zeros([big, 4], cpu())).contains("address"));
    assert!(refused(Tensor::try_full([1 << 40, 1 << 40], 1.0, cpu())).contains("address"));
    assert!(refused(Tensor::try_rand([1 << 62], cpu(), 1)).contains("address"));
    assert!(Tensor::try_from_vec(vec![1.0f32; 4], [big, 8], cpu()).is_err());
    let x = Tensor::ones([2, 3], cpu());
    assert!(refused(x.try_expand([1 << 61, 2, 3])).contains("address"));
    assert!(x.try_repeat(&[big, big]).is_err());
    assert!(x.try_repeat_interleave(big, 0).is_err());
    assert!(x.try_pad(&[(isize::MAX, isize::MAX)], PadMode::Constant(0.0)).is_err());
    assert!(x.try_pad(&[(isize::MIN, isize::MIN)], PadMode::Constant(0.0)).is_err());
    assert!(x.try_reshape([big, big]).is_err());
    assert!(x.try_view_as(&[isize::MAX, 4, -1]).is_err());
    assert!(x.try_unsqueeze(0).and_then(|x| x.try_expand([1 << 62, 2, 3])).is_err());
    assert!(Tensor::try_arange(0, i64::MAX, 1, cpu()).is_err());
    assert!(Tensor::try_arange(0, 1i64 << 62, 1, cpu().with(DType::U8)).is_err());
    assert!(Tensor::try_linspace(0.0, 1.0, 1 << 62, cpu()).is_err());
    assert!(Tensor::try_eye(1 << 33, cpu()).is_err());
    // Something times nothing is nothing, however large the something.
    assert_eq!(Tensor::zeros([0, big], cpu()).elements(), 0);
}

#[test]
fn extreme_arguments_are_refused_without_panics() {
    const N: [isize; 7] = [isize::MIN, -9, -1, 0, 1, 9, isize::MAX];
    let x = count(&[2, 3]).to_dtype(DType::F32);
    let index = count(&[2]);
    type Call<'a> = Box<dyn Fn(isize, isize) -> bool + 'a>;
    let u = |n: isize| n.unsigned_abs();
    let calls: Vec<(&str, Call)> = vec![
        ("flatten", Box::new(|a, b| x.try_flatten(a, b).is_ok())),
        ("permute", Box::new(|a, b| x.try_permute(&[a, b]).is_ok())),
        ("transpose", Box::new(|a, b| x.try_transpose(a, b).is_ok())),
        ("movedim", Box::new(|a, b| x.try_movedim(a, b).is_ok())),
        ("unsqueeze", Box::new(|a, _| x.try_unsqueeze(a).is_ok())),
        ("squeeze", Box::new(|a, _| x.try_squeeze(a).is_ok())),
        ("narrow", Box::new(|a, b| x.try_narrow(a, u(b), u(a)).is_ok())),
        ("slice", Box::new(|a, b| x.try_slice(1, Some(a), Some(b), a).is_ok())),
        ("slice by", Box::new(|a, b| x.try_slice(0, Some(a), None, b).is_ok())),
        ("select", Box::new(|a, b| x.try_select(a, b).is_ok())),
        ("flip", Box::new(|a, b| x.try_flip(&[a, b]).is_ok())),
        ("diagonal", Box::new(|a, b| x.try_diagonal(a, 0, b).is_ok())),
        ("unfold", Box::new(|a, b| x.try_unfold(a, u(b), u(a)).is_ok())),
        ("unfold far", Box::new(|a, b| x.try_unfold(1, 2, u(a) ^ u(b)).is_ok())),
        ("repeat", Box::new(|a, b| x.try_repeat(&[u(a) % 10, u(b) % 10]).is_ok())),
        ("roll", Box::new(|a, b| x.try_roll(a, b).is_ok())),
        ("sum", Box::new(|a, b| x.try_sum_dims(&[a, b], true).is_ok())),
        ("argmax", Box::new(|a, _| x.try_argmax(a, false).is_ok())),
        ("cumsum", Box::new(|a, _| x.try_cumsum(a).is_ok())),
        ("topk", Box::new(|a, b| x.try_topk(u(a), b, true).is_ok())),
        ("sort", Box::new(|a, _| x.try_sort(a, false).is_ok())),
        ("median", Box::new(|a, _| x.try_median(a, false).is_ok())),
        ("softmax", Box::new(|a, _| x.try_softmax(a).is_ok())),
        ("logsumexp", Box::new(|a, b| x.try_logsumexp(&[a, b], false).is_ok())),
        ("split", Box::new(|a, b| x.try_split(u(a), b).is_ok())),
        ("split_sizes", Box::new(|a, b| x.try_split_sizes(&[u(a), u(b), 3], 1).is_ok())),
        ("chunk", Box::new(|a, b| x.try_chunk(u(a), b).is_ok())),
        ("cat", Box::new(|a, _| Tensor::try_cat(&[&x, &x], a).is_ok())),
        ("stack", Box::new(|a, _| Tensor::try_stack(&[&x, &x], a).is_ok())),
        ("pad", Box::new(|a, b| x.try_pad(&[(a % 1000, b % 1000)], PadMode::Reflect).is_ok())),
        ("pad far", Box::new(|a, b| x.try_pad(&[(a, b)], PadMode::Circular).is_ok())),
        ("gather", Box::new(|a, b| x.try_gather(a, &(count(&[2, 2]) + b as i64)).is_ok())),
        ("index_select", Box::new(|a, b| x.try_index_select(a, &(&index * b as i64)).is_ok())),
        ("index_add", Box::new(|a, b| x.try_index_add(a, &(&index + b as i64), &x).is_ok())),
        ("one_hot", Box::new(|a, b| (&index + a as i64).try_one_hot(u(b) % 20).is_ok())),
        ("glu", Box::new(|a, _| x.try_glu(a).is_ok())),
        ("tril", Box::new(|a, _| x.try_tril(a as i64).is_ok())),
        ("triu", Box::new(|a, _| x.try_triu(a as i64).is_ok())),
        ("var", Box::new(|a, b| x.try_var(&[a], u(b), false).is_ok())),
        ("view_as", Box::new(|a, b| x.try_view_as(&[a, b]).is_ok())),
        ("dropout", Box::new(|a, _| x.try_dropout(a as f64, 1).is_ok())),
    ];
    for (name, call) in &calls {
        let mut ran = 0;
        for a in N {
            for b in N {
                if let Some(p) = caught(|| ran += usize::from(call(a, b))) {
                    panic!("{name} of ({a}, {b}) panicked at {}:{}: {}", p.file, p.line, p.message);
                }
            }
        }
        assert!(ran > 0, "{name} refused everything: it was not tried");
    }
}

#[test]
fn panics_name_the_callers_line_and_say_what_would_fit() {
    let (a, b) = (Tensor::ones([2, 3], cpu()), Tensor::ones([2, 4], cpu()));
    let expect = |line: u32, says: &[&str], call: &dyn Fn()| {
        let p = caught(call).expect("misuse panics");
        assert!(
            p.file.ends_with("tensors.rs") && p.line == line,
            "{}:{} instead of line {line}: {}",
            p.file,
            p.line,
            p.message
        );
        for s in says {
            assert!(p.message.contains(s), "{:?} does not say {s:?}", p.message);
        }
    };
    expect(line!(), &["matmul", "f32 [2, 3]", "f32 [2, 4]", "[.., 3, n]"], &|| drop(a.matmul(&b)));
    expect(line!(), &["add", "[2, 3]", "[2, 4]", "broadcast"], &|| drop(&a + &b));
    expect(line!(), &["reshape", "6 elements"], &|| drop(a.reshape([4, 2])));
    expect(line!(), &["dimension 2", "[2, 3]"], &|| drop(a.sum_dims(&[2], false)));
    expect(line!(), &["bit_and", "f32"], &|| drop(a.bit_and(&b)));
    expect(line!(), &["linear", "[out, 3]"], &|| drop(a.linear(&Tensor::ones([5], cpu()), None)));
    expect(line!(), &["index_select", "integers", "f32"], &|| drop(a.index_select(0, &b)));
    expect(line!(), &["cat"], &|| drop(Tensor::cat(&[&a, &b], 0)));
    expect(line!() + 1, &["f32 tensor", "6 elements", "5 were given"], &|| {
        drop(Tensor::from_vec(vec![0f32; 5], [2, 3], cpu()))
    });
    expect(line!(), &["one element", "[2, 3]"], &|| a.requires_grad().backward());
    let e = a.try_matmul(&b).expect_err("misuse");
    assert_eq!((e.kind(), e.op()), (ErrorKind::Misuse, Some("matmul")));
    let e = a.item::<f32>().expect_err("six elements").to_string();
    assert!(e.contains("[2, 3]"), "{e}");
    let bad = Tensor::from_slice(&[0i64, 7], cpu());
    let e = a.try_index_select(0, &bad).expect_err("out of range").to_string();
    assert!(e.contains('7') && e.contains('2'), "{e} names neither the index nor the length");
}

#[test]
fn printing_is_numpys() {
    // Each string is what NumPy 2.4 gives for `str(x)` after `np.set_printoptions(precision=4)`.
    let f = |data: &[f64], dims: &[usize], want: &str| {
        assert_eq!(Tensor::from_vec(data.to_vec(), dims, cpu()).to_string(), want)
    };
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    f(&[1.0, 2.0, 3.0], &[3], "[1. 2. 3.]");
    f(&[1.0, -2.5, 30.25], &[3], "[ 1.   -2.5  30.25]");
    f(&[], &[0], "[]");
    f(&[], &[2, 0], "[]");
    f(&[nan, 1.0, inf, -inf], &[4], "[ nan   1.  inf -inf]");
    f(&[1e-7, 1.0], &[2], "[1.e-07 1.e+00]");
    f(&[1.0 / 3.0, 2.0 / 3.0, -1.0], &[3], "[ 0.3333  0.6667 -1.    ]");
    f(&[0.5, 600.0], &[2], "[5.e-01 6.e+02]");
    f(&[1e8, 1.0], &[2], "[1.e+08 1.e+00]");
    f(&[-1.23456789e-10, 3e5], &[2], "[-1.2346e-10  3.0000e+05]");
    f(&[1.0 / 3.0, 1e-2, 100.0, -2.0], &[2, 2], "[[ 3.3333e-01  1.0000e-02]\n [ 1.0000e+02 -2.0000e+00]]");
    f(&[0.0, 0.0], &[2], "[0. 0.]");
    f(&[nan], &[1], "[nan]");
    f(&[inf, 1e-9], &[2], "[   inf 1.e-09]");
    f(&[-0.0, 1.0], &[2], "[-0.  1.]");
    f(&[12345.678, 99.5], &[2], "[12345.678    99.5  ]");
    let thirds: Vec<f64> = (0..8).map(|i| f64::from(i) / 3.0).collect();
    let want = "[[[0.     0.3333]\n  [0.6667 1.    ]]\n\n [[1.3333 1.6667]\n  [2.     2.3333]]]";
    f(&thirds, &[2, 2, 2], want);
    let sevenths: Vec<f64> = (0..30).map(|i| f64::from(i) / 7.0).collect();
    let want = "[0.     0.1429 0.2857 0.4286 0.5714 0.7143 0.8571 1.     1.1429 1.2857\n \
                1.4286 1.5714 1.7143 1.8571 2.     2.1429 2.2857 2.4286 2.5714 2.7143\n \
                2.8571 3.     3.1429 3.2857 3.4286 3.5714 3.7143 3.8571 4.     4.1429]";
    f(&sevenths, &[30], want);
    f(&[1.5], &[], "1.5");
    let f32s = |data: &[f32]| Tensor::from_slice(data, cpu()).to_string();
    assert_eq!(f32s(&[1.0 / 3.0, 2.5]), "[0.3333 2.5   ]");
    assert_eq!(f32s(&[1e6, 1.0]), "[1.e+06 1.e+00]");
    assert_eq!(f32s(&[123_456.78, 200_000.0]), "[123456.78 200000.  ]");
    let quarters = Tensor::arange(0, 1100, 1, cpu()) / 4.0;
    assert_eq!(quarters.to_string(), "[0.0000e+00 2.5000e-01 5.0000e-01 ... 2.7425e+02 2.7450e+02 2.7475e+02]");

    assert_eq!(count(&[2, 3]).to_string(), "[[0 1 2]\n [3 4 5]]");
    assert_eq!(count(&[2]).eq_scalar(0i64).to_string(), "[ True False]");
    assert_eq!(count(&[1001]).to_string(), "[   0    1    2 ...  998  999 1000]");
    let want = "[ 0  1  2  3  4  5  6  7  8  9 10 11 12 13 14 15 16 17 18 19 20 21 22 23\n \
                24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39]";
    assert_eq!(count(&[40]).to_string(), want);
    let want = "[[   0    1    2 ...   47   48   49]\n [  50   51   52 ...   97   98   99]\n [ 100  101  102 ...  147  148  149]\n ...\n \
                [1850 1851 1852 ... 1897 1898 1899]\n [1900 1901 1902 ... 1947 1948 1949]\n [1950 1951 1952 ... 1997 1998 1999]]";
    assert_eq!(count(&[40, 50]).to_string(), want);
    // And what is not NumPy's: another precision, and `Debug`.
    assert_eq!(format!("{:.2}", Tensor::from_slice(&[1.0 / 3.0, 1.0], cpu())), "[0.33 1.  ]");
    assert_eq!(format!("{:?}", count(&[2, 3])), "Tensor(i64 [2, 3] on cpu)");
    assert_eq!(format!("{:?}", Tensor::ones([2], cpu()).requires_grad().exp()), "Tensor(f32 [2] on cpu, from exp)");
}

#[test]
fn dtypes_promote_as_the_table_says() {
    use DType::*;
    let t = |d: DType| Tensor::ones([2], cpu().with(d));
    let table: [(DType, DType, DType); 14] = [
        (Bool, U8, U8),
        (Bool, F16, F16),
        (U8, I32, I32),
        (U8, U32, U32),
        (U32, I32, I64),
        (U32, I64, I64),
        (I32, I64, I64),
        (I64, F16, F16),
        (I64, Bf16, Bf16),
        (I64, F32, F32),
        (F16, Bf16, F32),
        (F16, F32, F32),
        (Bf16, F64, F64),
        (F32, F64, F64),
    ];
    for (a, b, want) in table {
        for (a, b) in [(a, b), (b, a)] {
            assert_eq!((t(a) + t(b)).dtype(), want, "{a} + {b}");
            assert_eq!(Tensor::cat(&[&t(a), &t(b)], 0).dtype(), want, "cat of {a} and {b}");
            assert_eq!(t(a).eq(&t(b)).dtype(), Bool);
        }
    }
    // Numbers are weak: they never widen a float, and a fractional one alone makes an integer an f32.
    for d in [F16, Bf16, F32, F64] {
        assert_eq!((t(d) * 2.0).dtype(), d);
        assert_eq!((t(d) * 2i64).dtype(), d);
        assert_eq!((1.0 - t(d)).dtype(), d);
    }
    for d in [U8, U32, I32, I64] {
        assert_eq!((t(d) * 2i64).dtype(), d);
        assert_eq!((t(d) * 2.0).dtype(), F32);
        assert_eq!((t(d) / 2i64).dtype(), F32, "division leaves the integers");
        assert_eq!(t(d).sum().dtype(), I64);
        assert_eq!(t(d).exp().dtype(), F32);
        assert_eq!(t(d).cumsum(0).dtype(), I64);
    }
    assert_eq!((t(Bool) + 1i64).dtype(), I64);
}

#[test]
fn casts_round_truncate_wrap_and_test() {
    let x = Tensor::from_slice(&[-1.9f64, -0.5, 0.0, 0.4, 2.9, 300.7], cpu());
    assert_eq!(ints(&x.to_dtype(DType::I64)), [-1, 0, 0, 0, 2, 300]);
    assert_eq!(x.to_dtype(DType::Bool).to_vec::<bool>().expect("read"), [true, true, false, true, true, true]);
    assert_eq!(Tensor::from_slice(&[300i64, -1], cpu()).to_vec::<u8>().expect("read"), [44, 255]);
    assert_eq!(
        Tensor::from_slice(&[1.0f64 / 3.0], cpu()).to_dtype(DType::Bf16).to_vec::<f64>().expect("read"),
        [0.333_984_375]
    );
    assert_eq!(Tensor::from_slice(&[(1i64 << 53) + 1], cpu()).to_vec::<i64>().expect("read"), [(1 << 53) + 1]);
}

#[test]
fn a_captured_step_does_not_change_what_others_hold() {
    let mut w = Tensor::ones([4], cpu());
    let mut captured = Captured::new();
    let mut step = |w: &mut Tensor, x: f32| {
        let x = Tensor::full([4], x, cpu());
        captured.run(&[&x], |x| {
            w.write_value(&w.try_add(&x[0])?)?;
            Ok(vec![w.try_sum()?])
        })
    };
    let mut sums = Vec::new();
    for i in 0..5u8 {
        sums.push(step(&mut w, f32::from(i)).expect("an addition in place can be recorded").swap_remove(0));
    }
    let sums: Vec<f32> = sums.iter().map(|s| s.item().expect("one element")).collect();
    assert_eq!(sums, [4.0, 8.0, 16.0, 28.0, 44.0], "what a step gives stays as it was");
    // Somebody holds the weight when the next step begins: whatever the step does, that value stays.
    let held = w.clone();
    for i in 0..3u8 {
        let _ = step(&mut w, f32::from(i) + 10.0);
        assert_eq!(held.to_vec::<f32>().expect("read"), [11.0; 4], "a held value changed in step {i}");
    }
}

#[test]
fn pieces_are_gathered_in_their_order() {
    // So many that several threads gather them; none of the lengths is like the next.
    let data: Vec<i32> = (0..200_000).collect();
    let mut pieces: Vec<&[i32]> = Vec::new();
    let mut rest = &data[..];
    let mut c = Choices(11);
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(c.below(3000).min(rest.len()));
        pieces.push(piece);
        rest = left;
    }
    pieces.reverse();
    let want: Vec<i32> = pieces.concat();
    let bytes: Vec<&[u8]> = pieces.iter().map(|p| i32::bytes(p)).collect();
    let shape = Shape::try_new(&[500, 400]).unwrap();
    let place = cpu().with(DType::I32);
    let t = Tensor::from_pieces(&bytes, shape, place).unwrap();
    assert_eq!((t.dims(), t.to_vec::<i32>().unwrap()), (&[500, 400][..], want));
    // Every byte of a `bool` but 0 is true, and no pieces make an empty tensor.
    let flags = Tensor::from_pieces(&[&[0, 1], &[7]], Shape::try_new(&[3]).unwrap(), cpu().with(DType::Bool)).unwrap();
    assert_eq!(flags.to_bytes().unwrap(), [0, 1, 1]);
    assert_eq!(Tensor::from_pieces(&[], Shape::try_new(&[0, 2]).unwrap(), place).unwrap().dims(), [0, 2]);
    let refused = |pieces: &[&[u8]]| Tensor::from_pieces(pieces, shape, place).unwrap_err().to_string();
    let e = refused(&bytes[1..]);
    assert!(e.contains("200000 elements") && e.contains("were given"), "{e}");
    let e = refused(&[&[0; 3], &[0; 799_997]]);
    assert!(e.contains("piece"), "{e}");
}

#[test]
fn steps_that_gather_pieces_are_recorded_and_see_new_ones() {
    let shape = Shape::try_new(&[2]).unwrap();
    let mut step = Captured::new();
    for i in 0..6 {
        let (a, b) = ([i as f32], [10.0 * i as f32]);
        let sum = step.run_on(cpu(), &[2], || {
            let x = Tensor::from_pieces(&[f32::bytes(&a), f32::bytes(&b)], shape, cpu().into())?;
            (x * 2.0).sum().item::<f32>()
        });
        assert_eq!(sum.unwrap(), 22.0 * i as f32, "run {i}");
    }
}
