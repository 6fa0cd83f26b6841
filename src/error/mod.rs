//! Every error of this crate. No type of a dependency appears in them.

use std::any::Any;
use std::backtrace::Backtrace;
use std::error::Error;
use std::fmt;
use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::lock::Mutex;

use crate::unwind;

mod worker;

#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub(crate) use worker::ExitInner;
pub use worker::{CodecError, DifferentIds, SizeLimit, StartError, WorkerExit};

/// Why a task has no value.
///
/// Every failed future owns its error. Clones share what cannot be copied (the panic payload, a cause), so an
/// error can be kept, sent to another thread and shown to many readers.
///
/// ```
/// use concurrent_futures::{TaskError, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new(1)?;
/// let error = pool.submit(|| -> u32 { panic!("out of {}", "cheese") }).result().unwrap_err();
/// assert!(error.is_panicked());
/// assert!(error.to_string().contains("out of cheese"));
///
/// let TaskError::Panicked(panic) = error else { unreachable!() };
/// assert_eq!(panic.location().unwrap().file(), file!());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The task was cancelled: before it started, so it never ran; a spawned future, at an `.await`; or, in a worker process,
    /// while it ran, so that process was ended.
    #[error("the task was cancelled")]
    Cancelled,
    /// The task panicked.
    #[error("{0}")]
    Panicked(TaskPanic),
    /// The producing half of the future reported a failure of its own ([`Promise::set_error`](crate::Promise::set_error)).
    #[error("the task failed: {0}")]
    Failed(#[source] Cause),
    /// The time limit of the task passed while it ran ([`ProcessTask::timeout`](crate::ProcessTask::timeout)), or the
    /// deadline of a [`map`](crate::ThreadPoolExecutor::map_with) before this item was ready.
    #[error("the deadline passed before the task was done")]
    TimedOut,
    /// The worker process that ran the task has ended.
    #[error("{0}")]
    WorkerDied(WorkerExit),
    /// The argument, or the result, could not be turned into bytes; or a field of it was skipped
    /// (`#[serde(skip_serializing_if)]`), so that it would arrive as another value.
    #[error("cannot be sent to or from a worker process: {0}")]
    Encode(#[source] CodecError),
    /// The argument, or the result, could not be made of the bytes that arrived; or the type skips a field or variant in only one
    /// of the two directions.
    #[error("arrived, but cannot be decoded: {0}")]
    Decode(#[source] CodecError),
    /// The argument, or the result, is too long ([`max_payload`](crate::ProcessPoolBuilder::max_payload)).
    #[error("too large to be sent: {0}")]
    TooLarge(Box<SizeLimit>),
    /// The worker process sent data that violates the protocol; it has been killed.
    #[error("the worker process violated the protocol: {0}")]
    Protocol(#[source] Cause),
    /// The function is not part of the executable, but of a shared library, so a worker process cannot find it.
    #[error("the function is not part of the executable, so a worker process cannot find it")]
    NoSuchFunction,
    /// The executor cannot run anything any more: a worker's initializer failed, or worker processes cannot be started.
    #[error("the executor is broken: {0}")]
    Broken(#[source] Cause),
    /// The executor had been shut down when the task was submitted.
    #[error("the executor has been shut down")]
    ShutDown,
    /// The executor was built in another process, from which this one was forked: a child has none of its workers. Build
    /// executors after the fork, in the process that uses them.
    #[error("the executor was built in another process, from which this one was forked")]
    WrongProcess,
    /// The queue of the executor was full and its policy is [`QueuePolicy::Fail`](crate::QueuePolicy::Fail).
    #[error("the queue of the executor is full")]
    QueueFull,
    /// No worker could be started for the task, and none was there to take it.
    #[error("no worker could be started: {0}")]
    Spawn(#[source] Cause),
    /// The wait could never have ended: a task waited for itself, or tasks waited for each other in a circle. It is an error of the
    /// wait, not of the task that was waited for: that goes on.
    ///
    /// It is returned when threads block on each other in a circle, in [`result`](crate::TaskFuture::result), [`get`](crate::SharedFuture::get),
    /// [`wait`](crate::wait()) or [`as_completed`](crate::as_completed()) without a time-out, and when a task awaits its own handle, in a
    /// spawned future or in a [`block_on`](crate::block_on) inside the task. Not detected, so these hang: circles of two or more tasks
    /// that lead through an `.await`, a `block_on`, the end of a [`scope`](crate::ThreadPoolExecutor::scope), a closure of a
    /// [`join`](crate::ThreadPoolExecutor::join) that another worker has taken, items of a map, a `submit` that waits for room in a bounded
    /// queue, a promise, a channel or a lock, or through several processes; and a task that polls its own handle through a combinator which replaces the waker,
    /// such as `FuturesUnordered`.
    #[error("the wait would never end: the task waits for itself, directly or through others")]
    WouldDeadlock,
    /// The task was to run inside a wait for it, or inside the `submit` that found the queue full, on the stack of the calling
    /// thread, and there was no room left on that stack. It has not been run. With the feature `deep-stacks`, which is on by
    /// default, stacks grow, and this happens only where there is no memory for that, or on a target where stacks cannot be
    /// switched.
    #[error("the task was nested too deeply: there was no room on the stack to run it")]
    TooDeep,
    /// The producing half went away without a result: a [`Promise`](crate::Promise) was dropped unused, or the last waker of a
    /// [spawned](crate::ThreadPoolExecutor::spawn) future that waited, so that nobody can ever wake it.
    #[error("the task was abandoned: its producer went away without a result")]
    Abandoned,
}

impl TaskError {
    /// True for [`TaskError::Cancelled`].
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled)
    }

    /// True for [`TaskError::Panicked`].
    pub fn is_panicked(&self) -> bool {
        matches!(self, Self::Panicked(_))
    }

    /// True for [`TaskError::Failed`].
    pub fn is_failed(&self) -> bool {
        matches!(self, Self::Failed(_))
    }

    /// True for [`TaskError::TimedOut`].
    pub fn is_timed_out(&self) -> bool {
        matches!(self, Self::TimedOut)
    }

    /// True for [`TaskError::WorkerDied`].
    pub fn is_worker_died(&self) -> bool {
        matches!(self, Self::WorkerDied(_))
    }

    /// True for [`TaskError::Encode`].
    pub fn is_encode(&self) -> bool {
        matches!(self, Self::Encode(_))
    }

    /// True for [`TaskError::Decode`].
    pub fn is_decode(&self) -> bool {
        matches!(self, Self::Decode(_))
    }

    /// True for [`TaskError::TooLarge`].
    pub fn is_too_large(&self) -> bool {
        matches!(self, Self::TooLarge(_))
    }

    /// True for [`TaskError::Protocol`].
    pub fn is_protocol(&self) -> bool {
        matches!(self, Self::Protocol(_))
    }

    /// True for [`TaskError::NoSuchFunction`].
    pub fn is_no_such_function(&self) -> bool {
        matches!(self, Self::NoSuchFunction)
    }

    /// True for [`TaskError::Broken`].
    pub fn is_broken(&self) -> bool {
        matches!(self, Self::Broken(_))
    }

    /// True for [`TaskError::ShutDown`].
    pub fn is_shut_down(&self) -> bool {
        matches!(self, Self::ShutDown)
    }

    /// True for [`TaskError::WrongProcess`].
    pub fn is_wrong_process(&self) -> bool {
        matches!(self, Self::WrongProcess)
    }

    /// True for [`TaskError::QueueFull`].
    pub fn is_queue_full(&self) -> bool {
        matches!(self, Self::QueueFull)
    }

    /// True for [`TaskError::Spawn`].
    pub fn is_spawn(&self) -> bool {
        matches!(self, Self::Spawn(_))
    }

    /// True for [`TaskError::WouldDeadlock`].
    pub fn is_would_deadlock(&self) -> bool {
        matches!(self, Self::WouldDeadlock)
    }

    /// True for [`TaskError::TooDeep`].
    pub fn is_too_deep(&self) -> bool {
        matches!(self, Self::TooDeep)
    }

    /// True for [`TaskError::Abandoned`].
    pub fn is_abandoned(&self) -> bool {
        matches!(self, Self::Abandoned)
    }

    /// Goes on with the panic of the task on this thread, payload and all; any other error is given back.
    ///
    /// # Panics
    ///
    /// With the payload of the task's panic, if that is what this error is.
    pub fn resume_panic(self) -> Self {
        match self {
            Self::Panicked(panic) => panic.resume(),
            other => other,
        }
    }
}

/// The panic that ended a task.
///
/// The place is known because this crate puts a panic hook in front of the program's own when the first
/// executor is built (the program's hook still runs and prints). If the program replaces the hook later without
/// calling the old one, [`location`](Self::location) and [`backtrace`](Self::backtrace) are `None`.
#[derive(Clone)]
pub struct TaskPanic(Arc<PanicInner>);

// The payload is behind a lock, and is given away as a whole.
impl UnwindSafe for TaskPanic {}
impl RefUnwindSafe for TaskPanic {}

struct PanicInner {
    message: String,
    location: Option<PanicLocation>,
    thread: Option<String>,
    pid: u32,
    task: Option<Arc<str>>,
    backtrace: Option<Trace>,
    payload: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A backtrace: captured, and made a text when somebody wants to read it.
enum Trace {
    Captured(Backtrace, OnceLock<String>),
    #[cfg(all(feature = "process", target_os = "linux", not(loom)))]
    Text(String),
}

impl Drop for PanicInner {
    fn drop(&mut self) {
        // A payload whose own destructor panics must not bring down the worker that lets go of the error.
        unwind::drop_quietly(self.payload.get_mut().take());
    }
}

impl TaskPanic {
    pub(crate) fn new(
        payload: Box<dyn Any + Send>,
        location: Option<PanicLocation>,
        backtrace: Option<Backtrace>,
        task: Option<Arc<str>>,
    ) -> Self {
        let message = if let Some(text) = payload.downcast_ref::<&'static str>() {
            (*text).to_owned()
        } else if let Some(text) = payload.downcast_ref::<String>() {
            text.clone()
        } else {
            "non-string payload".to_owned()
        };
        Self(Arc::new(PanicInner {
            message,
            location,
            thread: std::thread::current().name().map(str::to_owned),
            pid: std::process::id(),
            task,
            backtrace: backtrace.map(|backtrace| Trace::Captured(backtrace, OnceLock::new())),
            payload: Mutex::new(Some(payload)),
        }))
    }

    /// A panic in another process, of which a report has come.
    #[cfg(all(feature = "process", target_os = "linux", not(loom)))]
    pub(crate) fn remote(
        message: String,
        location: Option<(String, u32, u32)>,
        thread: Option<String>,
        backtrace: Option<String>,
        pid: u32,
        task: Option<Arc<str>>,
    ) -> Self {
        let location = location.map(|(file, line, column)| PanicLocation { file, line, column });
        let (backtrace, payload) = (backtrace.map(Trace::Text), Mutex::new(None));
        Self(Arc::new(PanicInner { message, location, thread, pid, task, backtrace, payload }))
    }

    /// The message, or `"non-string payload"` where the payload is neither a `&str` nor a `String`.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Where the task panicked.
    pub fn location(&self) -> Option<&PanicLocation> {
        self.0.location.as_ref()
    }

    /// The name of the thread that ran the task.
    pub fn thread_name(&self) -> Option<&str> {
        self.0.thread.as_deref()
    }

    /// The process that ran the task: this one, or a worker process.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// The name that the task was given ([`TaskOptions::name`](crate::TaskOptions::name)).
    pub fn task_name(&self) -> Option<&str> {
        self.0.task.as_deref()
    }

    /// The backtrace of the panic, where the environment asks for one (`RUST_BACKTRACE=1`).
    pub fn backtrace(&self) -> Option<&str> {
        Some(match self.0.backtrace.as_ref()? {
            Trace::Captured(backtrace, text) => text.get_or_init(|| backtrace.to_string()),
            #[cfg(all(feature = "process", target_os = "linux", not(loom)))]
            Trace::Text(text) => text,
        })
    }

    /// Takes the payload out, for `downcast`. The clones of an error share one payload: the first call gets it,
    /// later ones get `None`. Of a panic in a worker process there is none.
    ///
    /// ```
    /// use concurrent_futures::{TaskError, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let future = pool.submit(|| std::panic::panic_any(42u32));
    /// let Err(TaskError::Panicked(panic)) = future.result() else { unreachable!() };
    /// assert_eq!(*panic.into_payload().unwrap().downcast::<u32>().unwrap(), 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn into_payload(self) -> Option<Box<dyn Any + Send>> {
        self.0.payload.lock().take()
    }

    /// Goes on with this panic on the calling thread, without calling the panic hook again.
    ///
    /// # Panics
    ///
    /// Always: that is its purpose. With the original payload, or the message where a clone took the payload.
    pub fn resume(self) -> ! {
        let message = self.0.message.clone();
        let payload = self.into_payload().unwrap_or_else(|| Box::new(message));
        std::panic::resume_unwind(payload)
    }
}

impl fmt::Display for TaskPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the task ")?;
        if let Some(name) = self.task_name() {
            write!(f, "`{name}` ")?;
        }
        f.write_str("panicked")?;
        if let Some(location) = self.location() {
            write!(f, " at {location}")?;
        }
        write!(f, ": {}", self.message())
    }
}

