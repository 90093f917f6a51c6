//! Convolution, pooling, resizing, normalization, attention and einsum against PyTorch's numbers (goldens/networks.txt, written by
//! goldens/networks.py), in f64 and f32: outputs and gradients, by their sums and weighted sums.

use gradus_core::functional::attention::AttentionOptions;
use gradus_core::functional::convolution::ConvOptions;
use gradus_core::functional::interpolate::{InterpolateMode, InterpolateOptions};
use gradus_core::functional::pooling::PoolOptions;
use gradus_core::{Backward, DType, Device, Result, Tensor, by_definition, grad};
use std::collections::BTreeMap;

/// SplitMix64 of (seed, index); the top 24 bits as a number in [-1, 1): exact in f32.
fn numbers(n: usize, seed: u64) -> Vec<f64> {
    let at = |i: u64| {
        let z = seed.wrapping_mul(0x9E3779B97F4A7C15).wrapping_add(i.wrapping_mul(0xD1B54A32D192ED03));
        let z = (z ^ z >> 30).wrapping_mul(0xBF58476D1CE4E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D049BB133111EB);
        ((z ^ z >> 31) >> 40) as f64 / (1u64 << 23) as f64 - 1.0
    };
    (0..n as u64).map(at).collect()
}

fn tensor(shape: &[usize], seed: u64, dtype: DType) -> Tensor {
    Tensor::from_vec(numbers(shape.iter().product(), seed), shape, cpu()).to_dtype(dtype)
}

fn cpu() -> Device {
    gradus_cpu::device()
}

type Run = Box<dyn Fn(&[Tensor]) -> Result<Vec<Tensor>>>;

#[derive(Default)]
struct Cases(BTreeMap<String, (Vec<Vec<usize>>, Run)>);

impl Cases {
    fn all(&mut self, name: &str, shapes: &[&[usize]], run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + 'static) {
        let shapes = shapes.iter().map(|s| s.to_vec()).collect();
        assert!(self.0.insert(name.to_string(), (shapes, Box::new(run))).is_none(), "{name} is there twice");
    }
    fn one(&mut self, name: &str, shapes: &[&[usize]], run: impl Fn(&[Tensor]) -> Result<Tensor> + 'static) {
        self.all(name, shapes, move |x| Ok(vec![run(x)?]));
    }
    fn two(&mut self, name: &str, shapes: &[&[usize]], run: impl Fn(&[Tensor]) -> Result<(Tensor, Tensor)> + 'static) {
        self.all(name, shapes, move |x| run(x).map(|(a, b)| vec![a, b]));
    }
    fn conv(&mut self, name: &str, shapes: &[&[usize]], o: ConvOptions) {
        let (rank, transposed) = (shapes[1].len() - 2, name.starts_with("conv_transpose"));
        self.one(name, shapes, move |x| match (rank, transposed) {
            (1, false) => x[0].try_conv1d(&x[1], x.get(2), &o),
            (2, false) => x[0].try_conv2d(&x[1], x.get(2), &o),
            (_, false) => x[0].try_conv3d(&x[1], x.get(2), &o),
            (1, true) => x[0].try_conv_transpose1d(&x[1], x.get(2), &o),
            (2, true) => x[0].try_conv_transpose2d(&x[1], x.get(2), &o),
            (_, true) => x[0].try_conv_transpose3d(&x[1], x.get(2), &o),
        });
    }
}

