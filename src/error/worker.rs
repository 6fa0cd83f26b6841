//! The end of a worker process.

use std::fmt;
use std::sync::Arc;

/// How a worker process ended while it was running a task, and what is known of the reason.
///
/// ```
/// use concurrent_futures::{ProcessPoolExecutor, TaskError};
///
/// let pool = ProcessPoolExecutor::new(1)?;
/// let error = pool.submit(|code: i32| -> () { std::process::exit(code) }, 3).result().unwrap_err();
/// let TaskError::WorkerDied(exit) = error else { unreachable!() };
/// assert_eq!(exit.code(), Some(3));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct WorkerExit(Arc<ExitInner>);

/// The parts of a [`WorkerExit`].
#[derive(Debug, Clone, Default)]
pub(crate) struct ExitInner {
    pub(crate) pid: u32,
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) core_dumped: bool,
    /// The text that the fault handler wrote.
    pub(crate) note: Option<String>,
    /// The last panic in that process, and when it was, in nanoseconds of the monotonic clock.
    pub(crate) panic: Option<(String, u64)>,
    pub(crate) out_of_memory: bool,
    /// The limit of its address space, in bytes.
    pub(crate) memory_limit: Option<u64>,
    pub(crate) stderr: Option<String>,
    pub(crate) task: Option<Arc<str>>,
    pub(crate) attempts: u32,
    /// Why the executor ended it; `None` if it did not.
    pub(crate) killed_because: Option<&'static str>,
}

impl WorkerExit {
    #[cfg(all(feature = "process", target_os = "linux", not(loom)))]
    pub(crate) fn new(inner: ExitInner) -> Self {
        Self(Arc::new(inner))
    }

    /// The same end, for one of the tasks that ended with the worker. `since` is when that task began.
    #[cfg(all(feature = "process", target_os = "linux", not(loom)))]
    pub(crate) fn of_task(&self, task: Option<Arc<str>>, attempts: u32, since: u64) -> Self {
        let mut inner = ExitInner { task, attempts, ..ExitInner::clone(&self.0) };
        // An earlier panic belongs to another task, and did not end the worker.
        inner.panic = inner.panic.filter(|(_, at)| *at >= since);
        Self(Arc::new(inner))
    }

    /// The process that ended.
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// Its exit code, if it ended by itself. For a task even 0 is an error: the task has no result.
    ///
    /// `None` together with [`signal`](Self::signal) if the exit status is unknown, because something else in this program
    /// reaped the process: it ignores SIGCHLD, or it waits for any child.
    pub fn code(&self) -> Option<i32> {
        self.0.code
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.0.signal
    }

    /// The name of that signal, such as `"SIGSEGV"`.
    pub fn signal_name(&self) -> Option<&'static str> {
        self.0.signal.map(signal_name)
    }

    /// Whether it left a core dump.
    pub fn core_dumped(&self) -> bool {
        self.0.core_dumped
    }

    /// What the worker recorded about the crash before it ended, such as `"stack overflow in thread 'worker_0' ..."`. The record
    /// is in shared memory: with [`Transport::Socket`](crate::Transport::Socket) this is always `None`.
    pub fn crash_note(&self) -> Option<&str> {
        self.0.note.as_deref()
    }

    /// The last panic in that process since the task began, whether it is related to the end of the process (as in an abort) or
    /// not. Like [`crash_note`](Self::crash_note), it is known only with shared memory.
    pub fn last_panic(&self) -> Option<&str> {
        self.0.panic.as_ref().map(|(panic, _)| panic.as_str())
    }

    /// True if the kernel probably killed it because memory ran out: it was killed, but not by this executor, and the kernel has
    /// killed some process for that reason since the worker was started.
    pub fn is_probably_out_of_memory(&self) -> bool {
        self.0.out_of_memory
    }

    /// The address space that it was [limited](crate::ProcessPoolBuilder::memory_limit) to, in bytes, if the worker was killed by
    /// SIGABRT or SIGSEGV without a panic, which is how a failed allocation usually ends a process. The limit may be the reason.
    pub fn memory_limit(&self) -> Option<u64> {
        let may_be_the_reason = matches!(self.signal_name(), Some("SIGABRT" | "SIGSEGV")) && self.0.panic.is_none();
        self.0.memory_limit.filter(|_| may_be_the_reason)
    }

    /// The end of what it wrote to its output since the task was handed to it, where that is captured
    /// ([`Stdio::Capture`](crate::Stdio::Capture)). With [`threads_per_worker`](crate::ProcessPoolBuilder::threads_per_worker):
    /// since it was last idle.
    pub fn stderr(&self) -> Option<&str> {
        self.0.stderr.as_deref()
    }

    /// The name that the task was given.
    pub fn task_name(&self) -> Option<&str> {
        self.0.task.as_deref()
    }

    /// How many times the task was begun: more than once if it had [`retries`](crate::ProcessTask::retries).
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }
}

impl fmt::Display for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exit = &*self.0;
        write!(f, "worker process {} ", exit.pid)?;
        match (exit.signal, exit.code) {
            (Some(signal), _) => write!(f, "was killed by {} (signal {signal})", signal_name(signal))?,
            (None, Some(code)) => write!(f, "exited with code {code}")?,
            (None, None) => {
                write!(f, "ended; its exit status is unknown, because something else in this program reaped it")?;
            }
        }
        if let Some(reason) = exit.killed_because {
            let known = exit.signal.is_some() || exit.code.is_some();
            write!(f, "{} by its executor: {reason}", if known { "" } else { "; it was killed" })?;
        }
        if let Some(name) = &exit.task {
            write!(f, " in task `{name}`")?;
        }
        if exit.attempts > 1 {
            write!(f, " in attempt {}", exit.attempts)?;
        }
        if let Some(note) = &exit.note {
            write!(f, ": {note}")?;
        }
        if let Some((panic, _)) = exit.panic.as_ref().filter(|_| exit.code.is_none()) {
            write!(f, "; last panic: {panic}")?;
        }
        if exit.out_of_memory {
            write!(f, "; probably out of memory")?;
        }
        if let Some(limit) = self.memory_limit() {
            write!(f, "; perhaps out of memory: its address space was limited to {limit} bytes")?;
        }
        if let Some(stderr) = exit.stderr.as_ref().filter(|stderr| !stderr.is_empty()) {
            write!(f, "; stderr: {}", stderr.trim_end())?;
        }
        Ok(())
    }
}

impl fmt::Debug for WorkerExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

fn signal_name(signal: i32) -> &'static str {
    // The numbers of Linux on the common architectures.
    const NAMES: [&str; 32] = [
        "no signal",
        "SIGHUP",
        "SIGINT",
        "SIGQUIT",
        "SIGILL",
        "SIGTRAP",
        "SIGABRT",
        "SIGBUS",
        "SIGFPE",
        "SIGKILL",
        "SIGUSR1",
        "SIGSEGV",
        "SIGUSR2",
        "SIGPIPE",
        "SIGALRM",
        "SIGTERM",
        "SIGSTKFLT",
        "SIGCHLD",
        "SIGCONT",
        "SIGSTOP",
        "SIGTSTP",
        "SIGTTIN",
        "SIGTTOU",
        "SIGURG",
        "SIGXCPU",
        "SIGXFSZ",
        "SIGVTALRM",
        "SIGPROF",
        "SIGWINCH",
        "SIGIO",
        "SIGPWR",
        "SIGSYS",
    ];
    usize::try_from(signal).ok().and_then(|at| NAMES.get(at)).copied().unwrap_or("a real-time signal")
}
