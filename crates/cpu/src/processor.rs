//! On which processor a thread runs.
//!
//! A system may wake a thread on the processor of whoever woke it, though another is free or soon will be: then the one that was to
//! help stands in the way, spins where the work should go on, and the two stay together for thousands of kernels (seen on Linux
//! with two processors and other work beside: two threads took as long as one). So a helper that finds itself there moves away.

/// The processor that this thread is on at the moment; `None` where the system does not say.
#[inline]
pub(crate) fn current() -> Option<usize> {
    #[cfg(target_os = "linux")]
    {
        // SAFETY: it takes nothing and has no effect.
        usize::try_from(unsafe { libc::sched_getcpu() }).ok()
    }
    #[cfg(not(target_os = "linux"))]
    None
}

/// Moves this thread to another processor, if it may run on another; it may come back later, and to where it might run before.
#[cold]
pub(crate) fn leave(processor: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the sets are as large as the calls are told, and plain data for which all zeros is valid; 0 is this thread.
    unsafe {
        let size = size_of::<libc::cpu_set_t>();
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        if processor >= 8 * size || libc::sched_getaffinity(0, size, &mut allowed) != 0 {
            return; // nothing depends on it
        }
        let mut others = allowed;
        libc::CPU_CLR(processor, &mut others);
        if libc::CPU_COUNT(&others) > 0 && libc::sched_setaffinity(0, size, &others) == 0 {
            libc::sched_setaffinity(0, size, &allowed);
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = processor;
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_moves_may_still_run_where_it_might_before() {
        let allowed = || std::thread::available_parallelism().map_or(1, |n| n.get());
        let before = allowed();
        let here = current().expect("Linux says where a thread runs");
        leave(here);
        assert_eq!(allowed(), before);
        leave(usize::MAX); // no such processor: nothing happens
        assert_eq!(allowed(), before);
    }
}
