//! Which kernel computes what, by shape: the numbers of a committed table.
//!
//! Where two kernels can do the same work, or one can be cut in several ways, what is best depends on the device. It is not
//! tried out while a program runs: the bits of a run would depend on timing. The numbers stand in `crates/gpu/strategies.txt`,
//! in a column for each kind of device, and the example `tune` writes them there:
//!
//! ```sh
//! cargo run --release -p gradus-gpu --features wgpu --example tune -- wgpu:0
//! ```

use crate::DeviceKind;
use gradus_core::{Device, Error, Result};
use std::sync::{Mutex, RwLock};

/// The committed table.
pub const TABLE: &str = include_str!("../strategies.txt");

macro_rules! strategies {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The numbers of one kind of device. See the table in the crate's folder.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct Strategies {
            $($(#[$doc])* pub $name: usize,)*
        }

        impl Strategies {
            /// The names, in the table's order.
            pub const NAMES: &[&str] = &[$(stringify!($name)),*];

            /// The column called `kind` of a table as [`TABLE`] is.
            pub fn column(table: &str, kind: &str) -> Result<Strategies> {
                Ok(Strategies { $($name: cell(table, stringify!($name), kind)?,)* })
            }
            /// The number called `name`, if there is one.
            pub fn get_mut(&mut self, name: &str) -> Option<&mut usize> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }
    };
}

strategies! {
    /// A cube of products, attention and convolutions (of these, 8 at least) has so many rows and columns of threads: 4, 8 or 16. Fewer
    /// threads hold more of a tile each.
    cube_side,
    /// A side of at most so many rows or columns of a product is cut in tiles of 16.
    product_tile_16,
    /// One of at most so many in tiles of 32; a longer one of 64.
    product_tile_32,
    /// Where both sides are cut in tiles of 64, one that is longer than this is cut in tiles of 128, the rows first (not in cubes of
    /// 4 × 4 threads). A number beyond any side: never.
    product_tile_64,
    /// Products of `f32` with at least 2 to this power multiplications, and 128 in each dimension, are Burn's, where Burn keeps
    /// every bit of an `f32` (on devices without tensor cores).
    burn_f32,
    /// Products of `f16` and `bf16` with at least 2 to this power multiplications, and 128 in each dimension, are Burn's.
    burn_half,
    /// Attention of `f16` and `bf16` by tensor cores: 1 where the device has what they need, 0 never. 2 is for tests: in any type
    /// and on any device, threads do what tensor cores would, slowly.
    attention_cores,
    /// A result that combines at most so many elements is one thread's work.
    reduce_short,
    /// From so many results on, each is one thread's work.
    reduce_many,
    /// A longer reduction is cut in chunks of at least so many elements.
    reduce_chunk,
    /// A row of at most so many elements is one thread's work in softmax, the norms of layers and groups, and cross-entropy.
    row_narrow,
    /// The longest sum of one thread in the gradient of a convolution's weight.
    conv_chunk,
}

/// The number in the line `name` and the column `kind`.
fn cell(table: &str, name: &str, kind: &str) -> Result<usize> {
    let mut lines = table.lines().filter(|l| !l.starts_with('#')).map(str::split_whitespace);
    let missing = |what: &str| Error::misuse(format!("the table of strategies has no {what}"));
    let mut head = lines.next().ok_or_else(|| missing("first line"))?;
    let column = head.position(|h| h == kind).ok_or_else(|| missing(&format!("column {kind}")))?;
    let line = lines.map(Iterator::collect::<Vec<_>>).find(|l| l.first() == Some(&name));
    let number = line.and_then(|l| l.get(column)?.parse().ok());
    number.ok_or_else(|| missing(&format!("number {name} in column {kind}")))
}

/// The column of a device.
pub fn column_of(kind: DeviceKind) -> &'static str {
    match kind {
        DeviceKind::Software => "software",
        DeviceKind::Gpu | DeviceKind::IntegratedGpu => "gpu",
    }
}

/// A device that was opened.
#[derive(Clone)]
struct Opened {
    name: String,
    kind: DeviceKind,
    /// What is in force.
    strategies: &'static RwLock<Strategies>,
    bindings: usize,
}

