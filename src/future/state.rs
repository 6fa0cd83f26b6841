//! The state of a task: one word, changed only by the named transitions of this file.
//!
//! ```text
//!                    start                    publish
//!   PENDING ───────────────────▶ RUNNING ───────────────▶ VALUE ──┐ take
//!      │                          │ │                             ├──────▶ TAKEN
//!      │ begin_cancel             │ └───────────────────▶ ERROR ──┘
//!      ▼            cancel_begun  │
//!   CANCELLING ◀──────────────────┘
//!      │                  publish
//!      └────────────────────────────────────────────────▶ CANCELLED
//! ```
//!
//! - PENDING: the work is in the cell. The thread that moves the word away from PENDING owns the work: a worker, a waiter that
//!   claims it, or a canceller. The move is one compare-exchange, so cancel and start cannot both win.
//! - A spawned future is RUNNING from its first poll to its end, however often it is suspended in between; its second word
//!   (`poll_state`) says which thread may access it then, and only it uses `cancel_begun`.
//! - RUNNING and CANCELLING: the thread that made the transition owns the payload exclusively until it publishes.
//! - A spawned future, or a closure on a spare thread, that has no handle when it ends goes from RUNNING or CANCELLING to TAKEN
//!   (`discard`): wakers, or the runner's half in a queue, may keep the cell for a long time, and the outcome must not be kept
//!   that long.
//! - VALUE, ERROR, CANCELLED are final: the payload belongs to the owner of the handle, which reads it, or takes it (TAKEN) if
//!   it owns the handle by value.
//!
//! - FOREIGN is final too, and reached from any phase that is not (`disown`): the handle is in a forked child and the task
//!   belongs to the parent, so no thread will ever resolve this copy. The payload stays as it is and is never accessed again.
//!
//! Besides the phase, the word holds:
//! - how many parties keep the cell alive: the runner's half, the handle, and a spare thread that runs the task while the
//!   runner's half is still in its queue (at most 3);
//! - CALLBACKS: the callback list may have entries, and the resolver has to run them before it publishes;
//! - the address of the one [`Waiter`] that waits for the end, or null. Only the owner of the handle registers or removes one;
//!   publishing takes it out in the same step that makes the phase final. So a waiter that is registered while the phase is not
//!   final will be notified: no wake-up is lost. A handle that is dropped before the end stores NO_HANDLE in its place.

use crate::sync::atomic::{AtomicPtr, Ordering::*};

use super::waiter::Waiter;

const PHASE: usize = 0b111;
const CALLBACKS: usize = 0b1000;
const REF: usize = 0b1_0000;
const REFS: usize = 0b11_0000;
const TAGS: usize = PHASE | CALLBACKS | REFS;

// The tags live in the low bits of a waiter's address.
const _: () = assert!(Waiter::ALIGN > TAGS);

/// Stored instead of a waiter's address once the handle has been dropped. No waiter has this address.
const NO_HANDLE: usize = Waiter::ALIGN;

/// The phase of a task: see the diagram of the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Phase {
    Pending = 0,
    Running = 1,
    Cancelling = 2,
    /// The first of the final phases: all that follow are final too.
    Value = 3,
    Error = 4,
    Cancelled = 5,
    Taken = 6,
    /// The task belongs to a pool of another process, from which this one was forked.
    Foreign = 7,
}

impl Phase {
    fn from_bits(bits: usize) -> Self {
        match bits & PHASE {
            0 => Self::Pending,
            1 => Self::Running,
            2 => Self::Cancelling,
            3 => Self::Value,
            4 => Self::Error,
            5 => Self::Cancelled,
            6 => Self::Taken,
            _ => Self::Foreign,
        }
    }

    pub(crate) fn is_final(self) -> bool {
        self as usize >= Self::Value as usize
    }

    /// Whether the outcome is a failure. As in Python, a cancelled task has not failed.
    pub(crate) fn is_failure(self) -> bool {
        matches!(self, Self::Error | Self::Foreign)
    }
}

/// A loaded value of the word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Snapshot(*mut Waiter);

