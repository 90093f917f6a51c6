//! Text for language models: an embedded one, and the vocabulary of its characters.

use flate2::read::GzDecoder;
use gradus_core::{Error, Result};
use std::io::Read;

const ASSET: &[u8] = include_bytes!("../assets/king_james.txt.gz");

/// Nine books of the King James Bible, about a million characters: a verse a line, an empty line between chapters. Public domain;
/// source and licence are in the crate's `assets/README.md`.
///
/// ```
/// let text = gradus_data::king_james()?;
/// assert!(text.starts_with("In the beginning God created the heaven and the earth.\n"));
/// # Ok::<(), gradus_core::Error>(())
/// ```
pub fn king_james() -> Result<String> {
    let mut text = String::new();
    GzDecoder::new(ASSET)
        .read_to_string(&mut text)
        .map_err(|e| Error::io("king_james: cannot decompress the embedded file", e))?;
    Ok(text)
}

/// The different characters of a text, each a token: numbered from 0 in the order of their code points.
///
/// ```
/// let letters = gradus_data::Characters::of("abracadabra");
/// assert_eq!(letters.len(), 5);
/// assert_eq!(letters.encode("cab")?, [2, 0, 1]);
/// assert_eq!(letters.decode(&[3, 0, 3])?, "dad");
/// # Ok::<(), gradus_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Characters(Vec<char>);

impl Characters {
    /// Those of `text`.
    pub fn of(text: &str) -> Characters {
        let mut seen: Vec<char> = text.chars().collect();
        seen.sort_unstable();
        seen.dedup();
        Characters(seen)
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// The token of each character of `text`. A character that is not in the vocabulary is an error that says where it stands.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let token = |(at, c): (usize, char)| {
            let found = self.0.binary_search(&c).map(|i| i as u32);
            found.map_err(|_| {
                Error::data(format!("character {at}, {c:?}, is not among the {} of the vocabulary", self.len()))
            })
        };
        text.chars().enumerate().map(token).collect()
    }
    /// The text of these tokens. A token beyond the vocabulary is an error that says where it stands.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        let character = |(at, &token): (usize, &u32)| {
            self.0.get(token as usize).copied().ok_or_else(|| {
                Error::data(format!("token {at} is {token}, but the vocabulary has {} characters", self.len()))
            })
        };
        tokens.iter().enumerate().map(character).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_text_has_the_characters_that_its_readme_says() {
        let text = king_james().unwrap();
        assert!(text.is_ascii());
        assert!(text.ends_with("Amen.\n"));
        let letters = Characters::of(&text);
        assert_eq!(letters.decode(&letters.encode(&text).unwrap()).unwrap(), text);
    }

    #[test]
    fn unknown_characters_and_tokens_are_named() {
        let letters = Characters::of("ab");
        let message = letters.encode("abz").unwrap_err().to_string();
        assert!(message.contains("character 2, 'z'"), "{message}");
        let message = letters.decode(&[0, 7]).unwrap_err().to_string();
        assert!(message.contains("token 1 is 7") && message.contains("2 characters"), "{message}");
    }
}
