//! [`wait`](crate::wait()) for asynchronous code.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::set::{Completable, CompletionSet};
use super::wait::{ReturnWhen, Waited};

/// [`wait`](crate::wait()) as a future: ready when `return_when` is satisfied. With no futures it is ready at once.
///
/// Polled by a spawned future, or by a [`block_on`](crate::block_on) inside a task, it counts the handle of that very task as
/// done, as [`wait`](crate::wait()) does.
///
/// It has no time-out parameter, because timers belong to the runtime. Pass it to the runtime's time-out by reference; afterwards
/// [`into_waited`](WaitAsync::into_waited) returns what is done and what is not. It can be dropped at any time, which never
/// blocks; the tasks go on.
///
/// ```
/// use concurrent_futures::{block_on, promise, wait_async, ReturnWhen};
///
/// let (promise, first) = promise();
/// let (_never, second) = concurrent_futures::promise::<u32>();
/// promise.set_result(1).unwrap();
/// let waited = block_on(wait_async([first, second], ReturnWhen::FirstCompleted));
/// assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
///
/// // A time-out that has already elapsed.
/// let mut waiting = wait_async(waited.not_done, ReturnWhen::AllCompleted);
/// block_on(async {
///     let timeout = std::future::ready(());
///     let mut timeout = std::pin::pin!(timeout);
///     std::future::poll_fn(|context| {
///         // What `select!` and `timeout` of a runtime do.
///         assert!(std::pin::Pin::new(&mut waiting).poll(context).is_pending());
///         timeout.as_mut().poll(context)
///     })
///     .await
/// });
/// assert_eq!(waiting.into_waited().not_done.len(), 1);
/// # use std::future::Future;
/// ```
pub fn wait_async<F: Completable>(futures: impl IntoIterator<Item = F>, return_when: ReturnWhen) -> WaitAsync<F> {
    let set = CompletionSet::new(futures, return_when == ReturnWhen::FirstException);
    WaitAsync { count: return_when.count(set.len()), set, ready: false }
}

/// The future of [`wait_async`].
#[must_use = "futures do nothing unless they are awaited"]
pub struct WaitAsync<F: Completable> {
    set: CompletionSet<F>,
    count: usize,
    ready: bool,
}

// The items are on the heap, and are never pinned.
impl<F: Completable> Unpin for WaitAsync<F> {}

impl<F: Completable> WaitAsync<F> {
    /// Returns which futures are done by now and which are not. Both lists are empty if this future was ready, and has returned
    /// them.
    pub fn into_waited(mut self) -> Waited<F> {
        Waited::of(&mut self.set)
    }
}

impl<F: Completable> Future for WaitAsync<F> {
    type Output = Waited<F>;

    /// # Panics
    ///
    /// If it is polled again after it has returned `Ready`.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Waited<F>> {
        let this = self.get_mut();
        assert!(!this.ready, "polled again after it was ready");
        ready!(this.set.poll_for(this.count, context));
        this.ready = true;
        Poll::Ready(Waited::of(&mut this.set))
    }
}

impl<F: Completable> fmt::Debug for WaitAsync<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitAsync").field("futures", &self.set.len()).finish_non_exhaustive()
    }
}
