//! A learning curve as text, for terminals and logs.

use crate::history::History;
use std::fmt::Write;

impl History {
    /// The columns called `names` as a chart of `height` lines and at most `width` columns of characters: epochs from left to
    /// right, one mark for each name (`*`, `o`, `+`, `x`, in turn; a later name lies over an earlier one). Values that are not
    /// finite are left out; an empty string if nothing is left.
    ///
    /// Where there are more epochs than columns, a column shows the mean of its epochs. Where all values are positive and the
    /// largest is more than 20 times the smallest, equal heights are equal ratios, as the numbers at the lines tell.
    pub fn chart(&self, names: &[&str], width: usize, height: usize) -> String {
        let (width, height) = (width.max(2), height.max(2));
        let epochs = self.rows().len();
        let columns = epochs.min(width);
        let series: Vec<Vec<Option<f64>>> = names.iter().map(|name| self.averaged(name, columns)).collect();
        let Some(scale) = Scale::of(series.iter().flatten().flatten().copied()) else { return String::new() };
        let wide = (width / columns).clamp(1, 3); // characters an epoch
        let mut grid = vec![vec![' '; columns * wide]; height];
        for (points, mark) in series.iter().zip(MARKS.iter().cycle()) {
            for (column, value) in points.iter().enumerate() {
                if let Some(x) = value {
                    let line = (scale.depth(*x) * (height - 1) as f64).round() as usize;
                    grid[line.min(height - 1)][column * wide..(column + 1) * wide].fill(*mark);
                }
            }
        }
        let mut text = String::new();
        for (i, line) in grid.iter().enumerate() {
            let value = scale.value(i as f64 / (height - 1) as f64);
            let line: String = line.iter().collect();
            let _ = writeln!(text, "{value:>10.4} |{}", line.trim_end()); // writing to a string cannot fail
        }
        let (first, last) = (self.rows()[0].epoch, self.rows()[epochs - 1].epoch);
        let legend: Vec<String> =
            names.iter().zip(MARKS.iter().cycle()).map(|(name, mark)| format!("{mark} {name}")).collect();
        let _ = writeln!(text, "{:>10} +{}", "", "-".repeat(columns * wide));
        let _ = writeln!(text, "{:>11} epoch {first} to {last}   {}", "", legend.join("   "));
        text
    }

    /// A column of the history squeezed into `columns` means.
    fn averaged(&self, name: &str, columns: usize) -> Vec<Option<f64>> {
        let rows = self.rows();
        let mean = |c: usize| {
            let part = &rows[c * rows.len() / columns..(c + 1) * rows.len() / columns];
            let values: Vec<f64> = part.iter().filter_map(|r| r.get(name)).filter(|x| x.is_finite()).collect();
            (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
        };
        (0..columns).map(mean).collect()
    }
}

/// From values to heights: even, or even in the logarithm.
struct Scale {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Scale {
    /// The scale that holds all these values; `None` if there are none.
    fn of(values: impl Iterator<Item = f64>) -> Option<Scale> {
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), x| (l.min(x), h.max(x)));
        let is_log = low > 0.0 && high / low > 20.0;
        let scale = if is_log { Scale { low: low.ln(), high: high.ln(), is_log } } else { Scale { low, high, is_log } };
        (low <= high).then_some(scale)
    }
    /// How far below the top a value lies: 0 to 1.
    fn depth(&self, x: f64) -> f64 {
        let x = if self.is_log { x.ln() } else { x };
        if self.high > self.low { (self.high - x) / (self.high - self.low) } else { 0.0 }
    }
    /// The value at a depth.
    fn value(&self, depth: f64) -> f64 {
        let x = self.high - (self.high - self.low) * depth;
        if self.is_log { x.exp() } else { x }
    }
}

const MARKS: [char; 4] = ['*', 'o', '+', 'x'];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Row;

    fn history(values: &[f64]) -> History {
        let mut h = History::default();
        for (i, &x) in values.iter().enumerate() {
            let mut row = Row::new(i + 1, i as u64);
            row.set("loss", x);
            h.push(row);
        }
        h
    }

    #[test]
    fn a_falling_curve_falls() {
        let chart = history(&[4.0, 3.0, 2.0, f64::NAN]).chart(&["loss"], 8, 3);
        assert_eq!(
            chart,
            "    4.0000 |**\n    3.0000 |  **\n    2.0000 |    **\n           +--------\n            epoch 1 to 4   * loss\n"
        );
    }

    #[test]
    fn a_curve_that_falls_far_is_drawn_in_ratios() {
        let chart = history(&[100.0, 10.0, 1.0]).chart(&["loss"], 3, 3);
        assert!(chart.starts_with("  100.0000 |*\n   10.0000 | *\n    1.0000 |  *\n"), "{chart}");
        let flat = history(&[2.0, 2.0]).chart(&["loss"], 2, 2);
        assert!(flat.starts_with("    2.0000 |**\n    2.0000 |\n"), "{flat}");
    }

    #[test]
    fn long_runs_are_squeezed_and_empty_ones_are_empty() {
        let chart = history(&(0..100).map(f64::from).collect::<Vec<_>>()).chart(&["loss"], 10, 4);
        assert!(chart.lines().all(|l| l.len() <= 22 || l.contains("epoch")), "{chart}");
        assert_eq!(history(&[f64::NAN]).chart(&["loss"], 10, 4), "");
        assert_eq!(History::default().chart(&["loss"], 10, 4), "");
    }
}
