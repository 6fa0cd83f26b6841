//! The thread pool.
//!
//! | file | what it is |
//! |---|---|
//! | `builder`, `options`, `stats`, `shutdown`, `default` | the public API besides the pool itself |
//! | `core` | what the handle and the workers share: submit, notify, close |
//! | `queues`, `batch` | where tasks wait, and what a worker takes in advance |
//! | `injector` | the queue that all threads submit to |
//! | `worker` | a thread that finds work and runs it |
//! | `sleep` | when a worker sleeps, and what wakes it |
//! | `registry` | which threads there are, and when they have ended |
//! | `spares`, `watch` | threads that run one task for a blocked worker; when one is needed |
//! | `spawn` | futures that the workers poll |
//! | `scope`, `join` | closures that borrow |

mod batch;
mod builder;
mod core;
mod default;
mod injector;
mod join;
#[cfg(all(test, loom))]
mod models;
mod options;
mod queues;
mod registry;
mod scope;
mod shutdown;
mod sleep;
mod spares;
mod spawn;
mod stats;
mod watch;
mod worker;

use std::fmt;
use std::future::Future;
use std::mem;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

pub use builder::ThreadPoolBuilder;
pub use default::{cpu_workers, default_executor, io_workers};
pub use options::ThreadTask;
pub use scope::{Scope, ScopedFuture};
pub use stats::ThreadPoolStats;

use self::core::{Core, MapHost};
use crate::combine::{Map, MapOptions};
use crate::error::{BuildError, MapError, ShutdownError, SubmitError, TaskError};
use crate::executor::{Priority, QueuePolicy, Shutdown, check_workers};
use crate::future::{LARGE, Owner, TaskFuture, task};
use crate::stack;

/// A pool of threads that run closures, each behind a [`TaskFuture`].
///
/// Threads start on demand, up to a limit, and are reused. Tasks of one [`Priority`] start first in, first out, those submitted
/// from inside other tasks included. With one worker the order is exact. With several, each worker takes up to 16 tasks at a
/// time; if one of these runs for long, other workers take over the rest: so a task is overtaken at most
/// [64](Self::OVERTAKES_PER_WORKER) times per worker, however long others run. (Exception: if the operating system suspends a
/// worker while it takes tasks from the queue, these tasks wait for it.) A task that waits for another task of the same pool runs
/// it in place if it is still queued, so waiting inside tasks cannot exhaust the pool; it never runs anything that it does not
/// wait for. (For waits with a time-out, or for any of several, see [below](#spare-threads).)
///
/// **Dropping the pool corresponds to the end of Python's `with` block**: it runs everything that was submitted, then joins the
/// threads. A drop while the thread unwinds from a panic first cancels what has not started; a drop inside one of the pool's own
/// tasks does not wait. [`shutdown`](Self::shutdown) offers other ways.
///
/// **A pool belongs to the process that built it.** After `fork` the child has no worker threads: there every operation on the
/// pool, and on futures of its tasks, fails at once with [`TaskError::WrongProcess`], and dropping it does nothing. The parent's
/// pool is not affected. A task that forks has to end the child itself (`_exit`, `exec`): if the task returns in the child, the
/// child ends there, without callbacks or destructors, with exit code 0, or 101 if it panicked. The same holds for all other code
/// that a worker calls: an item of a map, a done-callback, a waker, a destructor. The child may build pools of its own.
///
/// Modeled on Python's
/// [`ThreadPoolExecutor`](https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.ThreadPoolExecutor). With
/// `panic = "abort"` a panicking task ends the process, as everywhere in Rust.
///
/// ```
/// use concurrent_futures::ThreadPoolExecutor;
///
/// let pool = ThreadPoolExecutor::new(4)?;
///
/// // One task, one future.
/// let future = pool.submit(|| "hello".len());
/// assert_eq!(future.result()?, 5);
///
/// // The same function over many inputs, results in order.
/// let squares: Result<Vec<u64>, _> = pool.map(|x| x * x, 0..10u64).collect();
/// assert_eq!(squares?.last(), Some(&81));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Spare threads
///
/// Some waits inside a task can end before the awaited task does: waits with a time-out, waits for any of several futures, and
/// futures polled by [`block_on`](crate::block_on). Such a wait does not run the awaited task on its own thread. If what it waits
/// for belongs to the same pool and is still queued, and no worker is free to take it, the pool starts a *spare thread*. It runs
/// the initializer, that one task, and the finalizer, and ends. (If the wait needs another task within 1 ms, it runs that one
/// first.) There is at most one for each blocked wait, and at most as many as [`max_workers`](ThreadPoolBuilder::max_workers), so
/// at most twice as many threads as workers. [`stats`](Self::stats) reports how many there are.
///
/// If no spare thread can be started, a wait with a time-out ends when the time is up, and all others run the task in place
/// (after 100 ms at most, if a spare thread of an earlier wait is still running its task). This happens when `max_workers` spare
/// threads are already running and a task on one of them starts another wait with a time-out. To avoid this, use no time-outs in
/// tasks that are themselves waited for with a time-out.
pub struct ThreadPoolExecutor {
    core: Arc<Core>,
}

