//! The process that started this worker, and how the worker's life is tied to it.

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

/// From now on the kernel ends this worker when its current parent ends.
pub(super) fn follow() {
    PARENT.store(parent(), Relaxed);
    follow_parent();
}

/// Asks the kernel to kill this process when its parent dies. The kernel drops the request when this process changes its user
/// or group.
fn follow_parent() {
    let _ = process::set_parent_process_death_signal(Some(Signal::KILL));
}

/// Repeats the request after user code that may have changed the user or group.
pub(super) fn follow_parent_again() {
    follow_parent();
    if parent() != PARENT.load(Relaxed) {
        fork::exit_at_once(exit_code::FAILED);
    }
}

/// Replaces standard input, which is the control socket until the worker is ready, by an empty file.
pub(super) fn empty_stdin() -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(&fd::null()?)?)
}
