//! Many readers of one result.

#![allow(unsafe_code)]

use std::fmt;
use std::future::Future;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use super::deadlock::{self, polls_itself};
use super::handle::{TaskFuture, TaskId};
use super::inline_wait::{InlineWait, InlineWaitGuard, Listener};
use super::offload::SpareHost;
use super::park::only_unparks;
use super::state::AlreadyFinal;
use super::task::Claimed;
use super::waiter::{ThreadWaiter, Waiter};
use super::{Source, WaitMode, block};
use crate::error::TaskError;
use crate::fork::Witness;
use crate::quiet;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicUsize, Ordering::*};

/// A [`TaskFuture`] that can be cloned: all clones share the result. Made by [`TaskFuture::shared`].
///
/// Like the plain handle it can be blocked on and awaited; the result is cloned ([`result`](Self::result)) or borrowed
/// ([`get`](Self::get)). Dropping the clones detaches the task and does not cancel it.
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
    /// The key of this clone's entry in the list: its waker, or the waiter of a combinator.
    key: Option<usize>,
}

// What the clones share is behind a lock under which no user code runs, and the value is only read: as for an `Arc` of it.
impl<T: RefUnwindSafe> UnwindSafe for SharedFuture<T> {}
impl<T: RefUnwindSafe> RefUnwindSafe for SharedFuture<T> {}

/// What the clones share. It is the one waiter of the inner future, and notifies the waiters of the clones.
#[repr(C, align(64))]
struct Inner<T> {
    waiter: Waiter,
    /// Its result is only read, and dropped with the last clone.
    future: TaskFuture<T>,
    /// How many clones there are.
    clones: AtomicUsize,
    /// The waiters; `None` once they have been taken out to be notified.
    waiting: Mutex<Option<Waiting>>,
}

const _: () = assert!(align_of::<Inner<()>>() == Waiter::ALIGN);

enum Entry {
    /// On the stack of a blocked thread.
    Thread(NonNull<Waiter>),
    /// On the heap: a combinator's.
    Node(NonNull<Waiter>),
    Waker(Waker),
}

// SAFETY: the pointer is a waiter under the waiter contract, which any thread may notify.
unsafe impl Send for Entry {}

/// A list whose entries keep their places, so that an entry is found by its key in constant time.
#[derive(Default)]
struct Waiting {
    places: Vec<Place>,
    /// The place that was freed last: the head of the list of free places.
    free: Option<usize>,
    taken: usize,
}

enum Place {
    Taken(Entry),
    /// With the next free place.
    Free(Option<usize>),
}

impl Waiting {
    /// Capacity that is kept when the list becomes empty.
    const KEPT: usize = 32;

    fn insert(&mut self, entry: Entry) -> usize {
        self.taken += 1;
        let Some(key) = self.free else {
            self.places.push(Place::Taken(entry));
            return self.places.len() - 1;
        };
        match std::mem::replace(&mut self.places[key], Place::Taken(entry)) {
            Place::Free(next) => self.free = next,
            Place::Taken(_) => unreachable!("it was on the list of free places"),
        }
        key
    }

    fn remove(&mut self, key: usize) -> Entry {
        let Place::Taken(entry) = std::mem::replace(&mut self.places[key], Place::Free(self.free)) else {
            unreachable!("a key is good until its entry is removed");
        };
        self.free = Some(key);
        self.taken -= 1;
        if self.taken == 0 {
            self.places.clear();
            self.places.shrink_to(Self::KEPT);
            self.free = None;
        }
        entry
    }

    /// The waker with this key.
    fn waker(&mut self, key: usize) -> Option<&mut Waker> {
        match self.places.get_mut(key) {
            Some(Place::Taken(Entry::Waker(waker))) => Some(waker),
            _ => None,
        }
    }
}

impl IntoIterator for Waiting {
    type Item = Entry;
    type IntoIter = std::iter::FilterMap<std::vec::IntoIter<Place>, fn(Place) -> Option<Entry>>;

    fn into_iter(self) -> Self::IntoIter {
        self.places.into_iter().filter_map(|place| match place {
            Place::Taken(entry) => Some(entry),
            Place::Free(_) => None,
        })
    }
}

