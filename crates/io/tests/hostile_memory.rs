//! The most that a header may cost: built to fill every limit at once, it stays below 64 MiB. A process of its own,
//! because what is measured is the memory of the process.
#![cfg(target_os = "linux")]

use gradus_io::SafeTensors;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

/// The largest memory this process ever had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Writes a file of `count` entries, made by `entry`, in a header of at most `most` bytes, without holding it in memory.
fn write_header(path: &std::path::Path, most: u64, count: usize, mut entry: impl FnMut(&mut String, usize)) {
    let mut file = std::io::BufWriter::new(fs::File::create(path).unwrap());
    file.write_all(&most.to_le_bytes()).unwrap();
    let (mut written, mut text) = (0, String::from("{"));
    for i in 0..count {
        entry(&mut text, i);
        text.push(if i + 1 == count { '}' } else { ',' });
        file.write_all(text.as_bytes()).unwrap();
        written += text.len() as u64;
        text.clear();
    }
    assert!(written <= most, "{written} bytes of header");
    for _ in written..most {
        file.write_all(b" ").unwrap();
    }
    file.flush().unwrap();
}

#[test]
fn the_costliest_headers_stay_below_64_mib() {
    let path = std::env::temp_dir().join(format!("gradus-io-hostile-{}.safetensors", std::process::id()));
    let before = peak();

    // As many tensors, of as many dimensions, with names as long as the limits let through.
    let info = format!("\"dtype\":\"F32\",\"shape\":[{}0],\"data_offsets\":[0,0]", "1,".repeat(15));
    write_header(&path, 25_000_000, 100_000, |text, i| write!(text, "\"{i:0>154}\":{{{info}}}").unwrap());
    assert_eq!(SafeTensors::open(&path).unwrap().names().len(), 100_000);
    let tensors = peak() - before;

    // The same, and wrong at the end, so that the whole header is read and refused.
    let last = |i| if i == 99_999 { 99_998 } else { i };
    write_header(&path, 25_000_000, 100_000, |text, i| write!(text, "\"{:0>154}\":{{{info}}}", last(i)).unwrap());
    assert!(SafeTensors::open(&path).unwrap_err().to_string().contains("appears twice"));
    let duplicate = peak() - before;

    // One string of metadata that fills the header.
    write_header(&path, 25_000_000, 1, |text, _| {
        write!(text, "\"__metadata__\":{{\"k\":\"{}\"}}", "v".repeat(24_999_970)).unwrap();
    });
    assert_eq!(SafeTensors::open(&path).unwrap().metadata().len(), 1);
    fs::remove_file(&path).unwrap();

    println!("tensors {tensors}, duplicate {duplicate} bytes");
    assert!(duplicate < 64 << 20, "reading a header took {duplicate} bytes");
}
