//! Running a future on the calling thread.

use std::cell::Cell;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use crossbeam::sync::Parker;

use super::deadlock::BlockingOn;
use super::inline_wait::InlineWaitGuard;
use super::park;
use crate::current;
use crate::fork;

thread_local! {
    /// The parker and waker, reused by the next call. A nested call finds none and makes its own.
    static CACHED: Cell<Option<ParkSlot>> = const { Cell::new(None) };
}

/// The parker and waker that a thread uses while its future is pending. The parker is not the one of the thread (`park`): a wait
/// that is nested in the poll could take a wake-up that was meant for the future.
struct ParkSlot {
    parker: Parker,
    waker: Waker,
}

impl ParkSlot {
    fn new() -> Self {
        let parker = Parker::new();
        let waker = park::waker(parker.unparker().clone());
        Self { parker, waker }
    }
}

/// Runs a future to completion on the calling thread and returns its output. The thread sleeps while the future is pending. No
/// runtime is needed: this is how synchronous code calls asynchronous code, as with Python's
/// [`asyncio.run`](https://docs.python.org/3/library/asyncio-runner.html#asyncio.run).
///
/// Any future can be passed, including one that borrows from the caller. Calls may be nested. Other threads wake this thread
/// when they wake the future, however many wakers they hold.
///
/// Called on a worker of a pool, it occupies that worker like any other blocking call. It runs no tasks meanwhile. If the future
/// awaits a task of the same pool that is still queued, and no worker is free to take it, a [spare
/// thread](crate::ThreadPoolExecutor#spare-threads) runs that task; if none can be started, the poll that finds the task queued
/// runs it in place. So a pool of one thread is enough. Polling the handle of the task that called `block_on` returns
/// [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock). To wait without occupying a worker, use `.await` in a future
/// passed to [`spawn`](crate::ThreadPoolExecutor::spawn).
///
/// ```
/// use concurrent_futures::{block_on, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new(2)?;
/// let sum = block_on(async {
///     let (one, two) = (pool.submit(|| 1), pool.submit(|| 2)); // at the same time
///     Ok::<_, concurrent_futures::TaskError>(one.await? + two.await?)
/// })?;
/// assert_eq!(sum, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Panics
///
/// If the future does.
pub fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let slot = CACHED.try_with(Cell::take).ok().flatten().unwrap_or_else(ParkSlot::new);
    let mut context = Context::from_waker(&slot.waker);
    let inline_wait = current::may_be_needed().then(|| InlineWaitGuard::woken_by(&slot.waker));
    let _blocking = BlockingOn::enter(&slot.waker);
    let mut witness = fork::Witness::new();
    let output = loop {
        let polled = match &inline_wait {
            Some(inline_wait) => inline_wait.polling(|| future.as_mut().poll(&mut context)),
            None => future.as_mut().poll(&mut context),
        };
        match polled {
            Poll::Ready(output) => break output,
            // In a forked child no thread wakes a future that waits for the parent's tasks. Polled once more, it finds out.
            Poll::Pending if witness.has_forked() => {}
            Poll::Pending => slot.parker.park(),
        }
    };
    let _ = CACHED.try_with(|cached| cached.set(Some(slot)));
    output
}
