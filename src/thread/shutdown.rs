//! The ways to end a pool.

use std::time::{Duration, Instant};

use super::core::Core;
use super::worker;
use crate::error::ShutdownError;

/// What [`shutdown`](crate::ThreadPoolExecutor::shutdown) does with what is queued, and what it waits for. In every mode
/// the executor takes nothing new from the moment of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Shutdown {
    /// Runs everything that was submitted, then returns when the threads are gone. The end of Python's `with` block.
    #[default]
    Wait,
    /// Returns at once; everything that was submitted still runs, and the threads end by themselves.
    NoWait,
    /// Cancels what has not started, lets the rest finish, and returns when the threads are gone.
    CancelPending,
    /// Like [`Wait`](Self::Wait), for so long. Then what has not started is cancelled, and the call returns an error
    /// that says how many workers are still busy: no thread can be stopped from outside.
    Within(Duration),
}

/// Closes the pool and waits as told.
pub(super) fn shut_down(core: &Core, how: Shutdown) -> Result<(), ShutdownError> {
    let start = Instant::now();
    match how {
        Shutdown::CancelPending => core.close_and_cancel(),
        Shutdown::Wait | Shutdown::NoWait | Shutdown::Within(_) => core.close(),
    }
    if how == Shutdown::NoWait {
        return Ok(());
    }
    if worker::belongs_to(core.id()) {
        return Err(ShutdownError::WouldDeadlock);
    }
    let deadline = match how {
        Shutdown::Within(time) => start.checked_add(time),
        _ => None,
    };
    if core.roster.wait_until_empty(deadline) {
        return Ok(());
    }
    core.close_and_cancel();
    let (_, busy) = core.roster.tally().read();
    // One that was between two tasks when the count was taken is still there, and has at most to find its end.
    Err(ShutdownError::TimedOut { running: busy.max(1) as usize, waited: start.elapsed() })
}
