//! The one allocation of a task: header, owner, and a payload that is the work first and the outcome later. A value may be
//! stored in a different form from the one that the handle returns ([`Stored`]).
//!
//! ```text
//! ┌────────┬───────┬───────────┬───────┬───────────────────────────────┐
//! │ vtable │ state │ callbacks │ owner │ payload: work | value | error │
//! └────────┴───────┴───────────┴───────┴───────────────────────────────┘
//! ```
//!
//! This module is an unsafe island. Its rules:
//! 1. A cell lives as long as its reference count (in [`State`]) is above 0. Every `NonNull<Header>` that another
//!    module holds stands for one reference, taken when it was made and given up once.
//! 2. The phase (see `state`) decides which thread may access the payload: in PENDING none; in RUNNING and CANCELLING the one
//!    that made the transition; in a final phase the owner of the handle, by shared reference, or exclusively if it owns the
//!    handle by value.
//! 3. The payload is `work` in PENDING, nothing while the work runs, `value` in VALUE, `error` in ERROR, nothing in CANCELLED
//!    and TAKEN, and unknown in FOREIGN, where it is never read, written or dropped. (A spawned future is in RUNNING while it
//!    waits, too. `spawned` says which thread may access it then, and when it is dropped.)
//! 4. After publishing with a released share, the runner does not access the cell again.
//! 5. A `Vtable`'s functions are called only with cells that were made with that vtable, so casts from `Header` to `Cell<W, V,
//!    O>` (header first, repr(C)) are valid. A cell of a `V` has handles and callbacks of a `V::Value`.

#![allow(unsafe_code)]

use std::mem::ManuallyDrop;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Instant;

use super::inline_wait::{InlineWait, Listener, outside_inline_wait};
use super::offload::SpareHost;
use super::state::{BeginCancel, Phase, Publish, Release, ReleaseHandle, Share, Start, State};
use super::waiter::Waiter;
use crate::current;
use crate::error::TaskError;
use crate::fork;
use crate::quiet;
use crate::stack::{self, NoRoom};
use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicPtr, Ordering::*};
use crate::unwind;

/// How a thread waits once the executor has no more work for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WaitMode {
    /// It polls, so it must not block: it spins for at most 2 µs.
    Poll,
    /// It spins, within its budget, but does not sleep, because it waits for other tasks too.
    Spin,
    /// It spins, and then sleeps: it waits for this task only.
    Sleep,
}

/// What a cell knows of the executor it belongs to. Small and `Copy`: it is stored in every task.
pub(crate) trait Owner: Copy + Send + Sync + 'static {
    /// May the calling thread, which is about to block on a task that is still queued, run it instead?
    fn may_claim(self) -> bool;

    /// Called when the calling thread has claimed a queued task, run it, and published its outcome.
    fn claimed(self) {}

    /// What starts spare threads for a thread that may claim.
    fn spare_host(self) -> Option<Arc<dyn SpareHost>> {
        None
    }

    /// Does the executor belong to another process, from which this one was forked? Asked in forked children only.
    fn is_foreign(self) -> bool {
        false
    }

    /// Called once for a task that this process runs, when it has run, was cancelled, or failed without having started: its
    /// outcome is published, and only its handles will access its payload again. For a task whose outcome comes from elsewhere
    /// (`remote`) this is called only if the task is cancelled, and for a spawned future never.
    fn released(self);

    /// Called when a task is claimed, cancelled or failed while its entry is in the executor's queue. From then on the entry is
    /// an empty shell (see `shells`).
    fn shell_left(self) {}

    /// Called when an empty shell has been taken out of the queue.
    fn shell_gone(self) {}

    /// Called when a task has just been cancelled that may have started in another process, which the core cannot see. Stops
    /// the task, or makes sure that it never starts.
    fn revoke(self) {}

    /// Has the task started in another process, which the core cannot see?
    fn has_begun(self) -> bool {
        false
    }

    /// Called by a thread that waits until `done`. The executor may use it for its own work, as `mode` allows, until `done`
    /// returns true or the deadline passes. Returns true if the caller need not spin afterwards.
    fn drive_while_waiting(self, done: &dyn Fn() -> bool, deadline: Option<Instant>, mode: WaitMode) -> bool {
        let _ = (done, deadline, mode);
        false
    }
}

/// The form in which a cell stores the value of its task.
pub(super) trait Stored: Send {
    /// The value that handles return.
    type Value;

    /// Whether the value is decoded by the first thread that asks for it. Decoding may fail.
    const IS_LAZY: bool;

    fn take(self) -> Result<Self::Value, TaskError>;

    fn get(&self) -> Result<&Self::Value, &TaskError>;
}

/// The value itself.
pub(super) struct Now<T>(pub(super) T);

impl<T: Send> Stored for Now<T> {
    type Value = T;

    const IS_LAZY: bool = false;

    fn take(self) -> Result<T, TaskError> {
        Ok(self.0)
    }

    fn get(&self) -> Result<&T, &TaskError> {
        Ok(&self.0)
    }
}

/// A callback in the list.
struct CallbackNode<T> {
    next: *mut CallbackNode<T>,
    callback: Callback<T>,
}

pub(super) type Callback<T> = Box<dyn FnOnce(Result<&T, &TaskError>) + Send>;

pub(super) struct Header {
    pub(super) vtable: &'static Vtable,
    pub(super) state: State,
    /// A stack of `CallbackNode<T>`, newest first.
    callbacks: AtomicPtr<()>,
}