impl Snapshot {
    fn bits(self) -> usize {
        self.0.addr() & TAGS
    }

    fn phase(self) -> Phase {
        Phase::from_bits(self.bits())
    }

    fn refs(self) -> usize {
        (self.bits() & REFS) / REF
    }

    fn has_callbacks(self) -> bool {
        self.bits() & CALLBACKS != 0
    }

    /// The waiter, or null; or [`NO_HANDLE`].
    fn waiter(self) -> *mut Waiter {
        self.0.map_addr(|addr| addr & !TAGS)
    }

    fn has_handle(self) -> bool {
        self.waiter().addr() != NO_HANDLE
    }

    fn without_handle(self) -> Self {
        debug_assert!(self.waiter().is_null());
        Self(self.0.map_addr(|addr| addr | NO_HANDLE))
    }

    fn with_waiter(self, waiter: *mut Waiter) -> Self {
        Self(waiter.map_addr(|addr| addr | self.bits()))
    }

    fn with_phase(self, phase: Phase) -> Self {
        Self(self.0.map_addr(|addr| (addr & !PHASE) | phase as usize))
    }

    fn with_callbacks(self, on: bool) -> Self {
        Self(self.0.map_addr(|addr| if on { addr | CALLBACKS } else { addr & !CALLBACKS }))
    }

    fn with_ref_more(self) -> Self {
        debug_assert!(self.bits() & REFS != REFS);
        Self(self.0.map_addr(|addr| addr + REF))
    }

    fn with_ref_less(self) -> Self {
        debug_assert!(self.refs() > 0);
        Self(self.0.map_addr(|addr| addr - REF))
    }
}

/// What [`State::start`] found.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// The caller owns the work and must publish an outcome.
    Won,
    /// The task was already started or cancelled: there is nothing to do.
    Lost,
}

/// What [`State::begin_cancel`] found.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BeginCancel {
    /// The caller owns the work, and must drop it and publish [`Phase::Cancelled`].
    Won,
    /// It is cancelled, or another thread is cancelling it.
    Already,
    /// It has started, or has ended otherwise.
    TooLate,
}

/// What happens to the publishing thread's reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Share {
    /// It is given up in the same step.
    Released,
    /// It is kept, and may be the handle's.
    Kept,
    /// It is kept, and is the runner's: if it is the only one, there is no longer a handle.
    RunnersKept,
    /// It is a spare thread's, which gives it up in the same step, or after [`Publish::Alone`]. The runner's may exist as well.
    Spare,
}

impl Share {
    fn is_released(self) -> bool {
        matches!(self, Self::Released | Self::Spare)
    }

    /// May the outcome still be read?
    fn is_wanted(self, now: Snapshot) -> bool {
        match self {
            Self::Spare => now.has_handle(),
            _ => now.refs() > 1 || self == Self::Kept,
        }
    }
}

/// What [`State::publish`] did.
#[must_use]
#[derive(Debug)]
pub(crate) enum Publish {
    /// Nothing yet: there are callbacks to run first.
    RunCallbacks,
    /// The outcome has been published.
    Published {
        /// The waiter to notify now, or null.
        waiter: *mut Waiter,
    },
    /// No handle is left that could read the outcome, so the phase did not change. With [`Share::Released`] the caller owns the
    /// whole cell: it drops the payload and frees the cell. Otherwise it drops the payload ([`State::discard`]), and still has
    /// its reference.
    Alone,
}

/// What [`State::release`] left.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Release {
    /// Other references keep the cell alive.
    Shared,
    /// That was the last reference: the caller frees the cell, whose payload is as this phase says.
    Last(Phase),
}

/// What [`State::release_handle`] left.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReleaseHandle {
    /// The runner keeps the cell alive, and drops the outcome when there is one.
    Shared,
    /// That was the last reference: the caller frees the cell, whose payload is as this phase says.
    Last(Phase),
    /// Nothing was given up yet: there is an outcome, which the caller has to take and drop first.
    DropOutcome,
}

/// The phase is already final, so no waiter will be notified any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AlreadyFinal;

