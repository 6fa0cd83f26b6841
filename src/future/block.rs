//! The order in which a blocking wait tries things: look, claim, help, spin, sleep. A worker that sleeps for a spawned
//! future of its own pool claims again whenever that future is woken (see `attend`). A wait with a deadline does not claim: it
//! leaves that to a spare thread (see `offload`).

use std::time::Instant;

use super::attend::{Attendance, Attending, Listener};
use super::deadlock::{self, Circle};
use super::waiter::is_past;
use super::{Idle, Source};
use crate::current;
use crate::spin;

/// The first two: `Some(true)` if the task is done, or was queued and has now been run in place; `Some(false)` if the
/// deadline has passed, so that nothing may be tried; `None` if there is something to wait for.
pub(super) fn ready_or_claimed(
    source: &impl Source,
    deadline: Option<Instant>,
    attendance: &Attendance,
) -> Option<bool> {
    // A claimed task is done afterwards; a spawned future may be claimed each time that it is woken.
    loop {
        if source.is_done() {
            return Some(true);
        }
        if is_past(deadline) {
            return Some(false);
        }
        if deadline.is_some() || !source.claim(attendance) {
            return None;
        }
    }
}

/// The remaining steps, for a task that this thread cannot run itself. Returns whether the task is done (false: the deadline has
/// passed). `sleep` calls its argument each time the thread wakes up.
pub(super) fn wait(
    source: &impl Source,
    address: usize,
    deadline: Option<Instant>,
    attending: &Attending,
    sleep: impl FnOnce(&dyn Fn() -> bool) -> bool,
) -> Result<bool, Circle> {
    if deadline.is_none() && current::is_running(address) {
        return Err(Circle);
    }
    // Entered before the first look whether it may be claimed: see `attend`.
    let may_be_needed = current::may_be_needed();
    let attended = may_be_needed && source.attend(attending, Listener::Waker(attending.unpark()));
    let offload = || {
        if may_be_needed {
            let _ = attending.offload(source, attending.unpark(), false);
        }
        false
    };
    if deadline.is_some() {
        offload();
    }
    let is_done = || source.is_done();
    let spun = source.help(&is_done, deadline, Idle::Sleep);
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
        None if attended => sleep(&|| source.claim(attending)),
        None => sleep(&|| false),
    };
    spin::slept(start.elapsed());
    Ok(done)
}