type RunClaimed = unsafe fn(NonNull<Header>, &InlineWait, &dyn Fn(bool)) -> bool;
type DriveWhileWaiting = unsafe fn(NonNull<Header>, &dyn Fn() -> bool, Option<Instant>, WaitMode) -> bool;
/// Returns the address of the value or the error; the caller knows the type.
type Peek = unsafe fn(NonNull<Header>) -> Result<NonNull<()>, NonNull<TaskError>>;

/// What differs between a task that is run once (this file) and a future that is polled (`spawned`), and what depends on
/// the types in the cell.
pub(super) struct Vtable {
    pub(super) run: unsafe fn(NonNull<Header>, &dyn Fn(bool)) -> bool,
    pub(super) discard: unsafe fn(NonNull<Header>),
    pub(super) is_shell: unsafe fn(NonNull<Header>) -> bool,
    pub(super) claim: unsafe fn(NonNull<Header>, &InlineWait) -> bool,
    pub(super) may_claim: unsafe fn(NonNull<Header>) -> bool,
    pub(super) is_future: bool,
    pub(super) claimable: unsafe fn(NonNull<Header>) -> Option<Arc<dyn SpareHost>>,
    pub(super) claim_for_spare: unsafe fn(NonNull<Header>) -> bool,
    pub(super) run_claimed: RunClaimed,
    pub(super) fail_claimed: unsafe fn(NonNull<Header>, TaskError),
    pub(super) listen: unsafe fn(NonNull<Header>, &InlineWait, Listener<'_>) -> bool,
    pub(super) cancel: unsafe fn(NonNull<Header>) -> bool,
    pub(super) fail: unsafe fn(NonNull<Header>, TaskError),
    pub(super) has_begun: unsafe fn(NonNull<Header>) -> bool,
    pub(super) drive_while_waiting: DriveWhileWaiting,
    pub(super) is_foreign: unsafe fn(NonNull<Header>) -> bool,
    pub(super) is_lazy: bool,
    pub(super) take: unsafe fn(NonNull<Header>, *mut ()),
    pub(super) peek: Peek,
    pub(super) drop_outcome: unsafe fn(NonNull<Header>),
    pub(super) free: unsafe fn(NonNull<Header>, Phase),
}

pub(super) union Payload<W, V> {
    pub(super) work: ManuallyDrop<W>,
    value: ManuallyDrop<V>,
    error: ManuallyDrop<Box<TaskError>>,
}

#[repr(C)]
pub(super) struct Cell<W, V, O> {
    pub(super) header: Header,
    pub(super) owner: O,
    pub(super) payload: UnsafeCell<Payload<W, V>>,
}

/// Makes the cell of a task that has not started; the two references are the runner's and the handle's.
pub(super) fn pending<W, T, O>(work: W, owner: O) -> NonNull<Header>
where
    W: FnOnce() -> T + Send,
    T: Send,
    O: Owner,
{
    pending_of(move || Now(work()), owner)
}

fn pending_of<W, V, O>(work: W, owner: O) -> NonNull<Header>
where
    W: FnOnce() -> V + Send,
    V: Stored,
    O: Owner,
{
    let vtable = &Cell::<W, V, O>::VTABLE;
    Cell::<W, V, O>::alloc(vtable, Phase::Pending, 2, Payload { work: ManuallyDrop::new(work) }, owner)
}

/// Makes the cell of a promise: it is not run; its producer settles it.
pub(super) fn promised<V: Stored, O: Owner>(owner: O) -> NonNull<Header> {
    pending_of::<fn() -> V, V, O>(|| unreachable!("the work of a promise is done elsewhere"), owner)
}

/// Makes a cell that already has its outcome; the one reference is the handle's.
pub(super) fn ready<T: Send>(outcome: Result<T, TaskError>) -> NonNull<Header> {
    type Ready<T> = Cell<fn() -> Now<T>, Now<T>, Unowned>;
    let (phase, payload) = Ready::<T>::payload(outcome.map(Now));
    Cell::alloc(&Ready::<T>::VTABLE, phase, 1, payload, Unowned)
}

/// The owner of a cell that belongs to no executor.
#[derive(Clone, Copy)]
pub(super) struct Unowned;

impl Owner for Unowned {
    fn may_claim(self) -> bool {
        false
    }

