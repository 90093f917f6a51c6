//! Mixing of samples: what is mixed with what, and how targets are shared.

use gradus_core::{Result, Tensor};
use gradus_data::{Batch, cutmix, mixup};

/// Images of one number each, and that number as the class.
fn batch(n: usize) -> Batch {
    let device = gradus_cpu::device();
    let classes: Vec<i64> = (0..n as i64).collect();
    let target = Tensor::from_slice(&classes, device);
    let input = target.to_dtype(gradus_core::DType::F32).reshape([n, 1, 1, 1]).expand([n, 2, 8, 6]).contiguous();
    Batch { input, target }
}

#[test]
fn mixup_shares_inputs_and_targets_alike() -> Result<()> {
    let n = 5;
    let mixed = mixup(&batch(n), n, 1.0, 3)?;
    let (x, t) = (mixed.input.to_vec::<f32>()?, mixed.target.to_vec::<f32>()?);
    let classes: Vec<f32> = (0..n).map(|c| c as f32).collect();
    for i in 0..n {
        let shares = &t[i * n..(i + 1) * n];
        assert!((shares.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        let expected: f32 = shares.iter().zip(&classes).map(|(s, c)| s * c).sum();
        assert!(x[i * 96..(i + 1) * 96].iter().all(|v| (v - expected).abs() < 1e-5), "sample {i}");
    }
    assert!(t.iter().any(|s| *s > 0.0 && *s < 1.0), "something is mixed");
    assert_eq!(mixup(&batch(n), n, 1.0, 3)?.input.to_vec::<f32>()?, x, "the same key");
    assert_ne!(mixup(&batch(n), n, 1.0, 4)?.input.to_vec::<f32>()?, x);
    // Shares may be mixed again.
    assert_eq!(mixup(&mixed, n, 1.0, 5)?.target.dims(), [n, n]);
    Ok(())
}

#[test]
fn cutmix_takes_a_rectangle_and_shares_targets_by_area() -> Result<()> {
    let n = 4;
    let mut partly = 0;
    for seed in 0..20u64 {
        let mixed = cutmix(&batch(n), n, 1.0, seed)?;
        let (x, t) = (mixed.input.to_vec::<f32>()?, mixed.target.to_vec::<f32>()?);
        for i in 0..n {
            let image = &x[i * 96..(i + 1) * 96];
            for (c, share) in t[i * n..(i + 1) * n].iter().enumerate() {
                let area = image.iter().filter(|v| **v == c as f32).count() as f32 / 96.0;
                assert!((area - share).abs() < 1e-6, "seed {seed}, sample {i}, class {c}: {area} and {share}");
                partly += usize::from(area > 0.0 && area < 1.0);
            }
            // What is foreign is a rectangle, the same in both channels.
            let foreign: Vec<usize> = (0..48).filter(|&at| image[at] != i as f32).collect();
            assert!((0..48).all(|at| (image[at] != i as f32) == (image[48 + at] != i as f32)));
            if let (Some(first), Some(last)) = (foreign.first(), foreign.last()) {
                let (rows, columns) = (last / 6 - first / 6 + 1, last % 6 - first % 6 + 1);
                assert_eq!(foreign.len(), rows * columns, "seed {seed}");
            }
        }
    }
    assert!(partly > 20, "{partly}");
    Ok(())
}

#[test]
fn misfits_are_told() {
    let says = |r: Result<Batch>, words: &str| {
        let e = r.map(|_| ()).unwrap_err().to_string();
        assert!(e.contains(words), "{e}");
    };
    says(mixup(&batch(3), 3, 0.0, 1), "alpha must be");
    says(mixup(&Batch { target: Tensor::ones([2], gradus_cpu::device()), ..batch(3) }, 3, 1.0, 1), "each sample");
    says(mixup(&Batch { target: Tensor::ones([3, 5], gradus_cpu::device()), ..batch(3) }, 3, 1.0, 1), "[samples, 3]");
    says(cutmix(&Batch { input: Tensor::ones([3, 4], gradus_cpu::device()), ..batch(3) }, 3, 1.0, 1), "height, width");
}
