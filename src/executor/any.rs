//! The operations that all executors support.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::options::Shutdown;
use crate::combine::Map;
use crate::error::ShutdownError;
use crate::future::TaskFuture;

/// A pool of threads or of processes, for code that takes either.
///
/// Both run what processes can run: functions, and closures that capture nothing, with one argument, where argument and result
/// implement serde's traits. Thread pools encode nothing.
///
/// This trait is sealed: the executors of this crate implement it.
///
/// ```
/// use concurrent_futures::{Executor, ProcessPoolExecutor, ThreadPoolExecutor};
///
/// fn total_length(pool: &impl Executor, words: Vec<String>) -> usize {
///     pool.map(|word: String| word.len(), words).map(Result::unwrap).sum()
/// }
///
/// let words = || ["one", "three"].map(str::to_owned).to_vec();
/// assert_eq!(total_length(&ThreadPoolExecutor::new(2)?, words()), 8);
/// assert_eq!(total_length(&ProcessPoolExecutor::new(2)?, words()), 8);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Executor: Sealed + Send + Sync {
    /// Queues a call of `f` with `argument` and returns the future of its result.
    ///
    /// ```
    /// use concurrent_futures::{Executor, TaskFuture, ThreadPoolExecutor};
    ///
    /// fn start(pool: &impl Executor) -> TaskFuture<u64> {
    ///     pool.submit_call(|n: u64| n * n, 12)
    /// }
    ///
    /// assert_eq!(start(&ThreadPoolExecutor::new(1)?).result()?, 144);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    fn submit_call<F, A, R>(&self, f: F, argument: A) -> TaskFuture<R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static;

    /// Calls `f` with every item of `items` and yields the results in the order of the items, each a `Result` of its own.
    /// Work starts at the call.
    fn map<F, I, R>(&self, f: F, items: I) -> Map<I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Serialize + DeserializeOwned + Send + 'static,
        F: Fn(I::Item) -> R + Copy + Send + Sync + 'static,
        R: Serialize + DeserializeOwned + Send + 'static;

    /// Shuts the pool down: it accepts no new tasks from now on, and `how` determines what happens to those it has.
    ///
    /// # Errors
    ///
    /// Those of the executor: [`ThreadPoolExecutor::shutdown`](crate::ThreadPoolExecutor::shutdown),
    /// [`ProcessPoolExecutor::shutdown`](crate::ProcessPoolExecutor::shutdown).
    fn shutdown(&self, how: Shutdown) -> Result<(), ShutdownError>;
}

/// Only the executors of this crate implement [`Executor`].
#[allow(unreachable_pub)]
pub trait Sealed {}
