//! The header of a safetensors file: read under limits, checked whole before any data are touched, and written.
//!
//! Format: <https://github.com/huggingface/safetensors#format>. A file is `u64 length | JSON | data`. The data of the
//! tensors cover the rest of the file without overlap or hole, which makes a file impossible to hide anything in, and
//! bounds what reading one costs by its size. The reference reader is stricter than its text in places and laxer in
//! others; here the text decides: no duplicate keys, `{` as the first byte, string metadata.

use crate::error::Cause;
use crate::json::Json;
use crate::stored_dtype::StoredDType;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::Read;
use std::ops::Range;

/// Bytes of the header's length, before the header.
pub(crate) const PREFIX: u64 = 8;
/// The key of the header that is no tensor.
pub(crate) const METADATA: &str = "__metadata__";

/// What a header may cost. The default keeps the memory of any header below 64 MiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Bytes of JSON: 25 MB (a tensor takes about 100). The format's own limit is 100 MB.
    pub header_bytes: u64,
    /// Tensors: 100,000.
    pub tensors: usize,
    /// Dimensions of one tensor: 16 (a tensor of Gradus has at most 8).
    pub rank: usize,
    /// Keys in the metadata: 10,000.
    pub metadata_keys: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { header_bytes: 25_000_000, tensors: 100_000, rank: 16, metadata_keys: 10_000 }
    }
}

/// What the header says about one tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TensorInfo {
    /// The tensor's name, as in a `state_dict` of PyTorch.
    pub name: String,
    /// The type of its elements.
    pub dtype: StoredDType,
    /// Its dimensions, outermost first; row-major.
    pub shape: Vec<usize>,
    /// Its bytes, counted from the start of the file.
    pub range: Range<u64>,
}

/// A header that was read and found right.
#[derive(Debug)]
pub(crate) struct Header {
    /// The tensors in the order of their data.
    pub tensors: Vec<TensorInfo>,
    /// Their indices in the order of their names.
    by_name: Vec<u32>,
    pub metadata: BTreeMap<String, String>,
}

/// Fields of an entry that this version of the format does not know, and reads over.
const MAX_UNKNOWN_FIELDS: usize = 16;

/// A tensor's entry as it stands in the JSON.
struct Entry {
    name: String,
    at: u64,
    dtype: StoredDType,
    shape: Vec<usize>,
    offsets: (u64, u64),
}

impl Header {
    /// Reads and checks the header of a file of `file_bytes` bytes, and nothing beyond it.
    pub(crate) fn read(mut input: impl Read, file_bytes: u64, limits: &Limits) -> Result<Header, Cause> {
        let Some(after_prefix) = file_bytes.checked_sub(PREFIX) else {
            return Err(Cause::NoHeaderLength { file_bytes });
        };
        let mut prefix = [0; PREFIX as usize];
        input.read_exact(&mut prefix).map_err(Cause::io("read the header's length"))?;
        let claimed = u64::from_le_bytes(prefix);
        if claimed < 2 || claimed > after_prefix {
            return Err(Cause::HeaderLength { claimed, file_bytes });
        }
        if claimed > limits.header_bytes {
            return Err(Cause::HeaderLimit { header_bytes: claimed, limit: limits.header_bytes });
        }
        let (entries, metadata) = parse(input.take(claimed), limits)?;
        Header::check(entries, metadata, PREFIX + claimed, after_prefix - claimed)
    }

