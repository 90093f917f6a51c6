//! Checkers for the whole-system tests: samples of the catalog's entries, derivatives and their finite differences,
//! comparisons that say what differs, views in disguise, and panics caught with their place.
//!
//! The tests themselves are in `tests/`: `catalog.rs` runs every check over every entry; the other files test by hand what
//! no entry can say.

pub mod compare;
pub mod derivative;
pub mod disguise;
pub mod golden;
pub mod golden_modules;
pub mod golden_stress;
pub mod panics;
pub mod report;
pub mod sample;
