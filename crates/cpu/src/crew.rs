//! The crew: threads that wait for a kernel's chunks, spinning for a moment and then asleep.
//!
//! A training step is a chain of kernels of 10 to 100 µs with a few µs between them. Handing each to a general thread pool
//! costs as much as it gains: waking a sleeping thread takes tens of µs. Here a thread that just worked looks out for the next
//! job for a moment before it sleeps, the caller works along and never waits for a thread to wake, and who finds the crew at
//! work for somebody else (two trainings in one process, a chunk that shares out work of its own) works alone.
//!
//! Each takes the chunks of a range of its own first, the same one for the same number of chunks, so that what a kernel leaves in
//! a core's cache is found there by the next: a weight's rows, their gradient and their moments. Whoever is done early takes from
//! the end of another's range; so one that comes late, or never, costs nothing.

use crate::processor;
use std::any::Any;
use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long a thread without work looks out for more before it sleeps.
const LOOKOUT: Duration = Duration::from_micros(60);
/// More threads than this never help one kernel.
const MOST: usize = 255;

/// A kernel to be run on a number of chunks.
struct Job {
    run: *const (dyn Fn(usize) + Sync),
    /// How many may take part, the caller among them.
    hands: usize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The chunks that somebody has still to run, on a cache line of its own: the first in the low half, the end in the high one.
#[repr(align(128))]
struct Range(AtomicU64);

impl Range {
    const fn empty() -> Range {
        Range(AtomicU64::new(0))
    }

    /// Hand `hand`'s part of all chunks; nobody may be at work meanwhile.
    fn deal(&self, chunks: u32, hands: usize, hand: usize) {
        let at = |hand: usize| chunks as u64 * hand as u64 / hands as u64;
        self.0.store(at(hand) | at(hand + 1) << 32, Ordering::Relaxed);
    }

    /// Takes a chunk: the first for whose range it is, the last for others.
    fn take(&self, first: bool) -> Option<usize> {
        let mut chunk = 0;
        let take = |range: u64| {
            let (start, end) = (range & 0xffff_ffff, range >> 32);
            chunk = if first { start } else { end.wrapping_sub(1) };
            (start < end).then(|| if first { range + 1 } else { start | (end - 1) << 32 })
        };
        // What a chunk reads and writes is handed over by the door, not by this word.
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok().then_some(chunk as usize)
    }
}

struct Member {
    thread: OnceLock<Thread>,
    asleep: AtomicBool,
}

/// The door of the current job, in one word: how many members are inside (bits 0 to 15), whether it is open (bit 16), how many
/// may enter (bits 17 to 31), and the job's number (the rest).
struct Crew {
    door: AtomicU64,
    /// Held by the thread whose job it is.
    taken: AtomicBool,
    /// Where that thread runs: the members are to run elsewhere.
    processor: AtomicUsize,
    job: UnsafeCell<Job>,
    /// The chunks of the job's caller, then of each member.
    ranges: [Range; MOST + 1],
    members: [Member; MOST],
    /// How many members there are.
    hired: Mutex<usize>,
}

const OPEN: u64 = 1 << 16;
const fn inside(door: u64) -> u64 {
    door & 0xffff
}
const fn wanted(door: u64) -> usize {
    (door >> 17 & 0x7fff) as usize
}
const fn number(door: u64) -> u64 {
    door >> 32
}

// SAFETY: `job` is written by the holder of `taken` while the door is shut and nobody is inside, and read by those inside.
unsafe impl Sync for Crew {}

fn nothing(_: usize) {}

static CREW: Crew = Crew {
    door: AtomicU64::new(0),
    taken: AtomicBool::new(false),
    processor: AtomicUsize::new(usize::MAX),
    job: UnsafeCell::new(Job { run: &(nothing as fn(usize)), hands: 0, panic: Mutex::new(None) }),
    ranges: [const { Range::empty() }; MOST + 1],
    members: [const { Member { thread: OnceLock::new(), asleep: AtomicBool::new(false) } }; MOST],
    hired: Mutex::new(0),
};

impl Job {
    /// Runs chunks until none is left.
    fn work(&self, hand: usize) {
        // SAFETY: the closure outlives the job: `share` waits for everybody before it returns.
        work(&CREW.ranges[..self.hands], hand, unsafe { &*self.run });
    }
}

/// Runs the chunks of range `hand`, then what is left of the others'.
fn work(ranges: &[Range], hand: usize, run: &dyn Fn(usize)) {
    while let Some(chunk) = ranges[hand].take(true) {
        run(chunk);
    }
    for other in (1..ranges.len()).map(|i| &ranges[(hand + i) % ranges.len()]) {
        while let Some(chunk) = other.take(false) {
            run(chunk);
        }
    }
}

impl Crew {
    /// A member's life.
    fn serve(&'static self, place: usize) {
        let _ = self.members[place].thread.set(std::thread::current());
        let mut seen = 0;
        let mut idle_since = Instant::now();
        loop {
            let door = self.door.load(Ordering::Acquire);
            if number(door) != seen {
                seen = number(door);
                if place >= wanted(door) {
                    continue;
                }
                // Before it goes in: on the way to another processor it must keep nobody waiting.
                let apart = self.stand_apart();
                let enters = self.enter(seen);
                if enters {
                    // SAFETY: inside, the job does not change.
                    let job = unsafe { &*self.job.get() };
                    if let Err(p) = catch_unwind(AssertUnwindSafe(|| job.work(place + 1))) {
                        job.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(p);
                    }
                    self.door.fetch_sub(1, Ordering::Release);
                }
                // Also when it came too late: where jobs go by, the next is near. Else a thread that was put aside for a while
                // would sleep as soon as it runs again, and be late for the next as well.
                if enters || apart {
                    idle_since = Instant::now();
                }
                continue;
            }
            (0..32).for_each(|_| std::hint::spin_loop());
            if idle_since.elapsed() > LOOKOUT {
                self.sleep(place, seen);
                idle_since = Instant::now();
            }
        }
    }

