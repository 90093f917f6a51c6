//! Properties of reading and writing, on random files; and random damage, which must never panic.

mod random;

use gradus_io::{Access, Limits, RawTensor, SafeTensors, StoredDType, raw_to_bytes, save_raw};
use random::Random;
use std::collections::{BTreeMap, BTreeSet};

/// A tensor with its own memory.
#[derive(Clone, PartialEq, Debug)]
struct Owned {
    name: String,
    dtype: StoredDType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Owned {
    fn raw(&self) -> RawTensor<'_> {
        RawTensor { name: &self.name, dtype: self.dtype, shape: &self.shape, bytes: &self.bytes }
    }
}

type Metadata = BTreeMap<String, String>;

fn text(r: &mut Random, longest: usize) -> String {
    const CHARS: [char; 20] = [
        'a', 'Z', '0', '.', '_', '/', ' ', '"', '\\', '\n', '\0', '\u{1f}', '\u{7f}', 'é', '層', '😀', '\u{2028}', '{',
        ':', '\u{feff}',
    ];
    (0..r.below(longest + 1)).map(|_| *r.pick(&CHARS)).collect()
}

fn random_file(r: &mut Random) -> (Vec<Owned>, Metadata) {
    let names: BTreeSet<String> = (0..r.below(8)).map(|_| text(r, 12)).collect();
    let mut tensors = Vec::new();
    for name in names {
        let dtype = *r.pick(StoredDType::ALL);
        let mut shape: Vec<usize> = (0..r.below(5)).map(|_| r.below(5)).collect();
        if !dtype.bits().is_multiple_of(8) {
            shape.push(4); // 4-bit and 6-bit elements fill whole bytes
        }
        let bytes = r.bytes(dtype.bytes_of(&shape).unwrap() as usize);
        tensors.push(Owned { name, dtype, shape, bytes });
    }
    let metadata = (0..r.below(4)).map(|_| (text(r, 8), text(r, 30))).collect();
    (tensors, metadata)
}

fn write(tensors: &[Owned], metadata: &Metadata) -> Vec<u8> {
    raw_to_bytes(&tensors.iter().map(Owned::raw).collect::<Vec<_>>(), metadata).unwrap()
}

/// Everything in an open file, by name.
fn content(file: &SafeTensors) -> Vec<Owned> {
    let mut tensors: Vec<Owned> = file
        .infos()
        .iter()
        .map(|info| Owned {
            name: info.name.clone(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            bytes: file.bytes(&info.name).unwrap().into_owned(),
        })
        .collect();
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}

#[test]
fn what_is_written_is_read_and_the_same_content_gives_the_same_bytes() {
    let mut r = Random::for_test("round trip");
    let dir = tempdir("round-trip");
    for round in 0..400 {
        let (tensors, metadata) = random_file(&mut r);
        let bytes = write(&tensors, &metadata);
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert_eq!(header % 8, 0, "the data are aligned");

        let file = SafeTensors::from_bytes(bytes.clone()).unwrap();
        assert_eq!(content(&file), tensors);
        assert_eq!(file.metadata(), &metadata);

        let mut shuffled = tensors.clone();
        for i in (1..shuffled.len()).rev() {
            shuffled.swap(i, r.below(i + 1));
        }
        assert_eq!(write(&shuffled, &metadata), bytes, "round {round}: the order handed over shows in the file");

        if round % 10 == 0 {
            let path = dir.join("file.safetensors");
            save_raw(&path, &tensors.iter().map(Owned::raw).collect::<Vec<_>>(), &metadata).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
            for access in [Access::Read, Access::Mapped] {
                let file = SafeTensors::open_with(&path, access, &Limits::default()).unwrap();
                assert_eq!(content(&file), tensors, "{access:?}");
            }
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn every_truncation_is_refused() {
    let mut r = Random::for_test("truncation");
    for _ in 0..20 {
        let (tensors, metadata) = random_file(&mut r);
        let bytes = write(&tensors, &metadata);
        for end in 0..bytes.len() {
            assert!(
                SafeTensors::from_bytes(bytes[..end].to_vec()).is_err(),
                "{end} of {} bytes were read",
                bytes.len()
            );
        }
    }
}

/// A few random changes of the kinds that happen to files, and of the kinds that attackers try.
fn damage(r: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..*r.pick(&[1, 1, 2, 4, 16]) {
        let at = r.below(bytes.len());
        match r.below(6) {
            0 | 1 => bytes[at] ^= 1 << r.below(8),
            2 => bytes[at] = *r.pick(b"{}[]\",:0123456789-eE.\\ \0\xff"),
            3 => drop(bytes.drain(at..(at + 1 + r.below(8)).min(bytes.len()))),
            4 => {
                let new: Vec<u8> = (0..1 + r.below(8)).map(|_| r.bits() as u8).collect();
                bytes.splice(at..at, new);
            }
            _ => {
                let copied = bytes[at..(at + 1 + r.below(40)).min(bytes.len())].to_vec();
                bytes.splice(at..at, copied);
            }
        }
        if bytes.is_empty() {
            bytes.push(0);
        }
    }
    // Half of the time the length is put right, so that damage reaches what lies behind that first check.
    if r.below(2) == 0 && bytes.len() > 8 {
        let end = bytes.iter().rposition(|&b| b == b'}').unwrap_or(bytes.len() - 1);
        let length = (end + 1).saturating_sub(8) as u64;
        bytes[..8].copy_from_slice(&length.to_le_bytes());
    }
}

#[test]
fn twenty_thousand_damaged_files_never_panic_and_what_is_read_is_sound() {
    let mut r = Random::for_test("damage");
    let (mut read, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let (tensors, metadata) = random_file(&mut r);
        let mut bytes = write(&tensors, &metadata);
        damage(&mut r, &mut bytes);
        let Ok(file) = SafeTensors::from_bytes(bytes.clone()) else {
            refused += 1;
            continue;
        };
        read += 1;
        let mut next = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap());
        for info in file.infos() {
            assert_eq!(info.range.start, next, "the data lie end to end");
            assert_eq!(info.dtype.bytes_of(&info.shape), Some(info.range.end - info.range.start));
            assert_eq!(file.bytes(&info.name).unwrap(), &bytes[info.range.start as usize..info.range.end as usize]);
            next = info.range.end;
        }
        assert_eq!(next, bytes.len() as u64, "nothing is left over");
        let again = write(&content(&file), file.metadata());
        let again = SafeTensors::from_bytes(again).unwrap();
        assert_eq!((content(&again), again.metadata()), (content(&file), file.metadata()));
    }
    println!("{read} read, {refused} refused");
    assert!(read > 500 && refused > 5000, "the damage is one-sided: {read} read, {refused} refused");
}

/// A fresh directory for this process and test.
fn tempdir(name: &str) -> std::path::PathBuf {
    let dir = std::env::temp_dir().join(format!("gradus-io-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// `reference.safetensors` was written by the format's reference writer (Python's safetensors 0.8): 17 element types in
/// three shapes each, a name that needs escapes, and metadata.
#[test]
fn the_reference_writers_file_is_read_and_written_again_byte_for_byte() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference.safetensors");
    let file = SafeTensors::open(&path).unwrap();
    assert_eq!(file.names().len(), 52);
    assert_eq!(file.metadata()["format"], "pt");
    assert_eq!(&file.bytes("\"quoted\"\\ \n\t\u{1} 层😀").unwrap()[..], [1, 2, 3]);
    let written = write(&content(&file), file.metadata());
    assert!(written == std::fs::read(&path).unwrap(), "our file differs from the reference writer's");
}