fn convolutions(c: &mut Cases) {
    let o = ConvOptions::default;
    c.conv("conv1d", &[&[2, 3, 11], &[4, 3, 3], &[4]], o());
    c.conv("conv1d_options", &[&[2, 4, 12], &[6, 2, 3], &[6]], o().stride(3).padding(2).dilation(2).groups(2));
    c.conv("conv1d_same", &[&[3, 10], &[2, 3, 4]], o().same().dilation(3));
    c.conv("conv2d", &[&[3, 2, 9, 20], &[17, 2, 3, 3], &[17]], o());
    c.conv("conv2d_padded", &[&[2, 3, 8, 8], &[9, 3, 3, 3], &[9]], o().padding(1));
    c.conv("conv2d_strided", &[&[2, 3, 9, 11], &[5, 3, 3, 3], &[5]], o().stride(2).padding(1));
    let uneven = o().stride([3, 2]).padding([2, 1]).dilation([2, 3]);
    c.conv("conv2d_uneven", &[&[2, 3, 10, 13], &[5, 3, 2, 4], &[5]], uneven);
    c.conv("conv2d_wide_stride", &[&[2, 3, 10, 13], &[5, 3, 2, 2]], o().stride([4, 3]));
    c.conv("conv2d_depthwise", &[&[2, 6, 7, 7], &[12, 1, 3, 3], &[12]], o().padding(1).groups(6));
    c.conv("conv2d_groups", &[&[2, 6, 7, 40], &[9, 2, 3, 3]], o().padding(1).groups(3));
    c.conv("conv2d_pointwise", &[&[2, 12, 5, 6], &[10, 12, 1, 1], &[10]], o());
    c.conv("conv2d_whole", &[&[3, 4, 5, 5], &[6, 4, 5, 5], &[6]], o());
    c.conv("conv2d_one_image", &[&[1, 5, 18, 18], &[70, 5, 3, 3], &[70]], o());
    c.conv("conv3d", &[&[2, 3, 4, 5, 6], &[4, 3, 2, 3, 2], &[4]], o());
    let options = o().stride([2, 1, 2]).padding([1, 0, 1]).dilation([1, 2, 1]).groups(2);
    c.conv("conv3d_options", &[&[2, 4, 6, 5, 7], &[4, 2, 2, 2, 3]], options);
    c.conv("conv_transpose1d", &[&[2, 4, 6], &[4, 3, 4], &[6]], o().stride(2).padding(1).groups(2));
    c.conv("conv_transpose2d", &[&[2, 3, 5, 6], &[3, 4, 3, 3], &[4]], o());
    let options = o().stride([3, 2]).padding([1, 0]).output_padding([2, 1]).groups(2).dilation([2, 1]);
    c.conv("conv_transpose2d_options", &[&[2, 4, 5, 6], &[4, 3, 3, 2], &[6]], options);
    c.conv("conv_transpose2d_dilated", &[&[2, 3, 4, 4], &[3, 2, 3, 3]], o().stride(2).dilation(3).output_padding(2));
    c.conv("conv_transpose3d", &[&[1, 3, 3, 4, 3], &[3, 2, 2, 3, 2], &[2]], o().stride([2, 1, 2]).padding([0, 1, 1]));
}

fn pools(c: &mut Cases) {
    let o = |n: usize| PoolOptions::new(n);
    c.two("max_pool1d", &[&[2, 3, 11]], move |x| x[0].try_max_pool1d_with_indices(&o(3).stride(2).padding(1)));
    c.two("max_pool2d", &[&[2, 3, 8, 10]], move |x| x[0].try_max_pool2d_with_indices(&o(2)));
    let options = PoolOptions::new([3, 2]).stride([2, 3]).padding(1).dilation([2, 1]).ceil_mode(true);
    c.two("max_pool2d_options", &[&[2, 3, 9, 11]], move |x| x[0].try_max_pool2d_with_indices(&options));
    c.two("max_pool2d_overlap", &[&[2, 3, 9, 17]], move |x| {
        x[0].try_max_pool2d_with_indices(&o(3).stride(2).padding(1))
    });
    let options = o(2).stride([2, 1, 2]).padding(1).ceil_mode(true);
    c.two("max_pool3d", &[&[2, 2, 5, 6, 4]], move |x| x[0].try_max_pool3d_with_indices(&options));
    c.one("avg_pool1d", &[&[2, 3, 11]], move |x| x[0].try_avg_pool1d(&o(3).stride(2).padding(1).ceil_mode(true)));
    c.one("avg_pool2d", &[&[2, 3, 8, 10]], move |x| x[0].try_avg_pool2d(&o(2)));
    let counted = PoolOptions::new([3, 4]).stride([2, 3]).padding([1, 2]).ceil_mode(true);
    c.one("avg_pool2d_options", &[&[2, 3, 9, 11]], move |x| x[0].try_avg_pool2d(&counted));
    let uncounted = counted.count_include_pad(false);
    c.one("avg_pool2d_uncounted", &[&[2, 3, 9, 11]], move |x| x[0].try_avg_pool2d(&uncounted));
    c.one("avg_pool3d", &[&[2, 2, 5, 6, 4]], move |x| x[0].try_avg_pool3d(&options));
    c.one("adaptive_avg_pool2d", &[&[2, 3, 7, 10]], |x| x[0].try_adaptive_avg_pool2d([3, 4]));
    c.one("adaptive_avg_pool2d_one", &[&[2, 3, 7, 10]], |x| x[0].try_adaptive_avg_pool2d(1));
    c.two("adaptive_max_pool2d", &[&[2, 3, 7, 10]], |x| x[0].try_adaptive_max_pool2d([3, 4]));
    c.two("adaptive_max_pool3d", &[&[1, 2, 3, 5, 4]], |x| x[0].try_adaptive_max_pool3d([2, 3, 3]));
}

