//! A future that an executor polls: a task cell whose work is the future, and the wakers that queue it.
//!
//! ```text
//! ┌────────┬───────────────────────────────────────┬─────────────────────────────────┐
//! │ header │ spawn: poll_state key │ host │ shells  │ payload: future | value | error │
//! └────────┴───────────────────────────────────────┴─────────────────────────────────┘
//! ```
//!
//! This module is an unsafe island, a neighbour of `cell`, whose rules hold here too. Here the word of `poll_state`, not the
//! phase alone, says which thread may access the future:
//! 1. The runner's reference of the cell (see `cell`, rule 1) is held in common by the entry in the executor's queue, the owner
//!    of the future, and the wakers; the holder that `poll_state` reports as the last one releases it.
//! 2. Only the owner of the future (`poll_state`) accesses the payload, and only the owner changes the phase, until the outcome
//!    is published. So `start`, `begin_cancel` and `cancel_begun` never compete with another thread here.
//! 3. The future is polled and dropped in place: it never moves. The payload is the future until the owner of a closed word
//!    drops it.
//! 4. A polling thread keeps the executor alive, and so does a waker, through its cell. Once the entry is in the queue, other
//!    threads may end the future and free the cell: from then on only a pointer into the executor is used.
//! 5. A cell in the list of unfinished futures has not been freed: its owner removes it from the list before giving up its
//!    share of the reference.

#![allow(unsafe_code)]

use std::future::Future;
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll, RawWaker, RawWakerVTable, Waker};

use super::cell::{Cell, Header, Now, Payload, Vtable, is_left};
use super::handle::TaskFuture;
use super::inline_wait::{self, InlineWait, Listener, outside_inline_wait};
use super::live::LiveFutures;
use super::offload::SpareHost;
use super::poll_state::{Cancel, Close, DropWaker, PollState, Remaining, Suspend, Take, Woken};
use super::shells::Shells;
use super::state::{BeginCancel, Phase, Release, Share, Start};
use super::task::Task;
use crate::current;
use crate::error::TaskError;
use crate::fork;
use crate::quiet;
use crate::stack::{self, NoRoom};
use crate::unwind;

/// What a spawned future needs from its executor.
pub(crate) trait Scheduler: Send + Sync {
    /// Is the calling thread one of those that poll futures? Such a thread keeps the executor alive.
    fn may_poll(&self) -> bool;

    /// Queues a future that is to be polled; behind everything else if it has `yielded`, that is, was woken during its own
    /// poll. May be called on any thread.
    fn schedule(&self, task: Task, yielded: bool);

    /// Does the executor belong to another process, from which this one was forked? Asked in forked children only.
    fn is_foreign(&self) -> bool {
        false
    }

    /// Called when the calling thread has polled a future in place and the future has completed.
    fn claimed(&self);

    /// What starts spare threads for a thread that may poll.
    fn spare_host(&self) -> Option<Arc<dyn SpareHost>>;

    /// The error with which the executor fails its futures.
    fn refusal(&self) -> TaskError;

    /// Runs `end`, which drops a future of this executor, on a thread that may not be one of the executor's. The future's
    /// destructor may drop the executor, which must not then wait for this thread.
    fn inside(&self, end: &mut dyn FnMut());

    /// The count of empty shells in its queues, if it wants them swept.
    fn shells(&self) -> Option<&'static Shells> {
        None
    }

    /// The list of futures that have not ended.
    fn unfinished(&self) -> &LiveFutures;

    /// Called when the last of them has ended.
    fn all_finished(&self);
}

/// The maximum number of consecutive polls, on behalf of a wait, of a future that wakes itself. After that, the other tasks of
/// the wait get their turn.
const IN_A_ROW: usize = 64;

/// The part of the cell between the header and the payload.
struct SpawnHeader {
    poll_state: PollState,
    /// The index in the list of unfinished futures.
    key: AtomicUsize,
    host: Arc<dyn Scheduler>,
    /// Where to count empty shells. Not behind `host`, because it is needed after the cell has been freed.
    shells: Option<&'static Shells>,
}

/// The common prefix of all spawned cells: in a `Cell` the owner follows the header (both are repr(C)).
#[repr(C)]
struct Base {
    header: Header,
    spawn: SpawnHeader,
}

