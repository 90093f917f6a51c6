//! Indices that named no place: numbers for launches, and the error that a note becomes.
//!
//! An index out of range cannot be seen before the kernel runs, and waiting for it would stall every step. Kernels note it
//! (`gradus_kernels::fault`) under the number of the launch's [`Site`], and whoever waits next, a read-back or `synchronize`,
//! gets the error, with the op, the index and the length. There are as many numbers as different sites, not as launches.

use gradus_core::Error;
use std::sync::Mutex;

/// Where an index is used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Site {
    /// The op's name.
    pub(crate) op: &'static str,
    /// How many places there are to name.
    pub(crate) len: usize,
    /// Whether the places are classes of a loss, whose indices do not count from the end.
    pub(crate) classes: bool,
}

/// The sites of a device, in the order of their numbers, from 1.
#[derive(Debug, Default)]
pub(crate) struct Sites(Mutex<Vec<Site>>);

impl Sites {
    /// The site's number.
    pub(crate) fn number(&self, site: Site) -> u32 {
        let mut sites = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let at = sites.iter().rposition(|s| *s == site).unwrap_or_else(|| {
            sites.push(site);
            sites.len() - 1
        });
        at as u32 + 1
    }

    /// The error of what a kernel noted, if it did: see [`gradus_kernels::fault::WORDS`].
    pub(crate) fn error(&self, words: &[u8], device: &str) -> Option<Error> {
        let word = |i: usize| words.get(4 * i..4 * i + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
        let (number, index) = (word(0)?, word(1)? as i32);
        let sites = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let site = (number as usize).checked_sub(1).and_then(|at| sites.get(at))?;
        let index = match index {
            i32::MAX => format!("{index} or more"),
            i if i == -i32::MAX => format!("{index} or less"),
            _ => index.to_string(),
        };
        let Site { op, len, classes } = site;
        let what = if *classes {
            format!("target {index} is not a class: there are {len}")
        } else {
            format!("index {index} is out of range for a dimension of length {len}")
        };
        Some(Error::misuse(format!("{what}; {device} found it in {op}, before it was waited for here")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(number: u32, index: i32) -> Vec<u8> {
        [number.to_ne_bytes(), index.to_ne_bytes()].concat()
    }

    #[test]
    fn a_note_names_op_index_and_length() {
        let sites = Sites::default();
        let site = |op, len| Site { op, len, classes: false };
        assert_eq!((sites.number(site("gather", 5)), sites.number(site("index_select", 7))), (1, 2));
        assert_eq!(sites.number(site("gather", 5)), 1);
        assert!(sites.error(&words(0, 9), "wgpu:0").is_none());
        let text = sites.error(&words(2, -8), "wgpu:0").expect("a note").to_string();
        assert!(["index_select", "-8", "length 7", "wgpu:0"].iter().all(|part| text.contains(part)), "{text}");
        let text = sites.error(&words(1, i32::MAX), "wgpu:0").expect("a note").to_string();
        assert!(text.contains("or more"), "{text}");
    }
}