    fn released(self) {}
}

/// Settles a promise's cell and gives up the producer's reference. Returns the outcome if the future was already cancelled.
///
/// # Safety
/// `cell` was made by [`promised`] with [`Now<T>`] and `O`; the caller gives the reference of the producer to this call.
pub(super) unsafe fn settle<T: Send, O: Owner>(
    cell: NonNull<Header>,
    outcome: Result<T, TaskError>,
) -> Result<(), Result<T, TaskError>> {
    let mut lost = None;
    // SAFETY: as this function's contract. Callbacks may run, so nothing is left to be published.
    let left = unsafe {
        settle_with::<Now<T>, O>(cell, true, |start| match start {
            Start::Won => Some(outcome.map(Now)),
            Start::Lost => {
                lost = Some(outcome);
                None
            }
        })
    };
    debug_assert!(left.is_none());
    lost.map_or(Ok(()), Err)
}

/// Like [`settle`], but calls `make` for the outcome once it is known whether the future was cancelled. If `may_call_back` is
/// `false` and there are callbacks, they are not run: the outcome is stored but not published, and the phase to pass to
/// [`publish_later`] is returned. The producer's reference then belongs to that call.
///
/// # Safety
/// `cell` was made by [`promised`] with the same `V` and `O`; the caller gives the reference of the producer to this call. `make`
/// returns an outcome for `Start::Won`.
pub(super) unsafe fn settle_with<V: Stored, O: Owner>(
    cell: NonNull<Header>,
    may_call_back: bool,
    make: impl FnOnce(Start) -> Option<Result<V, TaskError>>,
) -> Option<Phase> {
    type Promised<V, O> = Cell<fn() -> V, V, O>;
    // SAFETY: `promised` makes cells of exactly this type, and the caller's reference keeps it alive.
    let this = unsafe { cell.cast::<Promised<V, O>>().as_ref() };
    if this.header.state.start() == Start::Lost {
        make(Start::Lost);
        // SAFETY: the caller's reference.
        unsafe { release(cell) };
        return None;
    }
    let running = current::Running::enter(cell.addr().get());
    let outcome = make(Start::Won).expect("an outcome is made when the start is won");
    // SAFETY: `start` was won, and the caller's reference goes into the call or on to `publish_later`.
    unsafe {
        let phase = this.fill(outcome);
        if !may_call_back && this.header.state.has_callbacks() {
            return Some(phase);
        }
        Promised::<V, O>::publish(cell, phase, Share::Released, running, &|_| ());
    }
    None
}

/// Publishes what [`settle_with`] left unpublished.
///
/// # Safety
/// As [`settle_with`], with the phase that it returned for this cell.
#[cfg(all(feature = "process", target_os = "linux", any(not(loom), test)))]
pub(super) unsafe fn publish_later<V: Stored, O: Owner>(cell: NonNull<Header>, phase: Phase) {
    let running = current::Running::enter(cell.addr().get());
    // SAFETY: `settle_with` won `start` and filled the payload as `phase` says; the reference is passed on.
    unsafe { Cell::<fn() -> V, V, O>::publish(cell, phase, Share::Released, running, &|_| ()) };
}

impl<W, V, O> Cell<W, V, O>
where
    W: FnOnce() -> V + Send,
    V: Stored,
    O: Owner,
{
    const VTABLE: Vtable = Vtable {
        run: Self::run,
        discard: Self::discard,
        is_shell: Self::is_shell,
        claim: Self::claim,
        may_claim: Self::may_claim,
        is_future: false,
        claimable: Self::claimable,
        claim_for_spare: Self::claim_for_spare,
        run_claimed: Self::run_claimed,
        fail_claimed: Self::fail_claimed,
        listen: |_, _, _| false,
        cancel: Self::cancel,
        fail: Self::fail,
        has_begun: Self::has_begun,
        drive_while_waiting: Self::drive_while_waiting,
        is_foreign: Self::is_foreign,
        is_lazy: V::IS_LAZY,
        take: Self::take,
        peek: Self::peek,
        drop_outcome: Self::drop_outcome,
        free: Self::free,
    };

    /// # Safety
    /// The caller gives the runner's reference to this call.
    unsafe fn run(cell: NonNull<Header>, about_to_publish: &dyn Fn(bool)) -> bool {
        // SAFETY: rules 1 and 5: the runner's reference keeps the cell alive until `execute` or `release`.
        let won = unsafe { cell.as_ref() }.state.start() == Start::Won;
        // SAFETY: the runner's reference is passed on; `start` was won, as `execute` requires.
        unsafe { if won { Self::execute(cell, Share::Released, about_to_publish) } else { Self::discard(cell) } }
        won
    }

    /// # Safety
    /// The caller gives the runner's reference to this call, of a task that has been claimed, cancelled or failed.
    unsafe fn discard(cell: NonNull<Header>) {
        // SAFETY: rules 1 and 5; alive by the runner's reference until `release`.
        let owner = unsafe { cell.cast::<Self>().as_ref() }.owner;
        // SAFETY: the runner's reference is given up, once.
        unsafe { release(cell) };
        owner.shell_gone();
    }

    /// # Safety
    /// The caller holds a reference.
    unsafe fn is_shell(cell: NonNull<Header>) -> bool {
        // SAFETY: rule 1.
        unsafe { cell.as_ref() }.state.phase() != Phase::Pending
    }

    /// # Safety
    /// The caller holds a reference of its own.
    unsafe fn claim(cell: NonNull<Header>, _: &InlineWait) -> bool {
        // SAFETY: rules 1 and 5.
        let this = unsafe { cell.cast::<Self>().as_ref() };
        if !this.owner.may_claim() || this.header.state.start() == Start::Lost {
            return false;
        }
        let owner = this.owner;
        // SAFETY: `start` was won; the caller's reference outlives the call.
        match outside_inline_wait(|| stack::deepen(|| unsafe { Self::execute(cell, Share::Kept, &|_| ()) })) {
            Ok(()) => {
                owner.claimed();
                owner.shell_left();
            }
            // SAFETY: as above; the work has not started.
            Err(NoRoom) => unsafe { Self::refuse(cell, TaskError::TooDeep) },
        }
        true
    }

    /// # Safety
    /// The caller holds a reference.
    unsafe fn may_claim(cell: NonNull<Header>) -> bool {
        // SAFETY: rules 1 and 5.
        unsafe { cell.cast::<Self>().as_ref() }.owner.may_claim()
    }

    /// # Safety
    /// The caller holds a reference of its own.
    unsafe fn claimable(cell: NonNull<Header>) -> Option<Arc<dyn SpareHost>> {
        // SAFETY: rules 1 and 5.
        let this = unsafe { cell.cast::<Self>().as_ref() };
        let claimable = this.header.state.phase() == Phase::Pending && this.owner.may_claim();
        claimable.then(|| this.owner.spare_host()).flatten()
    }

    /// # Safety
    /// The caller has the handle.
    unsafe fn claim_for_spare(cell: NonNull<Header>) -> bool {
        // SAFETY: rules 1 and 5.
        let this = unsafe { cell.cast::<Self>().as_ref() };
        this.owner.may_claim() && this.header.state.start_with_reference() == Start::Won
    }

    /// # Safety
    /// The caller gives the claim, and the reference that came with it, to this call.
    unsafe fn run_claimed(cell: NonNull<Header>, _: &InlineWait, about_to_publish: &dyn Fn(bool)) -> bool {
        // SAFETY: alive by the claim's reference.
        unsafe { cell.cast::<Self>().as_ref() }.owner.shell_left();
        // SAFETY: the caller's contract: `claim_for_spare` has won `start`.
        unsafe { Self::execute(cell, Share::Spare, about_to_publish) };
        true
    }

    /// # Safety
    /// As `run_claimed`.
    unsafe fn fail_claimed(cell: NonNull<Header>, error: TaskError) {
        let running = current::Running::enter(cell.addr().get());
        // SAFETY: rules 1 and 5.
        let this = unsafe { cell.cast::<Self>().as_ref() };
        let owner = this.owner;
        // SAFETY: `start` was won, so only this thread may access the payload, which is the work; the reference is passed on.
        unsafe {
            this.drop_work();
            Self::resolve(cell, Err(error), Share::Spare, running, &|_| ());
        }
        Self::let_go(owner);
    }

    /// Runs the work and publishes the outcome.
    ///
    /// # Safety
    /// The caller has won `start`; it holds a reference, of which `share` says whether it goes into this call.
    unsafe fn execute(cell: NonNull<Header>, share: Share, about_to_publish: &dyn Fn(bool)) {
        let running = current::Running::enter(cell.addr().get());
        // SAFETY: alive by the caller's reference.
        let this = unsafe { cell.cast::<Self>().as_ref() };
        let owner = this.owner;
        // SAFETY: having won `start`, only this thread may access the payload, which is the work (rules 2 and 3). It is moved
        // out once.
        let work = this.payload.with_mut(|payload| unsafe { ManuallyDrop::take(&mut (*payload).work) });
        let outcome = unwind::catch(work).map_err(TaskError::Panicked);
        if fork::is_child() && owner.is_foreign() {
            // The work has forked, and has returned in the child too. Only the parent publishes the outcome; the child ends.
            fork::end_child(outcome.is_err());
        }
        // SAFETY: as the caller's contract; the work has been moved out of the payload.
        unsafe { Self::resolve(cell, outcome, share, running, about_to_publish) };
        if fork::is_child() && owner.is_foreign() {
            // The same if a callback, a waker, or the destructor of the result has forked.
            fork::end_child(false);
        }
        owner.released();
    }

    /// # Safety
    /// The caller holds a reference of its own.
    unsafe fn cancel(cell: NonNull<Header>) -> bool {
        // SAFETY: rules 1 and 5.
        let this = unsafe { cell.cast::<Self>().as_ref() };
        match this.header.state.begin_cancel() {
            BeginCancel::TooLate => return false,
            BeginCancel::Already => return true,
            BeginCancel::Won => {}
        }
        let running = current::Running::enter(cell.addr().get());
        let owner = this.owner;
        // SAFETY: having won `begin_cancel`, only this thread may access the payload, which is the work.
        unsafe { this.drop_work() };
        quiet::call(|| owner.revoke());
        // SAFETY: the payload is empty, as CANCELLED requires; the caller keeps its reference.
        unsafe { Self::publish(cell, Phase::Cancelled, Share::Kept, running, &|_| ()) };
        Self::let_go(owner);
        true
    }

    /// Resolves a task that has not started with an error; otherwise does nothing.
    ///
    /// # Safety
    /// The caller holds a reference of its own.
    unsafe fn fail(cell: NonNull<Header>, error: TaskError) {
        // SAFETY: rules 1 and 5.
        let this = unsafe { cell.cast::<Self>().as_ref() };
        if this.header.state.start() == Start::Won {
            // SAFETY: the caller's reference.
            unsafe { Self::refuse(cell, error) };
        }
    }

    /// Drops the work and publishes an error instead of its outcome.
    ///
    /// # Safety
    /// The caller has won `start`, and holds a reference of its own.
    unsafe fn refuse(cell: NonNull<Header>, error: TaskError) {
        let running = current::Running::enter(cell.addr().get());
        // SAFETY: rules 1 and 5.
        let this = unsafe { cell.cast::<Self>().as_ref() };
        let owner = this.owner;
        // SAFETY: having won `start`, only this thread may access the payload, which is the work.
        unsafe { this.drop_work() };
        // SAFETY: `start` was won; the caller keeps its reference.
        unsafe { Self::resolve(cell, Err(error), Share::Kept, running, &|_| ()) };
        Self::let_go(owner);
    }

    /// Reports to the owner the end of a task that has not run; does nothing in a child that a callback has forked.
    fn let_go(owner: O) {
        if !(fork::is_child() && owner.is_foreign()) {
            owner.released();
            owner.shell_left();
        }
    }

    /// # Safety
    /// The payload is the work, and only the calling thread may access it.
    unsafe fn drop_work(&self) {
        // SAFETY: the caller's contract.
        let work = self.payload.with_mut(|payload| unsafe { ManuallyDrop::take(&mut (*payload).work) });
        // The work may own the handle of another task, whose drop cancels that task, and so on along a chain.
        stack::deepen_if_possible(|| quiet::drop(work));
    }

    /// # Safety
    /// The caller has won `start` and has moved the work out; it holds a reference, of which `share` says whether it goes into
    /// this call.
    unsafe fn resolve(
        cell: NonNull<Header>,
        outcome: Result<V, TaskError>,
        share: Share,
        running: current::Running,
        about_to_publish: &dyn Fn(bool),
    ) {
        // SAFETY: alive by the caller's reference; `start` was won and the work has been moved out.
        let phase = unsafe { cell.cast::<Self>().as_ref().fill(outcome) };
        // SAFETY: the payload is what `phase` says; the references are as in this function's contract.
        unsafe { Self::publish(cell, phase, share, running, about_to_publish) };
    }

    /// # Safety
    /// The caller holds a reference.
    unsafe fn has_begun(cell: NonNull<Header>) -> bool {
        // SAFETY: rules 1 and 5.
        unsafe { cell.cast::<Self>().as_ref() }.owner.has_begun()
    }

    /// # Safety
    /// The caller holds a reference.
    unsafe fn drive_while_waiting(
        cell: NonNull<Header>,
        done: &dyn Fn() -> bool,
        deadline: Option<Instant>,
        mode: WaitMode,
    ) -> bool {
        // SAFETY: rules 1 and 5.
        unsafe { cell.cast::<Self>().as_ref() }.owner.drive_while_waiting(done, deadline, mode)
    }

    /// # Safety
    /// The caller holds a reference.
    unsafe fn is_foreign(cell: NonNull<Header>) -> bool {
        // SAFETY: rules 1 and 5.
        unsafe { cell.cast::<Self>().as_ref() }.owner.is_foreign()
    }
}

/// Functions common to closures and spawned futures.
impl<W, V: Stored, O> Cell<W, V, O> {
    /// `vtable` is one for cells of exactly this type (rule 5).
    pub(super) fn alloc(
        vtable: &'static Vtable,
        phase: Phase,
        refs: usize,
        payload: Payload<W, V>,
        owner: O,
    ) -> NonNull<Header> {
        let callbacks = AtomicPtr::new(ptr::null_mut());
        let header = Header { vtable, state: State::new(phase, refs), callbacks };
        let cell = Box::new(Self { header, owner, payload: UnsafeCell::new(payload) });
        NonNull::from(Box::leak(cell)).cast()
    }