// No user code runs under a lock of the pool, and locks are not poisoned: a panic cannot leave the pool inconsistent.
impl UnwindSafe for ThreadPoolExecutor {}
impl RefUnwindSafe for ThreadPoolExecutor {}

impl ThreadPoolExecutor {
    /// The maximum number of times a queued task can be overtaken, per worker. At most this many tasks times the largest number
    /// of workers the pool has had, all submitted after its own `submit` returned, are taken from the queue before it.
    ///
    /// This applies to tasks of one [`Priority`]. Tasks that a waiting thread runs in place, closures of [`join`](Self::join),
    /// items of a [`map`](Self::map) and later polls of a [spawned](Self::spawn) future do not count: they are not taken from the
    /// queue, or were queued again.
    pub const OVERTAKES_PER_WORKER: usize = queues::OVERTAKES_PER_WORKER;

    /// Creates a pool of at most `max_workers` threads, with default settings.
    ///
    /// # Errors
    ///
    /// [`BuildError`] if `max_workers` is 0 or above [`MAX_WORKERS`](crate::MAX_WORKERS).
    pub fn new(max_workers: usize) -> Result<Self, BuildError> {
        Self::builder().max_workers(max_workers).build()
    }

    /// Returns a builder with default settings.
    pub fn builder() -> ThreadPoolBuilder {
        ThreadPoolBuilder::default()
    }