fn resizing(c: &mut Cases) {
    use InterpolateMode::{Area, Cubic, Linear, Nearest, NearestExact};
    let modes = [
        ("nearest", Nearest),
        ("nearest-exact", NearestExact),
        ("bilinear", Linear),
        ("bicubic", Cubic),
        ("area", Area),
    ];
    for (name, mode) in modes {
        let o = InterpolateOptions::new(mode);
        c.one(&format!("interpolate_{name}"), &[&[2, 3, 5, 7]], move |x| x[0].try_interpolate([8, 4], &o));
        if matches!(mode, Linear | Cubic) {
            let aligned = o.align_corners(true);
            c.one(&format!("interpolate_{name}_aligned"), &[&[2, 3, 5, 7]], move |x| {
                x[0].try_interpolate([8, 4], &aligned)
            });
            c.one(&format!("interpolate_{name}_by"), &[&[2, 3, 5, 7]], move |x| x[0].try_interpolate_by(1.7, &o));
        }
    }
    let (nearest, linear) = (InterpolateOptions::new(Nearest), InterpolateOptions::new(Linear));
    c.one("interpolate_nearest_by", &[&[2, 3, 5, 7]], move |x| x[0].try_interpolate_by(2.3, &nearest));
    c.one("interpolate_linear", &[&[2, 3, 6]], move |x| x[0].try_interpolate(11, &linear));
    c.one("interpolate_trilinear", &[&[1, 2, 3, 4, 5]], move |x| x[0].try_interpolate([5, 3, 7], &linear));
}

fn normalization(c: &mut Cases) {
    let train = |x: &[Tensor]| {
        let (y, mean, var) = x[0].try_batch_norm_train(Some(&x[1]), Some(&x[2]), 1e-3)?;
        let n = (x[0].elements() / x[1].elements()) as f64;
        Ok(vec![y, mean.detach(), var.detach() * (n / (n - 1.0))]) // as running statistics are kept
    };
    c.all("batch_norm_train", &[&[4, 5, 3, 6], &[5], &[5]], train);
    c.all("batch_norm_train_rows", &[&[9, 5], &[5], &[5]], train);
    c.one("batch_norm", &[&[4, 5, 3, 6], &[5], &[5], &[5], &[5]], |x| {
        x[0].try_batch_norm(&x[1], &(&x[2] * 0.4 + 1.0), Some(&x[3]), Some(&x[4]), 1e-3)
    });
    c.one("group_norm", &[&[3, 6, 4, 5], &[6], &[6]], |x| x[0].try_group_norm(3, Some(&x[1]), Some(&x[2]), 1e-3));
    c.one("instance_norm", &[&[3, 6, 4, 5], &[6], &[6]], |x| x[0].try_instance_norm(Some(&x[1]), Some(&x[2]), 1e-3));
    c.one("rms_norm", &[&[3, 4, 10], &[10]], |x| x[0].try_rms_norm([10], Some(&x[1]), Some(1e-3)));
    c.one("rms_norm_default", &[&[3, 4, 10]], |x| x[0].try_rms_norm([4, 10], None, None));
}

