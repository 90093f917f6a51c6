//! Orders, places and factorizations where finite differences have nothing to say: ties, NaN, and what has no solution.

use gradus_core::{DType, Device, Tensor};

fn cpu() -> Device {
    gradus_cpu::device()
}

fn vector(x: &[f32]) -> Tensor {
    Tensor::from_slice(x, cpu())
}

fn floats(x: &Tensor) -> Vec<f32> {
    x.to_vec().expect("it can be read")
}

fn places(x: &Tensor) -> Vec<i64> {
    x.to_vec().expect("it can be read")
}

#[test]
fn the_mode_is_the_smallest_of_the_most_frequent_at_its_last_place() {
    let x = vector(&[3.0, 1.0, 2.0, 1.0, 3.0, 5.0]);
    let (value, at) = x.mode(0, false);
    assert_eq!((floats(&value), places(&at)), (vec![1.0], vec![3]));
}

#[test]
fn quantiles_lie_between_elements_and_nan_wins() {
    let x = vector(&[4.0, 1.0, 3.0, 2.0]);
    assert_eq!(floats(&x.quantile(&[0.0, 0.5, 1.0], 0, false)), [1.0, 2.5, 4.0]);
    assert!(floats(&vector(&[1.0, f32::NAN, 2.0]).quantile(&[0.5], 0, false))[0].is_nan());
}

#[test]
fn running_extremes_take_the_last_of_equals_and_nan_stays() {
    let (values, at) = vector(&[1.0, 3.0, 3.0, 2.0]).cummax(0);
    assert_eq!((floats(&values), places(&at)), (vec![1.0, 3.0, 3.0, 3.0], vec![0, 1, 2, 2]));
    let (values, at) = vector(&[2.0, f32::NAN, 1.0]).cummin(0);
    assert!(floats(&values)[1].is_nan() && floats(&values)[2].is_nan());
    assert_eq!(places(&at), [0, 1, 1]);
}

#[test]
fn sorted_rows_are_searched_from_both_sides_and_nan_is_the_largest() {
    let row = vector(&[1.0, 2.0, 2.0, 4.0, f32::NAN]);
    let queries = vector(&[0.0, 2.0, 4.5, f32::NAN]);
    assert_eq!(places(&row.searchsorted(&queries, false)), [0, 1, 4, 4]);
    assert_eq!(places(&row.searchsorted(&queries, true)), [0, 3, 4, 5]);
}

#[test]
fn slices_are_distinct_by_all_their_elements() {
    let x = Tensor::from_vec(vec![2.0f32, 1.0, 0.0, 5.0, 2.0, 1.0], [3, 2], cpu());
    let (values, inverse, counts) = x.unique_slices(0);
    assert_eq!(floats(&values), [0.0, 5.0, 2.0, 1.0]);
    assert_eq!((places(&inverse), places(&counts)), (vec![1, 0, 1], vec![1, 2]));
    let nan = Tensor::from_vec(vec![f32::NAN, 1.0, f32::NAN, 1.0], [2, 2], cpu());
    assert_eq!(places(&nan.unique_slices(0).2), [1, 1]);
}

#[test]
fn what_has_no_solution_says_so() {
    let singular = Tensor::from_vec(vec![1.0f32, 2.0, 2.0, 4.0], [2, 2], cpu());
    for error in [
        singular.try_inv().err(),
        singular.try_solve(&Tensor::ones([2, 1], cpu())).err(),
        (&singular - 3.0).try_cholesky(false).err(),
        Tensor::ones([2, 3], cpu()).try_det().err(),
        Tensor::ones([2, 2], cpu().with(DType::I64)).try_inv().err(),
    ] {
        let message = error.expect("an error").to_string();
        assert!(
            message.contains("singular")
                || message.contains("definite")
                || message.contains("needs")
                || message.contains("square"),
            "{message}"
        );
    }
}

#[test]
fn a_singular_matrix_has_cofactors() {
    let x = Tensor::from_vec(vec![1.0f64, 2.0, 2.0, 4.0], [2, 2], cpu()).requires_grad();
    let det = x.det();
    assert!(det.item::<f64>().expect("a number").abs() < 1e-15);
    det.backward();
    let g: Vec<f64> = x.grad().expect("a gradient").to_vec().expect("it can be read");
    for (have, want) in g.into_iter().zip([4.0, -2.0, -2.0, 1.0]) {
        assert!((have - want).abs() < 1e-12, "{have} for {want}");
    }
}