    fn payload(outcome: Result<V, TaskError>) -> (Phase, Payload<W, V>) {
        match outcome {
            Ok(value) => (Phase::Value, Payload { value: ManuallyDrop::new(value) }),
            Err(error) => (Phase::Error, Payload { error: ManuallyDrop::new(Box::new(error)) }),
        }
    }

    /// Writes the outcome to the place of the work.
    ///
    /// # Safety
    /// The caller has won `start` and has moved the work out (or it needs no drop).
    pub(super) unsafe fn fill(&self, outcome: Result<V, TaskError>) -> Phase {
        let (phase, filled) = Self::payload(outcome);
        // SAFETY: only this thread may access the payload, and it is empty, so nothing is overwritten without being dropped.
        self.payload.with_mut(|payload| unsafe { payload.write(filled) });
        phase
    }

    /// # Safety
    /// The payload is as `phase` says and belongs to this thread alone. The caller holds a reference: with `Released` or
    /// `Spare` it is given to this call, with `RunnersKept` it is the runner's.
    pub(super) unsafe fn publish(
        cell: NonNull<Header>,
        phase: Phase,
        share: Share,
        running: current::Running,
        about_to_publish: &dyn Fn(bool),
    ) {
        // SAFETY: alive by the caller's reference until the word is published.
        let this = unsafe { cell.cast::<Self>().as_ref() };
        let mut running = Some(running);
        loop {
            let announced = this.header.state.would_publish(share);
            if announced {
                // Once the outcome is published the cell may be freed and its address reused by another task, so the thread
                // leaves this task first.
                running = None;
                about_to_publish(true);
            }
            let retract = || {
                if announced {
                    about_to_publish(false);
                }
            };
            match this.header.state.publish(phase, share) {
                Publish::RunCallbacks => {
                    retract();
                    running = running.or_else(|| Some(current::Running::enter(cell.addr().get())));
                    this.header.state.retract_callbacks();
                    // SAFETY: until it is published, the outcome belongs to this thread (rule 2).
                    stack::deepen_if_possible(|| unsafe { this.run_callbacks(cell, phase) });
                    // SAFETY: nothing is published yet, so the caller still holds its reference.
                    if unsafe { is_left(cell) } {
                        return;
                    }
                }
                Publish::Published { waiter } => {
                    let Some(waiter) = NonNull::new(waiter) else { return };
                    let may_have_failed = phase.is_failure() || V::IS_LAZY && phase == Phase::Value;
                    // SAFETY: `publish` has taken it out of the word, so this thread must notify it.
                    stack::deepen_if_possible(|| unsafe { Waiter::notify(waiter, may_have_failed, &retract) });
                    return;
                }
                Publish::Alone => {
                    retract();
                    drop(running);
                    if share == Share::Released {
                        // SAFETY: the caller's reference is the last one, so this thread owns the cell.
                        quiet::call(|| unsafe { Self::free(cell, phase) });
                    } else {
                        this.header.state.discard();
                        // SAFETY: there is no handle, so the payload still belongs to this thread; TAKEN keeps it from being
                        // read again.
                        quiet::drop(unsafe { this.take_payload(phase) });
                        if share == Share::Spare {
                            // SAFETY: the caller's reference, which publishing has not given up.
                            unsafe { release(cell) };
                        }
                    }
                    return;
                }
            }
        }
    }

