//! The caller's half of a task: the handle, and how a thread blocks on it.

#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::cell::{self, Header};
use super::deadlock;
use super::inline_wait::{InlineWait, InlineWaitGuard, Listener};
use super::offload::SpareHost;
use super::shared::SharedFuture;
use super::state::{AlreadyFinal, Phase};
use super::task::Claimed;
use super::waiter::{ThreadWaiter, Waiter};
use super::{Source, WaitMode, block, poll};
use crate::error::TaskError;
use crate::fork;
use crate::quiet;

/// The result of a task, now or later: block on it, `.await` it, cancel it, collect it with others.
///
/// The same handle can be blocked on, with [`result`](Self::result) and its variants, or awaited as a
/// [`std::future::Future`] in any runtime. The output is `Result<T, TaskError>` in both cases.
///
/// **Dropping the handle detaches the task: it still runs**, as in Python. Use [`cancel_on_drop`](Self::cancel_on_drop) to cancel
/// the task when the handle is dropped. Dropping never blocks.
///
/// The handle is one machine word. It is `Send` if `T` is, and `Sync` if `T` is `Send` and `Sync` (a callback may read the
/// value through a shared reference).
///
/// ```
/// use concurrent_futures::ThreadPoolExecutor;
///
/// let pool = ThreadPoolExecutor::new(2)?;
/// let future = pool.submit(|| 6 * 7);
/// assert_eq!(future.result()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// ```compile_fail,E0277
/// fn to_another_thread<T: Send>() {}
/// to_another_thread::<concurrent_futures::TaskFuture<std::rc::Rc<u8>>>();
/// ```
#[must_use = "dropping a TaskFuture detaches the task: it still runs, but nobody sees its result"]
pub struct TaskFuture<T> {
    cell: NonNull<Header>,
    value: PhantomData<T>,
}

// SAFETY: the handle can move the value to the thread it is sent to, hence `T: Send`; everything else behind the pointer is the
// state word and the fields that it guards.
unsafe impl<T: Send> Send for TaskFuture<T> {}
// SAFETY: through `&self` a thread can get a `&T` (`add_done_callback`, `peek`), hence `T: Sync`; and the last owner may drop
// the value, hence `T: Send`.
unsafe impl<T: Send + Sync> Sync for TaskFuture<T> {}
// The cell is heap memory that nothing points into from outside; polling needs no pinning.
impl<T> Unpin for TaskFuture<T> {}

/// Identifies a task: no two tasks with live handles have the same id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(usize);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

impl<T> TaskFuture<T> {
    /// # Safety
    /// The caller gives the handle's reference of a cell of `T` to the new handle.
    pub(super) unsafe fn from_cell(cell: NonNull<Header>) -> Self {
        Self { cell, value: PhantomData }
    }

    fn header(&self) -> &Header {
        // SAFETY: the handle's reference keeps the cell alive.
        unsafe { self.cell.as_ref() }
    }

    /// Blocks until the task is done, and returns what it returned.
    ///
    /// Called on a worker of the same pool while the task is still queued, it runs that task, and never another one, on this
    /// thread: so tasks can wait for tasks even in a pool of one thread. A spawned future is polled in place whenever it is
    /// woken, and so are the tasks and futures of the pool that it awaits.
    ///
    /// # Errors
    ///
    /// The error of the task: see [`TaskError`]. [`TaskError::WouldDeadlock`] if the calling thread is running the task it
    /// would wait for, or the wait would close a cycle of tasks that wait for each other.
    pub fn result(mut self) -> Result<T, TaskError> {
        match self.wait_until(None) {
            Ok(_) => self.take(),
            Err(deadlock::WaitCycle) => Err(TaskError::WouldDeadlock),
        }
    }

