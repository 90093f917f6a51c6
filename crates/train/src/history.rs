//! What was measured, epoch by epoch: as numbers, as CSV.
//!
//! Only what a run computes is in it, never how long it took, so that two runs of one seed have equal histories.

use crate::exact::Exact;
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// What was measured at the end of one epoch, by name: `train/loss`, `val/accuracy`, `lr`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// Optimizer steps so far.
    pub step: u64,
    values: Vec<(String, Exact)>,
}

impl Row {
    pub(crate) fn new(epoch: usize, step: u64) -> Row {
        Row { epoch, step, values: Vec::new() }
    }
    /// Sets a value; callbacks may add their own at the end of an epoch.
    pub fn set(&mut self, name: &str, value: f64) {
        match self.values.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => v.0 = value,
            None => self.values.push((name.to_owned(), Exact(value))),
        }
    }
    /// The value called `name`.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.values.iter().find(|(n, _)| n == name).map(|(_, v)| v.0)
    }
    /// All values, in the order in which they were set.
    pub fn values(&self) -> impl Iterator<Item = (&str, f64)> {
        self.values.iter().map(|(n, v)| (n.as_str(), v.0))
    }
    /// The value called `name`, or an error that lists what there is.
    pub(crate) fn need(&self, name: &str, who: &str) -> gradus_core::Result<f64> {
        self.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.values().map(|(n, _)| n).collect();
            gradus_core::Error::misuse(format!(
                "{who}: nothing called {name:?} is measured; there are {}",
                names.join(", ")
            ))
        })
    }
}

/// The rows of a run, one an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    rows: Vec<Row>,
}

impl History {
    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }
    /// All rows, oldest first.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
    /// The epochs in which `name` was measured, with its values.
    pub fn column(&self, name: &str) -> Vec<(usize, f64)> {
        self.rows.iter().filter_map(|r| Some((r.epoch, r.get(name)?))).collect()
    }
    /// The last value of `name`.
    pub fn last(&self, name: &str) -> Option<f64> {
        self.rows.last().and_then(|r| r.get(name))
    }
    /// The names of all columns, in the order of their first appearance.
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in self.rows.iter().flat_map(Row::values) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
    /// The history as CSV: `epoch,step,` and the names, then a line for each epoch. Numbers are written in full; what was not
    /// measured in an epoch is empty.
    pub fn to_csv(&self) -> String {
        let names = self.names();
        let mut text = String::from("epoch,step");
        for name in &names {
            text.push(',');
            text += &field(name);
        }
        text.push('\n');
        for row in &self.rows {
            let _ = write!(text, "{},{}", row.epoch, row.step); // writing to a string cannot fail
            for name in &names {
                text.push(',');
                if let Some(x) = row.get(name) {
                    let _ = write!(text, "{x}");
                }
            }
            text.push('\n');
        }
        text
    }
}

/// A field of CSV, quoted where it must be (RFC 4180).
fn field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> History {
        let mut h = History::default();
        let mut a = Row::new(1, 10);
        a.set("train/loss", 0.1 + 0.2);
        let mut b = Row::new(2, 20);
        b.set("train/loss", f64::NAN);
        b.set("a,b", 2.0);
        h.push(a);
        h.push(b);
        h
    }

    #[test]
    fn csv_has_every_digit_and_leaves_gaps_empty() {
        assert_eq!(sample().to_csv(), "epoch,step,train/loss,\"a,b\"\n1,10,0.30000000000000004,\n2,20,NaN,2\n");
    }

    #[test]
    fn a_history_comes_back_from_json() {
        let text = serde_json::to_string(&sample()).unwrap();
        let back: History = serde_json::from_str(&text).unwrap();
        assert_eq!(back.to_csv(), sample().to_csv());
        assert_eq!(sample().column("a,b"), [(2, 2.0)]);
    }

    #[test]
    fn a_missing_name_lists_those_there_are() {
        let e = sample().rows()[1].need("val/loss", "early stopping").unwrap_err().to_string();
        assert!(e.contains("\"val/loss\"") && e.contains("train/loss, a,b"), "{e}");
    }
}
