//! The panic of a task.

use std::any::Any;
use std::backtrace::Backtrace;
use std::fmt;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::{Arc, OnceLock};

use crate::lock::Mutex;
use crate::quiet;

/// The panic that ended a task.
///
/// The location is known because this crate installs a panic hook in front of the program's own when the first executor is built
/// (the program's hook still runs and prints). If the program replaces the hook later without calling the old one,
/// [`location`](Self::location) and [`backtrace`](Self::backtrace) are `None`.
#[derive(Clone)]
pub struct TaskPanic(Arc<PanicInner>);

// The payload is behind a lock, and is only ever moved out as a whole.
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

/// A backtrace: a captured one is converted to text when it is first read.
enum Trace {
    Captured(Backtrace, OnceLock<String>),
    #[cfg(all(feature = "process", target_os = "linux", not(loom)))]
    Text(String),
}

impl Drop for PanicInner {
    fn drop(&mut self) {
        // A payload whose own destructor panics must not end the worker that drops the error.
        quiet::drop(self.payload.get_mut().take());
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

    /// A panic in a worker process, made from the worker's report.
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

    /// The message, or `"non-string payload"` if the payload is neither a `&str` nor a `String`.
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

    /// The name that the task was given ([`ThreadTask::name`](crate::ThreadTask::name)).
    pub fn task_name(&self) -> Option<&str> {
        self.0.task.as_deref()
    }

    /// The backtrace of the panic, if the environment asks for one (`RUST_BACKTRACE=1`).
    pub fn backtrace(&self) -> Option<&str> {
        Some(match self.0.backtrace.as_ref()? {
            Trace::Captured(backtrace, text) => text.get_or_init(|| backtrace.to_string()),
            #[cfg(all(feature = "process", target_os = "linux", not(loom)))]
            Trace::Text(text) => text,
        })
    }

    /// Takes the payload out, for `downcast`. The clones of an error share one payload: the first call gets it, later ones get
    /// `None`. A panic in a worker process has none.
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

    /// Resumes this panic on the calling thread, without calling the panic hook again.
    ///
    /// # Panics
    ///
    /// Always: with the original payload, or with the message if there is none (it was taken, or the panic was in a worker
    /// process).
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