    /// Like [`result`](Self::result), but gives up after `timeout` and returns the handle, which can be used again. With a zero
    /// timeout it only checks. The outer `Err` is the time-out, the inner one the task's.
    ///
    /// ```
    /// use std::time::Duration;
    /// use concurrent_futures::promise;
    ///
    /// let (promise, future) = promise::<u32>();
    /// let future = future.result_timeout(Duration::from_millis(1)).unwrap_err(); // too early: still ours
    /// promise.set_result(5).unwrap();
    /// assert_eq!(future.result_timeout(Duration::from_millis(1)).unwrap()?, 5);
    /// # Ok::<(), concurrent_futures::TaskError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The handle itself, if the task is not done in time. The calling thread never runs the task: if it is a worker of the
    /// pool, and the task is still queued and no worker is free, a
    /// [spare thread](crate::ThreadPoolExecutor#spare-threads) runs it.
    pub fn result_timeout(mut self, timeout: Duration) -> Result<Result<T, TaskError>, Self> {
        // A deadline that an `Instant` cannot represent is treated as no deadline.
        let waited = match Instant::now().checked_add(timeout) {
            Some(deadline) => self.wait_until(Some(deadline)),
            None => self.wait_until(None),
        };
        match waited {
            Ok(true) => Ok(self.take()),
            Ok(false) => Err(self),
            Err(deadlock::WaitCycle) => Ok(Err(TaskError::WouldDeadlock)),
        }
    }

    /// Returns the result if the task is done, without blocking.
    ///
    /// # Errors
    ///
    /// The handle itself, if the task is not done.
    pub fn try_result(self) -> Result<Result<T, TaskError>, Self> {
        if self.is_done() { Ok(self.take()) } else { Err(self) }
    }

    /// Returns a reference to the outcome without taking it; `None` if the task is not done (or its result was taken by
    /// polling).
    ///
    /// ```
    /// # use concurrent_futures::promise;
    /// let (promise, future) = promise::<String>();
    /// assert!(future.peek().is_none());
    /// promise.set_result("done".to_owned()).unwrap();
    /// assert_eq!(future.peek().unwrap().unwrap(), "done");
    /// ```
    pub fn peek(&self) -> Option<Result<&T, &TaskError>> {
        self.is_foreign();
        // SAFETY: the handle is borrowed for as long as the result is, and taking needs the handle by value or `&mut`.
        unsafe { cell::peek(self.cell) }
    }

    /// Cancels the task if it has not started; returns whether it is (or is being) cancelled. A task that has not started is
    /// always cancelled: it never runs, its closure is dropped before this method returns, and all waiters are woken. A task
    /// that is running on a thread continues, and this returns `false`. A task that is running in a worker process is cancelled
    /// too: its worker is killed (SIGTERM, and SIGKILL after [`kill_grace`](crate::ProcessPoolBuilder::kill_grace)).
    ///
    /// A [spawned](crate::ThreadPoolExecutor::spawn) future can be cancelled at any time before it is ready. If it is queued,
    /// or suspended at an `.await`, it is dropped on this thread before this returns. If it is being polled, it is dropped when
    /// that poll returns, together with its value if it has one; until then it [is running](Self::is_running). (If that poll
    /// panics, the panic is the outcome.)
    ///
    /// In a forked child a task that belongs to a pool of the parent cannot be cancelled: this returns `false`.
    ///
    /// The done-callbacks run on this thread. That, and the return value for tasks on threads, are as in Python.
    ///
    /// ```
    /// use concurrent_futures::promise;
    ///
    /// let (promise, future) = promise::<u32>();
    /// assert!(future.cancel());
    /// assert!(promise.is_cancelled());
    /// assert!(future.result().unwrap_err().is_cancelled());
    /// ```
    pub fn cancel(&self) -> bool {
        // SAFETY: the handle's reference.
        !self.is_foreign() && unsafe { cell::cancel(self.cell) }
    }

    /// True once the task has ended, in whatever way: no call on this handle blocks any more.
    pub fn is_done(&self) -> bool {
        self.header().state.phase().is_final() || self.is_foreign()
    }

