//! The steps of a blocking wait, in order: check, claim, drive the executor, spin, sleep. A worker that sleeps for a spawned
//! future of its own pool claims again whenever that future is woken (see `inline_wait`). A wait with a deadline does not
//! claim: it leaves that to a spare thread (see `offload`).

use std::time::Instant;

use super::deadlock::{self, WaitCycle};
use super::inline_wait::{InlineWait, InlineWaitGuard, Listener};
use super::waiter::is_past;
use super::{Source, WaitMode};
use crate::current;
use crate::spin;

/// The first two steps. `Some(true)`: the task is done, or was queued and has been run in place. `Some(false)`: the deadline
/// has passed. `None`: there is something to wait for.
pub(super) fn ready_or_claimed(source: &impl Source, deadline: Option<Instant>, wait: &InlineWait) -> Option<bool> {
    // A claimed task is done afterwards; a spawned future can be claimed each time it is woken.
    loop {
        if source.is_done() {
            return Some(true);
        }
        if is_past(deadline) {
            return Some(false);
        }
        if deadline.is_some() || !source.claim(wait) {
            return None;
        }
    }
}

/// The remaining steps, for a task that this thread cannot run itself. Returns whether the task is done (false: the deadline
/// has passed). `sleep` calls its argument each time before the thread parks.
pub(super) fn wait(
    source: &impl Source,
    address: usize,
    deadline: Option<Instant>,
    inline_wait: &InlineWaitGuard,
    sleep: impl FnOnce(&dyn Fn() -> bool) -> bool,
) -> Result<bool, WaitCycle> {
    if deadline.is_none() && current::is_running(address) {
        return Err(WaitCycle);
    }
    // Registers before it first checks whether the future may be claimed: see `inline_wait`.
    let may_be_needed = current::may_be_needed();
    let listens = may_be_needed && source.listen(inline_wait, Listener::Waker(inline_wait.unpark()));
    let offload = || {
        if may_be_needed {
            let _ = inline_wait.offload(source, inline_wait.unpark(), false);
        }
        false
    };
    if deadline.is_some() {
        offload();
    }
    let is_done = || source.is_done();
    let spun = source.drive_while_waiting(&is_done, deadline, WaitMode::Sleep);
    if is_done() || !spun && spin::until(is_done) {
        return Ok(true);
    }
    let _entered = match deadline {
        None => Some(deadlock::enter(address)?),
        Some(_) => None,
    };
    let start = Instant::now();
    let done = match deadline {
        Some(_) => sleep(&offload),
        None if listens => sleep(&|| source.claim(inline_wait)),
        None => sleep(&|| false),
    };
    spin::slept(start.elapsed());
    Ok(done)
}
