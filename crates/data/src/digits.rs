//! The handwritten digits of E. Alpaydin and C. Kaynak (UCI; CC BY 4.0), embedded in the library: real data for a first
//! network, without a download. Source, licence and format are in `assets/README.md`.

use crate::in_memory::InMemory;
use flate2::read::GzDecoder;
use gradus_core::{Error, Result};
use std::io::Read;

const ASSET: &[u8] = include_bytes!("../assets/digits.csv.gz");
const PIXELS: usize = 64;
const INK: u8 = 16;

/// 1,797 images `[1, 8, 8]` of the digits 0 to 9, `f32` from 0 (paper) to 1 (ink), in steps of 1/16; the label is the digit.
///
/// E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits. UCI Machine Learning Repository,
/// [doi:10.24432/C50P49](https://doi.org/10.24432/C50P49), CC BY 4.0.
///
/// ```
/// use gradus_data::{Source, digits};
/// let digits = digits()?;
/// assert_eq!((digits.len(), digits.input_shape()), (1797, &[1, 8, 8][..]));
/// # Ok::<(), gradus_core::Error>(())
/// ```
pub fn digits() -> Result<InMemory> {
    let mut text = String::new();
    GzDecoder::new(ASSET)
        .read_to_string(&mut text)
        .map_err(|e| Error::io("digits: cannot decompress the embedded file", e))?;
    parse(&text)
}

/// Rows of 64 pixels from 0 to 16, and the label.
fn parse(text: &str) -> Result<InMemory> {
    let (mut inputs, mut labels) = (Vec::new(), Vec::new());
    for (row, line) in text.lines().enumerate() {
        let at = |column: usize, what: String| {
            Error::data(format!("digits: row {}, column {}: {what}", row + 1, column + 1))
        };
        let values = line.split(',').map(str::trim);
        let columns = values.clone().count();
        if columns != PIXELS + 1 {
            return Err(Error::data(format!(
                "digits: row {} has {columns} columns instead of {}",
                row + 1,
                PIXELS + 1
            )));
        }
        for (column, text) in values.enumerate() {
            let (what, most) = if column < PIXELS { ("pixel", INK) } else { ("label", 9) };
            match text.parse::<u8>() {
                Ok(v) if v <= most && column < PIXELS => inputs.push(v as f32 / INK as f32),
                Ok(v) if v <= most => labels.push(v as i64),
                _ => return Err(at(column, format!("{text:?} is not a {what} from 0 to {most}"))),
            }
        }
    }
    InMemory::labelled(&inputs, &[1, 8, 8], &labels)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;
    use gradus_core::Key;

    #[test]
    fn the_embedded_digits_are_the_published_ones() {
        let set = digits().unwrap();
        assert_eq!(set.len(), 1797);
        let mut counts = [0; 10];
        set.labels().unwrap().iter().for_each(|&l| counts[l as usize] += 1);
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]); // as assets/README.md lists them
        let first = set.get(0, &Key::new(0)).unwrap();
        let row: Vec<f64> = (0..8).map(|i| first.input.f64_at(i) * 16.0).collect();
        assert_eq!(row, [0.0, 0.0, 5.0, 13.0, 9.0, 1.0, 0.0, 0.0]);
        // scikit-learn: load_digits().data.sum() == 561718
        let inputs = set.inputs();
        let ink: f64 = (0..1797 * 64).map(|i| inputs.f64_at(i) * 16.0).sum();
        assert_eq!(ink, 561718.0);
    }

    #[test]
    fn damage_is_named_by_row_and_column() {
        let good = ["1"; 65].join(",");
        let says = |text: String, parts: &[&str]| {
            let e = parse(&text).expect_err("must be refused").to_string();
            assert!(parts.iter().all(|p| e.contains(p)), "{e}");
        };
        says(format!("{good}\n1,2"), &["row 2", "2 columns", "65"]);
        says(format!("{good}\n17{}", &good[1..]), &["row 2, column 1", "\"17\"", "0 to 16"]);
        says(format!("{}10", &good[..good.len() - 1]), &["row 1, column 65", "\"10\"", "0 to 9"]);
        says(format!("x{}", &good[1..]), &["column 1", "\"x\""]);
        assert_eq!(parse(&good).unwrap().len(), 1);
    }
}