fn attention(c: &mut Cases) {
    let run = |options: AttentionOptions| move |x: &[Tensor]| x[0].try_attention(&x[1], &x[2], &options);
    let o = AttentionOptions::default;
    let uneven: [&[usize]; 3] = [&[2, 3, 5, 4], &[2, 3, 7, 4], &[2, 3, 7, 4]];
    c.one("attention", &[&[2, 3, 5, 4], &[2, 3, 7, 4], &[2, 3, 7, 6]], run(o()));
    c.one("attention_causal", &[&[2, 3, 9, 4][..]; 3], run(AttentionOptions::causal()));
    c.one("attention_uneven_causal", &uneven, run(AttentionOptions::causal().scale(0.3)));
    c.one("attention_added", &[uneven[0], uneven[1], uneven[2], &[3, 1, 7]], |x| {
        x[0].try_attention(&x[1], &x[2], &AttentionOptions::default().mask(&x[3]))
    });
    c.one("attention_masked", &uneven, run(o().mask(&tensor(&[5, 7], 50, DType::F64).gt_scalar(0.3))));
    let blind = Tensor::arange(0, 5, 1, cpu()).gt_scalar(1.0).unsqueeze(1);
    c.one("attention_blind", &[&[2, 5, 4], &[2, 7, 4], &[2, 7, 4]], run(o().mask(&blind)));
    c.one("attention_grouped", &[&[2, 6, 5, 4], &[2, 2, 5, 4], &[2, 2, 5, 4]], run(o().grouped()));
}