    /// Is this a forked child, and does the task belong to a pool of its parent? If so, resolves it.
    #[inline]
    fn is_foreign(&self) -> bool {
        // SAFETY: the handle's reference.
        fork::is_child() && unsafe { cell::disown(self.cell) }
    }

    /// Has the task been resolved because this is a forked child and the task belongs to its parent?
    pub(super) fn is_disowned(&self) -> bool {
        self.header().state.phase() == Phase::Foreign
    }

    /// True while a worker runs the task. A spawned future counts as running from its first poll until it ends, including while
    /// it is suspended.
    pub fn is_running(&self) -> bool {
        match self.header().state.phase() {
            Phase::Running | Phase::Pending if self.is_foreign() => false,
            Phase::Running => true,
            // SAFETY: the handle's reference.
            Phase::Pending => unsafe { cell::has_begun(self.cell) },
            _ => false,
        }
    }

    /// True if the task was cancelled.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.header().state.phase(), Phase::Cancelled | Phase::Cancelling)
    }

    /// Calls `callback` with the outcome when the task is done: once, on the thread that resolves the future, after the
    /// callbacks that were added before; immediately, on this thread, if it is already done.
    ///
    /// Callbacks run *before* the future counts as done. So they have run by the time the result can be read, and a callback
    /// must not wait for a thread that waits for this future. They may submit, cancel, and shut the pool down without waiting.
    /// A callback that panics is reported by the panic hook; the others still run.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use concurrent_futures::ThreadPoolExecutor;
    ///
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let (tx, rx) = mpsc::channel();
    /// let future = pool.submit(|| 21 * 2);
    /// future.add_done_callback(move |outcome| tx.send(*outcome.unwrap()).unwrap());
    /// assert_eq!(rx.recv()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Panics
    ///
    /// If the result has been taken by polling the handle.
    pub fn add_done_callback(&self, callback: impl FnOnce(Result<&T, &TaskError>) + Send + 'static) {
        if self.is_foreign() {
            return quiet::call(|| callback(Err(&TaskError::WrongProcess)));
        }
        // SAFETY: the handle is borrowed during the call, and taking needs the handle by value or `&mut`.
        unsafe { cell::add_callback(self.cell, Box::new(callback)) }
    }

    /// Returns an identifier that is unique among tasks with live handles.
    pub fn id(&self) -> TaskId {
        TaskId(self.address())
    }

    /// Converts the handle into one that can be cloned, so that several readers can use the result.
    pub fn shared(self) -> SharedFuture<T>
    where
        T: Send + Sync + 'static,
    {
        SharedFuture::new(self)
    }

    /// Detaches the task explicitly. Equivalent to dropping the handle.
    ///
    /// ```
    /// # use std::sync::mpsc;
    /// # use concurrent_futures::ThreadPoolExecutor;
    /// let pool = ThreadPoolExecutor::new(1)?;
    /// let (tx, rx) = mpsc::channel();
    /// pool.submit(move || tx.send("still ran").unwrap()).detach();
    /// assert_eq!(rx.recv()?, "still ran");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn detach(self) {}

    /// Wraps the handle so that dropping it cancels the task, if it has not started.
    pub fn cancel_on_drop(self) -> CancelOnDrop<T> {
        CancelOnDrop(Some(self))
    }

    /// The address that identifies the task in the tables of running and blocked tasks.
    pub(super) fn address(&self) -> usize {
        self.cell.addr().get()
    }

    /// Registers a waiter through a shared reference, for the one shared future that holds this handle.
    pub(super) fn register_shared(&self, waiter: *mut Waiter) -> Result<(), AlreadyFinal> {
        self.header().state.set_waiter(waiter)
    }

    /// A future that already has its outcome.
    pub(crate) fn ready(outcome: Result<T, TaskError>) -> Self
    where
        T: Send,
    {
        // SAFETY: the one reference of a ready cell is the handle's.
        unsafe { Self::from_cell(cell::ready(outcome)) }
    }

    /// Takes the outcome of a task that is done.
    pub(super) fn take(self) -> Result<T, TaskError> {
        let mut this = self;
        this.take_mut()
    }

    pub(super) fn take_mut(&mut self) -> Result<T, TaskError> {
        // SAFETY: `&mut` access to the handle is exclusive, like ownership, and the phase TAKEN keeps the value from being used
        // again. All callers have seen a final phase.
        unsafe { cell::take(self.cell) }
    }

    /// True if a result or an error is stored.
    pub(super) fn has_outcome(&self) -> bool {
        matches!(self.header().state.phase(), Phase::Value | Phase::Error)
    }

    /// Drops the outcome, if there is one.
    ///
    /// # Safety
    /// No other thread has the handle or a reference into the outcome, or will read the outcome again.
    pub(super) unsafe fn drop_outcome(&self) {
        // SAFETY: the caller's contract, which is equivalent to owning the handle.
        unsafe { cell::drop_outcome(self.cell) };
    }

    /// Blocks until the task is done or the deadline has passed; returns whether it is done.
    fn wait_until(&mut self, deadline: Option<Instant>) -> Result<bool, deadlock::WaitCycle> {
        let inline_wait = InlineWaitGuard::new();
        if let Some(done) = block::ready_or_claimed(self, deadline, &inline_wait) {
            return Ok(done);
        }
        self.forget_waker();
        block::wait(self, self.address(), deadline, &inline_wait, |meanwhile| self.sleep_until(deadline, meanwhile))
    }

    fn sleep_until(&self, deadline: Option<Instant>, meanwhile: &dyn Fn() -> bool) -> bool {
        let waiter = ThreadWaiter::new();
        if self.header().state.set_waiter(waiter.as_waiter()) == Err(AlreadyFinal) {
            return true;
        }
        // From here on, `waiter` may be used by the resolver until it is notified or taken back (rule 2 of the waiter
        // contract): this function does not return or unwind before then.
        if waiter.wait(deadline, meanwhile) {
            return true;
        }
        match self.header().state.clear_waiter() {
            Ok(_) => false,
            Err(AlreadyFinal) => waiter.wait(None, &|| false),
        }
    }

    /// Removes the waker that an earlier poll registered.
    pub(super) fn forget_waker(&mut self) {
        // The destructor of a waker is the runtime's code.
        quiet::drop(self.take_waker());
    }

    pub(super) fn has_waker(&self) -> bool {
        self.header().state.has_waiter()
    }

    pub(super) fn take_waker(&mut self) -> Option<poll::WakerBox> {
        if !self.has_waker() {
            return None;
        }
        let waiter = NonNull::new(self.header().state.clear_waiter().ok()?)?;
        // SAFETY: only the handle registers waiters. A blocking wait takes its own back before it returns, a combinator before
        // it gives up the handle, so this one is a waker's, from `set_waker`.
        Some(unsafe { poll::WakerBox::from_waiter(waiter) })
    }

    pub(super) fn set_waker(&mut self, waker: poll::WakerBox) -> Result<(), AlreadyFinal> {
        let waiter = poll::WakerBox::into_waiter(waker);
        self.header().state.set_waiter(waiter.as_ptr()).inspect_err(|_| {
            // SAFETY: it was not registered, so it still belongs to this thread.
            drop(unsafe { poll::WakerBox::from_waiter(waiter) });
        })
    }
}

