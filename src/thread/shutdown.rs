//! The ways to end a pool.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::core::Core;
use super::worker;
use crate::error::ShutdownError;
use crate::executor::Shutdown;

/// Closes the pool and waits as `how` specifies.
pub(super) fn shut_down(core: &Core, how: Shutdown) -> Result<(), ShutdownError> {
    if !core.is_here() {
        return Err(ShutdownError::WrongProcess);
    }
    let start = Instant::now();
    if how.cancels() {
        core.close_and_cancel()
    } else {
        core.close()
    }
    if !core.is_here() {
        // A callback of a cancelled task has forked, and this is the child.
        return Err(ShutdownError::WrongProcess);
    }
    if !how.waits() {
        core.is_left_alone.store(true, Relaxed);
        return Ok(());
    }
    if worker::belongs_to(core.id()) {
        return Err(ShutdownError::WouldDeadlock);
    }
    let deadline = match how {
        Shutdown::Within(time) => start.checked_add(time),
        _ => None,
    };
    // A closed pool without workers starts none any more, whatever its spare threads do.
    if core.registry.wait_until_empty(deadline) && core.spares.wait_until_empty(deadline) {
        return Ok(());
    }
    core.close_and_cancel();
    let (_, busy) = core.registry.counters().read();
    let running = busy as usize + core.spares.count();
    // A worker between two tasks was not counted as busy but has not ended either, so at least 1 is reported.
    Err(ShutdownError::TimedOut { running: running.max(1), waited: start.elapsed() })
}
