//! The order in which a blocking wait tries things: look, claim, help, spin, sleep.

use std::time::Instant;

use super::Source;
use super::deadlock::{self, Circle};
use crate::current;
use crate::spin;

/// The first two: `Some(true)` if the task is done, or was queued and has now been run in place; `Some(false)` if the
/// deadline has passed already, so that nothing may be tried; `None` if there is something to wait for.
pub(super) fn ready_or_claimed(source: &impl Source, deadline: Option<Instant>) -> Option<bool> {
    if source.is_done() {
        return Some(true);
    }
    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
        return Some(false);
    }
    source.claim().then_some(true)
}

/// The rest, for a task that this thread may not run: true if it is done, false if the deadline has passed.
pub(super) fn wait(
    source: &impl Source,
    address: usize,
    deadline: Option<Instant>,
    sleep: impl FnOnce() -> bool,
) -> Result<bool, Circle> {
    if deadline.is_none() && current::is_running(address) {
        return Err(Circle);
    }
    let is_done = || source.is_done();
    let spun = source.help(&is_done, deadline, true);
    if is_done() || !spun && spin::until(is_done) {
        return Ok(true);
    }
    let _entered = match deadline {
        None => Some(deadlock::enter(address)?),
        Some(_) => None,
    };
    let start = Instant::now();
    let done = sleep();
    spin::slept(start.elapsed());
    Ok(done)
}
