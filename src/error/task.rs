//! Why a task has no value.

use std::io;

use super::{Cause, CodecError, SizeLimit, TaskPanic, WorkerExit};

/// Why a task has no value.
///
/// Every failed future owns its error. Clones share what cannot be copied (the panic payload, a cause), so an error can be kept,
/// and sent to several threads.
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
    /// The task was cancelled before it started, so it never ran; or it was a spawned future, and ended at an `.await`; or it was
    /// running in a worker process, which was ended.
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
    /// The argument, or the result, could not be encoded; or a field of it was skipped (`#[serde(skip_serializing_if)]`), so that
    /// it would arrive as another value.
    #[error("cannot be sent to or from a worker process: {0}")]
    Encode(#[source] CodecError),
    /// The argument, or the result, could not be decoded from the bytes that arrived; or the type skips a field or variant in
    /// only one of the two directions.
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
    /// The executor cannot run tasks any more: for example, a worker's initializer failed, or worker processes cannot be started.
    #[error("the executor is broken: {0}")]
    Broken(#[source] Cause),
    /// The executor had been shut down when the task was submitted.
    #[error("the executor has been shut down")]
    ShutDown,
    /// The executor was built in another process, from which this one was forked: the forked process has none of its workers.
    /// Build executors after the fork, in the process that uses them.
    #[error("the executor was built in another process, from which this one was forked")]
    WrongProcess,
    /// The queue of the executor was full and its policy is [`QueuePolicy::Fail`](crate::QueuePolicy::Fail).
    #[error("the queue of the executor is full")]
    QueueFull,
    /// No worker could be started for the task, and the executor had no other worker.
    #[error("no worker could be started: {0}")]
    Spawn(#[source] Cause),
    /// The wait could never have ended: a task waited for itself, or tasks waited for each other in a cycle. It is an error of
    /// the wait, not of the task that was waited for, which continues.
    ///
    /// It is returned when threads block on each other in a cycle, in [`result`](crate::TaskFuture::result),
    /// [`get`](crate::SharedFuture::get), [`wait`](crate::wait()) or [`as_completed`](crate::as_completed()) without a time-out,
    /// and when a task awaits its own handle, in a spawned future or in a [`block_on`](crate::block_on) inside the task. Not
    /// detected, so these hang: cycles of two or more tasks that lead through an `.await`, a `block_on`, the end of a
    /// [`scope`](crate::ThreadPoolExecutor::scope), a closure of a [`join`](crate::ThreadPoolExecutor::join) that another worker
    /// has taken, items of a map, a `submit` that waits for room in a bounded queue, a promise, a channel or a lock, or through
    /// several processes; and a task that polls its own handle through a combinator which replaces the waker, such as
    /// `FuturesUnordered`.
    #[error("the wait would never end: the task waits for itself, directly or through others")]
    WouldDeadlock,
    /// The task was to run inside a wait for it, or inside the `submit` that found the queue full, on the stack of the calling
    /// thread, and there was no room left on that stack. It has not been run. With the feature `deep-stacks`, which is on by
    /// default, stacks grow, and this happens only if there is no memory for that, or on a target where stacks cannot be
    /// switched.
    #[error("the task was nested too deeply: there was no room on the stack to run it")]
    TooDeep,
    /// The producing half was dropped without a result: a [`Promise`](crate::Promise) was dropped unused, or the last waker of a
    /// [spawned](crate::ThreadPoolExecutor::spawn) future that was waiting, which can then never be woken.
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

    /// Resumes the panic of the task on this thread, with its payload; returns any other error.
    ///
    /// # Panics
    ///
    /// With the payload of the task's panic, if this error is [`TaskError::Panicked`].
    pub fn resume_panic(self) -> Self {
        match self {
            Self::Panicked(panic) => panic.resume(),
            other => other,
        }
    }
}

pub(crate) fn spawn_error(error: io::Error) -> TaskError {
    TaskError::Spawn(Cause::new(error))
}

// Results have to stay small, because a map makes a vector of them.
const _: () = assert!(size_of::<Result<u64, TaskError>>() == 16);