impl fmt::Debug for TaskPanic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskPanic")
            .field("message", &self.message())
            .field("location", &self.location())
            .field("thread_name", &self.thread_name())
            .field("task_name", &self.task_name())
            .finish_non_exhaustive()
    }
}

/// A place in the source: `file:line:column`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PanicLocation {
    file: String,
    line: u32,
    column: u32,
}

impl PanicLocation {
    pub(crate) fn from_std(location: &std::panic::Location<'_>) -> Self {
        Self { file: location.file().to_owned(), line: location.line(), column: location.column() }
    }

    /// The source file, as the compiler was given it.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The line, from 1.
    pub fn line(&self) -> u32 {
        self.line
    }

    /// The column, from 1.
    pub fn column(&self) -> u32 {
        self.column
    }
}

impl fmt::Display for PanicLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// A shared cause: any error, or a text. One pointer, so that errors, and with them all results, stay small.
#[derive(Clone)]
pub struct Cause(Arc<Box<dyn Error + Send + Sync>>);

// All that can be done with it is to read it.
impl UnwindSafe for Cause {}
impl RefUnwindSafe for Cause {}

impl Cause {
    pub(crate) fn new(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self(Arc::new(cause.into()))
    }

    /// The error itself, for `downcast_ref`.
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &**self.0
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.source()
    }
}