/// Makes the two halves of a spawned future, in one allocation. The first half is to be queued.
pub(crate) fn spawned<F>(future: F, host: Arc<dyn Scheduler>) -> (Task, TaskFuture<F::Output>)
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let shells = host.shells();
    let spawn = SpawnHeader { poll_state: PollState::queued(), key: AtomicUsize::new(0), host, shells };
    let payload = Payload { work: ManuallyDrop::new(future) };
    let cell = Cell::<F, Now<F::Output>, SpawnHeader>::alloc(&Spawned::<F>::VTABLE, Phase::Pending, 2, payload, spawn);
    // SAFETY: the cell has two references; these are they. No other thread knows it before it is on the list.
    unsafe {
        let spawn = spawn_header_of(cell);
        spawn.host.unfinished().insert(ListEntry(cell), &spawn.key);
        (Task::from_cell(cell), TaskFuture::from_cell(cell))
    }
}

/// # Safety
/// The cell is a spawned one, and the caller keeps it alive for `'a`.
unsafe fn spawn_header_of<'a>(cell: NonNull<Header>) -> &'a SpawnHeader {
    // SAFETY: the caller's contract; every spawned cell begins with a `Base`.
    unsafe { &cell.cast::<Base>().as_ref().spawn }
}

/// How a future ends.
enum End<T> {
    Outcome(Result<T, TaskError>),
    Cancelled,
}

/// The functions of cells whose future is an `F`.
struct Spawned<F>(PhantomData<F>);