    /// The checks that need all entries: no name twice, and data that lie end to end, from the first byte to the last.
    fn check(
        mut entries: Vec<Entry>,
        metadata: BTreeMap<String, String>,
        data_at: u64,
        data_bytes: u64,
    ) -> Result<Header, Cause> {
        entries.sort_unstable_by(|a, b| a.name.cmp(&b.name).then(a.at.cmp(&b.at)));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(Cause::Duplicate { what: "tensor", key: pair[1].name.clone(), at: pair[1].at });
        }
        entries.sort_by_key(|e| e.offsets); // stable: tensors without data stay in the order of their names
        let mut expected = 0;
        for e in &entries {
            e.check_size()?;
            if e.offsets.0 != expected {
                return Err(Cause::Placement { name: e.name.clone(), at: e.at, offsets: e.offsets, expected });
            }
            expected = e.offsets.1;
        }
        if expected != data_bytes {
            return Err(Cause::DataLength { covered: expected, present: data_bytes });
        }
        // From here on every offset is at most `data_bytes`, so sums with `data_at` stay inside the file's length.
        let tensors: Vec<TensorInfo> = entries
            .into_iter()
            .map(|Entry { name, dtype, shape, offsets: (begin, end), .. }| TensorInfo {
                name,
                dtype,
                shape,
                range: data_at + begin..data_at + end,
            })
            .collect();
        let mut by_name: Vec<u32> = (0..tensors.len() as u32).collect();
        by_name.sort_unstable_by_key(|&i| tensors[i as usize].name.as_str());
        Ok(Header { tensors, by_name, metadata })
    }

    /// The tensor called `name`.
    pub(crate) fn find(&self, name: &str) -> Result<&TensorInfo, Cause> {
        let place = self.by_name.binary_search_by(|&i| self.tensors[i as usize].name.as_str().cmp(name));
        match place {
            Ok(place) => Ok(&self.tensors[self.by_name[place] as usize]),
            Err(_) => Err(Cause::NotFound { name: name.to_string(), similar: self.similar(name) }),
        }
    }

    /// The three names that share the longest beginning and end with `name`.
    fn similar(&self, name: &str) -> Vec<String> {
        let likeness = |other: &str| {
            let begin = name.bytes().zip(other.bytes()).take_while(|(a, b)| a == b).count();
            let end = name.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count();
            (begin + end).min(name.len())
        };
        let mut scored: Vec<(usize, &str)> =
            self.tensors.iter().map(|t| (likeness(&t.name), t.name.as_str())).collect();
        scored.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        scored.into_iter().filter(|(score, _)| *score > 0).take(3).map(|(_, n)| n.to_string()).collect()
    }
}

/// Reads the JSON, checking what can be checked entry by entry.
fn parse(input: impl Read, limits: &Limits) -> Result<(Vec<Entry>, BTreeMap<String, String>), Cause> {
    let mut json = Json::new(input, PREFIX);
    if !json.first_byte_is(b'{')? {
        return Err(json.unexpected("`{` as the header's first byte"));
    }
    let mut entries = Vec::new();
    let mut metadata = None;
    json.members(|json, name, at| {
        if name == METADATA {
            if metadata.is_some() {
                return Err(Cause::Duplicate { what: "field", key: name.clone(), at });
            }
            metadata = Some(parse_metadata(json, limits)?);
        } else if entries.len() == limits.tensors {
            return Err(Cause::TensorLimit { limit: limits.tensors });
        } else {
            entries.push(parse_entry(json, taken(name), at, limits)?);
        }
        Ok(())
    })?;
    json.expect_end()?;
    Ok((entries, metadata.unwrap_or_default()))
}

/// The text, in no more memory than it takes.
fn taken(text: &mut String) -> String {
    let mut text = std::mem::take(text);
    text.shrink_to_fit();
    text
}

fn parse_metadata<R: Read>(json: &mut Json<R>, limits: &Limits) -> Result<BTreeMap<String, String>, Cause> {
    let mut metadata = BTreeMap::new();
    json.expect(b'{', "an object of strings as `__metadata__`")?;
    json.members(|json, key, at| {
        let value = json.string("a string as metadata")?;
        if metadata.contains_key(key) {
            return Err(Cause::Duplicate { what: "metadata key", key: key.clone(), at });
        }
        if metadata.len() == limits.metadata_keys {
            return Err(Cause::MetadataLimit { limit: limits.metadata_keys });
        }
        metadata.insert(taken(key), value);
        Ok(())
    })?;
    Ok(metadata)
}

/// The entry of the tensor `name`, whose key began at byte `at`.
fn parse_entry<R: Read>(json: &mut Json<R>, name: String, at: u64, limits: &Limits) -> Result<Entry, Cause> {
    let (mut dtype, mut shape, mut offsets) = (None, None, None);
    let mut others: Vec<String> = Vec::new();
    let read = json.expect(b'{', "an object that describes the tensor").and_then(|()| {
        json.members(|json, key, key_at| {
            let again = match key.as_str() {
                "dtype" => dtype.replace(json.string("a dtype in quotes")?).is_some(),
                "shape" => shape.replace(parse_shape(json, &name, limits)?).is_some(),
                "data_offsets" => offsets.replace(parse_offsets(json)?).is_some(),
                // Fields of a later version of the format are read over, as the reference reader does.
                _ if others.len() == MAX_UNKNOWN_FIELDS => {
                    return Err(json.unexpected("at most 16 fields besides dtype, shape and data_offsets"));
                }
                _ => {
                    json.skip_value(0)?;
                    let again = others.contains(key);
                    others.push(key.clone());
                    again
                }
            };
            if again { Err(Cause::Duplicate { what: "field", key: key.clone(), at: key_at }) } else { Ok(()) }
        })
    });
    read.map_err(|cause| match cause {
        Cause::Syntax { at, expected, found, .. } => Cause::Syntax { name: Some(name.clone()), at, expected, found },
        other => other,
    })?;
    let missing = |field| Cause::MissingField { name: name.clone(), at, field };
    let dtype_name = dtype.ok_or_else(|| missing("dtype"))?;
    let shape = shape.ok_or_else(|| missing("shape"))?;
    let offsets = offsets.ok_or_else(|| missing("data_offsets"))?;
    match StoredDType::from_name(&dtype_name) {
        Some(dtype) => Ok(Entry { name, at, dtype, shape, offsets }),
        None => Err(Cause::UnknownDType { name, at, dtype: dtype_name }),
    }
}