pub(crate) struct State(AtomicPtr<Waiter>);

impl State {
    pub(crate) fn new(phase: Phase, refs: usize) -> Self {
        Self(AtomicPtr::new(std::ptr::without_provenance_mut(phase as usize | (refs * REF))))
    }

    /// The current phase. Acquire: a final phase makes the outcome readable.
    pub(crate) fn phase(&self) -> Phase {
        self.load().phase()
    }

    pub(crate) fn has_callbacks(&self) -> bool {
        self.load().has_callbacks()
    }

    pub(crate) fn has_waiter(&self) -> bool {
        !self.load().waiter().is_null()
    }

    /// PENDING → RUNNING. Acquire: the work, written by the submitter, is readable.
    pub(crate) fn start(&self) -> Start {
        self.update(|now| match now.phase() {
            Phase::Pending => Ok((Start::Won, now.with_phase(Phase::Running))),
            _ => Err(Start::Lost),
        })
    }

    /// [`start`](Self::start) by a caller that has no reference of its own, and gets one in the same step. The handle keeps the
    /// cell alive during the call.
    pub(super) fn start_with_reference(&self) -> Start {
        self.update(|now| match now.phase() {
            Phase::Pending => Ok((Start::Won, now.with_phase(Phase::Running).with_ref_more())),
            _ => Err(Start::Lost),
        })
    }

    /// PENDING → CANCELLING.
    pub(crate) fn begin_cancel(&self) -> BeginCancel {
        self.update(|now| match now.phase() {
            Phase::Pending => Ok((BeginCancel::Won, now.with_phase(Phase::Cancelling))),
            Phase::Cancelling | Phase::Cancelled => Err(BeginCancel::Already),
            _ => Err(BeginCancel::TooLate),
        })
    }

    /// RUNNING → CANCELLING, by the owner of a spawned future: only a future can be cancelled after it has started.
    pub(super) fn cancel_begun(&self) {
        self.update(|now| {
            debug_assert_eq!(now.phase(), Phase::Running);
            Ok(((), now.with_phase(Phase::Cancelling)))
        })
    }

    /// RUNNING or CANCELLING → a final phase, which takes the waiter out and, if the share is released, gives up one reference,
    /// all in one step: after it the caller must not access the cell unless it holds another reference. Release: a thread that
    /// sees the phase sees the outcome and everything that the task did.
    pub(crate) fn publish(&self, outcome: Phase, share: Share) -> Publish {
        debug_assert!(outcome.is_final());
        self.update(|now| {
            debug_assert!(matches!(now.phase(), Phase::Running | Phase::Cancelling));
            if now.has_callbacks() {
                return Err(Publish::RunCallbacks);
            }
            if !share.is_wanted(now) {
                return Err(Publish::Alone);
            }
            let waiter = if now.has_handle() { now.waiter() } else { std::ptr::null_mut() };
            let next = now.with_phase(outcome).with_waiter(std::ptr::null_mut());
            let next = if share.is_released() { next.with_ref_less() } else { next };
            Ok((Publish::Published { waiter }, next))
        })
    }

    /// Whether [`publish`](Self::publish), called now, would publish. Another thread may still add a callback or drop
    /// the handle before the call.
    pub(crate) fn would_publish(&self, share: Share) -> bool {
        let now = self.load();
        !now.has_callbacks() && share.is_wanted(now)
    }

    /// RUNNING or CANCELLING → TAKEN, by a caller that got [`Publish::Alone`] and keeps its reference: it must drop the
    /// payload.
    pub(super) fn discard(&self) {
        self.update(|now| {
            debug_assert!(matches!(now.phase(), Phase::Running | Phase::Cancelling));
            Ok(((), now.with_phase(Phase::Taken)))
        })
    }

    /// VALUE or ERROR → TAKEN, by the owner of the handle.
    pub(crate) fn take(&self) {
        self.update(|now| {
            debug_assert!(matches!(now.phase(), Phase::Value | Phase::Error));
            Ok(((), now.with_phase(Phase::Taken)))
        })
    }