    /// Moves off the caller's processor; whether this thread runs on another now.
    fn stand_apart(&self) -> bool {
        let caller = self.processor.load(Ordering::Relaxed);
        if processor::current() == Some(caller) {
            processor::leave(caller);
        }
        processor::current() != Some(caller)
    }

    /// Goes through the door of job `number` if it is still open.
    fn enter(&self, job: u64) -> bool {
        let enters = |d: u64| (number(d) == job && d & OPEN != 0).then_some(d + 1);
        self.door.fetch_update(Ordering::Acquire, Ordering::Relaxed, enters).is_ok()
    }

    /// Sleeps until a job that wants this member comes.
    fn sleep(&self, place: usize, seen: u64) {
        let asleep = &self.members[place].asleep;
        // Either `open` sees this flag, or this thread sees the new number: both are sequentially consistent.
        asleep.store(true, Ordering::SeqCst);
        while asleep.load(Ordering::SeqCst) {
            let door = self.door.load(Ordering::SeqCst);
            if number(door) != seen && place < wanted(door) {
                asleep.store(false, Ordering::SeqCst);
                return;
            }
            std::thread::park();
        }
    }

    /// Opens the door for a new job, and wakes whom it wants.
    fn open(&self, helpers: usize) {
        let number = number(self.door.load(Ordering::Relaxed)).wrapping_add(1) & 0xffff_ffff;
        self.door.store(number << 32 | (helpers as u64) << 17 | OPEN, Ordering::SeqCst);
        for member in &self.members[..helpers] {
            if member.asleep.load(Ordering::SeqCst)
                && member.asleep.swap(false, Ordering::SeqCst)
                && let Some(thread) = member.thread.get()
            {
                thread.unpark();
            }
        }
    }

