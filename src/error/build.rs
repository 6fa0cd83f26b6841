//! Settings that no executor, and no map, can have.

use super::DifferentIds;

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
    /// [`TaskError::WrongProcess`](crate::TaskError::WrongProcess). Only where an executor that exists is to be changed.
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
