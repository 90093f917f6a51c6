//! A corpus of malformed and hostile files, and what is to be said about them. See `malformed/README.md` for its origin.

use gradus_io::{Access, Cause, Limits, SafeTensors, SafetensorsError};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/malformed")
}

/// A file's bytes out of a header and data; the header is padded to a multiple of 8.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let padded = header.len().next_multiple_of(8);
    let mut bytes = (padded as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(8 + padded, b' ');
    bytes.extend_from_slice(data);
    bytes
}

fn refusal(header: &str, data: &[u8]) -> SafetensorsError {
    match SafeTensors::from_bytes(file(header, data)) {
        Err(error) => error,
        Ok(_) => panic!("{header} was read"),
    }
}

#[test]
fn the_corpus_is_read_or_refused_as_it_must_be() {
    let table = fs::read_to_string(corpus().join("cases.tsv")).unwrap();
    let mut cases = 0;
    for line in table.lines().skip(1) {
        let [name, expect, reference, why] = line.split('\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        // Where the format leaves it open, we do as its reference reader does.
        let accept = if expect == "either" { reference == "accept" } else { expect == "accept" };
        let path = corpus().join(name);
        for access in [Access::Read, Access::Mapped] {
            match SafeTensors::open_with(&path, access, &Limits::default()) {
                Ok(file) => {
                    assert!(accept, "{name} was read: {why}");
                    file.names().for_each(|n| drop(file.bytes(n).unwrap()));
                }
                Err(e) => {
                    assert!(!accept, "{name} was refused: {e}");
                    assert!(e.to_string().contains(name), "the message names no file: {e}");
                    assert_eq!(e.file(), Some(path.as_path()));
                }
            }
        }
        let bytes = fs::read(&path).unwrap();
        assert_eq!(SafeTensors::from_bytes(bytes).is_ok(), accept, "{name} in memory: {why}");
        cases += 1;
    }
    assert_eq!(cases, 71);
}

#[test]
fn mutations_are_read_exactly_if_the_reference_reader_reads_them() {
    let all = fs::read(corpus().join("mutations.bin")).unwrap();
    let (mut rest, mut cases) = (&all[..], 0);
    while let [verdict, a, b, c, d, tail @ ..] = rest {
        let (bytes, after) = tail.split_at(u32::from_le_bytes([*a, *b, *c, *d]) as usize);
        let result = SafeTensors::from_bytes(bytes.to_vec());
        assert_eq!(result.is_ok(), *verdict == 1, "mutation {cases}: {result:?}");
        rest = after;
        cases += 1;
    }
    assert_eq!(cases, 500);
}

#[test]
fn large_cases() {
    let entry = |shape: &str, end: u64| format!("{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[0,{end}]}}");
    let long_name = format!("{{\"{}\":{}}}", "n".repeat(100_000), entry("[2,2]", 16));
    assert_eq!(SafeTensors::from_bytes(file(&long_name, &[0; 16])).unwrap().names().len(), 1);
    let metadata = format!("{{\"__metadata__\":{{\"k\":\"{}\"}}}}", "v".repeat(4_000_000));
    assert_eq!(SafeTensors::from_bytes(file(&metadata, &[])).unwrap().metadata()["k"].len(), 4_000_000);

    let many = |count: usize, shape: &str, end: u64| {
        let mut header = String::from("{");
        (0..count).for_each(|i| write!(header, "\"w{i}\":{},", entry(shape, end)).unwrap());
        header.pop();
        header + "}"
    };
    assert_eq!(SafeTensors::from_bytes(file(&many(50_000, "[0]", 0), &[])).unwrap().names().len(), 50_000);
    assert!(matches!(refusal(&many(50_000, "[2,2]", 16), &[0; 16]).cause(), Cause::Placement { expected: 16, .. }));
    let error = refusal(&many(100_001, "[0]", 0), &[]);
    assert!(
        matches!(error.cause(), Cause::TensorLimit { limit: 100_000 }) && error.to_string().contains("Limits::tensors")
    );
    let million = many(1_000_000, "[0]", 0);
    assert!(matches!(refusal(&million, &[]).cause(), Cause::HeaderLimit { limit: 25_000_000, .. }));
    let higher = Limits { header_bytes: 100_000_000, tensors: 1_000_000, ..Limits::default() };
    assert_eq!(SafeTensors::from_bytes_with(file(&million, &[]), &higher).unwrap().names().len(), 1_000_000);

    let deep = format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000));
    assert!(matches!(refusal(&deep, &[]).cause(), Cause::Syntax { .. }));
    let deep = format!("{{\"w\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(refusal(&deep, &[]).cause(), Cause::Syntax { .. }));
    let rank = format!("{{\"w\":{}}}", entry(&format!("[{}4]", "1,".repeat(10_000)), 16));
    assert!(matches!(refusal(&rank, &[0; 16]).cause(), Cause::RankLimit { at: 36, limit: 16, .. }));
}

