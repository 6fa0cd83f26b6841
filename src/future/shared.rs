//! Many readers of one result.

#![allow(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::attend::{Attendance, Attending};
use super::deadlock;
use super::handle::{TaskFuture, TaskId};
use super::state::AlreadyFinal;
use super::waiter::{ThreadWaiter, Waiter};
use super::{Idle, Source, block};
use crate::error::TaskError;
use crate::sync::Mutex;
use crate::unwind;

/// A [`TaskFuture`] that can be cloned: every clone sees the one result. Made by [`TaskFuture::shared`].
///
/// Like the plain handle it can be blocked on and awaited; the result is cloned out ([`result`](Self::result)) or
/// looked at ([`get`](Self::get)). Dropping clones detaches, it does not cancel.
///
/// ```
/// use std::thread;
/// use concurrent_futures::ThreadPoolExecutor;
///
/// let pool = ThreadPoolExecutor::new(1)?;
/// let answer = pool.submit(|| 42).shared();
/// let other = answer.clone();
/// let reader = thread::spawn(move || other.result());
/// assert_eq!(answer.result()?, 42);
/// assert_eq!(reader.join().unwrap()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a future does nothing by itself: wait for it, await it, or keep it"]
pub struct SharedFuture<T> {
    inner: Arc<Inner<T>>,
    /// Under which key this clone has left a waker, if it was polled.
    key: Option<u64>,
}

/// What the clones share. It is itself the one waiter of the inner future, and passes the news on to its own.
#[repr(C, align(64))]
struct Inner<T> {
    waiter: Waiter,
    /// Its result is never taken, only looked at.
    future: TaskFuture<T>,
    /// Who waits; `None` once they have been taken out to be notified.
    waiting: Mutex<Option<Vec<Entry>>>,
}

const _: () = assert!(align_of::<Inner<()>>() == Waiter::ALIGN);

enum Entry {
    Waiter(NonNull<Waiter>),
    Waker(u64, Waker),
}

// SAFETY: the pointer is a waiter under the waiter contract, which any thread may notify.
unsafe impl Send for Entry {}

impl<T: Send + Sync + 'static> SharedFuture<T> {
    pub(super) fn new(mut future: TaskFuture<T>) -> Self {
        future.forget_waker();
        let inner =
            Arc::new(Inner { waiter: Waiter::new(Inner::<T>::notify), future, waiting: Mutex::new(Some(Vec::new())) });
        // The registration holds a strong reference until `notify` gives it up: rule 2 of the waiter contract.
        let waiter = Arc::into_raw(Arc::clone(&inner)).cast::<Waiter>().cast_mut();
        if inner.future.register_shared(waiter) == Err(AlreadyFinal) {
            // SAFETY: nobody has taken the reference over.
            drop(unsafe { Arc::from_raw(waiter.cast::<Inner<T>>()) });
            *inner.waiting.lock() = None;
        }
        Self { inner, key: None }
    }
}

impl<T> Inner<T> {
    unsafe fn notify(waiter: NonNull<Waiter>, failed: bool, about_to_call: &dyn Fn()) {
        // There may be wakers, and the value may be dropped here.
        about_to_call();
        // SAFETY: `new` leaked this reference into the registration; `Waiter` is the first field (repr(C)).
        let this = unsafe { Arc::from_raw(waiter.cast::<Self>().as_ptr()) };
        let waiting = this.waiting.lock().take().unwrap_or_default();
        for entry in waiting {
            match entry {
                // SAFETY: it was taken out of the list, so it is this thread's to notify.
                Entry::Waiter(waiter) => unsafe { Waiter::notify(waiter, failed, about_to_call) },
                Entry::Waker(_, waker) => unwind::call_quietly(|| waker.wake()),
            }
        }
    }

    fn add(&self, entry: Entry) -> Result<(), AlreadyFinal> {
        match &mut *self.waiting.lock() {
            Some(waiting) => {
                waiting.push(entry);
                Ok(())
            }
            None => Err(AlreadyFinal),
        }
    }

    fn remove(&self, is_it: impl Fn(&Entry) -> bool) -> Result<(), AlreadyFinal> {
        let removed = match &mut *self.waiting.lock() {
            Some(waiting) => waiting.iter().position(is_it).map(|at| waiting.swap_remove(at)),
            None => return Err(AlreadyFinal),
        };
        // A waker's destructor is the runtime's code, so it runs outside the lock.
        unwind::drop_quietly(removed);
        Ok(())
    }
}

impl<T> SharedFuture<T> {
    /// Blocks until the task is done, and returns a clone of what it returned. Waiting on a worker of the same pool
    /// runs a task that is still queued, as [`TaskFuture::result`] does.
    ///
    /// # Errors
    ///
    /// As [`TaskFuture::result`].
    pub fn result(&self) -> Result<T, TaskError>
    where
        T: Clone,
    {
        self.get().cloned()
    }

    /// Blocks until the task is done, and returns a reference to what it returned.
    ///
    /// # Errors
    ///
    /// As [`TaskFuture::result`].
    pub fn get(&self) -> Result<&T, TaskError> {
        match self.wait_until(None) {
            Ok(_) => self.outcome(),
            Err(deadlock::Circle) => Err(TaskError::WouldDeadlock),
        }
    }

