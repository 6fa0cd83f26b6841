//! Errors of building an executor or a map.

use super::DifferentIds;

/// Why an executor cannot be built, or resized.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// `max_workers` was 0.
    #[error("an executor needs at least one worker")]
    NoWorkers,
    /// `max_workers` was above [`MAX_WORKERS`](crate::MAX_WORKERS).
    #[error("{asked} workers were asked for, but the limit is {limit}")]
    TooManyWorkers {
        /// The number that was asked for.
        asked: usize,
        /// The limit.
        limit: usize,
    },
    /// `threads_per_worker` was above [`MAX_WORKERS`](crate::MAX_WORKERS).
    #[error("{asked} threads for each worker were asked for, but the limit is {limit}")]
    TooManyThreads {
        /// The number that was asked for.
        asked: usize,
        /// The limit.
        limit: usize,
    },
    /// `queue_capacity` was 0: nothing could ever be submitted.
    #[error("a queue needs room for at least one task")]
    NoQueueCapacity,
    /// The name contains a NUL byte, which the name of a thread must not.
    #[error("a thread name cannot contain a NUL byte")]
    BadThreadName,
    /// The named setting was 0: a limit, or a number of threads, tasks or attempts. Nothing could ever be run.
    #[error("`{0}` cannot be 0")]
    Zero(&'static str),
    /// The environment of the workers ([`env`](crate::ProcessPoolBuilder::env)) contains a variable that this crate sets itself.
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
    /// The program runs with rights that its caller does not have (setuid, file capabilities). The caller's environment would
    /// control the workers, so none are started.
    #[error("a program with special rights (setuid, file capabilities) has no worker processes")]
    Privileged,
    /// This process was itself started as a worker, but has not become one. If the crate has no hook that runs before `main`, the
    /// program has to call [`worker::run_if_worker`](crate::worker::run_if_worker) at the beginning of `main`.
    #[error("this process is a worker that has not become one: call `worker::run_if_worker()` first in `main`")]
    StrayWorker,
    /// This library is not part of the executable, but of a shared library, so starting the executable again would not start a
    /// worker. Set a command that does: [`worker_command`](crate::ProcessPoolBuilder::worker_command).
    #[error("the executable of this process is not the program of this library: name one with `worker_command`")]
    ForeignExecutable,
    /// Workers of workers are nested too deeply: this process is a worker at the deepest level allowed.
    #[error("workers of workers are {limit} levels deep already")]
    TooDeep {
        /// The limit.
        limit: u32,
    },
    /// The executor belongs to another process, from which this one was forked: see
    /// [`TaskError::WrongProcess`](crate::TaskError::WrongProcess). Returned only by methods that change an existing executor.
    #[error("the executor was built in another process, from which this one was forked")]
    WrongProcess,
    /// The operating system refused a resource that every executor of this kind needs.
    #[error("the operating system refuses: {}", std::io::Error::from_raw_os_error(*code))]
    System {
        /// The error number of the operating system.
        code: i32,
    },
}

/// Why [`MapOptions`](crate::MapOptions) are invalid.
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