fn einsum(c: &mut Cases) {
    let rows: [(&'static str, &[&[usize]]); 10] = [
        ("ij,jk->ik", &[&[4, 5], &[5, 6]]),
        ("ki,jk", &[&[4, 5], &[6, 4]]),
        ("bhqd,bhkd->bhqk", &[&[2, 3, 4, 5], &[2, 3, 6, 5]]),
        ("iij->j", &[&[4, 4, 5]]),
        ("...ij,...jk->i...k", &[&[2, 3, 4, 5], &[3, 5, 6]]),
        ("ab,bc,cd,da->", &[&[3, 4], &[4, 5], &[5, 2], &[2, 3]]),
        ("abc,abd->acd", &[&[3, 4, 5], &[3, 4, 2]]),
        ("i...->...", &[&[3, 4, 5]]),
        ("...,...", &[&[3, 4], &[4]]),
        ("Ab,bA->Ab", &[&[3, 4], &[4, 3]]),
    ];
    for (i, (spec, shapes)) in rows.into_iter().enumerate() {
        c.one(&format!("einsum_{i}"), shapes, move |x| Tensor::try_einsum(spec, &x.iter().collect::<Vec<_>>()));
    }
}

fn cases() -> Cases {
    let mut c = Cases::default();
    for add in [convolutions, pools, resizing, normalization, attention, einsum] {
        add(&mut c);
    }
    c
}

/// Outputs, then the gradients of the inputs under the fixed cotangent.
fn computed(shapes: &[Vec<usize>], run: &Run, dtype: DType) -> Vec<Tensor> {
    let x: Vec<Tensor> =
        shapes.iter().enumerate().map(|(i, s)| tensor(s, i as u64 + 1, dtype).requires_grad()).collect();
    let mut out = run(&x).unwrap_or_else(|e| panic!("{e}"));
    let weighted = out.iter().enumerate().filter(|(_, o)| o.is_tracked());
    let loss = weighted.map(|(i, o)| (o * tensor(o.dims(), 201 + i as u64, dtype)).sum()).reduce(|a, b| a + b);
    let grads = grad(&[&loss.expect("a tracked output")], &x.iter().collect::<Vec<_>>(), Backward::default());
    out.extend(grads);
    out
}

/// What is wrong with a tensor, of which the golden is `shape:sum:dot:dot`.
fn wrong(t: &Tensor, golden: &str, tolerance: f64) -> Option<String> {
    let mut parts = golden.split(':');
    let shape = t.dims().iter().map(|d| d.to_string()).collect::<Vec<_>>().join("x");
    let want = parts.next()?;
    if want != if shape.is_empty() { "-" } else { &shape } {
        return Some(format!("has shape {shape}, not {want}"));
    }
    let v = t.to_vec::<f64>().ok()?;
    let dot = |seed| v.iter().zip(numbers(v.len(), seed)).map(|(a, b)| a * b).sum::<f64>();
    let have = [v.iter().sum(), dot(101), dot(102)];
    let scale = 1.0 + v.iter().map(|x| x.abs()).sum::<f64>();
    let far = parts.zip(have).find(|(w, h)| !w.parse::<f64>().is_ok_and(|w| (w - h).abs() <= tolerance * scale));
    far.map(|(w, h)| format!("sums to {h:?}, not {w}"))
}

fn compare(dtype: DType, tolerance: f64) {
    let cases = cases();
    let mut wrongs = Vec::new();
    let mut seen = 0;
    for line in include_str!("goldens/networks.txt").lines() {
        let mut fields = line.split(' ');
        let name = fields.next().unwrap_or_default();
        let (shapes, run) = cases.0.get(name).unwrap_or_else(|| panic!("no case is called {name}"));
        let have = computed(shapes, run, dtype);
        let want: Vec<&str> = fields.collect();
        assert_eq!(have.len(), want.len(), "{name} has so many outputs and gradients");
        for (i, (t, w)) in have.iter().zip(want).enumerate() {
            wrongs.extend(wrong(t, w, tolerance).map(|e| format!("{name}: number {i} of outputs and gradients {e}")));
        }
        seen += 1;
    }
    assert_eq!(seen, cases.0.len(), "every case has its golden");
    assert!(wrongs.is_empty(), "{dtype}:\n{}", wrongs.join("\n"));
}

#[test]
fn f64_agrees_with_pytorch() {
    compare(DType::F64, 1e-12);
}

#[test]
fn definitions_agree_with_pytorch() {
    by_definition(|| compare(DType::F64, 1e-12));
}

#[test]
fn f32_agrees_with_pytorch() {
    compare(DType::F32, 1e-6);
}

#[test]
fn misuse_is_told() {
    let t = |shape: &[usize]| Tensor::zeros(shape, cpu());
    let told = |r: Result<Tensor>, want: &str| {
        let e = r.err().unwrap_or_else(|| panic!("no error tells of `{want}`")).to_string();
        assert!(e.contains(want), "`{want}` is not in: {e}");
    };
    let (x, w, o) = (t(&[2, 3, 8, 8]), t(&[4, 3, 3, 3]), ConvOptions::default());
    told(x.try_conv2d(&t(&[4, 5, 3, 3]), None, &o), "the input has 3 channels");
    told(x.try_conv2d(&w, Some(&t(&[3])), &o), "a bias of shape [4] would fit");
    told(x.try_conv2d(&t(&[4, 3, 9, 3]), None, &o), "does not fit spatial dimension 0 of length 8");
    told(x.try_conv2d(&w, None, &o.stride(0)), "a stride of 0");
    told(x.try_conv2d(&w, None, &o.stride([1, 1, 1])), "the stride is given for 3 dimensions");
    told(x.try_conv2d(&w, None, &o.padding(usize::MAX)), "too long");
    told(x.try_conv2d(&w, None, &o.groups(0)), "at least 1 group");
    told(x.try_conv2d(&w, None, &o.same().stride(2)), "needs stride 1");
    told(t(&[2, 2]).try_conv2d(&w, None, &o), "[batch, channels, 2 spatial dimensions]");
    told(x.try_conv_transpose2d(&t(&[3, 2, 3, 3]), None, &o.output_padding(1)), "must be less than the stride");
    told(x.try_max_pool2d(&PoolOptions::new(2).padding(2)), "more than half the kernel");
    told(x.try_max_pool2d(&PoolOptions::new(0).stride(1)), "a kernel size of 0");
    told(x.try_adaptive_avg_pool2d(0), "cannot become 0");
    told(x.try_interpolate([0, 4], &InterpolateOptions::new(InterpolateMode::Nearest)), "cannot become 0");
    told(x.try_batch_norm_train(Some(&t(&[4])), None, 1e-5).map(|r| r.0), "[3] would fit the channels");
    told(t(&[1, 3]).try_batch_norm_train(None, None, 1e-5).map(|r| r.0), "more than one value for each channel");
    told(x.try_group_norm(2, None, None, 1e-5), "3 channels do not fall into 2 groups");
    told(t(&[2, 5, 4]).try_attention(&t(&[2, 5, 3]), &t(&[2, 5, 4]), &AttentionOptions::default()), "would fit");
    told(
        Tensor::try_einsum("ij,jk", &[&t(&[2, 3]), &t(&[4, 2])]),
        "dimension `j` is 3 in one operand and 4 in another",
    );
    told(Tensor::try_einsum("ij->ik", &[&t(&[2, 3])]), "is in no operand");
    told(Tensor::try_einsum("i1", &[&t(&[2, 3])]), "is no letter");
}
