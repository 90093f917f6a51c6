//! Threads: how many, and when it pays to use them.
//!
//! Work is cut into chunks whose bounds depend on the work alone, never on the number of threads, so results have the same
//! bits for any number. Small work stays on the calling thread; the rest is shared by the [crew](crate::crew).

use crate::crew::share;
use rayon::ThreadPool;
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Work below this many nanoseconds (estimated) stays on one thread.
const WORTH_SHARING: usize = 10_000;

static THREADS: AtomicUsize = AtomicUsize::new(0);
static POOLS: Mutex<Vec<(usize, &'static ThreadPool)>> = Mutex::new(Vec::new());

thread_local! {
    static OVERRIDE: Cell<usize> = const { Cell::new(0) };
    static LAST_POOL: Cell<Option<(usize, &'static ThreadPool)>> = const { Cell::new(None) };
}

/// The number of threads that kernels use: as set, else `GRADUS_THREADS`, else one for each core.
pub fn threads() -> usize {
    let here = OVERRIDE.get();
    if here > 0 {
        return here;
    }
    match THREADS.load(Ordering::Relaxed) {
        0 => {
            let asked =
                std::env::var("GRADUS_THREADS").ok().and_then(|v| v.trim().parse::<usize>().ok()).filter(|&n| n > 0);
            let n = asked.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, |n| n.get()));
            THREADS.store(n, Ordering::Relaxed);
            n
        }
        n => n,
    }
}

/// Sets the number of threads that kernels use, for the whole program; 0 goes back to the default.
pub fn set_threads(n: usize) {
    THREADS.store(n, Ordering::Relaxed);
}

/// Runs `f` with kernels launched from this thread using `n` threads.
pub fn with_threads<T>(n: usize, f: impl FnOnce() -> T) -> T {
    struct Restore(usize);
    impl Drop for Restore {
        fn drop(&mut self) {
            OVERRIDE.set(self.0);
        }
    }
    let _restore = Restore(OVERRIDE.replace(n));
    f()
}

/// The pool of `n` threads. Pools live as long as the program: there are few sizes, and threads that wait cost nothing.
/// `None` if the system refuses the threads, in which case work stays where it is.
fn pool(n: usize) -> Option<&'static ThreadPool> {
    if let Some((size, pool)) = LAST_POOL.get()
        && size == n
    {
        return Some(pool);
    }
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let pool = match pools.iter().find(|(size, _)| *size == n) {
        Some((_, pool)) => *pool,
        None => {
            let named = rayon::ThreadPoolBuilder::new().num_threads(n).thread_name(|i| format!("gradus-cpu-{i}"));
            let pool: &'static ThreadPool = Box::leak(Box::new(named.build().ok()?));
            pools.push((n, pool));
            pool
        }
    };
    LAST_POOL.set(Some((n, pool)));
    Some(pool)
}

/// Runs `f`, which shares out its work by rayon, where it finds as many threads as kernels may use, and tells it how many.
pub(crate) fn in_pool<T: Send>(f: impl FnOnce(usize) -> T + Send) -> T {
    let n = threads();
    match pool(n) {
        Some(pool) if n > 1 => pool.install(|| f(n)),
        _ => f(1),
    }
}

/// Runs `f` for each chunk number below `chunks`, on several threads if the whole is estimated at more than a few
/// microseconds (`work`, in nanoseconds).
#[inline]
pub(crate) fn for_chunks(chunks: usize, work: usize, f: impl Fn(usize) + Send + Sync) {
    if chunks <= 1 || work <= WORTH_SHARING {
        (0..chunks).for_each(f);
        return;
    }
    share(chunks, threads(), &f);
}

/// Cuts `len` elements into chunks of `size` and runs `f(start, len)` for each; `cost` is nanoseconds for 1000 elements.
#[inline]
pub(crate) fn for_ranges(len: usize, size: usize, cost: usize, f: impl Fn(usize, usize) + Send + Sync) {
    if len <= size {
        if len > 0 {
            f(0, len);
        }
        return;
    }
    for_chunks(len.div_ceil(size), len / 1000 * cost, |i| f(i * size, size.min(len - i * size)));
}
