//! Patterns of parameter names: `*` stands for any characters, dots too, and `?` for any one.
//!
//! A pattern that matches nothing is nearly always a typing error, so whoever takes one is told at once, with the names
//! that come closest: those that the fewest edits of the pattern's letters would reach.

use gradus_core::{Error, Result};

/// A pattern of parameter names, such as `*.bias` or `encoder.layers.?.*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl From<&str> for Pattern {
    fn from(pattern: &str) -> Pattern {
        Pattern(pattern.to_owned())
    }
}
impl From<String> for Pattern {
    fn from(pattern: String) -> Pattern {
        Pattern(pattern)
    }
}

impl Pattern {
    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the whole of `name` fits the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let (p, n): (Vec<char>, Vec<char>) = (self.0.chars().collect(), name.chars().collect());
        let (mut i, mut j) = (0, 0);
        let mut star = None; // the last `*` met, and where its run would end if it were one longer
        while j < n.len() {
            if i < p.len() && p[i] == '*' {
                star = Some((i, j));
                i += 1;
            } else if i < p.len() && (p[i] == '?' || p[i] == n[j]) {
                (i, j) = (i + 1, j + 1);
            } else if let Some((at, run)) = star {
                star = Some((at, run + 1));
                (i, j) = (at + 1, run + 1);
            } else {
                return false;
            }
        }
        p[i..].iter().all(|&c| c == '*')
    }

    /// An error that names the pattern and the nearest names, unless some name fits. `owner` is whose pattern it is.
    pub fn demand_match<S: AsRef<str>>(&self, owner: &str, names: &[S]) -> Result<()> {
        if names.iter().any(|n| self.matches(n.as_ref())) {
            return Ok(());
        }
        let mut near: Vec<(usize, &str)> = names.iter().map(|n| (self.edits(n.as_ref()), n.as_ref())).collect();
        near.sort(); // by edits, then by name
        let near: Vec<&str> = near.into_iter().take(5).map(|(_, n)| n).collect();
        Err(Error::misuse(match near.as_slice() {
            [] => format!("{owner}: the pattern \"{}\" matches nothing: the model has no parameters", self.0),
            near => format!(
                "{owner}: the pattern \"{}\" matches none of the model's {} parameters; near it: {}",
                self.0,
                names.len(),
                near.join(", ")
            ),
        }))
    }

    /// How many letters must be changed, added or dropped for `name` to fit (Levenshtein, with free runs at `*`).
    fn edits(&self, name: &str) -> usize {
        let n: Vec<char> = name.chars().collect();
        let mut row: Vec<usize> = (0..=n.len()).collect(); // an empty pattern: every letter of the name is added
        for c in self.0.chars() {
            let mut next = vec![if c == '*' { row[0] } else { row[0] + 1 }];
            for j in 1..=n.len() {
                let cost = match c {
                    '*' => row[j].min(next[j - 1]),
                    _ => (row[j - 1] + usize::from(c != '?' && c != n[j - 1])).min(row[j] + 1).min(next[j - 1] + 1),
                };
                next.push(cost);
            }
            row = next;
        }
        row[n.len()]
    }
}

/// Which parameters something concerns: those that fit some pattern of `only` (all, if there is none) and none of `except`.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    only: Vec<Pattern>,
    except: Vec<Pattern>,
}

impl Selection {
    /// Also those that fit this pattern, and no longer all.
    pub fn only(&mut self, pattern: impl Into<Pattern>) {
        self.only.push(pattern.into());
    }
    /// But not those that fit this pattern.
    pub fn except(&mut self, pattern: impl Into<Pattern>) {
        self.except.push(pattern.into());
    }
    /// Whether the parameter of this name is meant.
    pub fn has(&self, name: &str) -> bool {
        let fits = |all: &[Pattern]| all.iter().any(|p| p.matches(name));
        (self.only.is_empty() || fits(&self.only)) && !fits(&self.except)
    }
    /// An error, unless every pattern matches some name. `owner` is whose selection it is.
    pub fn demand_matches<S: AsRef<str>>(&self, owner: &str, names: &[S]) -> Result<()> {
        self.only.iter().chain(&self.except).try_for_each(|p| p.demand_match(owner, names))
    }
}

/// The methods by which a user says which parameters something concerns; `$at` is the path to its [`Selection`].
macro_rules! selects {
    ($t:ident, $($at:tt).+) => {
        impl $t {
            /// Only for parameters whose names fit this pattern (or one of several).
            pub fn only(mut self, pattern: impl Into<crate::pattern::Pattern>) -> $t {
                self.$($at).+.only(pattern);
                self
            }
            /// Not for parameters whose names fit this pattern.
            pub fn except(mut self, pattern: impl Into<crate::pattern::Pattern>) -> $t {
                self.$($at).+.except(pattern);
                self
            }
        }
    };
}
pub(crate) use selects;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_cross_dots_and_question_marks_take_one_letter() {
        for (pattern, name, fits) in [
            ("*.bias", "layers.0.bias", true),
            ("*.bias", "bias", false),
            ("*bias", "bias", true),
            ("layers.?.weight", "layers.0.weight", true),
            ("layers.?.weight", "layers.10.weight", false),
            ("*norm*.weight", "encoder.norm1.weight", true),
            ("*a*b", "aXbXab", true),
            ("*a*b", "aXbX", false),
            ("", "", true),
            ("", "x", false),
            ("**", "", true),
        ] {
            assert_eq!(Pattern::from(pattern).matches(name), fits, "{pattern} and {name}");
            assert_eq!(Pattern::from(pattern).edits(name) == 0, fits, "{pattern} and {name}: edits");
        }
    }

    #[test]
    fn an_unmatched_pattern_is_told_with_near_names() {
        let names = ["conv1.weight", "conv1.bias", "fc.weight", "fc.bias"];
        let e = Pattern::from("*.bais").demand_match("group", &names).unwrap_err().to_string();
        assert!(e.contains("\"*.bais\"") && e.contains("4 parameters"), "{e}");
        assert!(e.find("conv1.bias").unwrap() < e.find("conv1.weight").unwrap(), "{e}");
        assert!(Pattern::from("fc.*").demand_match("group", &names).is_ok());
        let e = Pattern::from("*").demand_match("group", &[""; 0]).unwrap_err().to_string();
        assert!(e.contains("no parameters"), "{e}");
    }

    #[test]
    fn a_selection_takes_only_and_leaves_except() {
        let mut s = Selection::default();
        assert!(s.has("anything"));
        s.only("*.weight");
        s.except("norm.*");
        assert!(s.has("fc.weight") && !s.has("fc.bias") && !s.has("norm.weight"));
    }
}