    /// Hires until there are `helpers` members; gives how many there are, at most that.
    fn hire(&'static self, helpers: usize) -> usize {
        let mut hired = self.hired.lock().unwrap_or_else(PoisonError::into_inner);
        while *hired < helpers {
            let place = *hired;
            let member = std::thread::Builder::new().name(format!("gradus-cpu-{}", place + 1));
            if member.spawn(move || CREW.serve(place)).is_err() {
                break; // the system has no more threads; the work is done by those that are there
            }
            *hired += 1;
        }
        helpers.min(*hired)
    }
}

/// Shuts the door and waits until nobody is inside, whatever happens to the caller's own chunk.
struct Shut;
impl Drop for Shut {
    fn drop(&mut self) {
        let mut spins = 0u32;
        let mut door = CREW.door.fetch_and(!OPEN, Ordering::AcqRel);
        while inside(door) > 0 {
            // A chunk takes some µs; a longer wait means that its thread was put aside, perhaps for this one.
            spins += 1;
            if spins < 5_000 {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
            door = CREW.door.load(Ordering::Acquire);
        }
    }
}

/// Leaves the crew to others.
struct Leave;
impl Drop for Leave {
    fn drop(&mut self) {
        CREW.taken.store(false, Ordering::Release);
    }
}

/// Runs `f` for each number below `chunks`, on this thread and up to `threads − 1` others. A panic in a chunk goes on here.
pub(crate) fn share(chunks: usize, threads: usize, f: &(dyn Fn(usize) + Sync)) {
    let helpers = threads.min(chunks).saturating_sub(1).min(MOST);
    let Ok(all) = u32::try_from(chunks) else { return (0..chunks).for_each(f) };
    if helpers == 0 || CREW.taken.swap(true, Ordering::Acquire) {
        return (0..chunks).for_each(f);
    }
    let leave = Leave;
    let helpers = CREW.hire(helpers);
    for (hand, range) in CREW.ranges[..=helpers].iter().enumerate() {
        range.deal(all, helpers + 1, hand);
    }
    // SAFETY: the lifetime is widened for the time of this call alone: `Shut` waits until nobody uses the closure any more.
    let run: *const (dyn Fn(usize) + Sync) =
        unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
    // SAFETY: this thread has taken the crew, and the door has been shut since the last job's end.
    let job = unsafe {
        *CREW.job.get() = Job { run, hands: helpers + 1, panic: Mutex::new(None) };
        &*CREW.job.get()
    };
    CREW.processor.store(processor::current().unwrap_or(usize::MAX), Ordering::Relaxed);
    CREW.open(helpers);
    let shut = Shut;
    job.work(0);
    drop(shut);
    let panic = job.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
    drop(leave);
    if let Some(p) = panic {
        resume_unwind(p);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    /// The chunks that each hand runs, when they work one after another in this order.
    fn ran(chunks: u32, hands: usize, order: &[usize]) -> Vec<Vec<usize>> {
        let ranges: Vec<Range> = (0..hands).map(|_| Range::empty()).collect();
        ranges.iter().enumerate().for_each(|(hand, range)| range.deal(chunks, hands, hand));
        let work_of = |&hand: &usize| {
            let ran = RefCell::new(Vec::new());
            work(&ranges, hand, &|chunk| ran.borrow_mut().push(chunk));
            ran.into_inner()
        };
        order.iter().map(work_of).collect()
    }

    #[test]
    fn each_has_a_range_of_its_own_and_takes_what_others_leave() {
        // Whoever comes first finds all: its own range from the front, the others' from the back.
        assert_eq!(ran(7, 2, &[0, 1]), [vec![0, 1, 2, 6, 5, 4, 3], vec![]]);
        assert_eq!(ran(7, 2, &[1, 0]), [vec![3, 4, 5, 6, 2, 1, 0], vec![]]);
        assert_eq!(ran(5, 3, &[2]), [vec![3, 4, 0, 2, 1]]);
        assert_eq!(ran(2, 5, &[0]).concat().len(), 2);
    }

    #[test]
    fn a_range_is_taken_from_both_ends_at_once() {
        const CHUNKS: u32 = 20_000;
        let range = Range::empty();
        range.deal(CHUNKS, 1, 0);
        let counts: Vec<AtomicUsize> = (0..CHUNKS).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|s| {
            for first in [true, false, false] {
                let (range, counts) = (&range, &counts);
                s.spawn(move || {
                    while let Some(chunk) = range.take(first) {
                        counts[chunk].fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1));
    }

    #[test]
    fn each_chunk_runs_once() {
        for round in 0..2000 {
            let (chunks, threads) = (1 + round % 37, 1 + round % 5);
            let counts: Vec<AtomicUsize> = (0..chunks).map(|_| AtomicUsize::new(0)).collect();
            share(chunks, threads, &|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "round {round}");
            if round % 500 == 0 {
                std::thread::sleep(4 * LOOKOUT); // the members fall asleep, and must wake
            }
        }
    }

    #[test]
    fn several_callers_and_chunks_that_share_again_all_finish() {
        let total = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for _ in 0..300 {
                        share(4, 3, &|_| share(3, 3, &|_| _ = total.fetch_add(1, Ordering::Relaxed)));
                    }
                });
            }
        });
        assert_eq!(total.load(Ordering::Relaxed), 3 * 300 * 12);
    }

    #[test]
    fn a_panic_in_a_chunk_reaches_the_caller_and_the_crew_works_on() {
        for bad in 0..8 {
            let run = || {
                share(8, 3, &|i| {
                    if i == bad {
                        panic!("chunk {i}")
                    }
                })
            };
            let p = catch_unwind(AssertUnwindSafe(run)).expect_err("the chunk panics");
            assert_eq!(p.downcast_ref::<String>().map(String::as_str), Some(format!("chunk {bad}").as_str()));
        }
        let total = AtomicUsize::new(0);
        share(8, 3, &|i| _ = total.fetch_add(i, Ordering::Relaxed));
        assert_eq!(total.load(Ordering::Relaxed), 28);
    }
}