impl<T> Source for TaskFuture<T> {
    fn is_done(&self) -> bool {
        self.is_done()
    }

    fn has_failed(&self) -> bool {
        match self.header().state.phase() {
            Phase::Value if self.header().vtable.is_lazy => self.peek().is_some_and(|outcome| outcome.is_err()),
            phase => phase.is_failure(),
        }
    }

    fn address(&self) -> usize {
        self.address()
    }

    fn register(&mut self, waiter: NonNull<Waiter>) -> Result<(), AlreadyFinal> {
        self.forget_waker();
        self.header().state.set_waiter(waiter.as_ptr())
    }

    fn unregister(&mut self, _waiter: NonNull<Waiter>) -> Result<(), AlreadyFinal> {
        self.header().state.clear_waiter().map(drop)
    }

    fn may_claim(&self) -> bool {
        // SAFETY: the handle's reference.
        unsafe { cell::may_claim(self.cell) }
    }

    fn claim(&self, wait: &InlineWait) -> bool {
        // SAFETY: the handle's reference.
        unsafe { cell::claim(self.cell, wait) }
    }

    fn is_future(&self) -> bool {
        self.header().vtable.is_future
    }

    fn claimable(&self) -> Option<Arc<dyn SpareHost>> {
        // SAFETY: the handle's reference.
        unsafe { cell::claimable(self.cell) }
    }

