use gradus_core::*; use gradus_nn::*; use gradus_optim::*; use std::time::Instant;
fn main() -> Result<()> {
    let d = gradus_cpu::device();
    for (what, shapes) in [("C1", vec![vec![32,64],vec![32],vec![10,32],vec![10]]), ("C2", vec![vec![128,784],vec![128],vec![10,128],vec![10]])] {
        for (name, b) in [("sgd", OptimizerBuilder::from(Sgd::new(1e-6))), ("sgd mom", Sgd::new(1e-6).momentum(0.9).into()), ("adamw", AdamW::new(1e-6).into()), ("adamw clip", AdamW::new(1e-6).optimizer().transform(ClipNorm::new(1.0)))] {
            let mut m: Vec<Param> = shapes.iter().map(|s| Param::new(Tensor::randn(&s[..], d, 1))).collect();
            for p in &m { p.set_grad(Tensor::randn(p.dims(), d, 2))?; }
            let mut o = b.build(&m)?;
            let mut t: Vec<f64> = (0..3000).map(|_| { let s = Instant::now(); o.step(&mut m).unwrap(); s.elapsed().as_secs_f64()*1e6 }).collect();
            t.sort_by(f64::total_cmp);
            println!("{what} {name}: {:.2} us median", t[1500]);
        }
    }
    Ok(())
}