    /// Submits a closure, and returns a handle to its result at once.
    ///
    /// A closure larger than 2 KiB is boxed before it is queued.
    ///
    /// Never panics, and blocks only with [`QueuePolicy::Block`] and a full queue. On a pool that is shut down or broken, or if
    /// no thread could be started to run the task, the future is already resolved to the reason: [`TaskError::ShutDown`],
    /// [`TaskError::Broken`], [`TaskError::Spawn`].
    ///
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let name = String::from("world");
    /// let future = pool.submit(move || format!("Hello, {name}!"));
    /// assert_eq!(future.result()?, "Hello, world!");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// The closure may outlive the caller, so it cannot borrow from it; [`scope`](Self::scope) runs closures that do:
    ///
    /// ```compile_fail,E0597
    /// let pool = concurrent_futures::ThreadPoolExecutor::new(1).unwrap();
    /// let text = String::new();
    /// let borrowed = &text;
    /// let _ = pool.submit(move || borrowed.len());
    /// ```
    pub fn submit<F, T>(&self, f: F) -> TaskFuture<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if const { size_of::<F>() > LARGE } {
            self.submit_with(Box::new(f) as Box<dyn FnOnce() -> T + Send>, Priority::Normal)
        } else {
            self.submit_with(f, Priority::Normal)
        }
    }

    /// Like [`submit`](Self::submit), but never blocks, and returns the closure if the pool does not accept it.
    ///
    /// ```
    /// use concurrent_futures::{Shutdown, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// pool.shutdown(Shutdown::Wait)?;
    /// let error = pool.try_submit(|| 42).unwrap_err();
    /// assert!(error.is_shut_down());
    /// assert_eq!(error.into_inner()(), 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`SubmitError`], with the closure in it, if the queue is full, or the pool shut down or broken.
    pub fn try_submit<F, T>(&self, f: F) -> Result<TaskFuture<T>, SubmitError<F>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if const { size_of::<F>() > LARGE } {
            self.try_submit_with(Box::new(f), Priority::Normal, into_dyn).map_err(SubmitError::unboxed)
        } else {
            self.try_submit_with(f, Priority::Normal, |f| f)
        }
    }

    /// Submits many closures at once: cheaper than one by one, because the workers are notified less often. The handles are in
    /// the order of the closures. The bound of a bounded queue applies to each closure.
    ///
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let futures = pool.submit_all((0..100).map(|n| move || n * 2));
    /// let sum: i32 = futures.into_iter().map(|future| future.result().unwrap()).sum();
    /// assert_eq!(sum, 9900);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn submit_all<F, T>(&self, closures: impl IntoIterator<Item = F>) -> Vec<TaskFuture<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let closures = closures.into_iter();
        if const { size_of::<F>() > LARGE } {
            self.submit_batch(closures.map(|f| into_dyn(Box::new(f))))
        } else {
            self.submit_batch(closures)
        }
    }

    fn submit_batch<F, T>(&self, closures: impl Iterator<Item = F>) -> Vec<TaskFuture<T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if self.core.capacity.is_some() || self.core.closed_because().is_some() {
            return closures.map(|f| self.submit(f)).collect();
        }
        // Notifies of the tasks that were pushed, even if the input panics.
        struct Notify<'a>(&'a Arc<Core>);
        impl Drop for Notify<'_> {
            fn drop(&mut self) {
                self.0.notify();
            }
        }
        let notify = Notify(&self.core);
        let id = self.core.id();
        let mut futures = Vec::with_capacity(closures.size_hint().0);
        for (n, f) in closures.enumerate() {
            let (task, future) = task(f, id);
            self.core.push_unannounced(task, Priority::Normal);
            futures.push(future);
            // Each of the first `max_workers` tasks is announced, so that all workers start at once.
            if n < self.core.max_workers.load(Relaxed) { self.core.notify() } else { self.core.notify_roughly() }
        }
        drop(notify);
        futures
    }

    /// Runs a future on the workers: they poll it whenever it is woken, from any thread. While it waits it occupies no worker, so
    /// a pool of one thread runs any number of futures, like an event loop. Futures and closures share one queue, in the order in
    /// which they become ready. No runtime is needed, and the future can be woken from any runtime. Futures that need a
    /// particular runtime (tokio's timers and sockets panic outside of it) belong on that runtime; the handles of this crate can
    /// be awaited there as well.
    ///
    /// The handle is like that of any task: block on it, `.await` it, or pass it to [`wait`](crate::wait()).
    /// [`cancel`](TaskFuture::cancel) also ends a future that has begun: it is dropped at the `.await` at which it is suspended.
    /// A panic resolves it to [`TaskError::Panicked`]. A future that can no longer be woken, because the last of its wakers was
    /// dropped, resolves to [`TaskError::Abandoned`]. A future that awaits its own handle gets [`TaskError::WouldDeadlock`] from
    /// it; two that await each other never complete.
    ///
    /// A future larger than 2 KiB is boxed before it is queued.
    ///
    /// Never panics. Blocks only with [`QueuePolicy::Block`] and a full queue
    /// ([`queue_capacity`](ThreadPoolBuilder::queue_capacity)); a future counts as queued until its first poll. Where `submit`
    /// would run the closure in the calling thread, the first poll happens there. On a pool that is shut down or broken, the
    /// handle is already resolved. See [`Shutdown`] for what happens to futures that are waiting when the pool is shut down.
    ///
    /// ```
    /// use concurrent_futures::{promise, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let (promise, name) = promise::<String>();
    /// let greeting = pool.spawn(async move { format!("Hello, {}!", name.await.unwrap()) });
    /// let length = pool.submit(|| 5); // the one worker is free meanwhile
    /// assert_eq!(length.result()?, 5);
    /// promise.set_result("world".to_owned()).unwrap();
    /// assert_eq!(greeting.result()?, "Hello, world!");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn spawn<F>(&self, future: F) -> TaskFuture<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        if const { size_of::<F>() > LARGE } {
            spawn::spawn(&self.core, Box::pin(future))
        } else {
            spawn::spawn(&self.core, future)
        }
    }

    /// Calls `f` with every item of `items`, on the workers, and yields the results in the order of the items. Each is a
    /// `Result` of its own: a failed item does not end the map.
    ///
    /// All items are taken, and work starts, at the call. Items that take very little time are run several at a time.
    /// Dropping the iterator half-way cancels the items that have not started.
    ///
    /// Modeled on Python's
    /// [`Executor.map`](https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.Executor.map) in version
    /// 3.16. For two inputs, `zip` them.
    ///
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new(3)?;
    /// let words = ["one", "two", "three"];
    /// let lengths: Vec<usize> = pool.map(str::len, words).map(Result::unwrap).collect();
    /// assert_eq!(lengths, [3, 3, 5]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn map<F, I, R>(&self, f: F, items: I) -> Map<I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        self.map_with(MapOptions::new(), f, items).expect("the default options are valid")
    }

    /// [`map`](Self::map) with options: chunk size, a bound on what is in flight, a time-out, results as they complete.
    ///
    /// # Errors
    ///
    /// [`MapError`] if the chunk size or the buffer is 0.
    pub fn map_with<F, I, R>(&self, options: MapOptions, f: F, items: I) -> Result<Map<I::IntoIter, R>, MapError>
    where
        I: IntoIterator,
        I::Item: Send + 'static,
        F: Fn(I::Item) -> R + Send + Sync + 'static,
        R: Send + 'static,
    {
        Map::new(Arc::new(MapHost::new(&self.core)), options, f, items.into_iter())
    }

    /// Returns a task that can be given a name or a priority before it is submitted.
    pub fn task<F>(&self, f: F) -> ThreadTask<'_, F> {
        ThreadTask::new(self, f)
    }

    /// Calls `f` with a scope, to which it may submit closures that borrow from the caller, and returns when `f` and all these
    /// tasks have ended. The interface is that of [`std::thread::scope`].
    ///
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let text = String::from("borrowed, not moved");
    /// let (letters, words) = pool.scope(|scope| {
    ///     let letters = scope.submit(|| text.chars().filter(|c| c.is_alphabetic()).count());
    ///     let words = scope.submit(|| text.split(' ').count());
    ///     (letters.result().unwrap(), words.result().unwrap())
    /// });
    /// assert_eq!((letters, words), (16, 3));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If `f` panics, or if a task panicked whose handle was dropped without taking its result. All tasks have ended by then.
    pub fn scope<'env, F, T>(&'env self, f: F) -> T
    where
        F: for<'scope> FnOnce(&'scope Scope<'scope, 'env>) -> T,
    {
        scope::scope(self, f)
    }

    /// Runs both closures, at the same time if a worker is free, and returns both results. If no worker is free, the overhead is
    /// very small, so `join` suits divide-and-conquer algorithms. Nested joins run depth first.
    ///
    /// Called outside the pool, it runs on a worker, and blocks until both have ended. Both closures are always run, the second
    /// one even if the first has panicked.
    ///
    /// ```
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// fn sum(pool: &ThreadPoolExecutor, numbers: &[u64]) -> u64 {
    ///     if numbers.len() <= 1000 {
    ///         return numbers.iter().sum();
    ///     }
    ///     let (left, right) = numbers.split_at(numbers.len() / 2);
    ///     let (left, right) = pool.join(|| sum(pool, left), || sum(pool, right));
    ///     left + right
    /// }
    ///
    /// let pool = ThreadPoolExecutor::new(2)?;
    /// let numbers: Vec<u64> = (1..=100_000).collect();
    /// assert_eq!(sum(&pool, &numbers), 5_000_050_000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If a closure panics: after both have ended, with its payload (the first one's, if both panic); the other's result is
    /// dropped before. If the pool cannot run tasks: it is shut down or broken, or no thread could be started.
    pub fn join<A, B, RA, RB>(&self, a: A, b: B) -> (RA, RB)
    where
        A: FnOnce() -> RA + Send,
        B: FnOnce() -> RB + Send,
        RA: Send,
        RB: Send,
    {
        if self.core.id().may_claim() {
            let join = || worker::with_current(|worker| join::join(worker, a, b));
            return stack::deepen_if_possible(join).expect("this is a worker of the pool");
        }
        let joined = self.scope(|scope| {
            let inside = || worker::with_current(|worker| join::join(worker, a, b));
            scope.submit(inside).result()
        });
        match joined.map_err(TaskError::resume_panic) {
            Ok(results) => results.expect("tasks of the pool run on its workers"),
            Err(error) => panic!("nothing can be joined: {error}"),
        }
    }

    /// Returns a snapshot of the pool's statistics. In a forked child all numbers are 0.
    pub fn stats(&self) -> ThreadPoolStats {
        if !self.core.is_here() {
            return ThreadPoolStats::NOTHING;
        }
        let counts = self.core.sleep.counts();
        let (completed, busy) = self.core.registry.counters().read();
        ThreadPoolStats {
            max_workers: self.core.max_workers.load(Relaxed),
            workers: counts.threads(),
            busy: busy as usize,
            queued: self.core.queued(),
            completed: completed + self.core.spares.completed(),
            spare_threads: self.core.spares.count(),
            spawned: self.core.unfinished.count(),
        }
    }

    /// Changes the maximum number of threads. Additional threads start when there is work for them; surplus threads end once they
    /// are not running a task.
    ///
    /// ```
    /// use concurrent_futures::{BuildError, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// pool.resize(8)?;
    /// assert_eq!(pool.stats().max_workers, 8);
    /// assert_eq!(pool.resize(0), Err(BuildError::NoWorkers));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`BuildError`] if `max_workers` is 0 or above [`MAX_WORKERS`](crate::MAX_WORKERS), or in a forked child
    /// ([`BuildError::WrongProcess`]); the pool stays as it was.
    pub fn resize(&self, max_workers: usize) -> Result<(), BuildError> {
        check_workers(max_workers)?;
        if !self.core.is_here() {
            return Err(BuildError::WrongProcess);
        }
        let before = self.core.max_workers.swap(max_workers, Relaxed);
        if max_workers < before {
            self.core.sleep.wake_all();
        } else {
            self.core.notify();
            self.core.spares.wake_short();
        }
        Ok(())
    }

    /// Shuts the pool down: it accepts no new tasks from now on, and `how` determines what happens to those it has. Can be called
    /// any number of times, from any thread; all callers that wait return when the threads have ended.
    ///
    /// ```
    /// use concurrent_futures::{Shutdown, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let future = pool.submit(|| 42);
    /// pool.shutdown(Shutdown::Wait)?;
    /// assert!(future.is_done());
    /// assert!(pool.submit(|| 43).result().unwrap_err().is_shut_down());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`ShutdownError::WouldDeadlock`] if a worker of this pool would wait for its own end;
    /// [`ShutdownError::TimedOut`] after [`Shutdown::Within`]; [`ShutdownError::WrongProcess`] in a forked child.
    pub fn shutdown(&self, how: Shutdown) -> Result<(), ShutdownError> {
        shutdown::shut_down(&self.core, how)
    }

    /// True once the pool has been shut down, in any way: newly submitted tasks fail with [`TaskError::ShutDown`]. It may still
    /// be running earlier ones.
    ///
    /// ```
    /// use concurrent_futures::{Shutdown, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// assert!(!pool.is_shut_down());
    /// pool.shutdown(Shutdown::NoWait)?;
    /// assert!(pool.is_shut_down());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn is_shut_down(&self) -> bool {
        matches!(self.core.closed_because(), Some(TaskError::ShutDown))
    }

    /// True once the pool is broken because its initializer has panicked: queued tasks have failed with [`TaskError::Broken`],
    /// which contains the reason, and newly submitted tasks fail likewise.
    pub fn is_broken(&self) -> bool {
        matches!(self.core.closed_because(), Some(TaskError::Broken(_)))
    }

    fn submit_with<F, T>(&self, f: F, priority: Priority) -> TaskFuture<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let Some(capacity) = &self.core.capacity else { return self.core.submit(f, priority) };
        if !self.core.is_here() {
            return TaskFuture::ready(Err(TaskError::WrongProcess));
        }
        let (policy, inside) = (capacity.policy, self.core.id().may_claim());
        let permit = capacity.try_acquire().or_else(|| match policy {
            QueuePolicy::Block if !inside => capacity.acquire(),
            _ => None,
        });
        match (permit, policy) {
            (Some(permit), _) => self.core.submit(permit.carried_by(f), priority),
            (None, QueuePolicy::Fail) => {
                TaskFuture::ready(Err(self.core.closed_because().unwrap_or(TaskError::QueueFull)))
            }
            (None, QueuePolicy::Block | QueuePolicy::CallerRuns) => match self.core.closed_because() {
                Some(reason) => TaskFuture::ready(Err(reason)),
                None => {
                    let (task, future) = task(f, self.core.id());
                    task.run_nested();
                    future
                }
            },
        }
    }

    /// `wrap` is applied only when the task is accepted, so that an error contains the bare closure.
    fn try_submit_with<F, G, T>(
        &self,
        f: F,
        priority: Priority,
        wrap: impl FnOnce(F) -> G,
    ) -> Result<TaskFuture<T>, SubmitError<F>>
    where
        G: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        if let Some(reason) = self.core.closed_because() {
            return Err(SubmitError::new(f, reason));
        }
        let Some(capacity) = &self.core.capacity else { return Ok(self.core.submit(wrap(f), priority)) };
        match capacity.try_acquire() {
            Some(permit) => Ok(self.core.submit(permit.carried_by(wrap(f)), priority)),
            None => Err(SubmitError::new(f, TaskError::QueueFull)),
        }
    }
}

