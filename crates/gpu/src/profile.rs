//! Where a device's time goes: the launches of a piece of work, each waited for, by the line of this crate that made them.
//!
//! Queued work has no time of its own that the host could see, so while a profile is taken every launch is waited for. The sum
//! is longer than the work takes unwatched; the shares are what to read.

use std::collections::HashMap;
use std::fmt;
use std::panic::Location;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The launches of one line.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The file and line of this crate that launch the kernel.
    pub place: &'static Location<'static>,
    /// How many launches.
    pub count: usize,
    /// What they took, with the host's work since the launch before.
    pub time: Duration,
}

/// The launches of a piece of work, the longest first. Shown as a table.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// A row for each line that launched something.
    pub rows: Vec<Row>,
}

impl Profile {
    /// All launches.
    pub fn launches(&self) -> usize {
        self.rows.iter().map(|r| r.count).sum()
    }
    /// What all launches took.
    pub fn time(&self) -> Duration {
        self.rows.iter().map(|r| r.time).sum()
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.time().as_secs_f64().max(1e-9);
        writeln!(f, "{} launches, {:.1} ms", self.launches(), 1e3 * total)?;
        for row in &self.rows {
            let (ms, file) = (1e3 * row.time.as_secs_f64(), row.place.file().rsplit("src/").next().unwrap_or_default());
            writeln!(f, "{:5.1} %{ms:10.2} ms{:7}  {file}:{}", 0.1 * ms / total, row.count, row.place.line())?;
        }
        Ok(())
    }
}

/// What is counted while a profile is taken.
struct Counting {
    rows: HashMap<&'static Location<'static>, (usize, Duration)>,
    // Read when a launch is noted: there are none without a runtime.
    #[cfg_attr(not(any(feature = "wgpu", feature = "cuda")), allow(dead_code))]
    since: Instant,
}

static TAKEN: AtomicBool = AtomicBool::new(false);
static COUNTING: Mutex<Option<Counting>> = Mutex::new(None);
static ONE: Mutex<()> = Mutex::new(());

/// Runs `work`, waiting for every launch on any GPU, and tells where the time went. One profile is taken at a time.
///
/// Updates of parameters are launched when something else is asked of the device: end the work with
/// [`Device::synchronize`](gradus_core::Device::synchronize) to have the last ones in the profile.
pub fn profile<T>(work: impl FnOnce() -> T) -> (T, Profile) {
    let _one = ONE.lock().unwrap_or_else(|e| e.into_inner());
    let counting = || COUNTING.lock().unwrap_or_else(|e| e.into_inner());
    *counting() = Some(Counting { rows: HashMap::new(), since: Instant::now() });
    TAKEN.store(true, Ordering::Relaxed);
    let done = work();
    TAKEN.store(false, Ordering::Relaxed);
    let rows = counting().take().map(|c| c.rows).unwrap_or_default();
    let mut rows: Vec<Row> = rows.into_iter().map(|(place, (count, time))| Row { place, count, time }).collect();
    rows.sort_by_key(|r| (std::cmp::Reverse(r.time), r.place.file(), r.place.line()));
    (done, Profile { rows })
}

/// Whether launches are to be waited for and noted.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) fn is_taken() -> bool {
    TAKEN.load(Ordering::Relaxed)
}

/// Notes a launch that was waited for.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub(crate) fn note(place: &'static Location<'static>) {
    if let Some(counting) = COUNTING.lock().unwrap_or_else(|e| e.into_inner()).as_mut() {
        let row = counting.rows.entry(place).or_default();
        row.0 += 1;
        row.1 += counting.since.elapsed();
        counting.since = Instant::now();
    }
}
