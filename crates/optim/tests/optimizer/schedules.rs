//! What schedules do beyond PyTorch's numbers: settings that are refused, schedules of schedules, a plateau's state.

use crate::model;
use gradus_core::Result;
use gradus_optim::*;

#[test]
fn bad_settings_are_told_by_name() {
    let all: Vec<(Box<dyn Schedule>, &str)> = vec![
        (Box::new(MultiStep::new([1], -1.0)), "gamma"),
        (Box::new(ConstantFactor::new(f64::NAN, 3)), "the factor"),
        (Box::new(LinearRamp::new(0.1, 1.0, 0)), "the number of steps"),
        (Box::new(Polynomial::new(10, 0.0)), "the power"),
        (Box::new(CosineRestarts::new(0)), "the first restart"),
        (Box::new(CosineRestarts::new(3).growth(0)), "the growth"),
        (Box::new(Cyclic::new(0.1, 0)), "the way up"),
        (Box::new(Cyclic::new(0.1, 3).falling(2.0)), "gamma"),
        (Box::new(Cyclic::new(0.1, 3).momentum(0.8, 1.0)), "a momentum"),
        (Box::new(SequentialSchedule::new(Constant).then(0, Constant)), "after the one before it"),
        (Box::new(ChainedSchedule::new(Constant).and(Exponential::new(-1.0))), "gamma"),
        (Box::new(Multiplicative::new(|_| f64::NAN)), "factor of step 1"),
    ];
    for (s, words) in all {
        let e = s.check().expect_err(s.name()).to_string();
        assert!(e.contains(s.name()) || s.name() == "ChainedSchedule", "{e}");
        assert!(e.contains(words), "{e}");
    }
}

#[test]
fn schedules_are_made_of_schedules() {
    let s = ChainedSchedule::new(ConstantFactor::new(0.5, 2)).and(Exponential::new(0.9));
    let want = [0.5, 0.45, 0.81, 0.729];
    (0..4).for_each(|t| assert!((s.learning_rate(1.0, t) - want[t as usize]).abs() < 1e-15));
    let m = Multiplicative::new(|step| 1.0 / step as f64);
    // In any order.
    for (step, want) in [(4, 1.0 / 24.0), (0, 1.0), (1, 1.0), (5, 1.0 / 120.0), (3, 1.0 / 6.0)] {
        assert!((m.learning_rate(1.0, step) - want).abs() < 1e-17, "{step}");
    }
    let s = SequentialSchedule::new(OneCycle::new(5)).then(5, Constant);
    assert!(s.momentum(0).is_some() && s.momentum(5).is_none());
    let c = Cyclic::new(0.0, 4).momentum(0.8, 0.9);
    assert_eq!((Schedule::momentum(&c, 0), Schedule::momentum(&c, 4)), (Some(0.9), Some(0.8)));
    let there_and_back = Cosine::new(10).returning();
    assert!((there_and_back.learning_rate(1.0, 20) - 1.0).abs() < 1e-15);
}

#[test]
fn a_plateau_goes_on_after_a_resume() -> Result<()> {
    let values = [1.0, 0.9, 0.95, 0.93, 0.92, 0.96, 0.5, 0.6, 0.7, 0.8, 0.9];
    let m = model(&[("w", &[1.0])]);
    let new = || Plateau::lower().factor(0.5).patience(1).cooldown(1).low(0.03);
    let (mut whole, mut rates) = (new(), Vec::new());
    let mut o = Sgd::new(0.1).optimizer().build(&m)?;
    for v in values {
        whole.observe(v, &mut o)?;
        rates.push(o.learning_rate());
    }
    assert_eq!(rates.last(), Some(&0.03), "{rates:?}");
    let (mut first, mut again) = (new(), Vec::new());
    let mut o = Sgd::new(0.1).optimizer().build(&m)?;
    for v in &values[..4] {
        first.observe(*v, &mut o)?;
        again.push(o.learning_rate());
    }
    let mut second = new();
    second.load_state(&first.state())?;
    let mut later = Sgd::new(0.1).optimizer().build(&m)?;
    later.load_state_dict(&m, &o.state_dict())?;
    for v in &values[4..] {
        second.observe(*v, &mut later)?;
        again.push(later.learning_rate());
    }
    assert_eq!(rates, again);
    assert!(second.observe(f64::NAN, &mut later).is_err() && new().factor(1.0).observe(1.0, &mut later).is_err());
    assert!(new().load_state(&Default::default()).unwrap_err().to_string().contains("best"));
    let (mut higher, mut o) = (Plateau::higher().patience(0), Sgd::new(1.0).optimizer().build(&m)?);
    assert!(!higher.observe(0.5, &mut o)? && !higher.observe(0.6, &mut o)? && higher.observe(0.6, &mut o)?);
    Ok(())
}
