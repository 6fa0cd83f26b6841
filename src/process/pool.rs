//! The public API of the pool.

use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::builder::ProcessPoolBuilder;
use super::call::Function;
use super::options::ProcessTask;
use super::parent::{ChunkLane, EndReason, Inner, JobOptions, Limits};
use crate::combine::{Map, MapOptions};
use crate::error::{BuildError, MapError, ShutdownError, SubmitError, TaskError};
use crate::executor::{Executor, Priority, Sealed, Shutdown, check_workers};
use crate::future::TaskFuture;

/// A pool of worker processes that run functions, each call behind a [`TaskFuture`].
///
/// What a worker runs is a plain function or a closure that captures nothing, with one argument; argument and result are any
/// types with serde's `Serialize` and `Deserialize`. Nothing else has to be prepared: no macro, no call in `main`. Workers run
/// this same executable and branch off before `main` (for exceptions see [`worker`](crate::worker)). They start on demand, up
/// to a limit, and are reused.
///
/// **A crash costs one task.** When a worker process dies for any reason, the task that it ran fails with
/// [`TaskError::WorkerDied`], which says how the worker died. The results of tasks that it had finished are kept, tasks that it
/// had not begun are run by other workers, and a new worker takes its place. No task is begun twice, unless it has
/// [`retries`](ProcessTask::retries). A panic does not end the worker.
///
/// **A running task can be stopped**: [`TaskFuture::cancel`] kills the worker that runs it, and so does a [time
/// limit](ProcessTask::timeout).
///
/// Workers end with the pool and with the program, however the program ends. Processes that a task starts may outlive both. The
/// standard input of workers is empty; their standard output and error are the program's unless
/// [`stdio`](ProcessPoolBuilder::stdio) says otherwise. Ctrl-C is left to the program: workers ignore SIGINT.
///
/// **Arguments and results arrive as they were sent, or as an error.** They are encoded without names, so serde attributes that
/// leave something out are not supported: a task fails with [`TaskError::Encode`] if `skip_serializing_if` skips a field of the
/// value, and with [`TaskError::Decode`] if a field is skipped in only one direction. `flatten`, `untagged` and `tag` are
/// errors too. A type that skips one field only when serializing and a different one only when deserializing is not detected.
///
/// A task may fork. A child that reaches the end of the task, or panics in it, exits immediately (`_exit`, with 0 or 101): only
/// the worker replies.
///
/// Tasks of the same priority are handed out first in, first out. Workers that run short tasks get several in advance. Tasks that
/// such a worker has not begun may move to a worker that is idle, and may then begin in a different order.
///
/// In this process, `Serialize` runs on the thread that submits, and `Deserialize` on the thread that asks for the result: the
/// one that takes it, awaits it or peeks at it, or takes the next item of a map. A `Deserialize` that blocks therefore delays
/// no other task. A result that is never asked for is never deserialized, and a result that cannot be deserialized is an error
/// only when it is asked for. Done-callbacks run on a thread of the pool, which deserializes the results for them.
///
/// **Dropping the pool is like leaving Python's `with` block**: it waits until everything that was submitted has run and the
/// workers have ended. If it is dropped while the thread unwinds from a panic, tasks that have not started are cancelled first.
/// If it was shut down without waiting ([`Shutdown::NoWait`], [`Shutdown::CancelPendingNoWait`]), dropping it does not wait
/// either.
///
/// **A pool belongs to the process that built it.** In a forked child all uses of the pool, including the futures of its tasks,
/// fail at once with [`TaskError::WrongProcess`], and dropping the pool does nothing; the parent's pool is not affected. So a
/// daemon must build its pools after it has detached itself.
///
/// After Python's
/// [`ProcessPoolExecutor`](https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.ProcessPoolExecutor).
///
/// ```
/// use concurrent_futures::ProcessPoolExecutor;
///
/// fn is_prime(n: u64) -> bool {
///     n >= 2 && (2..).take_while(|d| d * d <= n).all(|d| n % d != 0)
/// }
///
/// let pool = ProcessPoolExecutor::new(2)?;
/// let future = pool.submit(is_prime, 1_000_003);
/// assert!(future.result()?);
///
/// let squares: Vec<u64> = pool.map(|n| n * n, 0..5u64).map(Result::unwrap).collect();
/// assert_eq!(squares, [0, 1, 4, 9, 16]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ProcessPoolExecutor {
    inner: Arc<Inner>,
    defaults: Limits,
}