    /// Moves the value or the error out of the cell.
    ///
    /// # Safety
    /// The payload is as `phase` says, belongs to this thread alone, and is not read again.
    unsafe fn take_payload(&self, phase: Phase) -> Option<Result<V, Box<TaskError>>> {
        // SAFETY: the caller's contract, and rule 3 for which field it is.
        self.payload.with_mut(|payload| unsafe {
            match phase {
                Phase::Value => Some(Ok(ManuallyDrop::take(&mut (*payload).value))),
                Phase::Error => Some(Err(ManuallyDrop::take(&mut (*payload).error))),
                _ => None,
            }
        })
    }

    /// Empties the callback list and runs the callbacks, oldest first. If one of them forks, the child does not run the rest.
    ///
    /// # Safety
    /// The outcome is as `phase` says, and this thread may read it; `cell` is this cell.
    unsafe fn run_callbacks(&self, cell: NonNull<Header>, phase: Phase) {
        // SAFETY: rule 5.
        let callbacks = unsafe { take_callbacks::<V::Value>(&self.header) };
        self.payload.with(|payload| {
            // SAFETY: the caller's contract, and rule 3 for which field it is.
            let outcome = unsafe {
                match phase {
                    Phase::Value => (*(*payload).value).get(),
                    Phase::Error => Err(&**(*payload).error),
                    _ => Err(&TaskError::Cancelled),
                }
            };
            for callback in callbacks {
                // SAFETY: the caller's reference.
                if unsafe { is_left(cell) } {
                    return;
                }
                quiet::call(|| callback(outcome));
            }
        });
    }

