#![cfg_attr(docsrs, feature(doc_cfg))]
#![doc = include_str!("../README.md")]

mod combine;
mod current;
mod error;
mod future;
mod spin;
mod sync;
mod thread;
mod unwind;

pub use combine::{
    AsCompleted, AsCompletedTimeout, Completable, Map, MapOptions, ReturnWhen, Waited, as_completed,
    as_completed_timeout, wait,
};
pub use error::{
    BuildError, Cause, CompletionTimeout, MapError, PanicLocation, ShutdownError, SubmitError, TaskError, TaskPanic,
};
pub use future::{CancelOnDrop, Promise, SharedFuture, TaskFuture, TaskId, promise};
pub use thread::{
    MAX_WORKERS, Priority, QueuePolicy, Scope, ScopedFuture, Shutdown, TaskOptions, ThreadPoolBuilder,
    ThreadPoolExecutor, ThreadPoolStats, cpu_workers, default_executor, io_workers,
};

/// The code blocks of the guide for Python programmers are tests.
#[cfg(doctest)]
#[doc = include_str!("../docs/from-python.md")]
mod from_python {}