impl<F> Spawned<F>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    const VTABLE: Vtable = Vtable {
        run: Self::run,
        discard,
        is_shell,
        claim: Self::claim,
        may_claim,
        is_future: true,
        claimable,
        claim_for_spare,
        run_claimed: Self::run_claimed,
        fail_claimed: Self::fail_claimed,
        listen,
        cancel: Self::cancel,
        fail: Self::fail,
        has_begun: |_| false,
        drive_while_waiting: |_, _, _, _| false,
        is_foreign,
        is_lazy: false,
        take: Cell::<F, Now<F::Output>, SpawnHeader>::take,
        peek: Cell::<F, Now<F::Output>, SpawnHeader>::peek,
        drop_outcome: Cell::<F, Now<F::Output>, SpawnHeader>::drop_outcome,
        free: Cell::<F, Now<F::Output>, SpawnHeader>::free,
    };

    /// Called when the entry has been taken out of the queue; returns whether the future has run to its end.
    ///
    /// # Safety
    /// The caller gives the entry's share of the reference to this call.
    unsafe fn run(cell: NonNull<Header>, about_to_publish: &dyn Fn(bool)) -> bool {
        // SAFETY: the entry keeps the cell alive, until `take_entry` decides what happens to its share.
        unsafe {
            let shells = spawn_header_of(cell).shells;
            match spawn_header_of(cell).poll_state.take_entry() {
                Take::Poll => return outside_inline_wait(|| Self::poll(cell, None, about_to_publish)),
                Take::Abandoned => Self::end(cell, Self::abandoned(), &|_| ()),
                Take::Shell(left) => drop_shell(cell, left, shells),
                Take::Nothing => {}
            }
        }
        false
    }

    /// # Safety
    /// The caller holds a reference of its own.
    unsafe fn claim(cell: NonNull<Header>, wait: &InlineWait) -> bool {
        // SAFETY: the caller's reference outlives the call.
        unsafe {
            let spawn = spawn_header_of(cell);
            if !spawn.host.may_poll() {
                return false;
            }
            match spawn.poll_state.take_in_place() {
                Take::Poll => match stack::deepen(|| wait.polling(|| Self::poll(cell, None, &|_| ()))) {
                    Ok(true) => spawn.host.claimed(),
                    Ok(false) => {}
                    Err(NoRoom) => {
                        let end = if spawn.poll_state.complete(false) {
                            End::Cancelled
                        } else {
                            End::Outcome(Err(TaskError::TooDeep))
                        };
                        Self::end(cell, end, &|_| ());
                    }
                },
                Take::Abandoned => Self::end(cell, Self::abandoned(), &|_| ()),
                Take::Nothing | Take::Shell(_) => return false,
            }
        }
        true
    }

    /// # Safety
    /// The caller owns the future, by `claim_for_spare`.
    unsafe fn run_claimed(cell: NonNull<Header>, wait: &InlineWait, about_to_publish: &dyn Fn(bool)) -> bool {
        // SAFETY: the owner keeps the cell alive (rule 1).
        unsafe {
            let spawn = spawn_header_of(cell);
            let end = if spawn.poll_state.is_closed() {
                Self::abandoned()
            } else {
                match spawn.poll_state.close_if_wanted() {
                    None => return wait.polling(|| Self::poll(cell, Some(wait), about_to_publish)),
                    Some(Close::Cancelled) => End::Cancelled,
                    Some(_) => End::Outcome(Err(spawn.host.refusal())),
                }
            };
            Self::end(cell, end, &|_| ());
        }
        false
    }

    /// # Safety
    /// As `run_claimed`.
    unsafe fn fail_claimed(cell: NonNull<Header>, error: TaskError) {
        // SAFETY: the owner keeps the cell alive (rule 1).
        unsafe {
            let poll_state = &spawn_header_of(cell).poll_state;
            let end = if poll_state.is_closed() {
                Self::abandoned()
            } else if poll_state.complete(false) {
                End::Cancelled
            } else {
                End::Outcome(Err(error))
            };
            Self::end(cell, end, &|_| ());
        }
    }

    /// Polls the future once, or, on behalf of `again`, again each time it was woken during the poll; returns whether it has
    /// run to its end.
    ///
    /// # Safety
    /// The caller owns the future.
    unsafe fn poll(cell: NonNull<Header>, again: Option<&InlineWait>, about_to_publish: &dyn Fn(bool)) -> bool {
        let running = current::Running::enter(cell.addr().get());
        // SAFETY: the owner keeps the cell alive (rule 1).
        let this = unsafe { cell.cast::<Cell<F, Now<F::Output>, SpawnHeader>>().as_ref() };
        if this.header.state.phase() == Phase::Pending {
            let started = this.header.state.start();
            debug_assert_eq!(started, Start::Won);
        }
        // SAFETY: of the vtable's functions only `clone` is called on this waker, which holds no count of its own and is gone
        // before the owner gives up its share.
        let waker = ManuallyDrop::new(unsafe { Waker::from_raw(raw_waker(cell)) });
        let poll_once = || {
            let mut context = Context::from_waker(&waker);
            this.payload.with_mut(|payload| {
                // SAFETY: only the owner accesses the payload, which is the future (rules 2 and 3), and never moves it.
                let future: Pin<&mut F> = unsafe { Pin::new_unchecked(&mut *(&raw mut (*payload).work).cast::<F>()) };
                future.poll(&mut context)
            })
        };
        let mut polls = 0;
        let mut goes_on = || {
            polls += 1;
            polls < IN_A_ROW && again.is_some_and(|wait| wait.polls_on() && this.owner.poll_state.poll_again())
        };
        let polled = loop {
            let polled = unwind::catch(poll_once);
            if fork::is_child() && this.owner.host.is_foreign() {
                // The poll has forked, and has returned in the child too. The parent continues from here; the child ends.
                fork::end_child(polled.is_err());
            }
            if !(matches!(polled, Ok(Poll::Pending)) && goes_on()) {
                break polled;
            }
        };
        drop(running);
        let outcome = match polled {
            Ok(Poll::Pending) => match this.owner.poll_state.suspend() {
                Suspend::Requeue { wake_waiters } => {
                    // SAFETY: the entry keeps the cell alive until it is pushed (rule 4).
                    unsafe { announce(cell, Woken { push: true, wake_waiters }, true) };
                    return false;
                }
                Suspend::Suspended { wake_waiters } | Suspend::Queued { wake_waiters } => {
                    // SAFETY: nothing is pushed, so only the address of the cell is used.
                    unsafe { announce(cell, Woken { push: false, wake_waiters }, true) };
                    return false;
                }
                Suspend::Close(Close::Cancelled) => End::Cancelled,
                Suspend::Close(Close::Refused) => End::Outcome(Err(this.owner.host.refusal())),
                Suspend::Close(Close::Abandoned) => Self::abandoned(),
            },
            Ok(Poll::Ready(value)) => {
                if this.owner.poll_state.complete(false) {
                    // As in Python: once `cancel` has returned true, the task ends as cancelled (here: unless its poll panics).
                    quiet::drop(value);
                    End::Cancelled
                } else {
                    End::Outcome(Ok(value))
                }
            }
            Err(panic) => {
                let _ = this.owner.poll_state.complete(true);
                End::Outcome(Err(TaskError::Panicked(panic)))
            }
        };
        let completed = matches!(outcome, End::Outcome(Ok(_) | Err(TaskError::Panicked(_))));
        // A cancelled or abandoned future has not run to its end, so the worker does not count it.
        let about_to_publish = if completed { about_to_publish } else { &|_| () };
        let host = Arc::as_ptr(&this.owner.host);
        // SAFETY: the caller's ownership; the word is closed. The executor is alive by rule 4.
        let has_left = unsafe {
            Self::end(cell, outcome, about_to_publish);
            fork::is_child() && (*host).is_foreign()
        };
        if has_left {
            // The same if a callback, a waker, or the destructor of the future has forked.
            fork::end_child(false);
        }
        completed
    }

    fn abandoned() -> End<F::Output> {
        End::Outcome(Err(TaskError::Abandoned))
    }

    /// Drops the future, publishes the outcome, and gives up the owner's share; stops early in a child that user code forks on
    /// the way. Without a handle the outcome is dropped here: the wakers keep the cell alive, but must not keep the outcome,
    /// which may own one of them.
    ///
    /// # Safety
    /// The caller owns the future, and the word is closed.
    unsafe fn end(cell: NonNull<Header>, end: End<F::Output>, about_to_publish: &dyn Fn(bool)) {
        let running = current::Running::enter(cell.addr().get());
        // SAFETY: the owner keeps the cell alive (rule 1).
        let this = unsafe { cell.cast::<Cell<F, Now<F::Output>, SpawnHeader>>().as_ref() };
        let state = &this.header.state;
        match (&end, state.phase()) {
            (End::Cancelled, Phase::Pending) => {
                let begun = state.begin_cancel();
                debug_assert_eq!(begun, BeginCancel::Won);
            }
            (End::Cancelled, _) => state.cancel_begun(),
            (End::Outcome(_), Phase::Pending) => {
                let started = state.start();
                debug_assert_eq!(started, Start::Won);
            }
            (End::Outcome(_), _) => {}
        }
        // SAFETY: the owner drops the future in place, once (rules 2 and 3).
        let drop_future = || this.payload.with_mut(|payload| unsafe { ManuallyDrop::drop(&mut (*payload).work) });
        // The future may own the handle of the next one of a chain, whose drop cancels that one.
        stack::deepen_if_possible(|| quiet::call(drop_future));
        // SAFETY: the payload is empty and belongs to this thread; the owner's share of the reference stays until `finish`.
        unsafe {
            if is_left(cell) {
                return;
            }
            let phase = match end {
                End::Cancelled => Phase::Cancelled,
                End::Outcome(outcome) => this.fill(outcome.map(Now)),
            };
            Cell::<F, Now<F::Output>, SpawnHeader>::publish(cell, phase, Share::RunnersKept, running, about_to_publish);
            if !is_left(cell) {
                finish(cell);
            }
        }
    }

    /// # Safety
    /// The caller holds a reference of its own.
    unsafe fn cancel(cell: NonNull<Header>) -> bool {
        // SAFETY: the caller's reference outlives the call.
        let spawn = unsafe { spawn_header_of(cell) };
        match spawn.poll_state.cancel() {
            Cancel::Won => {
                // SAFETY: the word is closed, and this thread owns the future.
                spawn.host.inside(&mut || unsafe { Self::end(cell, End::Cancelled, &|_| ()) });
                true
            }
            Cancel::Requested | Cancel::Already => true,
            Cancel::TooLate => false,
        }
    }

    /// # Safety
    /// The caller holds a reference of its own.
    unsafe fn fail(cell: NonNull<Header>, error: TaskError) {
        // SAFETY: the caller's reference outlives the call.
        let spawn = unsafe { spawn_header_of(cell) };
        if spawn.poll_state.refuse() {
            let mut error = Some(error);
            spawn.host.inside(&mut || {
                let error = error.take().unwrap_or(TaskError::Abandoned);
                // SAFETY: the word is closed, and this thread owns the future.
                unsafe { Self::end(cell, End::Outcome(Err(error)), &|_| ()) };
            });
        }
    }
}