    /// Moves the value (in VALUE) or the error (in ERROR) to `to`, and makes the phase TAKEN.
    ///
    /// # Safety
    /// The caller owns the handle; `to` is valid for writing a `Result<V::Value, TaskError>`.
    pub(super) unsafe fn take(cell: NonNull<Header>, to: *mut ()) {
        // SAFETY: as this function's contract.
        unsafe {
            let outcome = match Self::take_stored(cell) {
                Ok(stored) => stored.take(),
                Err(error) => Err(*error),
            };
            to.cast::<Result<V::Value, TaskError>>().write(outcome);
        }
    }

    /// Drops the value (in VALUE) or the error (in ERROR), and makes the phase TAKEN.
    ///
    /// # Safety
    /// The caller owns the handle.
    pub(super) unsafe fn drop_outcome(cell: NonNull<Header>) {
        // SAFETY: as this function's contract.
        let outcome = unsafe { Self::take_stored(cell) };
        if std::mem::needs_drop::<V>() || outcome.is_err() {
            stack::deepen_if_possible(|| drop(outcome));
        }
    }

    /// # Safety
    /// As [`take`](Self::take).
    unsafe fn take_stored(cell: NonNull<Header>) -> Result<V, Box<TaskError>> {
        // SAFETY: rules 1 and 5.
        let this = unsafe { cell.cast::<Self>().as_ref() };
        // SAFETY: the phase is final, so the payload belongs to the handle (rule 2) and is as the phase says (rule 3). TAKEN,
        // below, keeps it from being read again.
        let outcome = unsafe { this.take_payload(this.header.state.phase()) };
        this.header.state.take();
        outcome.expect("only a value or an error can be taken")
    }

    /// Returns the address of the value (in VALUE) or the error (in ERROR).
    ///
    /// # Safety
    /// The caller owns the handle, and the phase is VALUE or ERROR.
    pub(super) unsafe fn peek(cell: NonNull<Header>) -> Result<NonNull<()>, NonNull<TaskError>> {
        // SAFETY: rules 1 and 5.
        let this = unsafe { cell.cast::<Self>().as_ref() };
        let is_value = this.header.state.phase() == Phase::Value;
        // SAFETY: the payload belongs to the handle (rule 2) and is as the phase says (rule 3).
        this.payload.with(|payload| unsafe {
            let outcome = if is_value { (*(*payload).value).get() } else { Err(&**(*payload).error) };
            outcome.map(|value| NonNull::from(value).cast()).map_err(NonNull::from)
        })
    }

