//! The process that has started this worker, and what ties the worker to it.

use std::io;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

use rustix::process::{self, Pid, Signal};

use crate::fork;
use crate::os::fd;
use crate::process::wire::exit_code;

/// The parent of this worker at its start; 0 if that is in another process namespace.
static PARENT: AtomicI32 = AtomicI32::new(0);

/// The parent of this process; 0 if that is in another process namespace.
pub(super) fn parent() -> i32 {
    process::getppid().map_or(0, Pid::as_raw_pid)
}

/// From now on the worker follows the process that is its parent at the moment.
pub(super) fn follow() {
    PARENT.store(parent(), Relaxed);
    follow_parent();
}

/// Asks the kernel to kill this process when its parent dies. Whether it does is the kernel's decision: it forgets the wish when this
/// process changes its user or group.
fn follow_parent() {
    let _ = process::set_parent_process_death_signal(Some(Signal::KILL));
}

/// After code of the user's that may have changed user or group.
pub(super) fn follow_parent_again() {
    follow_parent();
    if parent() != PARENT.load(Relaxed) {
        fork::exit_at_once(exit_code::FAILED);
    }
}

/// Makes standard input, which is the control socket until the worker is ready, empty.
pub(super) fn empty_stdin() -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(&fd::null()?)?)
}
