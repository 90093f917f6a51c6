//! Penalties: their gradients are those of their values; noise is drawn by its key.

use gradus_core::{DType, Result, Tensor};
use gradus_nn::{Module, Param};
use gradus_optim::*;

fn weights() -> Vec<Param> {
    let place = gradus_cpu::device().with(DType::F64);
    let rows = Tensor::from_vec(vec![1.0, -2.0, 0.0, 0.0, 0.5, 0.25], [3, 2], gradus_cpu::device());
    vec![
        Param::new(rows),
        Param::new(Tensor::randn([2, 5], place, 1)),
        Param::new(Tensor::randn([2, 1, 3], place, 2)),
        Param::new(Tensor::randn([4], place, 3)),
    ]
}

/// What a penalty adds to gradients of zero.
fn added(penalty: &dyn Transform, m: &[Param]) -> Result<Vec<Vec<f64>>> {
    let named =
        |(i, p): (usize, &Param)| NamedGrad { name: i.to_string().into(), param: p.detach(), grad: p.zeros_like() };
    let mut grads: NamedGrads = m.iter().enumerate().map(named).collect();
    penalty.apply(&mut grads, &mut Notes::default())?;
    grads.iter().map(|g| g.grad.to_vec()).collect()
}

#[test]
fn a_penaltys_gradient_is_that_of_its_value() -> Result<()> {
    let all: [Box<dyn Transform>; 6] = [
        Box::new(L1::new(0.3)),
        Box::new(L2::new(0.3)),
        Box::new(ElasticNet::new(0.3, 0.4)),
        Box::new(GroupLasso::new(0.3)),
        Box::new(Orthogonal::new(0.3)),
        Box::new(Orthogonal::new(0.3).only("1").only("0").except("0")),
    ];
    for penalty in all {
        let m = weights();
        let value = penalty_of(&*penalty, &m)?.expect("it concerns some");
        value.backward();
        for (i, (p, have)) in m.iter().zip(added(&*penalty, &m)?).enumerate() {
            let want = p.grad().map_or(Ok(vec![0.0; p.elements()]), |g| g.to_vec::<f64>())?;
            let apart = have.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
            assert!(apart < 1e-12, "{penalty:?}, parameter {i}: {have:?}, want {want:?}");
        }
    }
    Ok(())
}

#[test]
fn values_are_those_of_the_formulas_and_told_apart() -> Result<()> {
    let w = Param::new(Tensor::from_vec(vec![3.0, 4.0, 0.0, 0.0], [2, 2], gradus_cpu::device()));
    let mut m = vec![w];
    let builder = Sgd::new(0.1).optimizer().transform(GroupLasso::new(0.5)).transform(Orthogonal::new(0.1));
    let o = builder.transform(ClipNorm::new(1.0)).build(&m)?;
    let lasso = 0.5 * 2f64.sqrt() * 5.0;
    let orthogonal = 0.1 * (24f64 * 24.0 + 1.0); // W·Wᵀ − I = [[24, 0], [0, −1]]
    let apart = o.penalties(&m)?;
    let told: Vec<(&str, f64)> = apart.iter().map(|(n, p)| (*n, p.item().unwrap())).collect();
    assert_eq!(told.iter().map(|t| t.0).collect::<Vec<_>>(), ["GroupLasso", "Orthogonal"]);
    assert!((told[0].1 - lasso).abs() < 1e-12 && (told[1].1 - orthogonal).abs() < 1e-12, "{told:?}");
    let sum: f64 = o.penalty(&m)?.expect("there are two").item()?;
    assert!((sum - lasso - orthogonal).abs() < 1e-12);
    m.freeze();
    assert!(o.penalty(&m)?.is_none() && o.penalties(&m)?.is_empty(), "frozen parameters are not counted");
    Ok(())
}

#[test]
fn noise_is_drawn_by_seed_name_and_step() -> Result<()> {
    let zero = || -> NamedGrads {
        let named = |name: &str| {
            let z = Tensor::zeros([20_000], gradus_cpu::device());
            NamedGrad { name: name.into(), param: z.clone(), grad: z }
        };
        vec![named("a"), named("b")]
    };
    let draw = |noise: &GradientNoise, step: u64| -> Result<[Vec<f32>; 2]> {
        let mut grads = zero();
        noise.prepare(step);
        noise.apply(&mut grads, &mut Notes::default())?;
        Ok([grads[0].grad.to_vec()?, grads[1].grad.to_vec()?])
    };
    let deviation = |x: &[f32]| (x.iter().map(|x| f64::from(x * x)).sum::<f64>() / x.len() as f64).sqrt();
    let noise = GradientNoise::new(0.09, 7);
    let ([a, b], [later, _]) = (draw(&noise, 0)?, draw(&noise, 99)?);
    assert!((deviation(&a) - 0.3).abs() < 0.01, "{}", deviation(&a));
    assert!((deviation(&later) - 0.3 / 100f64.powf(0.275)).abs() < 0.003, "{}", deviation(&later));
    assert!(a != b && a != later);
    assert_eq!(draw(&GradientNoise::new(0.09, 7), 0)?[0], a, "the same key and step");
    assert_ne!(draw(&GradientNoise::new(0.09, 8), 0)?[0], a);
    Ok(())
}