/// A setting that no executor can be built with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// `max_workers` was 0.
    #[error("an executor needs at least one worker")]
    NoWorkers,
    /// `max_workers` was above [`MAX_WORKERS`](crate::MAX_WORKERS).
    #[error("{asked} workers were asked for, but the limit is {limit}")]
    TooManyWorkers {
        /// What was asked for.
        asked: usize,
        /// The limit.
        limit: usize,
    },
    /// `threads_per_worker` was above [`MAX_WORKERS`](crate::MAX_WORKERS).
    #[error("{asked} threads for each worker were asked for, but the limit is {limit}")]
    TooManyThreads {
        /// What was asked for.
        asked: usize,
        /// The limit.
        limit: usize,
    },
    /// `queue_capacity` was 0: nothing could ever be submitted.
    #[error("a queue needs room for at least one task")]
    NoQueueCapacity,
    /// A thread's name cannot hold a NUL byte.
    #[error("a thread name cannot contain a NUL byte")]
    BadThreadName,
    /// A limit, a number of threads, of tasks or of attempts was 0: nothing could ever be run.
    #[error("`{0}` cannot be 0")]
    Zero(&'static str),
    /// A variable for the workers that the crate sets itself ([`env`](crate::ProcessPoolBuilder::env)).
    #[error("the environment variable `{0}` is set by the pool itself")]
    ReservedVariable(&'static str),
    /// The effective user or group of this process is not the real one. The system distrusts what such a process starts: the
    /// dynamic loader and this crate ignore its environment, so no worker could be started.
    #[error("{0}")]
    DifferentIds(DifferentIds),
    /// The command that starts workers was empty.
    #[error("the command that starts workers is empty")]
    NoCommand,
    /// The initializer, or its argument, cannot be sent to a worker process.
    #[error("the initializer cannot be sent to a worker process: {0}")]
    Initializer(String),
    /// The program runs with rights that its caller does not have (setuid, file capabilities). Workers would be started
    /// under the control of the caller's environment, so there are none.
    #[error("a program with special rights (setuid, file capabilities) has no worker processes")]
    Privileged,
    /// This process has itself been started as a worker, but has not become one: without a hook into its start it has to
    /// call [`worker::run_if_worker`](crate::worker::run_if_worker) at the beginning of `main`.
    #[error("this process is a worker that has not become one: call `worker::run_if_worker()` first in `main`")]
    StrayWorker,
    /// This library is not part of the executable, but of a shared library, so that starting the executable again would
    /// not start a worker. Name one that would:
    /// [`worker_command`](crate::ProcessPoolBuilder::worker_command).
    #[error("the executable of this process is not the program of this library: name one with `worker_command`")]
    ForeignExecutable,
    /// A worker has had workers that have had workers, down to the limit.
    #[error("workers of workers are {limit} levels deep already")]
    TooDeep {
        /// The limit.
        limit: u32,
    },
    /// The executor belongs to another process, from which this one was forked: see
    /// [`TaskError::WrongProcess`]. Only where an executor that exists is to be changed.
    #[error("the executor was built in another process, from which this one was forked")]
    WrongProcess,
    /// The operating system refused what every executor of this kind needs.
    #[error("the operating system refuses: {}", std::io::Error::from_raw_os_error(*code))]
    System {
        /// Its error number.
        code: i32,
    },
}

/// What [`MapOptions`](crate::MapOptions) cannot mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MapError {
    /// `chunk_size` was 0.
    #[error("a chunk needs at least one item")]
    ZeroChunk,
    /// `buffer` was 0: nothing could ever be in flight.
    #[error("a buffer needs room for at least one item")]
    ZeroBuffer,
}