    /// Frees the cell, then drops what the payload held, so that a panicking destructor leaks nothing.
    ///
    /// # Safety
    /// The caller's reference was the last one, and the payload is as `phase` says.
    pub(super) unsafe fn free(cell: NonNull<Header>, phase: Phase) {
        // SAFETY: `alloc` leaked a box of this type, and no other reference to it is left.
        let this = unsafe { Box::from_raw(cell.cast::<Self>().as_ptr()) };
        // SAFETY: the payload is moved out once; the union has no destructor of its own, so the box does not drop it.
        let mut payload = this.payload.with_mut(|payload| unsafe { payload.read() });
        drop(this);
        // In FOREIGN the payload is unknown, since the runner is in the parent; it is leaked here, and the parent drops its own
        // copy.
        if matches!(phase, Phase::Pending | Phase::Value | Phase::Error) {
            // SAFETY: rule 3.
            stack::deepen_if_possible(|| unsafe {
                match phase {
                    Phase::Pending => ManuallyDrop::drop(&mut payload.work),
                    Phase::Value => ManuallyDrop::drop(&mut payload.value),
                    _ => ManuallyDrop::drop(&mut payload.error),
                }
            });
        }
    }
}

/// Returns `true` if the user code that was just called has forked, and this is the child. The task then belongs to the parent,
/// and nothing more must be done with it here.
///
/// # Safety
/// The caller holds a reference.
#[inline]
pub(super) unsafe fn is_left(cell: NonNull<Header>) -> bool {
    // SAFETY: alive by the caller's reference; the vtable is the cell's own.
    fork::is_child() && unsafe { (cell.as_ref().vtable.is_foreign)(cell) }
}

// The functions that the rest of `future` calls. Each calls the vtable's function of the same name, with the same contract.

/// # Safety
/// The caller gives the runner's reference to this call.
pub(super) unsafe fn run(cell: NonNull<Header>, about_to_publish: &dyn Fn(bool)) -> bool {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.run)(cell, about_to_publish) }
}

/// # Safety
/// The caller gives the runner's reference to this call, of a task that has been claimed, cancelled or failed.
pub(super) unsafe fn discard(cell: NonNull<Header>) {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.discard)(cell) }
}

/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn is_shell(cell: NonNull<Header>) -> bool {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.is_shell)(cell) }
}

/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn may_claim(cell: NonNull<Header>) -> bool {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.may_claim)(cell) }
}

/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn listen(cell: NonNull<Header>, wait: &InlineWait, listener: Listener<'_>) -> bool {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.listen)(cell, wait, listener) }
}

/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn claim(cell: NonNull<Header>, wait: &InlineWait) -> bool {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.claim)(cell, wait) }
}

/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn claimable(cell: NonNull<Header>) -> Option<Arc<dyn SpareHost>> {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.claimable)(cell) }
}

/// Claims a task for another thread; the claim includes a reference.
///
/// # Safety
/// The caller has the handle.
pub(super) unsafe fn claim_for_spare(cell: NonNull<Header>) -> bool {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.claim_for_spare)(cell) }
}

/// # Safety
/// The caller gives a claim (`claim_for_spare`) to this call.
pub(super) unsafe fn run_claimed(cell: NonNull<Header>, wait: &InlineWait, about_to_publish: &dyn Fn(bool)) -> bool {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.run_claimed)(cell, wait, about_to_publish) }
}

/// # Safety
/// The caller gives a claim (`claim_for_spare`) to this call.
pub(super) unsafe fn fail_claimed(cell: NonNull<Header>, error: TaskError) {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.fail_claimed)(cell, error) }
}

/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn cancel(cell: NonNull<Header>) -> bool {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.cancel)(cell) }
}

/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn fail(cell: NonNull<Header>, error: TaskError) {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.fail)(cell, error) }
}

/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn has_begun(cell: NonNull<Header>) -> bool {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.has_begun)(cell) }
}

/// # Safety
/// The caller holds a reference.
pub(super) unsafe fn drive_while_waiting(
    cell: NonNull<Header>,
    done: &dyn Fn() -> bool,
    deadline: Option<Instant>,
    mode: WaitMode,
) -> bool {
    // SAFETY: passed on.
    unsafe { (cell.as_ref().vtable.drive_while_waiting)(cell, done, deadline, mode) }
}

/// In a forked child: an unfinished task of one of the parent's pools will never finish here, so this copy is resolved to
/// [`TaskError::WrongProcess`]. Its callbacks are left to the parent. Returns `true` if the task has been resolved in this way.
///
/// A task that this thread is running (in which the fork happened) is left unchanged.
///
/// # Safety
/// The caller holds the handle.
#[cold]
pub(super) unsafe fn disown(cell: NonNull<Header>) -> bool {
    // SAFETY: alive by the handle's reference.
    let header = unsafe { cell.as_ref() };
    // SAFETY: passed on.
    let is_foreign = || unsafe { (header.vtable.is_foreign)(cell) };
    if !header.state.phase().is_final() && is_foreign() && !current::is_running(cell.addr().get()) {
        if let Some(waiter) = header.state.disown().ok().and_then(NonNull::new) {
            // SAFETY: `disown` has taken it out of the word, so this thread must notify it.
            unsafe { Waiter::notify(waiter, true, &|| ()) };
        }
    }
    header.state.phase() == Phase::Foreign
}

/// # Safety
/// The caller owns the handle of a `T` by value (or may never use the value again), and the phase is final.
pub(super) unsafe fn take<T>(cell: NonNull<Header>) -> Result<T, TaskError> {
    // SAFETY: alive by the handle's reference; the buffer fits the outcome of a handle of `T` (rule 5).
    unsafe {
        let header = cell.as_ref();
        match header.state.phase() {
            Phase::Value | Phase::Error => {
                let mut outcome = std::mem::MaybeUninit::<Result<T, TaskError>>::uninit();
                (header.vtable.take)(cell, outcome.as_mut_ptr().cast());
                outcome.assume_init()
            }
            Phase::Cancelled => Err(TaskError::Cancelled),
            Phase::Foreign => Err(TaskError::WrongProcess),
            Phase::Taken => panic!("the result of this future was taken before"),
            Phase::Pending | Phase::Running | Phase::Cancelling => unreachable!("the phase is final"),
        }
    }
}

