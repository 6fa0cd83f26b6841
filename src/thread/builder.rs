//! How a pool is built.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use super::core::{Config, Core, Hook, Hooks};
use super::{ThreadPoolExecutor, default};
use crate::error::BuildError;
use crate::executor::{Capacity, QueuePolicy, check_workers};
use crate::unwind;

/// Settings of a [`ThreadPoolExecutor`], created by [`ThreadPoolExecutor::builder`].
///
/// ```
/// use std::time::Duration;
/// use concurrent_futures::ThreadPoolExecutor;
///
/// let pool = ThreadPoolExecutor::builder()
///     .max_workers(3)
///     .name("fetch")
///     .idle_timeout(Duration::from_secs(10))
///     .build()?;
/// let name = pool.submit(|| std::thread::current().name().map(str::to_owned)).result()?;
/// assert_eq!(name.as_deref(), Some("fetch_0"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
#[derive(Clone, Default)]
pub struct ThreadPoolBuilder {
    max_workers: Option<usize>,
    name: Option<String>,
    stack_size: Option<usize>,
    initializer: Option<Hook>,
    finalizer: Option<Hook>,
    queue_capacity: Option<(usize, QueuePolicy)>,
    idle_timeout: Option<Duration>,
}

impl ThreadPoolBuilder {
    /// The smallest stack of a thread, in bytes. It is enough for a task of a debug build that panics while backtraces are on.
    pub const MIN_STACK_SIZE: usize = 64 << 10;

    /// Sets the maximum number of threads, 1 to [`MAX_WORKERS`](crate::MAX_WORKERS). They start on demand. The default is
    /// [`io_workers()`](crate::io_workers), as in Python. Blocked workers may have [spare
    /// threads](ThreadPoolExecutor#spare-threads) in addition.
    pub fn max_workers(mut self, workers: usize) -> Self {
        self.max_workers = Some(workers);
        self
    }

    /// Sets the name of the executor. Its threads are called `NAME_0`, `NAME_1` and so on (Linux shows the first 15 bytes). The
    /// default is `ThreadPoolExecutor-N`, where N counts the executors of the process that have no name of their own. Modeled on
    /// Python's `thread_name_prefix`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the stack size of each thread, in bytes. Values below [`MIN_STACK_SIZE`](Self::MIN_STACK_SIZE) are raised to it. The
    /// default is that of `std::thread`.
    pub fn stack_size(mut self, bytes: usize) -> Self {
        self.stack_size = Some(bytes.max(Self::MIN_STACK_SIZE));
        self
    }

    /// Runs in every thread before its first task. It is dropped, with what it captured, as soon as no thread can start any more:
    /// when the pool is closed and its last thread has ended, or when the pool is broken or cancelled. If it panics, the executor
    /// is broken: everything queued, and everything submitted later, fails with [`TaskError::Broken`](crate::TaskError::Broken);
    /// tasks that are running in other threads finish.
    ///
    /// It must not wait for tasks of its own pool: a thread that would run them runs the initializer first. (`result` of a
    /// queued closure works, as it runs the closure in place.)
    pub fn initializer(mut self, f: impl Fn() + Send + Sync + 'static) -> Self {
        self.initializer = Some(Arc::new(f));
        self
    }

    /// Runs in every thread after its last task, if its initializer succeeded. A panic is reported by the panic hook and then
    /// ignored. It is dropped like the [initializer](Self::initializer), but not before the last thread has run it.
    pub fn finalizer(mut self, f: impl Fn() + Send + Sync + 'static) -> Self {
        self.finalizer = Some(Arc::new(f));
        self
    }

    /// Bounds the queue to `tasks` entries. Running tasks and futures that have been polled do not count. `policy` determines
    /// what happens when the queue is full. Without it the queue is unbounded. Tasks of a `map` or a scope are not counted; bound
    /// a map by its [`buffer`](crate::MapOptions::buffer).
    pub fn queue_capacity(mut self, tasks: usize, policy: QueuePolicy) -> Self {
        self.queue_capacity = Some((tasks, policy));
        self
    }

    /// Threads that have been idle for `time` end. By default idle threads stay alive. One thread always stays while there are
    /// unfinished spawned futures.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.idle_timeout = Some(time);
        self
    }

    /// Creates the executor. No thread is started before the first task.
    ///
    /// # Errors
    ///
    /// [`BuildError`], if a setting is invalid.
    pub fn build(self) -> Result<ThreadPoolExecutor, BuildError> {
        let max_workers = self.max_workers.unwrap_or_else(default::io_workers);
        check_workers(max_workers)?;
        let capacity = match self.queue_capacity {
            Some((0, _)) => return Err(BuildError::NoQueueCapacity),
            Some((tasks, policy)) => Some(Capacity::new(tasks, policy)),
            None => None,
        };
        let name = self.name.unwrap_or_else(next_name);
        if name.contains('\0') {
            return Err(BuildError::BadThreadName);
        }
        unwind::install_hook();
        let config = Config { name, stack_size: self.stack_size, idle_timeout: self.idle_timeout };
        let hooks = Hooks { initializer: self.initializer, finalizer: self.finalizer };
        Ok(ThreadPoolExecutor { core: Core::new(config, hooks, max_workers, capacity) })
    }
}

fn next_name() -> String {
    static COUNTER: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: the number only has to be unique.
    format!("ThreadPoolExecutor-{}", COUNTER.fetch_add(1, Relaxed))
}

impl fmt::Debug for ThreadPoolBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThreadPoolBuilder")
            .field("max_workers", &self.max_workers)
            .field("name", &self.name)
            .field("stack_size", &self.stack_size)
            .field("queue_capacity", &self.queue_capacity)
            .field("idle_timeout", &self.idle_timeout)
            .finish_non_exhaustive()
    }
}