/// The last step of `end`: removes the future from the list and gives up the owner's share.
///
/// # Safety
/// The caller owns a future that has been dropped, and whose outcome is published.
unsafe fn finish(cell: NonNull<Header>) {
    // SAFETY: the owner keeps the cell alive (rule 1) until `disown`.
    unsafe {
        let spawn = spawn_header_of(cell);
        // Relaxed: written before the future was queued.
        if spawn.host.unfinished().remove(cell, spawn.key.load(Relaxed)) {
            spawn.host.all_finished();
        }
        if spawn.poll_state.has_listeners() {
            inline_wait::ended(cell.addr().get());
        }
        let shells = spawn.shells;
        let (left, has_entry) = spawn.poll_state.disown();
        if left == Remaining::Last {
            release(cell);
        }
        if let (Some(shells), true) = (shells, has_entry) {
            shells.left();
        }
    }
}

/// Called when an empty shell has been taken out of the queue.
///
/// # Safety
/// The caller has taken the entry out of `poll_state`, with this result.
unsafe fn drop_shell(cell: NonNull<Header>, left: Remaining, shells: Option<&'static Shells>) {
    if left == Remaining::Last {
        // SAFETY: passed on.
        unsafe { release(cell) };
    }
    if let Some(shells) = shells {
        shells.gone();
    }
}

