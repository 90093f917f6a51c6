//! Data sets, splits and the loader that turns them into batches.
//!
//! A user's own data enters through one small trait, [`Source`]: how many samples there are, and what the one at an index is.
//! Everything after that (order, batches, augmentation) is a pure function of (seed, epoch, position), so a run that is
//! resumed in the middle of an epoch sees exactly the batches that it would have seen.
//!
//! | for | see |
//! |---|---|
//! | your own data | [`Source`], [`Map`], [`Subset`] |
//! | arrays in memory | [`InMemory`] |
//! | what a sample may be, and the batch it becomes | [`Collate`], [`Sample`], [`Batch`] |
//! | training, validation and test parts | [`split`], [`stratified_split`] |
//! | shuffled batches on a device | [`Loader`] |
//! | samples mixed with each other | [`mixup`], [`cutmix`] |
//! | folders of images (feature `images`) | `ImageFolder` |
//! | text as tokens, and windows of them | [`Characters`], [`TokenWindows`] |
//! | 1,797 real handwritten digits; a million characters of English | [`digits`], [`king_james`] |

mod collate;
mod digits;
#[cfg(feature = "images")]
mod image_folder;
mod in_memory;
mod loader;
mod mixing;
mod rows;
mod source;
mod split;
mod text;
mod tokens;

pub use collate::{Batch, Collate, Sample};
pub use digits::digits;
pub use gradus_core::tensor::TensorData;
#[cfg(feature = "images")]
pub use image_folder::ImageFolder;
pub use in_memory::InMemory;
pub use loader::{Epoch, Loader, order};
pub use mixing::{cutmix, mixup};
pub use source::{Map, Source, Subset};
pub use split::{split, stratified_split};
pub use text::{Characters, king_james};
pub use tokens::TokenWindows;

/// What most programs need of this crate.
pub mod prelude {
    #[cfg(feature = "images")]
    pub use crate::ImageFolder;
    pub use crate::{
        Batch, Characters, Collate, InMemory, Loader, Map, Sample, Source, Subset, TensorData, TokenWindows, digits,
        king_james, split, stratified_split,
    };
}
