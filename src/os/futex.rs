//! Sleeping on a word that another process may change: futexes without the private flag.

use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags, Timespec};

/// Sleeps as long as the word is `expected`; returns when woken, at the deadline, or spuriously.
pub(crate) fn wait(word: &AtomicU32, expected: u32, deadline: Option<Instant>) {
    let left = match deadline.map(|deadline| deadline.saturating_duration_since(Instant::now())) {
        Some(left) if left.is_zero() => return,
        left => left.map(timespec),
    };
    match futex::wait(word, Flags::empty(), expected, left.as_ref()) {
        Ok(()) | Err(Errno::AGAIN | Errno::INTR | Errno::TIMEDOUT) => {}
        // Treated as a spurious wake-up: the caller checks again in a loop.
        Err(_) => std::thread::yield_now(),
    }
}

/// Wakes all threads that sleep on the word.
pub(crate) fn wake_all(word: &AtomicU32) {
    let _ = futex::wake(word, Flags::empty(), i32::MAX as u32);
}

/// Does the system support futexes?
pub(crate) fn is_available() -> bool {
    let word = AtomicU32::new(0);
    futex::wake(&word, Flags::empty(), 1).is_ok()
}

pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs().try_into().unwrap_or(i64::MAX), tv_nsec: duration.subsec_nanos().into() }
}