    fn claim_for_spare(&self) -> Option<Claimed> {
        // SAFETY: this is the handle; the claim is given to the new value.
        unsafe { cell::claim_for_spare(self.cell).then(|| Claimed::new(self.cell)) }
    }

    fn listen(&self, wait: &InlineWait, listener: Listener<'_>) -> bool {
        // SAFETY: the handle's reference.
        unsafe { cell::listen(self.cell, wait, listener) }
    }

    fn drive_while_waiting(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>, mode: WaitMode) -> bool {
        // SAFETY: the handle's reference.
        unsafe { cell::drive_while_waiting(self.cell, done, deadline, mode) }
    }
}

impl<T> Drop for TaskFuture<T> {
    fn drop(&mut self) {
        self.forget_waker();
        // SAFETY: the handle's reference is given up, once.
        unsafe { cell::release_handle(self.cell) };
    }
}

impl<T> fmt::Debug for TaskFuture<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.header().state.phase() {
            Phase::Pending => "pending",
            Phase::Running => "running",
            Phase::Cancelling | Phase::Cancelled => "cancelled",
            Phase::Value => "finished",
            Phase::Error => "failed",
            Phase::Taken => "taken",
            Phase::Foreign => "in another process",
        };
        f.debug_struct("TaskFuture")
            .field("id", &format_args!("{}", self.id()))
            .field("state", &format_args!("{state}"))
            .finish()
    }
}

/// A [`TaskFuture`] that cancels its task when it is dropped, if the task can still be cancelled: see [`TaskFuture::cancel`].
///
/// ```
/// use concurrent_futures::promise;
///
/// let (promise, future) = promise::<u32>();
/// drop(future.cancel_on_drop());
/// assert!(promise.is_cancelled());
/// ```
#[must_use = "dropping it cancels the task"]
pub struct CancelOnDrop<T>(Option<TaskFuture<T>>);

impl<T> CancelOnDrop<T> {
    /// Returns the plain handle. Dropping that one detaches the task.
    pub fn into_inner(mut self) -> TaskFuture<T> {
        self.0.take().expect("the handle is there until this value is consumed")
    }

    pub(super) fn inner_mut(&mut self) -> &mut TaskFuture<T> {
        self.0.as_mut().expect("the handle is there until this value is consumed")
    }
}

impl<T> std::ops::Deref for CancelOnDrop<T> {
    type Target = TaskFuture<T>;

    fn deref(&self) -> &TaskFuture<T> {
        self.0.as_ref().expect("the handle is there until this value is consumed")
    }
}

impl<T> Drop for CancelOnDrop<T> {
    fn drop(&mut self) {
        if let Some(future) = &self.0 {
            future.cancel();
        }
    }
}

impl<T> fmt::Debug for CancelOnDrop<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelOnDrop").field(&**self).finish()
    }
}

// A handle must stay one word, because a program may keep a million of them.
const _: () = assert!(mem::size_of::<TaskFuture<[u64; 9]>>() == mem::size_of::<usize>());