/// Why [`try_submit`](crate::ThreadPoolExecutor::try_submit) did not take a task. The closure comes back.
#[derive(Clone, thiserror::Error)]
#[error("the task was not taken: {reason}")]
pub struct SubmitError<F> {
    closure: F,
    reason: TaskError,
}

impl<F> SubmitError<F> {
    pub(crate) fn new(closure: F, reason: TaskError) -> Self {
        Self { closure, reason }
    }

    /// Why: the queue is full, or the executor is shut down or broken.
    pub fn reason(&self) -> &TaskError {
        &self.reason
    }

    /// The closure, unharmed.
    pub fn into_closure(self) -> F {
        self.closure
    }

    /// True if the queue was full: the same call may succeed later.
    pub fn is_queue_full(&self) -> bool {
        self.reason.is_queue_full()
    }

    /// True if the executor takes nothing any more.
    pub fn is_shut_down(&self) -> bool {
        self.reason.is_shut_down()
    }
}

impl<F> SubmitError<Box<F>> {
    pub(crate) fn unboxed(self) -> SubmitError<F> {
        SubmitError { closure: *self.closure, reason: self.reason }
    }
}

impl<F> fmt::Debug for SubmitError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitError").field("reason", &self.reason).finish_non_exhaustive()
    }
}

