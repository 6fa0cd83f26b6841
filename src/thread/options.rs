//! Options of a single task.

use std::fmt;
use std::sync::Arc;

use super::{ThreadPoolExecutor, into_dyn};
use crate::current;
use crate::error::SubmitError;
use crate::executor::Priority;
use crate::future::{LARGE, TaskFuture};

/// A task that has not been submitted yet, created by [`ThreadPoolExecutor::task`]. It can be given a name and a priority.
///
/// ```
/// use concurrent_futures::{Priority, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new(2)?;
/// let future = pool.task(|| 6 * 7).name("answer").priority(Priority::High).submit();
/// assert_eq!(future.result()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a task runs only when it is submitted"]
pub struct ThreadTask<'pool, F> {
    pool: &'pool ThreadPoolExecutor,
    f: F,
    name: Option<Arc<str>>,
    priority: Priority,
}

impl<'pool, F> ThreadTask<'pool, F> {
    pub(super) fn new(pool: &'pool ThreadPoolExecutor, f: F) -> Self {
        Self { pool, f, name: None, priority: Priority::default() }
    }

    /// Sets a name, which is part of the error if the task panics.
    pub fn name(mut self, name: impl Into<Arc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the priority relative to other queued tasks. The default is [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Submits the task as [`ThreadPoolExecutor::submit`] does.
    pub fn submit<T>(self) -> TaskFuture<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let Self { pool, f, name, priority } = self;
        if const { size_of::<F>() > LARGE } {
            let f = Box::new(f) as Box<dyn FnOnce() -> T + Send>;
            return ThreadTask { pool, f, name, priority }.submit();
        }
        match name {
            None => pool.submit_with(f, priority),
            Some(name) => pool.submit_with(move || current::named(name, f), priority),
        }
    }

    /// Submits the task as [`ThreadPoolExecutor::try_submit`] does.
    ///
    /// # Errors
    ///
    /// As for [`ThreadPoolExecutor::try_submit`]; the error contains the closure.
    pub fn try_submit<T>(self) -> Result<TaskFuture<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let Self { pool, f, name, priority } = self;
        if const { size_of::<F>() > LARGE } {
            return match name {
                None => pool.try_submit_with(Box::new(f), priority, into_dyn),
                Some(name) => pool.try_submit_with(Box::new(f), priority, |f| {
                    let f = into_dyn(f);
                    move || current::named(name, f)
                }),
            }
            .map_err(SubmitError::unboxed);
        }
        match name {
            None => pool.try_submit_with(f, priority, |f| f),
            Some(name) => pool.try_submit_with(f, priority, |f| move || current::named(name, f)),
        }
    }
}

impl<F> fmt::Debug for ThreadTask<'_, F> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("ThreadTask")
            .field("name", &self.name)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}
