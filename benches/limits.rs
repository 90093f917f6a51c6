//! What the machine can do at most, and the share of it that each bench reached: a table after the benches.
//!
//! A bench whose throughput is in elements counts floating-point operations, and is set beside a loop of multiply-adds that touches
//! no memory; one whose throughput is in bytes, those that it must read and write, is set beside a copy of as many bytes, which
//! lies in the caches or in memory as they do. Both limits are measured on all threads, from the best of several times. Work
//! that reads much and writes little may still beat a copy, and Winograd's convolutions the multiply-adds of the definition.
//! Those of a GPU are measured there (`devices.rs`), with its own launches: in `f32` without tensor cores, which do more.

use serde_json::Value;
use std::collections::HashMap;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Instant, SystemTime};

/// Independent sums, so that a multiply-add need not wait for the one before: latency 4, two at a time, and some to spare.
const SUMS: usize = 12;

/// For CPUs that the two below are not for: what the compiler makes of it, at most what it may use anywhere.
fn portable(times: usize) {
    let (mut sums, by, plus) = ([[1.0f32; 4]; SUMS], black_box(0.999f32), black_box(0.001f32));
    for _ in 0..times {
        sums = sums.map(|sum| sum.map(|x| x * by + plus));
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn of_avx2(times: usize) {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    let (by, plus) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
    let mut sums = [_mm256_set1_ps(1.0); SUMS];
    for _ in 0..times {
        // A loop: in a closure of `map` these would be calls.
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, by, plus);
        }
    }
    black_box(sums);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn of_avx512(times: usize) {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let (by, plus) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
    let mut sums = [_mm512_set1_ps(1.0); SUMS];
    for _ in 0..times {
        // A loop: in a closure of `map` these would be calls.
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, by, plus);
        }
    }
    black_box(sums);
}

/// Runs `times` rounds of multiply-adds; how many floating-point operations those were.
fn compute(times: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has AVX-512.
            unsafe { of_avx512(times) };
            return times * SUMS * 16 * 2;
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has AVX2 and FMA.
            unsafe { of_avx2(times) };
            return times * SUMS * 8 * 2;
        }
    }
    portable(times);
    times * SUMS * 4 * 2
}

/// What `work` says it did, of all threads in a second: the best of five times. Each thread works on something of its own.
fn rate<T>(make: impl Fn() -> T + Sync, work: impl Fn(&mut T) -> usize + Sync) -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let barrier = Barrier::new(threads);
    let one = || {
        let (mut mine, mut best) = (make(), 0.0f64);
        for _ in 0..5 {
            barrier.wait();
            let start = Instant::now();
            let done = work(&mut mine);
            barrier.wait(); // the slowest thread's time counts
            best = best.max(done as f64 / start.elapsed().as_secs_f64());
        }
        best
    };
    std::thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        all.into_iter().map(|thread| thread.join().expect("a thread that measures")).sum()
    })
}

/// Bytes a second, read and written, of all threads that together copy so many again and again.
fn copy(bytes: usize) -> f64 {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let len = (bytes / 2 / threads).max(64);
    let times = (32usize << 20).div_ceil(len);
    rate(
        || (vec![1u8; len], vec![2u8; len]),
        |(from, to)| {
            for _ in 0..times {
                black_box(&mut *to).copy_from_slice(black_box(&*from));
            }
            2 * len * times
        },
    )
}

/// Criterion's files of one bench that ran since `start`: its name, seconds, floating-point operations and bytes.
fn result(folder: &Path, start: SystemTime) -> Option<(String, f64, f64, f64)> {
    let read = |name: &str| -> Option<Value> {
        let file = folder.join(name);
        let fresh = file.metadata().ok()?.modified().ok()? >= start;
        serde_json::from_slice(&std::fs::read(file).ok()?).ok().filter(|_| fresh)
    };
    let (about, estimates) = (read("benchmark.json")?, read("estimates.json")?);
    let work = |kind: &str| about["throughput"][kind].as_f64().unwrap_or(0.0);
    let seconds = estimates["median"]["point_estimate"].as_f64()? * 1e-9;
    Some((about["full_id"].as_str()?.to_owned(), seconds, work("Elements"), work("Bytes")))
}

/// All folders called `new` below this one, in which criterion leaves the newest results.
fn newest(folder: PathBuf, found: &mut Vec<PathBuf>) {
    let inside = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in inside.filter(|path| path.is_dir()) {
        if path.ends_with("new") { found.push(path) } else { newest(path, found) }
    }
}

/// What a device can do.
pub struct Limits {
    /// Floating-point operations in a second.
    pub flops: f64,
    /// Bytes in a second, read and written, of a copy that reads and writes so many.
    pub copy: Box<dyn Fn(f64) -> f64>,
}

/// What the CPU can do.
fn of_cpu() -> Limits {
    Limits { flops: rate(|| (), |()| compute(4_000_000)), copy: Box::new(|bytes| copy(bytes as usize)) }
}

/// Prints the shares of the benches that ran since `start`. Those of GPUs have names that begin as `gpus`, which measures what these can
/// do, says.
pub fn print_shares(start: SystemTime, gpus: impl FnOnce() -> Vec<(String, Limits)>) {
    // Where criterion leaves its files.
    let home = std::env::var_os("CRITERION_HOME").map(PathBuf::from);
    let workspace = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(workspace, PathBuf::from);
    let mut folders = Vec::new();
    newest(home.unwrap_or_else(|| target.join("criterion")), &mut folders);
    let mut results: Vec<_> = folders.iter().filter_map(|folder| result(folder, start)).collect();
    results.retain(|(_, _, flops, bytes)| flops + bytes > 0.0);
    results.sort_by(|a, b| a.0.cmp(&b.0));
    let (of_gpus, of_cpus): (Vec<_>, Vec<_>) = results.into_iter().partition(|(name, ..)| name.starts_with("gpu "));
    if !of_cpus.is_empty() {
        print_table("here", &of_cpu(), &of_cpus);
    }
    if !of_gpus.is_empty() {
        for (prefix, limits) in gpus() {
            let own: Vec<_> = of_gpus.iter().filter(|(name, ..)| name.starts_with(&prefix)).cloned().collect();
            print_table(&format!("of {}", prefix.trim_end_matches('/')), &limits, &own);
        }
    }
}

fn print_table(of: &str, limits: &Limits, results: &[(String, f64, f64, f64)]) {
    let mut copies = HashMap::new();
    let mut copy_of = |bytes: f64| *copies.entry(bytes as usize).or_insert_with(|| (limits.copy)(bytes));
    let of_memory = copy_of(f64::from(1 << 28));
    println!("limits {of}: {:.0} GFLOP/s, copy of memory {:.1} GB/s", limits.flops * 1e-9, of_memory * 1e-9);
    println!("{:<64} {:>10} {:>9} {:>8} {:>7}", "bench", "µs", "GFLOP/s", "GB/s", "share");
    for (name, seconds, of_flops, of_bytes) in results {
        let (gflops, gb) = (of_flops / seconds * 1e-9, of_bytes / seconds * 1e-9);
        let of_copy = if *of_bytes > 0.0 { of_bytes / seconds / copy_of(*of_bytes) } else { 0.0 };
        let share = 100.0 * (of_flops / seconds / limits.flops).max(of_copy);
        println!("{name:<64} {:>10.2} {gflops:>9.1} {gb:>8.1} {share:>6.0}%", seconds * 1e6);
    }
}