/// The outcome, if there is one that has not been taken.
///
/// # Safety
/// The caller holds the handle of a `T` for `'a`, during which the value is not taken.
pub(super) unsafe fn peek<'a, T>(cell: NonNull<Header>) -> Option<Result<&'a T, &'a TaskError>> {
    // SAFETY: alive by the handle's reference; the value of a handle of `T` is a `T` (rule 5).
    unsafe {
        let header = cell.as_ref();
        match header.state.phase() {
            Phase::Value | Phase::Error => Some(match (header.vtable.peek)(cell) {
                Ok(value) => Ok(value.cast::<T>().as_ref()),
                Err(error) => Err(error.as_ref()),
            }),
            Phase::Cancelled => Some(Err(&TaskError::Cancelled)),
            Phase::Foreign => Some(Err(&TaskError::WrongProcess)),
            _ => None,
        }
    }
}

/// Adds a callback to the list. If the outcome has been published already, runs it, and any others left in the list, here.
///
/// # Safety
/// The caller holds the handle of a `T`, and the value is not taken during the call.
pub(super) unsafe fn add_callback<T>(cell: NonNull<Header>, callback: Callback<T>) {
    // SAFETY: alive by the handle's reference.
    let header = unsafe { cell.as_ref() };
    let node = Box::into_raw(Box::new(CallbackNode { next: ptr::null_mut(), callback }));
    let mut newest = header.callbacks.load(Relaxed);
    loop {
        // SAFETY: the node belongs to this thread until the exchange below succeeds.
        unsafe { (*node).next = newest.cast() };
        // Release: the node is fully written for the thread that takes the list.
        match header.callbacks.compare_exchange_weak(newest, node.cast(), Release, Relaxed) {
            Ok(_) => break,
            Err(changed) => newest = changed,
        }
    }
    if header.state.announce_callback().is_ok() {
        return;
    }
    // SAFETY: the caller's contract.
    for callback in unsafe { take_callbacks::<T>(header) } {
        // SAFETY: the caller's contract.
        match unsafe { peek::<T>(cell) } {
            Some(outcome) => stack::deepen_if_possible(|| quiet::call(|| callback(outcome))),
            None => panic!("the result of this future was taken before"),
        }
    }
}

/// Empties the callback list and returns the callbacks, oldest first; the caller must run them.
///
/// # Safety
/// The cell is that of a `T`.
unsafe fn take_callbacks<T>(header: &Header) -> Vec<Callback<T>> {
    // Acquire pairs with the Release of `add_callback`: the nodes are fully written.
    let mut newest_first = header.callbacks.swap(ptr::null_mut(), Acquire).cast::<CallbackNode<T>>();
    let mut callbacks = Vec::new();
    while !newest_first.is_null() {
        // SAFETY: nodes are boxes that `add_callback` leaked into the list; after the swap they belong to this thread.
        let node = unsafe { Box::from_raw(newest_first) };
        newest_first = node.next;
        callbacks.push(node.callback);
    }
    callbacks.reverse();
    callbacks
}

/// # Safety
/// The caller gives up a reference that is its own.
pub(super) unsafe fn release(cell: NonNull<Header>) {
    // SAFETY: alive by the caller's reference; if it was the last one, this thread owns the cell.
    unsafe {
        let header = cell.as_ref();
        if let Release::Last(phase) = header.state.release() {
            (header.vtable.free)(cell, phase);
        }
    }
}

/// Drops the value or the error, if there is one.
///
/// # Safety
/// The caller owns the handle by value, or no other thread has the handle or will read the outcome again.
pub(super) unsafe fn drop_outcome(cell: NonNull<Header>) {
    // SAFETY: alive by the handle's reference; passed on.
    unsafe {
        let header = cell.as_ref();
        if matches!(header.state.phase(), Phase::Value | Phase::Error) {
            (header.vtable.drop_outcome)(cell);
        }
    }
}

/// Gives up the handle's reference, and drops the outcome if there is one, because only the handle could read it.
///
/// # Safety
/// The caller owns the handle by value and gives it to this call.
pub(super) unsafe fn release_handle(cell: NonNull<Header>) {
    /// Gives up a reference, even if the destructor of an outcome panics.
    struct Reference(NonNull<Header>);
    impl Drop for Reference {
        fn drop(&mut self) {
            // SAFETY: made once, below, from a reference that is given up nowhere else.
            unsafe { release(self.0) };
        }
    }
    // SAFETY: alive by the handle's reference; if it was the last one, this thread owns the cell.
    unsafe {
        let header = cell.as_ref();
        match header.state.release_handle() {
            ReleaseHandle::Shared => {}
            ReleaseHandle::Last(phase) => (header.vtable.free)(cell, phase),
            ReleaseHandle::DropOutcome => {
                let _reference = Reference(cell);
                // The runner's reference may stay in a queue for a long time. The outcome must not be kept that long.
                drop_outcome(cell);
            }
        }
    }
}
