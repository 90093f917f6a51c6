//! A line search for the strong Wolfe conditions: enough descent, and a slope that has become flat enough.
//!
//! A bracket is grown until it must hold such a point, then narrowed by cubic interpolation (Nocedal & Wright, algorithms 3.5 and
//! 3.6), with the safeguards of Schmidt's `minFunc`, which PyTorch's `_strong_wolfe` was made from.

use gradus_core::{Result, Tensor};

/// Enough descent: f(t) ≤ f(0) + C1·t·f'(0).
const C1: f64 = 1e-4;
/// Flat enough: |f'(t)| ≤ C2·|f'(0)|.
const C2: f64 = 0.9;

/// A point on the line.
#[derive(Clone, Debug)]
pub(super) struct Point {
    /// How far along the direction.
    pub t: f64,
    /// f(t).
    pub loss: f64,
    /// f'(t).
    pub slope: f64,
    /// The whole gradient there.
    pub gradient: Tensor,
}

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// The smallest bracket, measured by the direction's largest element.
    pub change: f64,
    /// How many more points may be looked at after the first.
    pub evaluations: usize,
}

/// The point found from `start` with the first guess `t`, and how many points were looked at. `reach` is the direction's largest
/// element.
pub(super) fn strong_wolfe(
    start: &Point,
    t: f64,
    reach: f64,
    bounds: Bounds,
    look: &mut dyn FnMut(f64) -> Result<Point>,
) -> Result<(Point, usize)> {
    let mut new = look(t)?;
    let (mut looked, mut rounds) = (1, 0);
    let mut before = start.clone();
    let mut bracket = None;
    while rounds < bounds.evaluations {
        let high = new.loss > start.loss + C1 * new.t * start.slope || (rounds > 1 && new.loss >= before.loss);
        if !high && new.slope.abs() <= -C2 * start.slope {
            return Ok((new, looked));
        }
        if high || new.slope >= 0.0 {
            bracket = Some([before.clone(), new.clone()]);
            break;
        }
        let (least, most) = (new.t + 0.01 * (new.t - before.t), new.t * 10.0);
        let t = cubic(&before, &new, Some((least, most)));
        before = std::mem::replace(&mut new, look(t)?);
        (looked, rounds) = (looked + 1, rounds + 1);
    }
    // Without evaluations left, the bracket is all that was seen.
    let bracket = bracket.unwrap_or_else(|| [start.clone(), new]);
    zoom(start, bracket, reach, bounds, (looked, rounds), look)
}

/// Narrows a bracket until a point in it will do.
fn zoom(
    start: &Point,
    mut bracket: [Point; 2],
    reach: f64,
    bounds: Bounds,
    (mut looked, mut rounds): (usize, usize),
    look: &mut dyn FnMut(f64) -> Result<Point>,
) -> Result<(Point, usize)> {
    let lowest = |b: &[Point; 2]| usize::from(b[0].loss > b[1].loss);
    let mut low = lowest(&bracket);
    let mut stuck = false;
    while rounds < bounds.evaluations {
        let (least, most) = (bracket[0].t.min(bracket[1].t), bracket[0].t.max(bracket[1].t));
        if (most - least) * reach < bounds.change {
            break;
        }
        let mut t = cubic(&bracket[0], &bracket[1], None);
        // A trial near an end makes little progress: the second time, or at the end itself, it is moved inwards.
        let margin = 0.1 * (most - least);
        if (most - t).min(t - least) < margin {
            if stuck || t >= most || t <= least {
                t = if (t - most).abs() < (t - least).abs() { most - margin } else { least + margin };
                stuck = false;
            } else {
                stuck = true;
            }
        } else {
            stuck = false;
        }
        let new = look(t)?;
        (looked, rounds) = (looked + 1, rounds + 1);
        if new.loss > start.loss + C1 * t * start.slope || new.loss >= bracket[low].loss {
            bracket[1 - low] = new;
            low = lowest(&bracket);
            continue;
        }
        let done = new.slope.abs() <= -C2 * start.slope;
        if !done && new.slope * (bracket[1 - low].t - bracket[low].t) >= 0.0 {
            bracket[1 - low] = bracket[low].clone();
        }
        bracket[low] = new;
        if done {
            break;
        }
    }
    let [a, b] = bracket;
    Ok((if low == 0 { a } else { b }, looked))
}

/// The lowest point of the cubic through two points with their slopes, within the bounds (between the two unless given).
fn cubic(a: &Point, b: &Point, bounds: Option<(f64, f64)>) -> f64 {
    let (least, most) = bounds.unwrap_or(if a.t <= b.t { (a.t, b.t) } else { (b.t, a.t) });
    let d1 = a.slope + b.slope - 3.0 * (a.loss - b.loss) / (a.t - b.t);
    let square = d1 * d1 - a.slope * b.slope;
    if !(square >= 0.0) {
        return (least + most) / 2.0;
    }
    let d2 = square.sqrt();
    let lowest = if a.t <= b.t {
        b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2.0 * d2))
    } else {
        a.t - (a.t - b.t) * ((a.slope + d2 - d1) / (a.slope - b.slope + 2.0 * d2))
    };
    // A NaN (of an infinite loss) would end the search for good.
    if lowest.is_nan() { (least + most) / 2.0 } else { lowest.max(least).min(most) }
}
