//! What an unchecked step cannot do, and where it says so.

use crate::{device, turn};
use gradus_core::capture::Captured;
use gradus_core::{DType, Result, Tensor};

#[test]
fn functions_whose_shapes_depend_on_data_are_errors_at_their_line_in_unchecked_steps() -> Result<()> {
    let _turn = turn();
    let x = Tensor::from_vec(vec![2f32, 0.0, 1.0, 2.0], [4], device());
    type Function = fn(&Tensor) -> Result<Tensor>;
    let functions: [(u32, Function); 4] = [
        (line!(), |x| x.try_nonzero()),
        (line!(), |x| x.try_masked_select(&x.try_gt_scalar(1.0)?)),
        (line!(), |x| Ok(x.try_unique()?.0)),
        (line!(), |x| x.try_repeat_each(&x.try_to_dtype(DType::I64)?, 0)),
    ];
    for (line, f) in functions {
        let mut captured = Captured::unchecked();
        let step = |x: &[Tensor]| Ok(vec![f(&x[0])?]);
        let first = captured.run(&[&x], step).map(drop);
        let error = first.and_then(|()| captured.run(&[&x], step).map(drop)).expect_err("no such step can be replayed");
        assert!(error.to_string().contains(&format!("data_dependent.rs:{line}")), "line {line}: {error}");
    }
    Ok(())
}
