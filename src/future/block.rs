//! The order in which a blocking wait tries things: look, claim, spin, sleep.

use std::time::Instant;

use super::Source;
use super::deadlock::{self, Circle};
use crate::current;
use crate::spin;

/// The first two: true if the task is done, or was queued and has now been run in place.
pub(super) fn ready_or_claimed(source: &impl Source) -> bool {
    source.is_done() || source.claim()
}

/// The rest, for a task that this thread may not run: true if it is done, false if the deadline has passed.
pub(super) fn wait(
    address: usize,
    deadline: Option<Instant>,
    is_done: impl Fn() -> bool,
    sleep: impl FnOnce() -> bool,
) -> Result<bool, Circle> {
    match deadline {
        None if current::is_running(address) => return Err(Circle),
        Some(deadline) if deadline <= Instant::now() => return Ok(is_done()),
        _ => {}
    }
    if spin::until(is_done) {
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