    /// Registers the waiter. Only the owner of the handle may do so, and only while none is registered.
    pub(crate) fn set_waiter(&self, waiter: *mut Waiter) -> Result<(), AlreadyFinal> {
        self.update(|now| {
            debug_assert!(now.waiter().is_null() && waiter.addr() & TAGS == 0);
            if now.phase().is_final() { Err(Err(AlreadyFinal)) } else { Ok((Ok(()), now.with_waiter(waiter))) }
        })
    }

    /// Takes the waiter back before it is notified: it belongs to the caller again (null if there was none). If the phase is
    /// final, the resolver has taken it, and has notified it or is about to.
    pub(crate) fn clear_waiter(&self) -> Result<*mut Waiter, AlreadyFinal> {
        self.update(|now| {
            if now.phase().is_final() {
                Err(Err(AlreadyFinal))
            } else {
                Ok((Ok(now.waiter()), now.with_waiter(std::ptr::null_mut())))
            }
        })
    }

    /// Any phase that is not final → FOREIGN, which takes the waiter out. Only in a forked child, for a task that belongs to
    /// the parent and that no thread of the child is running: the thread that started it, if any, does not exist in this
    /// process.
    #[cold]
    pub(crate) fn disown(&self) -> Result<*mut Waiter, AlreadyFinal> {
        self.update(|now| {
            if now.phase().is_final() {
                Err(Err(AlreadyFinal))
            } else {
                Ok((Ok(now.waiter()), now.with_phase(Phase::Foreign).with_waiter(std::ptr::null_mut())))
            }
        })
    }

    /// Announces that the callback list has an entry. If the phase is final, the resolver may have missed it.
    pub(crate) fn announce_callback(&self) -> Result<(), AlreadyFinal> {
        self.update(|now| {
            if now.phase().is_final() { Err(Err(AlreadyFinal)) } else { Ok((Ok(()), now.with_callbacks(true))) }
        })
    }

    /// Called when the resolver is about to empty the callback list.
    pub(crate) fn retract_callbacks(&self) {
        self.update(|now| Ok(((), now.with_callbacks(false))));
    }

    /// Gives up the handle's reference.
    pub(crate) fn release_handle(&self) -> ReleaseHandle {
        let now = self.load();
        if now.refs() == 1 {
            return ReleaseHandle::Last(now.phase());
        }
        self.update(|now| match (now.refs(), now.phase()) {
            (1, phase) => Err(ReleaseHandle::Last(phase)),
            (_, Phase::Value | Phase::Error) => Err(ReleaseHandle::DropOutcome),
            _ => Ok((ReleaseHandle::Shared, now.with_ref_less().without_handle())),
        })
    }

    /// Gives up the runner's reference, or the handle's if no outcome is left.
    pub(crate) fn release(&self) -> Release {
        // A sole owner needs no read-modify-write: no other thread can access the word any more. Acquire (in `load`) orders
        // what the others did before they gave up their references.
        let now = self.load();
        if now.refs() == 1 {
            return Release::Last(now.phase());
        }
        self.update(|now| match now.refs() {
            1 => Err(Release::Last(now.phase())),
            _ => Ok((Release::Shared, now.with_ref_less())),
        })
    }

    fn load(&self) -> Snapshot {
        Snapshot(self.0.load(Acquire))
    }

    /// The only compare-exchange loop. `step` is a pure function of the word that returns a new word, or nothing to change.
    /// AcqRel on success serves every transition: each of them either hands the payload over or takes it, and the documentation
    /// of each says which. Acquire on failure, because a step may decide on what it sees.
    #[inline(always)]
    fn update<R>(&self, step: impl Fn(Snapshot) -> Result<(R, Snapshot), R>) -> R {
        let mut now = self.load();
        loop {
            let (outcome, next) = match step(now) {
                Ok(change) => change,
                Err(outcome) => return outcome,
            };
            match self.0.compare_exchange_weak(now.0, next.0, AcqRel, Acquire) {
                Ok(_) => return outcome,
                Err(changed) => now = Snapshot(changed),
            }
        }
    }
}