static OPENED: Mutex<Vec<Opened>> = Mutex::new(Vec::new());

#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) fn enter(name: &str, kind: DeviceKind, bindings: usize) -> Result<&'static RwLock<Strategies>> {
    let strategies = Strategies::column(TABLE, column_of(kind))?;
    let strategies: &'static RwLock<Strategies> = Box::leak(Box::new(RwLock::new(strategies)));
    let opened = Opened { name: name.to_owned(), kind, strategies, bindings };
    OPENED.lock().unwrap_or_else(|e| e.into_inner()).push(opened);
    Ok(strategies)
}

fn opened(device: Device) -> Result<Opened> {
    let all = OPENED.lock().unwrap_or_else(|e| e.into_inner());
    let found = all.iter().find(|o| o.name == device.name());
    found.cloned().ok_or_else(|| Error::misuse(format!("{device} is no GPU of this crate")))
}

/// What is in force on a device, and the device's kind.
pub fn strategies(device: Device) -> Result<(DeviceKind, Strategies)> {
    let Opened { kind, strategies, .. } = opened(device)?;
    Ok((kind, *strategies.read().unwrap_or_else(|e| e.into_inner())))
}

/// How many pieces of memory one kernel of a device may be given, which is what limits the tensors of a launch over many: two are for
/// numbers and a result, the rest for tensors, of which no launch takes more than 16 with what goes with each.
pub fn bindings(device: Device) -> Result<usize> {
    Ok(opened(device)?.bindings)
}

/// Puts others in force, to try them out. What is computed from here on may have other bits.
pub fn set_strategies(device: Device, strategies: Strategies) -> Result<()> {
    *opened(device)?.strategies.write().unwrap_or_else(|e| e.into_inner()) = strategies;
    Ok(())
}

/// The table with other numbers in the column `kind`, and all else as it was.
pub fn rewritten(table: &str, kind: &str, mut numbers: Strategies) -> Result<String> {
    Strategies::column(table, kind)?; // it is whole
    let mut column = 0;
    let lines = table.lines().map(|line| {
        let cells: Vec<&str> = line.split_whitespace().collect();
        if line.starts_with('#') || cells.is_empty() {
            return line.to_owned();
        }
        if cells[0] == "name" {
            column = cells.iter().position(|c| *c == kind).unwrap_or(0);
            return line.to_owned();
        }
        let mut cells: Vec<String> = cells.into_iter().map(str::to_owned).collect();
        if let (Some(number), Some(cell)) = (numbers.get_mut(&cells[0].clone()), cells.get_mut(column)) {
            *cell = number.to_string();
        }
        let widths = [17, 10, 0];
        let padded = cells.iter().enumerate().map(|(i, c)| format!("{c:<w$}", w = widths.get(i).copied().unwrap_or(0)));
        padded.collect::<String>().trim_end().to_owned()
    });
    Ok(lines.collect::<Vec<_>>().join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_table_is_whole_and_survives_being_written() {
        for kind in ["software", "gpu"] {
            let numbers = Strategies::column(TABLE, kind).expect("every number is there");
            assert_eq!(rewritten(TABLE, kind, numbers).expect("it is whole"), TABLE);
        }
        let mut other = Strategies::column(TABLE, "gpu").expect("every number is there");
        other.row_narrow = 99;
        let text = rewritten(TABLE, "gpu", other).expect("it is whole");
        assert_eq!(Strategies::column(&text, "gpu").expect("it is whole"), other);
        assert_eq!(Strategies::column(&text, "software").ok(), Strategies::column(TABLE, "software").ok());
    }

    #[test]
    fn a_hole_in_a_table_is_named() {
        let error = Strategies::column("name gpu\nrow_narrow x\n", "gpu").expect_err("it has holes").to_string();
        assert!(error.contains("cube_side"), "{error}");
        let error = Strategies::column(TABLE, "npu").expect_err("there is no such column").to_string();
        assert!(error.contains("npu"), "{error}");
    }
}