// No user code runs under a lock of the pool, and its locks are not poisoned, so a panic cannot leave the pool in a broken state.
impl UnwindSafe for ProcessPoolExecutor {}
impl RefUnwindSafe for ProcessPoolExecutor {}

impl ProcessPoolExecutor {
    /// Creates a pool of at most `max_workers` worker processes, from 1 to [`MAX_WORKERS`](crate::MAX_WORKERS). No process is
    /// started before the first task.
    ///
    /// # Errors
    ///
    /// [`BuildError`], if the number is out of range, or this process cannot have worker processes.
    pub fn new(max_workers: usize) -> Result<Self, BuildError> {
        Self::builder().max_workers(max_workers).build()
    }

    /// Returns a builder for a pool with other settings.
    pub fn builder() -> ProcessPoolBuilder {
        ProcessPoolBuilder::default()
    }

    /// Queues a call of `f` with `argument` in a worker process and returns the future of its result.
    ///
    /// The argument is encoded at once, in the calling thread. `submit` never panics. It blocks only with a full bounded queue:
    /// until there is room ([`QueuePolicy::Block`](crate::QueuePolicy::Block)), or while it runs the task itself
    /// ([`QueuePolicy::CallerRuns`](crate::QueuePolicy::CallerRuns)). If the task cannot be submitted, the returned future is
    /// already resolved to the reason: [`TaskError::Encode`], [`TaskError::TooLarge`], [`TaskError::ShutDown`],
    /// [`TaskError::Broken`], [`TaskError::QueueFull`], [`TaskError::WrongProcess`], [`TaskError::Spawn`] or
    /// [`TaskError::NoSuchFunction`].
    ///
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// let pool = ProcessPoolExecutor::new(1)?;
    /// let future = pool.submit(|(a, b): (String, u32)| format!("{a}{b}"), ("x".to_owned(), 1));
    /// assert_eq!(future.result()?, "x1");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A closure that captures something cannot be sent to another process; what it needs has to be (part of) its argument. The
    /// compiler rejects it:
    ///
    /// ```compile_fail,E0080
    /// let pool = concurrent_futures::ProcessPoolExecutor::new(1).unwrap();
    /// let factor = 3;
    /// let _ = pool.submit(move |n: u64| n * factor, 5);
    /// ```
    pub fn submit<F, A, R>(&self, f: F, argument: A) -> TaskFuture<R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        self.inner.submit_with(f, argument, Priority::Normal, self.default_options())
    }

    /// Like [`submit`](Self::submit), but never blocks, and returns the argument if the pool does not accept the task.
    ///
    /// ```
    /// use concurrent_futures::{ProcessPoolExecutor, Shutdown};
    ///
    /// let pool = ProcessPoolExecutor::new(1)?;
    /// pool.shutdown(Shutdown::Wait)?;
    /// let error = pool.try_submit(|text: String| text.len(), "kept".to_owned()).unwrap_err();
    /// assert!(error.is_shut_down());
    /// assert_eq!(error.into_inner(), "kept");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SubmitError`], which contains the argument, if the queue is full, or the pool is shut down or broken.
    pub fn try_submit<F, A, R>(&self, f: F, argument: A) -> Result<TaskFuture<R>, SubmitError<A>>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        self.inner.try_submit_with(f, argument, Priority::Normal, self.default_options())
    }

    /// Calls `f` with every item of `items`, in the workers, and yields the results in the order of the items. Each is a
    /// `Result` of its own: a failed item does not end the map.
    ///
    /// All items are taken, and work starts, when this is called. Items that take very little time are sent several at a time;
    /// if a worker dies in such a chunk, the items of it that had begun fail, and other workers run the rest. With a [chunk
    /// size](MapOptions::chunk_size) of 1 a crash costs exactly the item that crashed. Dropping the iterator before its end
    /// cancels the items that have not started, and kills the workers that run its items, as [`TaskFuture::cancel`] does; so
    /// does a [time-out](MapOptions::timeout) of the map.
    ///
    /// A [time limit](ProcessPoolBuilder::task_timeout) and [retries](ProcessPoolBuilder::retries) of the pool apply to each
    /// item separately; items are then sent one at a time, whatever the chunk size.
    ///
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// let pool = ProcessPoolExecutor::new(2)?;
    /// let words = ["one", "two", "three"].map(str::to_owned);
    /// let lengths: Vec<usize> = pool.map(|word: String| word.len(), words).map(Result::unwrap).collect();
    /// assert_eq!(lengths, [3, 3, 5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map<F, I, R>(&self, f: F, items: I) -> Map<I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Serialize + DeserializeOwned + Send + 'static,
        F: Fn(I::Item) -> R + Copy + Send + Sync + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        self.map_with(MapOptions::new(), f, items).expect("the default options are valid")
    }

    /// [`map`](Self::map) with options: chunk size, a limit on items in flight, a time-out, results in order of completion.
    ///
    /// # Errors
    ///
    /// [`MapError`] if the chunk size or the buffer is 0.
    pub fn map_with<F, I, R>(&self, options: MapOptions, f: F, items: I) -> Result<Map<I::IntoIter, R>, MapError>
    where
        I: IntoIterator,
        I::Item: Serialize + DeserializeOwned + Send + 'static,
        F: Fn(I::Item) -> R + Copy + Send + Sync + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        options.check()?;
        let function = match self.inner.closed_because() {
            None => Function::of_chunk(f),
            Some(reason) => Err(reason),
        };
        Ok(Map::on(ChunkLane::new(&self.inner, function, self.defaults, &options), options, items.into_iter()))
    }

    /// Returns a task for which a time limit, retries, a name or a priority can be set before it is submitted.
    pub fn task<F, A>(&self, f: F, argument: A) -> ProcessTask<'_, F, A> {
        ProcessTask::new(&self.inner, self.defaults, f, argument)
    }

    /// Returns a snapshot of the state of the pool. In a forked child all numbers are 0.
    pub fn stats(&self) -> ProcessPoolStats {
        if !self.inner.is_here() {
            return ProcessPoolStats::NOTHING;
        }
        let (workers, busy, queued, completed) = self.inner.tally();
        ProcessPoolStats { max_workers: self.inner.max_workers(), workers, busy, queued, completed }
    }

    /// Returns the process ids of the current workers, including those that are starting or ending. In a forked child the list
    /// is empty: the workers belong to the parent.
    pub fn worker_pids(&self) -> Vec<u32> {
        self.inner.pids()
    }

    /// Changes the maximum number of workers. Additional ones start when there is work for them; surplus ones end as soon as
    /// they are idle.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if `max_workers` is 0 or above [`MAX_WORKERS`](crate::MAX_WORKERS), or in a forked child
    /// ([`BuildError::WrongProcess`]); the pool stays as it was.
    pub fn resize(&self, max_workers: usize) -> Result<(), BuildError> {
        check_workers(max_workers)?;
        if !self.inner.is_here() {
            return Err(BuildError::WrongProcess);
        }
        self.inner.resize(max_workers);
        Ok(())
    }

    /// Shuts the pool down: it accepts no new tasks, and `how` says what happens to those it has. Can be called any number of
    /// times, on any thread; all callers that wait return when the workers have ended.
    ///
    /// # Errors
    ///
    /// [`ShutdownError::WouldDeadlock`] if it is called in a done-callback and would wait;
    /// [`ShutdownError::TimedOut`] after [`Shutdown::Within`]; [`ShutdownError::WrongProcess`] in a forked child.
    pub fn shutdown(&self, how: Shutdown) -> Result<(), ShutdownError> {
        self.inner.shut_down(how)
    }

    /// True once the pool has been shut down in any way: tasks that are submitted fail with [`TaskError::ShutDown`]. It may
    /// still be running earlier ones.
    pub fn is_shut_down(&self) -> bool {
        matches!(self.inner.closed_because(), Some(TaskError::ShutDown))
    }

    /// True once the pool is broken: its tasks have failed with [`TaskError::Broken`], which contains the reason, and so does
    /// every task that is submitted.
    ///
    /// ```
    /// use concurrent_futures::ProcessPoolExecutor;
    ///
    /// let pool = ProcessPoolExecutor::builder().max_workers(1).initializer(|()| panic!("no licence"), ()).build()?;
    /// assert!(pool.submit(|n: u32| n, 1).result().unwrap_err().is_broken());
    /// assert!(pool.is_broken());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_broken(&self) -> bool {
        matches!(self.inner.closed_because(), Some(TaskError::Broken(_)))
    }

    /// Asks all workers to end at once (SIGTERM, and SIGKILL after [`kill_grace`](ProcessPoolBuilder::kill_grace)), and shuts
    /// the pool down. Tasks that have not begun are cancelled; those that have begun fail with [`TaskError::WorkerDied`]. Does
    /// not wait. Does nothing in a forked child: the workers belong to the parent.
    ///
    /// After Python's
    /// [`terminate_workers`](https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.ProcessPoolExecutor.terminate_workers).
    pub fn terminate_workers(&self) {
        let grace = self.inner.config.kill_grace.max(Duration::from_millis(1));
        self.inner.end_workers(grace, EndReason::WorkersTerminated);
    }

    /// Like [`terminate_workers`](Self::terminate_workers), but sends SIGKILL at once.
    pub fn kill_workers(&self) {
        self.inner.end_workers(Duration::ZERO, EndReason::WorkersKilled);
    }

    fn default_options(&self) -> JobOptions {
        JobOptions { name: None, timeout: self.defaults.timeout, retries: self.defaults.retries, permit: None }
    }
}

