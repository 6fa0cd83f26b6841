//! Who of the threads that run tasks is blocked, and on what: how a circle of waits is found.
//!
//! A thread that is about to block for good inside a task enters itself here. A circle consists of blocked
//! threads only, so the last one to enter sees all the others and closes no circle: it gets an error instead.
//! Waits with a deadline end by themselves and are not entered; neither are waits for several futures at once.

use parking_lot::Mutex;

use crate::current;

/// A thread that is blocked: what it is inside of, and what it waits for (addresses of tasks, which are alive as
/// long as the wait is).
struct Blocked {
    inside: Vec<usize>,
    awaited: usize,
}

static BLOCKED: Mutex<Vec<Blocked>> = Mutex::new(Vec::new());

/// The wait would close a circle.
#[derive(Debug)]
pub(super) struct Circle;

/// Keeps the calling thread entered until it is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct Entered(Option<usize>);

/// Enters the calling thread as waiting for `awaited`, if it is inside a task.
pub(super) fn enter(awaited: usize) -> Result<Entered, Circle> {
    if !current::in_task() {
        return Ok(Entered(None));
    }
    let inside = current::chain();
    let Some(&innermost) = inside.last() else { return Ok(Entered(None)) };
    let mut blocked = BLOCKED.lock();
    let mut next = Some(awaited);
    while let Some(task) = next {
        if inside.contains(&task) {
            return Err(Circle);
        }
        next = blocked.iter().find(|other| other.inside.contains(&task)).map(|other| other.awaited);
    }
    blocked.push(Blocked { inside, awaited });
    Ok(Entered(Some(innermost)))
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some(innermost) = self.0 else { return };
        let mut blocked = BLOCKED.lock();
        if let Some(at) = blocked.iter().position(|own| own.inside.last() == Some(&innermost)) {
            blocked.swap_remove(at);
        }
    }
}