/// Gives up the runner's reference and frees the cell if it was the last one. No user value is dropped with it: the outcome was
/// taken or dropped by the handle, or dropped in `end`.
///
/// # Safety
/// `poll_state` has told the caller to.
unsafe fn release(cell: NonNull<Header>) {
    // SAFETY: the runner's reference belongs to the caller and is given up once; if it was the last one, so does the cell.
    unsafe {
        if let Release::Last(phase) = cell.as_ref().state.release() {
            debug_assert!(matches!(phase, Phase::Cancelled | Phase::Taken), "nothing of the user's is left");
            quiet::call(|| (cell.as_ref().vtable.free)(cell, phase));
        }
    }
}

/// Queues the future and wakes its listeners, as `woken` says.
///
/// # Safety
/// As rule 4 says; if the future is to be queued, the entry's share of the reference is the caller's to give.
unsafe fn announce(cell: NonNull<Header>, woken: Woken, yielded: bool) {
    if woken.push {
        // SAFETY: alive by the entry until it is pushed, and the executor by rule 4 until this returns.
        unsafe {
            let host = Arc::as_ptr(&spawn_header_of(cell).host);
            (*host).schedule(Task::from_cell(cell), yielded);
        }
    }
    if woken.wake_waiters {
        inline_wait::wake_inline_waiters(cell.addr().get());
    }
}

/// # Safety
/// The caller gives the entry's share of the reference to this call.
unsafe fn discard(cell: NonNull<Header>) {
    // SAFETY: alive by the entry, until it is dropped.
    unsafe {
        let shells = spawn_header_of(cell).shells;
        match spawn_header_of(cell).poll_state.drop_entry() {
            (left, true) => drop_shell(cell, left, shells),
            (Remaining::Last, false) => release(cell),
            (Remaining::Others, false) => {}
        }
    }
}

/// # Safety
/// The caller holds the entry.
unsafe fn is_shell(cell: NonNull<Header>) -> bool {
    // SAFETY: alive by the entry.
    unsafe { spawn_header_of(cell) }.poll_state.is_disowned()
}

/// # Safety
/// The caller holds a reference.
unsafe fn may_claim(cell: NonNull<Header>) -> bool {
    // SAFETY: alive by the caller's reference.
    unsafe { spawn_header_of(cell) }.host.may_poll()
}

/// # Safety
/// The caller holds a reference.
unsafe fn listen(cell: NonNull<Header>, wait: &InlineWait, listener: Listener<'_>) -> bool {
    // SAFETY: alive by the caller's reference.
    let spawn = unsafe { spawn_header_of(cell) };
    if !spawn.host.may_poll() {
        return false;
    }
    wait.enter(cell.addr().get(), listener);
    let open = spawn.poll_state.add_listener();
    if !open {
        // Its owner may have removed the listeners before this one was registered.
        wait.leave(cell.addr().get());
    }
    open
}

/// # Safety
/// The caller holds a reference.
unsafe fn is_foreign(cell: NonNull<Header>) -> bool {
    // SAFETY: alive by the caller's reference, and so is the executor.
    unsafe { spawn_header_of(cell) }.host.is_foreign()
}

/// # Safety
/// The caller holds a reference.
unsafe fn claimable(cell: NonNull<Header>) -> Option<Arc<dyn SpareHost>> {
    // SAFETY: alive by the caller's reference.
    let spawn = unsafe { spawn_header_of(cell) };
    let claimable = spawn.poll_state.is_claimable() && spawn.host.may_poll();
    claimable.then(|| spawn.host.spare_host()).flatten()
}