impl<T: Send + Sync + 'static> SharedFuture<T> {
    pub(super) fn new(mut future: TaskFuture<T>) -> Self {
        future.forget_waker();
        let inner = Arc::new(Inner {
            waiter: Waiter::new(Inner::<T>::notify),
            future,
            clones: AtomicUsize::new(1),
            waiting: Mutex::new(Some(Waiting::default())),
        });
        // The registration holds a strong reference until `notify` gives it up: rule 2 of the waiter contract.
        let waiter = Arc::into_raw(Arc::clone(&inner)).cast::<Waiter>().cast_mut();
        if inner.future.register_shared(waiter) == Err(AlreadyFinal) {
            // SAFETY: the registration failed, so the reference still belongs to this thread.
            drop(unsafe { Arc::from_raw(waiter.cast::<Inner<T>>()) });
            *inner.waiting.lock() = None;
        }
        Self { inner, key: None }
    }
}

impl<T> Inner<T> {
    unsafe fn notify(waiter: NonNull<Waiter>, failed: bool, about_to_call: &dyn Fn()) {
        // SAFETY: `new` leaked this reference into the registration; `Waiter` is the first field (repr(C)).
        let this = unsafe { Arc::from_raw(waiter.cast::<Self>().as_ptr()) };
        let waiting = this.waiting.lock().take().unwrap_or_default();
        // In a forked child these threads do not exist, and their stacks may be in use by others.
        let has_threads = !this.future.is_disowned();
        let process = Witness::new();
        for entry in waiting {
            if !process.is_here() {
                // A waker has forked, and this is the child: the parent wakes the others.
                return std::mem::forget(this);
            }
            match entry {
                Entry::Thread(_) if !has_threads => {}
                // SAFETY: it was taken out of the list, so this thread must notify it. A waiting thread belongs to this
                // process.
                Entry::Thread(waiter) | Entry::Node(waiter) => unsafe {
                    Waiter::notify(waiter, failed, about_to_call);
                },
                Entry::Waker(waker) => {
                    if !only_unparks(&waker) {
                        about_to_call();
                    }
                    quiet::call(|| waker.wake());
                }
            }
        }
        // If the last clone was dropped before the task ended, the result is dropped here.
        if let Some(last) = Arc::into_inner(this) {
            if last.future.has_outcome() {
                about_to_call();
            }
            quiet::drop(last);
        }
    }

    fn add(&self, entry: Entry) -> Result<usize, AlreadyFinal> {
        match &mut *self.waiting.lock() {
            Some(waiting) => Ok(waiting.insert(entry)),
            None => Err(AlreadyFinal),
        }
    }

    fn remove(&self, key: usize) -> Result<(), AlreadyFinal> {
        let removed = match &mut *self.waiting.lock() {
            Some(waiting) => waiting.remove(key),
            None => return Err(AlreadyFinal),
        };
        // A waker's destructor is the runtime's code, so it runs outside the lock.
        quiet::drop(removed);
        Ok(())
    }

    /// Replaces the waker with this key, unless it would wake the same task.
    fn set_waker(&self, key: usize, waker: &Waker) -> Result<(), AlreadyFinal> {
        let is_there = |waiting: &mut Waiting| waiting.waker(key).is_some_and(|old| old.will_wake(waker));
        match self.waiting.lock().as_mut().map(is_there) {
            Some(true) => return Ok(()),
            Some(false) => {}
            None => return Err(AlreadyFinal),
        }
        // Cloning one and dropping another is the runtime's code, so it happens outside the lock.
        let mut new = waker.clone();
        match &mut *self.waiting.lock() {
            Some(waiting) => std::mem::swap(waiting.waker(key).expect("it is this clone's waker"), &mut new),
            None => return Err(AlreadyFinal),
        }
        quiet::drop(new);
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
            Err(deadlock::WaitCycle) => Err(TaskError::WouldDeadlock),
        }
    }

    /// Like [`get`](Self::get), but returns `None` if the task is not done within `timeout`. With a zero timeout it only
    /// checks. As with [`TaskFuture::result_timeout`], the calling thread never runs the task.
    pub fn get_timeout(&self, timeout: Duration) -> Option<Result<&T, TaskError>> {
        match self.wait_until(Instant::now().checked_add(timeout)) {
            Ok(true) => Some(self.outcome()),
            Ok(false) => None,
            Err(deadlock::WaitCycle) => Some(Err(TaskError::WouldDeadlock)),
        }
    }

    /// Returns a reference to the outcome; `None` if the task is not done.
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

    /// True while a worker runs the task: see [`TaskFuture::is_running`].
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

    /// Returns the identifier of the task, which is the same for all clones.
    pub fn id(&self) -> TaskId {
        self.inner.future.id()
    }

    fn outcome(&self) -> Result<&T, TaskError> {
        self.inner.future.peek().expect("the task is done and its result is never taken").map_err(TaskError::clone)
    }

    fn wait_until(&self, deadline: Option<Instant>) -> Result<bool, deadlock::WaitCycle> {
        let inline_wait = InlineWaitGuard::new();
        if let Some(done) = block::ready_or_claimed(self, deadline, &inline_wait) {
            return Ok(done);
        }
        block::wait(self, self.inner.future.address(), deadline, &inline_wait, |meanwhile| {
            self.sleep_until(deadline, meanwhile)
        })
    }

    fn sleep_until(&self, deadline: Option<Instant>, meanwhile: &dyn Fn() -> bool) -> bool {
        let waiter = ThreadWaiter::new();
        let Some(as_waiter) = NonNull::new(waiter.as_waiter()) else { unreachable!("it is on the stack") };
        let Ok(key) = self.inner.add(Entry::Thread(as_waiter)) else { return true };
        // As in `TaskFuture`: no return before the waiter is notified or taken back.
        if waiter.wait(deadline, meanwhile) {
            return true;
        }
        match self.inner.remove(key) {
            Ok(()) => false,
            Err(AlreadyFinal) => waiter.wait(None, &|| false),
        }
    }

    fn forget_waker(&mut self) {
        if let Some(key) = self.key.take() {
            let _ = self.inner.remove(key);
        }
    }
}