/// Why a [`shutdown`](crate::ThreadPoolExecutor::shutdown) could not do what it was asked to. The executor is
/// closed all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ShutdownError {
    /// The caller runs on a worker of this very executor, which would have to wait for itself.
    #[error("a worker cannot wait for the end of its own executor")]
    WouldDeadlock,
    /// The executor belongs to another process, from which this one was forked: see [`TaskError::WrongProcess`]. Nothing
    /// happens to it.
    #[error("the executor was built in another process, from which this one was forked")]
    WrongProcess,
    /// The time given to [`Shutdown::Within`](crate::Shutdown::Within) passed. What had not started is
    /// cancelled; what runs goes on, as no thread can be stopped from outside.
    #[error("{running} workers were still busy after {waited:?}")]
    TimedOut {
        /// How many workers were still busy.
        running: usize,
        /// How long the call waited.
        waited: Duration,
    },
}

/// The deadline of [`as_completed_timeout`](crate::as_completed_timeout) passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{unfinished} (of {total}) futures unfinished")]
pub struct CompletionTimeout {
    pub(crate) unfinished: usize,
    pub(crate) total: usize,
}

impl CompletionTimeout {
    /// How many futures were not done at the deadline.
    pub fn unfinished(&self) -> usize {
        self.unfinished
    }

    /// How many there were.
    pub fn total(&self) -> usize {
        self.total
    }
}

pub(crate) fn spawn_error(error: io::Error) -> TaskError {
    TaskError::Spawn(Cause::new(error))
}

// A result is a value and little more: a map makes a vector of them.
const _: () = assert!(size_of::<Result<u64, TaskError>>() == 16);
