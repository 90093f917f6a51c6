//! Numbers in state files, exactly: JSON has no NaN or infinity, so those are written as words.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An `f64` that comes back from JSON with its bits (but for a NaN's payload).
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
pub(crate) struct Exact(pub f64);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(f64),
    Word(String),
}

impl Serialize for Exact {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        if self.0.is_finite() { Written::Number(self.0) } else { Written::Word(self.0.to_string()) }.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Exact, D::Error> {
        match Written::deserialize(from)? {
            Written::Number(x) => Ok(Exact(x)),
            Written::Word(word) => {
                word.parse().map(Exact).map_err(|_| serde::de::Error::custom(format!("{word:?} is not a number")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_back() {
        let seed = 11;
        let key = gradus_core::Key::new(seed);
        let random = (0..2000).map(|i| {
            let w = key.block(i);
            f64::from_bits(w[0] as u64 | (w[1] as u64) << 32)
        });
        let special = [0.0, -0.0, 1e-320, f64::MAX, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 3.0, 1e300];
        for x in random.chain(special) {
            let text = serde_json::to_string(&Exact(x)).unwrap();
            let back: Exact = serde_json::from_str(&text).unwrap();
            assert!(back.0.to_bits() == x.to_bits() || (back.0.is_nan() && x.is_nan()), "seed {seed}: {x:?} as {text}");
        }
        assert!(serde_json::from_str::<Exact>("\"ten\"").is_err());
    }
}