impl<T> Source for SharedFuture<T> {
    fn is_done(&self) -> bool {
        self.is_done()
    }

    fn has_failed(&self) -> bool {
        self.inner.future.has_failed()
    }

    fn address(&self) -> usize {
        self.inner.future.address()
    }

    fn register(&mut self, waiter: NonNull<Waiter>) -> Result<(), AlreadyFinal> {
        self.forget_waker();
        self.key = Some(self.inner.add(Entry::Node(waiter))?);
        Ok(())
    }

    fn unregister(&mut self, _waiter: NonNull<Waiter>) -> Result<(), AlreadyFinal> {
        let key = self.key.take().ok_or(AlreadyFinal)?;
        self.inner.remove(key)
    }

    fn may_claim(&self) -> bool {
        self.inner.future.may_claim()
    }

    fn claim(&self, wait: &InlineWait) -> bool {
        self.inner.future.claim(wait)
    }

    fn is_future(&self) -> bool {
        self.inner.future.is_future()
    }

    fn claimable(&self) -> Option<Arc<dyn SpareHost>> {
        self.inner.future.claimable()
    }

    fn claim_for_spare(&self) -> Option<Claimed> {
        self.inner.future.claim_for_spare()
    }

    fn listen(&self, wait: &InlineWait, listener: Listener<'_>) -> bool {
        self.inner.future.listen(wait, listener)
    }

    fn drive_while_waiting(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>, mode: WaitMode) -> bool {
        self.inner.future.drive_while_waiting(done, deadline, mode)
    }
}

impl<T: Clone> Future for SharedFuture<T> {
    type Output = Result<T, TaskError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if !self.is_done() {
            self.poll_in_place(context.waker());
        }
        if self.is_done() || self.key.is_none() && self.spin_before_pending() {
            self.forget_waker();
            return Poll::Ready(self.outcome().cloned());
        }
        if polls_itself(self.inner.future.address(), context.waker()) {
            return Poll::Ready(Err(TaskError::WouldDeadlock));
        }
        let left = match self.key {
            Some(key) => self.inner.set_waker(key, context.waker()).map(|()| key),
            None => self.inner.add(Entry::Waker(context.waker().clone())),
        };
        self.key = left.as_ref().ok().copied();
        match left {
            Ok(_) => Poll::Pending,
            Err(AlreadyFinal) => Poll::Ready(self.outcome().cloned()),
        }
    }
}

impl<T> Clone for SharedFuture<T> {
    fn clone(&self) -> Self {
        // Relaxed: as for an `Arc`, the cloning thread holds a clone.
        self.inner.clones.fetch_add(1, Relaxed);
        Self { inner: Arc::clone(&self.inner), key: None }
    }
}

impl<T> Drop for SharedFuture<T> {
    fn drop(&mut self) {
        self.forget_waker();
        // AcqRel: the reads by the other clones happen before this drop. A result is dropped on this thread, not on the
        // resolver's, which may still hold its reference.
        if self.inner.clones.fetch_sub(1, AcqRel) == 1 {
            // SAFETY: no clone is left, and no other code reads the result of a task that is done.
            unsafe { self.inner.future.drop_outcome() };
        }
    }
}

impl<T> fmt::Debug for SharedFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SharedFuture").field(&self.inner.future).finish()
    }
}
