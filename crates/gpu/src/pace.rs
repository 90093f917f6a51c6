//! How far the host runs ahead of the device: two steps.
//!
//! A backend sees kernels, not steps. But training ends each step with updates of parameters, so the first kernel after an
//! update begins a step; and where nothing is updated (an evaluation that reads nothing back), so does every 2,048th. At the
//! end of a step a fence is set, and the host waits for the oldest when more than two are out. So at most two steps are
//! queued beside the one being given: their memory and their errors stay near.

use std::collections::VecDeque;

/// Steps that may be unfinished while the next is given.
const AHEAD: usize = 2;

/// The most kernels of a step.
const LONGEST: usize = 2048;

/// The fences of a device.
#[derive(Debug)]
pub(crate) struct Pace<F> {
    launches: usize,
    updated: bool,
    fences: VecDeque<F>,
}

impl<F> Pace<F> {
    pub(crate) fn new() -> Pace<F> {
        Pace { launches: 0, updated: false, fences: VecDeque::new() }
    }

    /// Counts a kernel; whether a step ended before it.
    pub(crate) fn step_ended(&mut self, is_update: bool) -> bool {
        let ended = self.updated && !is_update || self.launches == LONGEST;
        self.launches = if ended { 1 } else { self.launches + 1 };
        self.updated = is_update;
        ended
    }

    /// Keeps the fence at a step's end; gives the one to wait for now, if any.
    pub(crate) fn fenced(&mut self, fence: F) -> Option<F> {
        self.fences.push_back(fence);
        if self.fences.len() > AHEAD { self.fences.pop_front() } else { None }
    }

    /// All fences, the oldest first: for who waits for everything.
    pub(crate) fn drain(&mut self) -> Vec<F> {
        self.fences.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_ends_with_its_updates_and_two_may_be_out() {
        let mut pace = Pace::new();
        let mut waited = Vec::new();
        for step in 0..6 {
            for kernel in 0..30 {
                // Twenty kernels of forward and backward, ten updates.
                if pace.step_ended(kernel >= 20) {
                    assert_eq!(kernel, 0, "a step ends where the next begins");
                    waited.extend(pace.fenced(step - 1));
                }
            }
        }
        // While step 5 is given, steps 3 and 4 may be unfinished.
        assert_eq!(waited, [0, 1, 2]);
        assert_eq!(pace.drain(), [3, 4]);
    }

    #[test]
    fn a_loop_without_updates_is_bounded_too() {
        let mut pace = Pace::<()>::new();
        let ends = (0..3 * LONGEST + 1).filter(|_| pace.step_ended(false)).count();
        assert_eq!(ends, 3);
    }
}