impl ProcessPoolBuilder {
    /// Builds the pool. No process is started before the first task.
    ///
    /// # Errors
    ///
    /// [`BuildError`], if a setting is invalid, or this process cannot have worker processes: [`BuildError::DifferentIds`]
    /// while the effective user or group of the process is not the real one.
    pub fn build(self) -> Result<ProcessPoolExecutor, BuildError> {
        let (inner, defaults) = self.make()?;
        Ok(ProcessPoolExecutor { inner, defaults })
    }
}

impl Sealed for ProcessPoolExecutor {}

impl Executor for ProcessPoolExecutor {
    fn submit_call<F, A, R>(&self, f: F, argument: A) -> TaskFuture<R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        self.submit(f, argument)
    }

    fn map<F, I, R>(&self, f: F, items: I) -> Map<I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Serialize + DeserializeOwned + Send + 'static,
        F: Fn(I::Item) -> R + Copy + Send + Sync + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        self.map(f, items)
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), ShutdownError> {
        self.shutdown(how)
    }
}

impl Drop for ProcessPoolExecutor {
    fn drop(&mut self) {
        if !self.inner.is_here() {
            // In a forked child the copy of the pool is leaked: rings, descriptors and workers belong to the parent.
            std::mem::forget(Arc::clone(&self.inner));
            return;
        }
        if self.inner.is_left_alone.load(Relaxed) {
            return;
        }
        let how = if std::thread::panicking() { Shutdown::CancelPending } else { Shutdown::Wait };
        // In a done-callback the pool is shut down but cannot be waited for. The error only reports that.
        let _ = self.shutdown(how);
    }
}

