//! Options of a single task.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::parent::{Inner, JobOptions, Limits};
use crate::error::SubmitError;
use crate::executor::Priority;
use crate::future::TaskFuture;

/// A task that has not been submitted yet, to set a time limit, retries, a name or a priority. Made by
/// [`ProcessPoolExecutor::task`](crate::ProcessPoolExecutor::task).
///
/// ```
/// use std::time::Duration;
/// use concurrent_futures::ProcessPoolExecutor;
///
/// let pool = ProcessPoolExecutor::new(1)?;
/// let sleep = |millis| std::thread::sleep(Duration::from_millis(millis));
/// let future = pool.task(sleep, 60_000).timeout(Duration::from_millis(20)).name("too long").submit();
/// assert!(future.result().unwrap_err().is_timed_out());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a task runs only when it is submitted"]
pub struct ProcessTask<'pool, F, A> {
    pool: &'pool Arc<Inner>,
    defaults: Limits,
    f: F,
    argument: A,
    name: Option<Arc<str>>,
    timeout: Option<Duration>,
    retries: Option<u32>,
    priority: Priority,
}

impl<'pool, F, A> ProcessTask<'pool, F, A> {
    pub(super) fn new(pool: &'pool Arc<Inner>, defaults: Limits, f: F, argument: A) -> Self {
        Self { pool, defaults, f, argument, name: None, timeout: None, retries: None, priority: Priority::default() }
    }

    /// Sets how long the task may run once a worker has begun it. After that its future resolves to
    /// [`TimedOut`](crate::TaskError::TimedOut), and its worker is killed: SIGTERM, and SIGKILL after
    /// [`kill_grace`](crate::ProcessPoolBuilder::kill_grace). The default is the setting of the pool.
    ///
    /// With [`threads_per_worker`](crate::ProcessPoolBuilder::threads_per_worker) that also ends the other tasks of that
    /// worker.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Sets how many times the task may be begun again when its worker dies. The default is the setting of the pool, which is 0
    /// unless changed, so that no task is begun twice. A task that fails in any other way is not repeated.
    pub fn retries(mut self, retries: u32) -> Self {
        self.retries = Some(retries);
        self
    }

    /// Sets a name, which is part of the error if the task panics or its worker dies.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets when the task starts relative to others that are queued. The default is [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Submits the task as [`ProcessPoolExecutor::submit`](crate::ProcessPoolExecutor::submit) does.
    pub fn submit<R>(self) -> TaskFuture<R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let options = self.options();
        self.pool.submit_with(self.f, self.argument, self.priority, options)
    }

    /// Submits the task as [`ProcessPoolExecutor::try_submit`](crate::ProcessPoolExecutor::try_submit) does.
    ///
    /// # Errors
    ///
    /// As for that method; the error contains the argument.
    pub fn try_submit<R>(self) -> Result<TaskFuture<R>, SubmitError<A>>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let options = self.options();
        self.pool.try_submit_with(self.f, self.argument, self.priority, options)
    }

    fn options(&self) -> JobOptions {
        JobOptions {
            name: self.name.clone(),
            timeout: self.timeout.or(self.defaults.timeout),
            retries: self.retries.unwrap_or(self.defaults.retries),
            permit: None,
        }
    }
}

impl<F, A> fmt::Debug for ProcessTask<'_, F, A> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ProcessTask")
            .field("name", &self.name)
            .field("timeout", &self.timeout)
            .field("retries", &self.retries)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}
