//! A long row of tokens as the samples of a language model.

use crate::collate::Sample;
use crate::source::Source;
use gradus_core::tensor::TensorData;
use gradus_core::{Error, Key, Result};
use std::path::Path;
use std::sync::Arc;

/// Windows of `context` tokens of one text; what a model should give is the token that follows each: input and target are
/// `i64[context]`, the target one place further on.
///
/// The windows lie side by side, or, after [`random`](Self::random), each at a place drawn anew in every epoch.
///
/// ```
/// use gradus_core::Key;
/// use gradus_data::{Source, TokenWindows};
/// let windows = TokenWindows::new((0..100).collect(), 8)?;
/// assert_eq!(windows.len(), 12);
/// let sample = windows.get(1, &Key::new(0))?;
/// assert_eq!((sample.input.f64_at(0), sample.target.f64_at(0)), (8.0, 9.0));
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct TokenWindows {
    tokens: Arc<[u32]>,
    context: usize,
    random: Option<usize>,
}

impl TokenWindows {
    /// Windows of `context` tokens. Fewer than `context` + 1 tokens make no window, and are an error.
    pub fn new(tokens: Vec<u32>, context: usize) -> Result<TokenWindows> {
        if context == 0 || tokens.len() <= context {
            return Err(Error::data(format!(
                "a window of {context} tokens and the one that follows needs a context of at least 1 and {} tokens; the text has {}",
                context + 1,
                tokens.len()
            )));
        }
        Ok(TokenWindows { tokens: tokens.into(), context, random: None })
    }
    /// The tokens of a file of 16-bit numbers, little end first, as nanoGPT's programs write it. Files of odd length are refused.
    pub fn read_u16(path: impl AsRef<Path>) -> Result<Vec<u32>> {
        let path = path.as_ref();
        let bytes = std::fs::read(path).map_err(|e| Error::io(format!("cannot read {}", path.display()), e))?;
        if bytes.len() % 2 != 0 {
            return Err(Error::data(format!(
                "{}: {} bytes are no whole number of 16-bit tokens",
                path.display(),
                bytes.len()
            )));
        }
        Ok(bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]]).into()).collect())
    }
    /// `samples` windows an epoch, each at a random place: the seed, the epoch and its number alone say which.
    pub fn random(mut self, samples: usize) -> TokenWindows {
        self.random = Some(samples);
        self
    }
    /// All tokens.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }
}

impl Source for TokenWindows {
    type Item = Sample;
    fn len(&self) -> usize {
        self.random.unwrap_or((self.tokens.len() - 1) / self.context)
    }
    fn get(&self, index: usize, key: &Key) -> Result<Sample> {
        let start = match self.random {
            None => index * self.context,
            Some(_) => {
                let bits = key.block(0);
                let bits = u64::from(bits[0]) << 32 | u64::from(bits[1]);
                // bits / 2⁶⁴ of the places: without the bias of a remainder.
                let places = (self.tokens.len() - self.context) as u128;
                (u128::from(bits) * places >> 64) as usize
            }
        };
        let window = self.tokens.get(start..start + self.context + 1).ok_or_else(|| {
            Error::data(format!("there is no window {index}: {} tokens make {} of them", self.tokens.len(), self.len()))
        })?;
        let row = |tokens: &[u32]| {
            let tokens: Vec<i64> = tokens.iter().map(|&t| t.into()).collect();
            TensorData::try_new(&tokens, &[tokens.len()])
        };
        Ok(Sample { input: row(&window[..self.context])?, target: row(&window[1..])? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_lie_side_by_side_and_targets_follow() {
        let windows = TokenWindows::new((0..21).collect(), 5).unwrap();
        assert_eq!(windows.len(), 4);
        let last = windows.get(3, &Key::new(0)).unwrap();
        assert_eq!((last.input.f64_at(4), last.target.f64_at(4)), (19.0, 20.0));
        assert!(windows.get(4, &Key::new(0)).is_err());
    }

    #[test]
    fn random_windows_reach_both_ends_and_depend_on_their_key_alone() {
        let windows = TokenWindows::new((0..12).collect(), 4).unwrap().random(1000);
        assert_eq!(windows.len(), 1000);
        let starts: Vec<f64> =
            (0..1000).map(|i| windows.get(i, &Key::new(i as u64)).unwrap().input.f64_at(0)).collect();
        for place in 0..8 {
            let times = starts.iter().filter(|&&s| s == f64::from(place)).count();
            assert!((80..=170).contains(&times), "place {place} was drawn {times} times of 1000");
        }
        assert_eq!(windows.get(7, &Key::new(3)).unwrap(), windows.get(9, &Key::new(3)).unwrap());
    }

    #[test]
    fn too_few_tokens_are_refused_with_their_number() {
        let message = TokenWindows::new(vec![0; 8], 8).unwrap_err().to_string();
        assert!(message.contains("needs a context of at least 1 and 9 tokens; the text has 8"), "{message}");
        assert!(TokenWindows::new(vec![0; 8], 0).is_err());
    }

    #[test]
    fn token_files_are_16_bit_numbers() {
        let path = std::env::temp_dir().join(format!("gradus-tokens-{}.bin", std::process::id()));
        std::fs::write(&path, [1, 0, 0, 1]).unwrap();
        assert_eq!(TokenWindows::read_u16(&path).unwrap(), [1, 256]);
        std::fs::write(&path, [1, 0, 0]).unwrap();
        let message = TokenWindows::read_u16(&path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(message.contains("3 bytes"), "{message}");
    }
}
