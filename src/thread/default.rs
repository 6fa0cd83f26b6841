//! Default numbers of workers, and the global pool.

use super::ThreadPoolExecutor;
use crate::fork::PerProcess;
use crate::spin;

/// How many workers suit a CPU-bound job: one for each logical CPU that this process may use, cgroup quotas and CPU
/// affinity included.
///
/// A CPU-bound thread keeps its CPU busy; with more threads than CPUs, threads only take turns.
///
/// ```
/// assert!(concurrent_futures::cpu_workers() >= 1);
/// ```
pub fn cpu_workers() -> usize {
    spin::cpus()
}

/// How many workers suit an I/O-bound job, and the default of [`ThreadPoolExecutor`]: four more than there are CPUs, but
/// no more than 32.
///
/// A thread that waits for a disk or a server uses no CPU, so more threads than CPUs keep more requests in flight. The formula is
/// that of Python's
/// [`ThreadPoolExecutor`](https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.ThreadPoolExecutor): the 4
/// keep a small machine responsive, the limit of 32 avoids needless threads on a large one. A job that spends nearly all its time
/// waiting can use more: measure, as the `sizing` example does.
///
/// ```
/// use concurrent_futures::{cpu_workers, io_workers};
/// assert_eq!(io_workers(), (cpu_workers() + 4).min(32));
/// ```
pub fn io_workers() -> usize {
    (spin::cpus() + 4).min(32)
}

/// The global executor, shared by the whole process: what `run_in_executor(None, ..)` uses in Python.
///
/// It has [`io_workers()`] workers, which start on demand. It is never shut down; tasks that are still running when the program
/// exits are terminated. A forked child has a global executor of its own.
///
/// ```
/// use concurrent_futures::default_executor;
///
/// let sum = default_executor().submit(|| (1..=10).sum::<u32>());
/// assert_eq!(sum.result()?, 55);
/// # Ok::<(), concurrent_futures::TaskError>(())
/// ```
pub fn default_executor() -> &'static ThreadPoolExecutor {
    static DEFAULT: PerProcess<ThreadPoolExecutor> = PerProcess::new();
    DEFAULT.get_or_make(|| {
        let builder = ThreadPoolExecutor::builder().name("default");
        builder.build().expect("the default settings are valid")
    })
}