    /// Like [`get`](Self::get), but for at most so long: `None` is the time-out. A duration of zero looks once.
    pub fn get_timeout(&self, timeout: Duration) -> Option<Result<&T, TaskError>> {
        match self.wait_until(Instant::now().checked_add(timeout)) {
            Ok(true) => Some(self.outcome()),
            Ok(false) => None,
            Err(deadlock::Circle) => Some(Err(TaskError::WouldDeadlock)),
        }
    }

    /// Looks at the outcome; `None` if the task is not done.
    pub fn peek(&self) -> Option<Result<&T, &TaskError>> {
        self.inner.future.peek()
    }

    /// Cancels the task if it has not started, for all readers: see [`TaskFuture::cancel`].
    pub fn cancel(&self) -> bool {
        self.inner.future.cancel()
    }

    /// True once the task has ended, in whatever way.
    pub fn is_done(&self) -> bool {
        self.inner.future.is_done()
    }

    /// True while a worker is at it.
    pub fn is_running(&self) -> bool {
        self.inner.future.is_running()
    }

    /// True if the task was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.inner.future.is_cancelled()
    }

    /// Calls `callback` with the outcome when the task is done: see [`TaskFuture::add_done_callback`].
    pub fn add_done_callback(&self, callback: impl FnOnce(Result<&T, &TaskError>) + Send + 'static) {
        self.inner.future.add_done_callback(callback);
    }

    /// What tells this task apart; the clones have it in common.
    pub fn id(&self) -> TaskId {
        self.inner.future.id()
    }

    fn outcome(&self) -> Result<&T, TaskError> {
        self.inner.future.peek().expect("the task is done and its result is never taken").map_err(TaskError::clone)
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool, deadlock::Circle> {
        let attending = Attending::new();
        if let Some(done) = block::ready_or_claimed(self, deadline, &attending) {
            return Ok(done);
        }
        block::wait(self, self.inner.future.address(), deadline, &attending, |meanwhile| {
            self.sleep_until(deadline, meanwhile)
        })
    }

    fn sleep_until(&self, deadline: Option<Instant>, meanwhile: &dyn Fn() -> bool) -> bool {
        let waiter = ThreadWaiter::new();
        let Some(as_waiter) = NonNull::new(waiter.as_waiter()) else { unreachable!("it is on the stack") };
        if self.inner.add(Entry::Waiter(as_waiter)) == Err(AlreadyFinal) {
            return true;
        }
        // As in `TaskFuture`: no return before the waiter is notified or taken back.
        if waiter.wait(deadline, meanwhile) {
            return true;
        }
        match self.inner.remove(|entry| matches!(entry, Entry::Waiter(own) if *own == as_waiter)) {
            Ok(()) => false,
            Err(AlreadyFinal) => waiter.wait(None, &|| false),
        }
    }

    fn forget_waker(&mut self) {
        if let Some(key) = self.key.take() {
            let _ = self.inner.remove(|entry| matches!(entry, Entry::Waker(own, _) if *own == key));
        }
    }
}

impl<T> Source for SharedFuture<T> {
    fn is_done(&self) -> bool {
        self.is_done()
    }

    fn is_at_work(&self) -> bool {
        self.inner.future.is_at_work()
    }

    fn has_failed(&self) -> bool {
        self.inner.future.has_failed()
    }

    fn register(&mut self, waiter: NonNull<Waiter>) -> Result<(), AlreadyFinal> {
        self.inner.add(Entry::Waiter(waiter))
    }

    fn unregister(&mut self, waiter: NonNull<Waiter>) -> Result<(), AlreadyFinal> {
        self.inner.remove(|entry| matches!(entry, Entry::Waiter(own) if *own == waiter))
    }

    fn claim(&self, attendance: &Attendance) -> bool {
        self.inner.future.claim(attendance)
    }

    fn attend(&self, attendance: &Attendance, waker: &Waker) -> bool {
        self.inner.future.attend(attendance, waker)
    }

    fn help(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>, may: Idle) -> bool {
        self.inner.future.help(done, deadline, may)
    }
}

impl<T: Clone> Future for SharedFuture<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        static KEYS: AtomicU64 = AtomicU64::new(0);
        let first = self.key.is_none();
        self.forget_waker();
        if !self.is_done() {
            self.poll_in_place(context.waker());
        }
        if self.is_done() || first && self.glance() {
            return Poll::Ready(self.outcome().cloned());
        }
        // Relaxed: the key only has to be different from all others.
        let key = KEYS.fetch_add(1, Relaxed);
        match self.inner.add(Entry::Waker(key, context.waker().clone())) {
            Ok(()) => {
                self.key = Some(key);
                Poll::Pending
            }
            Err(AlreadyFinal) => Poll::Ready(self.outcome().cloned()),
        }
    }
}

impl<T> Clone for SharedFuture<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), key: None }
    }
}

impl<T> Drop for SharedFuture<T> {
    fn drop(&mut self) {
        self.forget_waker();
    }
}

impl<T> fmt::Debug for SharedFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedFuture").field(&self.inner.future).finish()
    }
}