fn parse_shape<R: Read>(json: &mut Json<R>, name: &str, limits: &Limits) -> Result<Vec<usize>, Cause> {
    const EXPECTED: &str = "a dimension, a whole number from 0 on";
    let mut shape = Vec::new();
    let at = json.position();
    json.elements("an array of dimensions", |json, i| {
        if i == limits.rank {
            return Err(Cause::RankLimit { name: name.to_string(), at, limit: limits.rank });
        }
        let dim = json.unsigned(EXPECTED)?;
        let too_large = || Cause::Syntax { name: None, at, expected: EXPECTED, found: dim.to_string() };
        shape.push(usize::try_from(dim).map_err(|_| too_large())?);
        Ok(())
    })?;
    shape.shrink_to_fit();
    Ok(shape)
}

fn parse_offsets<R: Read>(json: &mut Json<R>) -> Result<(u64, u64), Cause> {
    const EXPECTED: &str = "an array of two whole numbers, the tensor's first byte and the byte after its last";
    let mut offsets = [0; 2];
    let mut count = 0;
    let at = json.position();
    json.elements(EXPECTED, |json, i| {
        let n = json.unsigned(EXPECTED)?;
        count = i + 1;
        match offsets.get_mut(i) {
            Some(place) => *place = n,
            None => return Err(Cause::Syntax { name: None, at, expected: EXPECTED, found: "more than two".into() }),
        }
        Ok(())
    })?;
    if count != 2 {
        return Err(Cause::Syntax { name: None, at, expected: EXPECTED, found: format!("{count} of them") });
    }
    Ok((offsets[0], offsets[1]))
}

impl Entry {
    /// Type and shape must ask for exactly the bytes between the offsets.
    fn check_size(&self) -> Result<(), Cause> {
        let needed = self.dtype.bytes_of(&self.shape);
        if needed.is_some() && self.offsets.1.checked_sub(self.offsets.0) == needed {
            return Ok(());
        }
        let (name, shape) = (self.name.clone(), self.shape.clone());
        Err(Cause::Size { name, at: self.at, dtype: self.dtype, shape, needed, offsets: self.offsets })
    }
}

/// The length and the JSON of a header, padded with spaces so that the data begin at a multiple of 8.
///
/// `tensors` come in the order of their data, with the number of their bytes.
pub(crate) fn encode<'a>(
    tensors: impl Iterator<Item = (&'a str, StoredDType, &'a [usize], u64)>,
    metadata: &BTreeMap<String, String>,
) -> Vec<u8> {
    let mut text = String::from("{");
    if !metadata.is_empty() {
        let _ = write!(text, "\"{METADATA}\":{{");
        for (i, (key, value)) in metadata.iter().enumerate() {
            text.push_str(if i == 0 { "" } else { "," });
            quote(&mut text, key);
            text.push(':');
            quote(&mut text, value);
        }
        text.push('}');
    }
    let mut begin = 0;
    for (name, dtype, shape, bytes) in tensors {
        text.push_str(if text.len() == 1 { "" } else { "," });
        quote(&mut text, name);
        let _ = write!(text, ":{{\"dtype\":\"{dtype}\",\"shape\":[");
        for (i, d) in shape.iter().enumerate() {
            let _ = write!(text, "{}{d}", if i == 0 { "" } else { "," });
        }
        let end = begin + bytes;
        let _ = write!(text, "],\"data_offsets\":[{begin},{end}]}}");
        begin = end;
    }
    text.push('}');
    let padded = text.len().next_multiple_of(PREFIX as usize);
    let mut header = (padded as u64).to_le_bytes().to_vec();
    header.extend_from_slice(text.as_bytes());
    header.resize(PREFIX as usize + padded, b' ');
    header
}

/// Appends `value` as a JSON string.
fn quote(text: &mut String, value: &str) {
    text.push('"');
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\u{c}' => text.push_str("\\f"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\t' => text.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(text, "\\u{:04x}", c as u32);
            }
            c => text.push(c),
        }
    }
    text.push('"');
}