/// A boxed closure that is called in place: as its concrete type it would be moved to the stack first.
fn into_dyn<F, T>(f: Box<F>) -> Box<dyn FnOnce() -> T + Send>
where
    F: FnOnce() -> T + Send + 'static,
{
    f
}

#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
impl crate::executor::Sealed for ThreadPoolExecutor {}

#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
impl crate::executor::Executor for ThreadPoolExecutor {
    fn submit_call<F, A, R>(&self, f: F, argument: A) -> TaskFuture<R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
        R: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
        self.submit(move || f(argument))
    }

    fn map<F, I, R>(&self, f: F, items: I) -> Map<I::IntoIter, R>
    where
        I: IntoIterator,
        I::Item: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
        F: Fn(I::Item) -> R + Copy + Send + Sync + 'static,
        R: serde::Serialize + serde::de::DeserializeOwned + Send + 'static,
    {
        self.map(f, items)
    }

    fn shutdown(&self, how: Shutdown) -> Result<(), ShutdownError> {
        self.shutdown(how)
    }
}

impl Drop for ThreadPoolExecutor {
    fn drop(&mut self) {
        if !self.core.is_here() {
            // A forked child leaks the pool: the queued tasks are the parent's to run or to drop.
            mem::forget(Arc::clone(&self.core));
            return;
        }
        if self.core.is_left_alone.load(Relaxed) {
            return;
        }
        let how = if std::thread::panicking() { Shutdown::CancelPending } else { Shutdown::Wait };
        // Inside one of its own tasks the pool is closed but not waited for, which is what the ignored error says.
        let _ = self.shutdown(how);
    }
}

impl fmt::Debug for ThreadPoolExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        f.debug_struct("ThreadPoolExecutor")
            .field("name", &self.core.config.name)
            .field("workers", &format_args!("{}/{}", stats.workers, stats.max_workers))
            .field("busy", &stats.busy)
            .field("queued", &stats.queued)
            .finish()
    }
}