/// # Safety
/// The caller holds a reference.
unsafe fn claim_for_spare(cell: NonNull<Header>) -> bool {
    // SAFETY: alive by the caller's reference; the owner's share of the runner's reference is the claim's.
    let spawn = unsafe { spawn_header_of(cell) };
    spawn.host.may_poll() && matches!(spawn.poll_state.take_in_place(), Take::Poll | Take::Abandoned)
}

// The waker: a pointer to the cell that stands for one waker in the count of its `poll_state`.

static WAKER: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

fn raw_waker(cell: NonNull<Header>) -> RawWaker {
    RawWaker::new(cell.as_ptr().cast_const().cast(), &WAKER)
}

/// Is this a waker of the future with that address?
pub(super) fn is_waker_of(cell: usize, waker: &Waker) -> bool {
    waker.data().addr() == cell && std::ptr::eq(waker.vtable(), &WAKER)
}

fn cell_of(data: *const ()) -> NonNull<Header> {
    NonNull::new(data.cast_mut().cast()).expect("a waker is made of a cell")
}

unsafe fn clone(data: *const ()) -> RawWaker {
    let cell = cell_of(data);
    // SAFETY: alive by the waker that is cloned, or by the owner, whose context holds it.
    unsafe { spawn_header_of(cell) }.poll_state.add_waker();
    raw_waker(cell)
}

unsafe fn wake(data: *const ()) {
    // SAFETY: alive by this waker, which is dropped afterwards, not before: it keeps the executor alive (rule 4).
    unsafe {
        wake_by_ref(data);
        drop_waker(data);
    }
}

unsafe fn wake_by_ref(data: *const ()) {
    let cell = cell_of(data);
    // SAFETY: alive by this waker.
    unsafe {
        if fork::is_child() && is_foreign(cell) {
            // The future belongs to the parent, which has its own copies of the wakers.
            return;
        }
        let woken = spawn_header_of(cell).poll_state.wake();
        announce(cell, woken, false);
    }
}

unsafe fn drop_waker(data: *const ()) {
    let cell = cell_of(data);
    // SAFETY: alive by this waker, until `poll_state` decides what happens to its count.
    unsafe {
        match spawn_header_of(cell).poll_state.drop_waker() {
            DropWaker::Dropped => {}
            DropWaker::Last => release(cell),
            DropWaker::Lost(_) if fork::is_child() && is_foreign(cell) => {}
            DropWaker::Lost(woken) => {
                // The future is not dropped here, where its destructor might need a lock that is held while the waker is
                // dropped, but by the thread that takes it from the queue.
                announce(cell, woken, false);
                drop_waker(data);
            }
        }
    }
}

/// A cell on the list of unfinished futures. It holds no reference: the cell is alive by rule 5.
pub(super) struct ListEntry(NonNull<Header>);

// SAFETY: the pointer is dereferenced only under the lock of the list; the cell may be used by any thread.
unsafe impl Send for ListEntry {}

impl ListEntry {
    pub(super) fn address(&self) -> usize {
        self.0.addr().get()
    }

    /// Keeps the cell alive beyond the lock.
    ///
    /// # Safety
    /// The caller holds the lock of the list that this is on.
    pub(super) unsafe fn hold(&self) -> Pinned {
        // SAFETY: the cell is on the list, so it has not been freed (rule 5).
        unsafe { spawn_header_of(self.0) }.poll_state.add_waker();
        Pinned(self.0)
    }
}

/// A future that was on the list, kept alive by a waker count.
pub(super) struct Pinned(NonNull<Header>);

impl Pinned {
    pub(super) fn cancel(&self) {
        // SAFETY: alive by the count that `hold` has taken.
        unsafe { (self.0.as_ref().vtable.cancel)(self.0) };
    }

    pub(super) fn fail(&self, error: TaskError) {
        // SAFETY: as above.
        unsafe { (self.0.as_ref().vtable.fail)(self.0, error) };
    }

    /// Is this a forked child, and does the future belong to its parent?
    pub(super) fn is_left(&self) -> bool {
        // SAFETY: as above.
        unsafe { is_left(self.0) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: the count that `hold` took is given up, once.
        unsafe { drop_waker(self.0.as_ptr().cast_const().cast()) };
    }
}