#[test]
fn each_cause_is_told_with_its_place_and_values() {
    let two = |b: &str| format!(r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},{b}}}"#);
    let cases: [(&str, &[u8], &str); 14] = [
        (
            r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,5]}}"#,
            &[0; 5],
            "tensor \"a\" (byte 9): U8 of shape [4] needs 4 bytes, but data_offsets are [0, 5]",
        ),
        (
            &two(r#""b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]}"#),
            &[0; 5],
            "tensor \"b\" (byte 61) has data_offsets [3, 5]; they must begin at 4",
        ),
        (
            &two(r#""a":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}"#),
            &[0; 6],
            "tensor \"a\" appears twice, again at byte 61",
        ),
        (&two(r#""\u0061":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}"#), &[0; 6], "tensor \"a\" appears twice"),
        (
            r#"{"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}"#,
            &[0; 1],
            "field \"shape\" appears twice, again at byte 39",
        ),
        (r#"{"a":{"dtype":"U8","x":1,"x":2,"shape":[1],"data_offsets":[0,1]}}"#, &[0; 1], "field \"x\" appears twice"),
        (r#"{"__metadata__":{"k":"1","k":"1"}}"#, &[], "metadata key \"k\" appears twice, again at byte 33"),
        (r#"{"__metadata__":{},"__metadata__":{}}"#, &[], "field \"__metadata__\" appears twice"),
        (
            r#"{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}"#,
            &[0; 1],
            "tensor \"a\": expected a dimension, a whole number from 0 on at byte 36, found -1",
        ),
        (r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, &[0; 1], "ends inside a byte"),
        (
            r#"{"a":{"dtype":"U9","shape":[1],"data_offsets":[0,1]}}"#,
            &[0; 1],
            "tensor \"a\" (byte 9) has the unknown dtype \"U9\"",
        ),
        (r#"{"a":{"dtype":"U8","data_offsets":[0,1]}}"#, &[0; 1], "tensor \"a\" (byte 9) has no `shape`"),
        (
            r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
            &[0; 2],
            "the tensors cover 1 bytes of data, but the file has 2",
        ),
        ("{\"a\nb\":1}", &[], "found byte 0x0a"),
    ];
    for (header, data, message) in cases {
        let error = refusal(header, data).to_string();
        assert!(error.contains(message), "{header}\n  gives    {error}\n  expected {message}");
    }
}

#[test]
fn names_out_of_a_file_are_shown_escaped_and_cut() {
    let header = format!(r#"{{"\u001b[31m{}":0}}"#, "x".repeat(5000));
    let error = refusal(&header, &[]).to_string();
    assert!(error.contains("\\u{1b}[31mxxx") && error.len() < 400 && !error.contains('\u{1b}'), "{error}");
}

#[test]
fn what_is_no_regular_file_is_refused_without_being_opened() {
    let dir = corpus();
    for path in [dir.as_path(), Path::new("/dev/zero")] {
        if path.exists() {
            assert!(matches!(SafeTensors::open(path).unwrap_err().cause(), Cause::NotAFile), "{path:?}");
        }
    }
    let error = SafeTensors::open(dir.join("absent")).unwrap_err();
    assert!(matches!(error.cause(), Cause::Io { doing: "open the file", .. }), "{error}");
}

#[test]
fn a_name_that_is_not_there_is_answered_with_similar_ones() {
    let entry = r#"{"dtype":"U8","shape":[0],"data_offsets":[0,0]}"#;
    let header = format!(r#"{{"layers.0.weight":{entry},"layers.0.bias":{entry},"head.weight":{entry},"z":{entry}}}"#);
    let file = SafeTensors::from_bytes(file(&header, &[])).unwrap();
    let error = file.bytes("layers.0.weigth").unwrap_err();
    let Cause::NotFound { similar, .. } = error.cause() else { panic!("{error}") };
    assert_eq!(similar[0], "layers.0.weight");
    assert!(error.to_string().contains("\"layers.0.weight\""), "{error}");
}
