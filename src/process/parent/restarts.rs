//! When workers may be started, and when the pool gives up starting them.
//!
//! # Rules
//!
//! 1. Until a worker of the pool has been ready, and after the system has refused a process, only one start is in progress at a
//!    time. A start that fails may run the program's `main` again, so there are no parallel starts before one has succeeded.
//! 2. After a failed start, no more workers are being started at a time than may still fail before the pool breaks.
//! 3. `limit` failed starts in a row break the pool. As many refusals in a row, while the pool has no worker, fail the queued
//!    tasks.

use std::time::{Duration, Instant};

/// The delay before the next start after the system has refused one: the first value, doubled with each further refusal up to the
/// second value.
const RETRY: [Duration; 2] = [Duration::from_millis(10), Duration::from_secs(1)];

pub(crate) struct Restarts {
    /// After this many failed starts or refusals in a row, the pool gives up.
    limit: u32,
    /// How many workers have died in a row before they were prepared.
    failed: u32,
    /// How many times in a row the system has refused a process.
    refused: u32,
    /// Only one start may be in progress at a time.
    is_cautious: bool,
    /// No worker is started before this time.
    not_before: Option<Instant>,
    /// How many processes are being started at the moment, outside the lock.
    in_progress: usize,
}

/// What a failed or refused start leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterFailure {
    /// Another start, at once or at the time that [`Restarts::not_before`] says.
    TryAgain,
    GiveUp,
}

impl Restarts {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, failed: 0, refused: 0, is_cautious: true, not_before: None, in_progress: 0 }
    }

    pub(crate) fn in_progress(&self) -> usize {
        self.in_progress
    }

    pub(super) fn not_before(&self) -> Option<Instant> {
        self.not_before
    }

    /// Returns `true` while no worker may be started because the system has refused one.
    pub(super) fn is_waiting(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|time| now < time)
    }

    /// How many more starts may begin, if `not_ready` workers have been started and are not ready.
    pub(super) fn room(&self, not_ready: usize, now: Instant) -> usize {
        if self.is_waiting(now) {
            return 0;
        }
        let at_once = match self.failed {
            _ if self.is_cautious => 1,
            0 => usize::MAX,
            failed => self.limit.saturating_sub(failed).max(1) as usize,
        };
        at_once.saturating_sub(not_ready + self.in_progress)
    }

    /// A process is about to be started.
    pub(super) fn begin(&mut self) {
        self.in_progress += 1;
    }

    /// The process has been started, or refused.
    pub(super) fn end(&mut self) {
        self.in_progress -= 1;
    }

    /// A worker is ready.
    pub(super) fn ready(&mut self) {
        self.refused = 0;
        self.is_cautious = false;
    }

    /// A worker is prepared: the next failure is the first in a row.
    pub(super) fn prepared(&mut self) {
        self.failed = 0;
    }

    /// A worker has died before it was prepared.
    #[must_use]
    pub(super) fn failed(&mut self) -> AfterFailure {
        self.failed += 1;
        if self.failed >= self.limit { AfterFailure::GiveUp } else { AfterFailure::TryAgain }
    }

    /// The system has refused a process. `alone`: there is no other worker.
    #[must_use]
    pub(super) fn refused(&mut self, alone: bool, now: Instant) -> AfterFailure {
        let wait = RETRY[0].saturating_mul(1 << self.refused.min(10)).min(RETRY[1]);
        self.refused += 1;
        self.is_cautious = true;
        if alone && self.refused >= self.limit {
            // The next task leads to a new series of attempts.
            self.refused = 0;
            return AfterFailure::GiveUp;
        }
        self.not_before = Some(now + wait);
        AfterFailure::TryAgain
    }

    /// Returns `true`, once, when the wait after a refusal has ended.
    #[must_use]
    pub(super) fn wait_is_over(&mut self, now: Instant) -> bool {
        let over = self.not_before.is_some_and(|time| time <= now);
        if over {
            self.not_before = None;
        }
        over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_start_at_a_time_until_one_is_ready() {
        let now = Instant::now();
        let mut restarts = Restarts::new(3);
        assert_eq!(restarts.room(0, now), 1);
        restarts.begin();
        assert_eq!(restarts.room(0, now), 0);
        restarts.end();
        assert_eq!((restarts.room(1, now), restarts.room(0, now)), (0, 1));
        restarts.ready();
        assert!(restarts.room(5, now) > 1000);
    }

    #[test]
    fn as_many_starts_as_may_still_fail() {
        let now = Instant::now();
        let mut restarts = Restarts::new(3);
        restarts.ready();
        assert_eq!(restarts.failed(), AfterFailure::TryAgain);
        assert_eq!(restarts.room(0, now), 2);
        assert_eq!(restarts.failed(), AfterFailure::TryAgain);
        assert_eq!(restarts.room(0, now), 1);
        assert_eq!(restarts.failed(), AfterFailure::GiveUp);
        restarts.prepared();
        assert_eq!(restarts.failed(), AfterFailure::TryAgain);
    }

    #[test]
    fn refusals_are_waited_out() {
        let now = Instant::now();
        let mut restarts = Restarts::new(2);
        restarts.ready();
        assert_eq!(restarts.refused(false, now), AfterFailure::TryAgain);
        assert_eq!(restarts.not_before(), Some(now + RETRY[0]));
        assert_eq!(restarts.room(0, now), 0);
        assert!(!restarts.wait_is_over(now));
        assert!(restarts.wait_is_over(now + RETRY[0]));
        assert_eq!(restarts.room(0, now), 1, "with care from now on");
        for _ in 0..20 {
            assert_eq!(restarts.refused(false, now), AfterFailure::TryAgain, "there are other workers");
        }
        assert_eq!(restarts.not_before(), Some(now + RETRY[1]));
        assert_eq!(restarts.refused(true, now), AfterFailure::GiveUp);
        assert_eq!(restarts.refused(true, now), AfterFailure::TryAgain, "counted from the beginning");
    }
}
