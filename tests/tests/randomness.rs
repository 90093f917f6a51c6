//! Randomness: the published Philox vectors on the device, moments within bounds that the statistics give, and
//! independence of threads.

use gradus_core::functional::dropout::{Dropout, DropoutGrad, MASK_BLOCK, MASK_LANES, mask_words};
use gradus_core::rng::{Distribution, Key, philox, uniform};
use gradus_core::{Backward, DType, Device, Tensor, by_definition};

fn cpu() -> Device {
    gradus_cpu::device()
}

fn words(n: usize, key: Key) -> Vec<u32> {
    Tensor::random(Distribution::Bits, [n], cpu().with(DType::U32), key).to_vec().expect("u32 can be read")
}

/// The known-answer vectors of Random123 (kat_vectors, philox4x32 10), reached through the device: the counter is
/// [block, step, stream], the Philox key is the seed.
#[test]
fn the_device_draws_the_published_philox_vectors() {
    assert_eq!(words(4, Key::new(0)), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    // Counter and key of the digits of pi: block 0x243f6a88 is out of reach of a small draw, so the function answers here.
    let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    assert_eq!(philox(pi, [0xa409_3822, 0x299f_31d0]), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    // A draw is blocks one after another, under the key's own seed, stream and step.
    let key = Key::new(0x299f_31d0_a409_3822).fold("weights").at(7);
    let want: Vec<u32> = (0..25).flat_map(|b| key.block(b)).take(98).collect();
    assert_eq!(words(98, key.clone()), want);
    // Numpy's and PyTorch's convention for the low and the high half of the seed.
    let halves = philox([3, 7, key.stream as u32, (key.stream >> 32) as u32], [0xa409_3822, 0x299f_31d0]);
    assert_eq!(words(16, key)[12..], halves);
}

#[test]
fn every_distribution_is_the_documented_function_of_the_words() {
    let key = || Key::new(11).fold("map");
    let w = words(1000, key());
    let read =
        |d, dtype| Tensor::random(d, [1000], cpu().with(dtype), key()).to_vec::<f64>().expect("numbers can be read");
    let unit: Vec<f64> = w.iter().map(|&w| f64::from(w >> 8) / 16_777_216.0).collect();
    assert_eq!(read(Distribution::Uniform, DType::F32), unit);
    assert_eq!(read(Distribution::Uniform, DType::F64), unit);
    let coin: Vec<f64> = unit.iter().map(|&u| f64::from(u < 0.3)).collect();
    assert_eq!(read(Distribution::Bernoulli(0.3), DType::Bool), coin);
    assert_eq!(read(Distribution::Bernoulli(0.3), DType::F32), coin);
    let ints: Vec<f64> = w.iter().map(|&w| ((u64::from(w) * 13) >> 32) as f64 - 5.0).collect();
    assert_eq!(read(Distribution::Integers(-5, 8), DType::I64), ints);
    let normal: Vec<f64> = w
        .chunks(2)
        .flat_map(|w| {
            let (u0, u1) = (f64::from((w[0] >> 8) + 1) / 16_777_216.0, f64::from(w[1] >> 8) / 16_777_216.0);
            let (r, a) = ((-2.0 * u0.ln()).sqrt(), std::f64::consts::TAU * u1);
            [r * a.cos(), r * a.sin()]
        })
        .collect();
    for (have, want) in read(Distribution::Normal, DType::F32).iter().zip(&normal) {
        let ulp = f64::from(f32::EPSILON) * want.abs().max(f64::from(f32::MIN_POSITIVE));
        assert!((have - want).abs() <= 4.0 * ulp, "{have} is more than 4 ulp from {want}");
    }
}

/// A mean of n numbers with standard deviation s lies within 5·s/√n of its expectation but once in 1.7 million draws; the seeds
/// are fixed, so that the test does not waver.
fn within(what: &str, mean: f64, expected: f64, deviation: f64, n: usize) {
    let bound = 5.0 * deviation / (n as f64).sqrt();
    assert!((mean - expected).abs() < bound, "{what}: {mean} is not within {bound} of {expected}");
}

#[test]
fn moments_are_those_of_the_distributions() {
    let n = 400_000;
    let moment = |x: &[f64], p: i32| x.iter().map(|v| v.powi(p)).sum::<f64>() / x.len() as f64;
    for seed in [1, 2, 3] {
        let key = Key::new(seed).fold("moments");
        let u: Vec<f64> = Tensor::rand([n], cpu(), &key).to_vec().expect("read");
        within("mean of uniforms", moment(&u, 1), 0.5, (1.0f64 / 12.0).sqrt(), n);
        within("second moment of uniforms", moment(&u, 2), 1.0 / 3.0, (4.0f64 / 45.0).sqrt(), n);
        assert!(u.iter().all(|&x| (0.0..1.0).contains(&x)));

        let z: Vec<f64> = Tensor::randn([n], cpu(), &key).to_vec().expect("read");
        within("mean of normals", moment(&z, 1), 0.0, 1.0, n);
        within("second moment of normals", moment(&z, 2), 1.0, 2f64.sqrt(), n);
        within("third moment of normals", moment(&z, 3), 0.0, 15f64.sqrt(), n);
        within("fourth moment of normals", moment(&z, 4), 3.0, 96f64.sqrt(), n);
        // Neighbours, which share a pair of words, and neighbouring pairs are uncorrelated: a product has deviation 1.
        for lag in [1, 2] {
            let products: Vec<f64> = z.windows(lag + 1).map(|w| w[0] * w[lag]).collect();
            within("correlation of normals", moment(&products, 1), 0.0, 1.0, products.len());
        }

        let p = 0.3;
        let b: Vec<f64> =
            Tensor::random(Distribution::Bernoulli(p), [n], cpu().with(DType::Bool), &key).to_vec().expect("read");
        within("rate of a Bernoulli", moment(&b, 1), p, (p * (1.0 - p)).sqrt(), n);

        // Pearson's χ² of 10 equally likely numbers has mean 9 and deviation √18.
        let i: Vec<i64> = Tensor::randint(-3, 7, [n], cpu(), &key).to_vec().expect("read");
        let mut counts = [0.0f64; 10];
        i.iter().for_each(|&x| counts[(x + 3) as usize] += 1.0);
        let want = n as f64 / 10.0;
        let chi2: f64 = counts.iter().map(|c| (c - want).powi(2) / want).sum();
        assert!(chi2 < 9.0 + 6.0 * 18f64.sqrt(), "χ² of random integers is {chi2}: {counts:?}");
    }
}

#[test]
fn draws_do_not_depend_on_threads_shapes_or_what_was_drawn_before() {
    let n = 300_003;
    for d in [
        Distribution::Bits,
        Distribution::Uniform,
        Distribution::Normal,
        Distribution::Bernoulli(0.5),
        Distribution::Integers(0, 1000),
    ] {
        let dtype = match d {
            Distribution::Bits => DType::U32,
            Distribution::Bernoulli(_) => DType::Bool,
            Distribution::Integers(..) => DType::I64,
            _ => DType::F32,
        };
        let draw = |threads| {
            let t = gradus_cpu::with_threads(threads, || Tensor::random(d, [n], cpu().with(dtype), Key::new(9)));
            t.to_bytes().expect("bytes can be read")
        };
        let one = draw(1);
        assert!(one == draw(2) && one == draw(8), "{d:?} depends on the number of threads");
        let shorter = Tensor::random(d, [7, 11], cpu().with(dtype), Key::new(9)).to_bytes().expect("read");
        assert_eq!(one[..shorter.len()], shorter, "{d:?}: a shorter draw is not the beginning of a longer one");
    }
}

#[test]
fn permutations_hold_each_number_once_and_differ_by_key() {
    for n in [0usize, 1, 2, 17, 1000] {
        let mut p: Vec<i64> = Tensor::randperm(n, cpu(), 3).to_vec().expect("read");
        p.sort_unstable();
        assert_eq!(p, (0..n as i64).collect::<Vec<_>>());
    }
    let p = |k: u64| Tensor::randperm(100, cpu(), k).to_vec::<i64>().expect("read");
    assert_eq!(p(1), p(1));
    assert_ne!(p(1), p(2));
    // Each of the 24 orders of 4 comes up equally often: χ² of 23 degrees has mean 23 and deviation √46.
    let mut counts = std::collections::HashMap::new();
    for k in 0..4800u64 {
        *counts.entry(Tensor::randperm(4, cpu(), Key::new(k)).to_vec::<i64>().expect("read")).or_insert(0.0) += 1.0f64;
    }
    let chi2: f64 = counts.values().map(|c| (c - 200.0) * (c - 200.0) / 200.0).sum();
    assert!(counts.len() == 24 && chi2 < 23.0 + 6.0 * 46f64.sqrt(), "χ² of the orders of 4 is {chi2}");
}

#[test]
fn impossible_distributions_are_refused_with_the_value() {
    let error = |d| Tensor::try_random(d, [3], cpu(), 1).expect_err("refused").to_string();
    assert!(error(Distribution::Bernoulli(1.5)).contains("1.5"));
    assert!(error(Distribution::Bernoulli(f64::NAN)).contains("NaN"));
    assert!(error(Distribution::Integers(3, 3)).contains("3..3"));
    assert!(error(Distribution::Integers(0, 1 << 33)).contains("2^32"));
}

/// What forward keeps of its mask, and what it reads of it, is as documented, whatever threads drew it: blocks and parts of blocks.
#[test]
fn a_kept_mask_of_dropout_is_the_one_that_the_words_give() {
    let op = Dropout { p: 0.3, key: Key::new(5).fold("mask") };
    for n in [1, 15, 16, 17, 511, 512, 513, 1500, 8192, 70_001] {
        let mut mask = vec![0u32; mask_words(n)];
        for (i, _) in words(n, op.key.clone()).iter().enumerate().filter(|(_, w)| f64::from(uniform(**w)) < 0.7) {
            let within = i % MASK_BLOCK;
            mask[i / MASK_BLOCK * MASK_LANES + within % MASK_LANES] |= 1 << (within / MASK_LANES);
        }
        let g = Tensor::randn([n], cpu(), 6);
        let bits =
            |t: &Tensor| -> Vec<u32> { t.to_vec::<f32>().expect("readable").into_iter().map(f32::to_bits).collect() };
        let defined = bits(&by_definition(|| g.dropout(0.3, op.key.clone())));
        let mask = Tensor::from_vec(mask, [mask_words(n)], cpu());
        let read = Tensor::try_compose1(DropoutGrad(op.clone()), &[&g, &mask]).expect("it fits");
        assert_eq!(bits(&read), defined, "{n} elements by a mask of the words");
        let x = Tensor::randn([n], cpu(), 7).requires_grad();
        x.dropout(0.3, op.key.clone()).backward_with(Some(&g), Backward::default());
        assert_eq!(bits(&x.grad().expect("there is one")), defined, "{n} elements by the mask that forward kept");
    }
}