impl fmt::Debug for ProcessPoolExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        f.debug_struct("ProcessPoolExecutor")
            .field("name", &self.inner.config.name)
            .field("workers", &format_args!("{}/{}", stats.workers, stats.max_workers))
            .field("busy", &stats.busy)
            .field("queued", &stats.queued)
            .finish()
    }
}

/// A snapshot of a [`ProcessPoolExecutor`].
///
/// ```
/// use concurrent_futures::ProcessPoolExecutor;
///
/// let pool = ProcessPoolExecutor::new(4)?;
/// pool.submit(|()| (), ()).result()?;
/// let stats = pool.stats();
/// assert_eq!((stats.max_workers, stats.workers, stats.queued, stats.completed), (4, 1, 0, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessPoolStats {
    /// The maximum number of workers.
    pub max_workers: usize,
    /// The current number of workers, which start on demand.
    pub workers: usize,
    /// The number of workers that have a task which has not come back.
    pub busy: usize,
    /// The number of tasks that have not begun, as far as is known. Cancelled tasks may be counted for a while.
    pub queued: usize,
    /// The number of tasks that have come back from a worker, successful or not. A chunk of a map counts as one.
    pub completed: u64,
}

impl ProcessPoolStats {
    /// The numbers of a parent's pool in a forked child.
    const NOTHING: Self = Self { max_workers: 0, workers: 0, busy: 0, queued: 0, completed: 0 };
}
