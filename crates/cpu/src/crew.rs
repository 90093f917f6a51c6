//! The crew: threads that wait for a kernel's chunks, spinning for a moment and then asleep.
//!
//! A training step is a chain of kernels of 10 to 100 µs with a few µs between them. Handing each to a general thread pool
//! costs as much as it gains: waking a sleeping thread takes tens of µs. Here a thread that just worked looks out for the next
//! job for a moment before it sleeps, the caller works along and never waits for a thread to wake, and who finds the crew at
//! work for somebody else (two trainings in one process, a chunk that shares out work of its own) works alone.

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

/// A kernel's chunks, claimed one by one.
struct Job {
    run: *const (dyn Fn(usize) + Sync),
    chunks: usize,
    next: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
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
    job: UnsafeCell<Job>,
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
    job: UnsafeCell::new(Job {
        run: &(nothing as fn(usize)),
        chunks: 0,
        next: AtomicUsize::new(0),
        panic: Mutex::new(None),
    }),
    members: [const { Member { thread: OnceLock::new(), asleep: AtomicBool::new(false) } }; MOST],
    hired: Mutex::new(0),
};

impl Job {
    /// Runs chunks until none is left.
    fn work(&self) {
        // SAFETY: the closure outlives the job: `share` waits for everybody before it returns.
        let run = unsafe { &*self.run };
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= self.chunks {
                return;
            }
            run(i);
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
                if place < wanted(door) && self.enter(seen) {
                    // SAFETY: inside, the job does not change.
                    let job = unsafe { &*self.job.get() };
                    if let Err(p) = catch_unwind(AssertUnwindSafe(|| job.work())) {
                        job.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(p);
                    }
                    self.door.fetch_sub(1, Ordering::Release);
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
    if helpers == 0 || CREW.taken.swap(true, Ordering::Acquire) {
        return (0..chunks).for_each(f);
    }
    let leave = Leave;
    let helpers = CREW.hire(helpers);
    // SAFETY: the lifetime is widened for the time of this call alone: `Shut` waits until nobody uses the closure any more.
    let run: *const (dyn Fn(usize) + Sync) =
        unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), &'static (dyn Fn(usize) + Sync)>(f) };
    // SAFETY: this thread has taken the crew, and the door has been shut since the last job's end.
    let job = unsafe {
        *CREW.job.get() = Job { run, chunks, next: AtomicUsize::new(0), panic: Mutex::new(None) };
        &*CREW.job.get()
    };
    CREW.open(helpers);
    let shut = Shut;
    job.work();
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
