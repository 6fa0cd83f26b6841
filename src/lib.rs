#![cfg_attr(docsrs, feature(doc_cfg))]
// The code blocks of the README are tests, which need both pools.
#![cfg_attr(any(not(doctest), all(feature = "process", target_os = "linux")), doc = include_str!("../README.md"))]

mod combine;
mod current;
mod error;
mod executor;
mod fork;
mod future;
mod lock;
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
mod os;
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
mod process;
#[cfg(all(fuzzing, feature = "process"))]
#[doc(hidden)]
pub use process::fuzzing;

/// The models of the links run without the rest of the process pool.
#[cfg(all(test, loom, feature = "process"))]
mod process {
    mod link {
        mod models;
        mod wait_flags;
    }
}
mod quiet;
mod spin;
mod stack;
mod sync;
mod thread;
mod unwind;

#[cfg(feature = "stream")]
#[cfg_attr(docsrs, doc(cfg(feature = "stream")))]
pub use combine::AsCompletedStream;
pub use combine::{
    AsCompleted, AsCompletedTimeout, Completable, Map, MapOptions, ReturnWhen, WaitAsync, Waited, as_completed,
    as_completed_timeout, wait, wait_async,
};
pub use error::{
    BuildError, Cause, CodecError, CompletionTimeout, DifferentIds, MapError, PanicLocation, ShutdownError, SizeLimit,
    StartError, SubmitError, TaskError, TaskPanic, WorkerExit,
};
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub use executor::Executor;
pub use executor::{MAX_WORKERS, Priority, QueuePolicy, Shutdown};
pub use future::{CancelOnDrop, Promise, SharedFuture, TaskFuture, TaskId, block_on, promise};
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub use process::{
    ProcessPoolBuilder, ProcessPoolExecutor, ProcessPoolStats, ProcessTask, SharedBytes, Stdio, Transport, worker,
};
pub use thread::{
    Scope, ScopedFuture, ThreadPoolBuilder, ThreadPoolExecutor, ThreadPoolStats, ThreadTask, cpu_workers,
    default_executor, io_workers,
};

/// The code blocks of the guide for Python programmers are tests.
#[cfg(all(doctest, feature = "process", target_os = "linux"))]
#[doc = include_str!("../docs/from-python.md")]
mod from_python {}
