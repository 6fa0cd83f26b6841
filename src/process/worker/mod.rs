//! The worker's side: what a process does that was started to serve calls.
//!
//! Workers run this same executable and branch off before `main`; most programs need not care. If the executable cannot be
//! hooked (statically linked programs, systems without glibc), or `main` has to prepare something that the workers need too,
//! call [`run_if_worker`] at the beginning of `main`.

mod entry;
mod host;
mod serve;
mod watch;

pub(crate) use entry::{enter_if_worker, is_stray, may_be_one};

use entry::enter_from_main;

/// Serves and never returns, if this process has been started as a worker; returns at once otherwise.
///
/// Only for programs in which workers do not start by themselves: see [the module](self). In other programs it is harmless.
/// Call it before anything that must not happen in every worker, and before other threads are started, because it changes the
/// environment. A worker that has other threads by then ends, and the pool that started it is broken, with
/// [`StartError::NotAWorker`](crate::StartError::NotAWorker). Files that the program has opened before this call stay open in
/// the worker, as do inherited descriptors, which automatically started workers close.
///
/// ```
/// // In `fn main()`, as its first statement:
/// concurrent_futures::worker::run_if_worker();
/// // Here is the program, and no worker.
/// ```
pub fn run_if_worker() {
    enter_from_main();
}
