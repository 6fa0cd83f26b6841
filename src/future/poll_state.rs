//! Who may touch a spawned future, and whether it is to be polled: one word, changed only by the named transitions of
//! this file.
//!
//! ```text
//!                          take                 suspend (it was not woken)
//!       ┌──▶ SCHEDULED ────────────▶ RUNNING ────────────────────────────▶ idle ──┐ wake
//!       │      ▲  ▲                  │     │ suspend (it was woken)               │
//!       │      │  └──────────────────│─────┘                                      │
//!       │      └─────────────────────│────────────────────────────────────────────┘
//!    spawned                         │ complete; or seized, from SCHEDULED and idle: cancel, fail
//!                                    ▼
//!                         RUNNING, CLOSED ── disown ──▶ CLOSED
//! ```
//!
//! - SCHEDULED: the future is to be polled. Together with RUNNING: it was woken while it is being polled.
//! - RUNNING: one thread has the future to itself. It polls it, or drops it.
//! - CLOSED: the future is over. Its owner drops it and publishes the outcome; nobody will ever poll it.
//! - ENTRY: an entry lies in the executor's queue. There is never more than one: if the future was polled by a thread
//!   that waits for it, the entry is an empty shell, and becomes good again with the next wake-up.
//! - WAKERLESS: the last waker of an idle future was dropped, so the future can never be woken. The thread that takes it must resolve it
//!   instead of polling it.
//! - CANCEL, REFUSE: somebody wants it to end while it is being polled; the owner does it when the poll has returned.
//! - LISTENED: a listener is to be woken when it may be polled in place (`inline_wait`).
//! - AWAY: it was polled last by a thread that does not wait for it. One that does, or its spare thread, may poll it at once,
//!   idle or not: what the future awaits may be for that wait to have run.
//! - Above these bits: how many wakers there are.
//!
//! ENTRY, RUNNING and the wakers keep the runner's reference of the cell alive between them: who gives up the last of the
//! three in a closed word is told so (`Last`), and releases it.
//!
//! No wake-up is lost: `wake` changes the word in every case, even if only to the same value. So it stands either before
//! the `take` of the poll that follows, which then sees all that the waker has done before (Release, Acquire); or between
//! `take` and `suspend`, which then sees SCHEDULED; or after `suspend`, and then it queues the future. It is queued once in
//! all cases, however many wake it.

use crate::sync::atomic::{AtomicUsize, Ordering::*};

const SCHEDULED: usize = 1;
const RUNNING: usize = 1 << 1;
const CLOSED: usize = 1 << 2;
const ENTRY: usize = 1 << 3;
const WAKERLESS: usize = 1 << 4;
const CANCEL: usize = 1 << 5;
const REFUSE: usize = 1 << 6;
const LISTENED: usize = 1 << 7;
const AWAY: usize = 1 << 8;
const WAKER: usize = 1 << 9;

/// A limit that is reached only if wakers are leaked. As with `Arc`, the process aborts before the count overflows.
const TOO_MANY: usize = usize::MAX / 2;

/// The word at one moment.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Snapshot(usize);

impl Snapshot {
    fn has(self, flag: usize) -> bool {
        self.0 & flag != 0
    }

    fn with(self, flags: usize) -> Self {
        Self(self.0 | flags)
    }

    fn without(self, flags: usize) -> Self {
        Self(self.0 & !flags)
    }

    fn has_wakers(self) -> bool {
        self.0 >= WAKER
    }

    /// The future is over, and its owner has let go of it.
    fn is_disowned(self) -> bool {
        self.has(CLOSED) && !self.has(RUNNING)
    }

    /// Nobody holds the runner's reference any more.
    fn is_over(self) -> bool {
        self.has(CLOSED) && !self.has(RUNNING | ENTRY) && !self.has_wakers()
    }

    /// The future may be taken, if it has one of these flags.
    fn is_free_and(self, flags: usize) -> bool {
        self.has(flags) && !self.has(RUNNING | CLOSED)
    }

    fn taken(self) -> (Take, Self) {
        if self.has(WAKERLESS) {
            (Take::Abandoned, self.without(SCHEDULED).with(RUNNING | CLOSED))
        } else {
            (Take::Poll, self.without(SCHEDULED).with(RUNNING))
        }
    }
}

/// What [`PollState::take_entry`] and [`PollState::take_in_place`] found.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Take {
    /// The caller owns the future, and polls it.
    Poll,
    /// The caller owns the future, which is closed: it is to be resolved as abandoned.
    Abandoned,
    /// There is nothing to do.
    Nothing,
    /// The future is over, and its entry was an empty shell. The runner's reference may be the caller's to release.
    Shell(Remaining),
}

/// What [`PollState::wake`] has done, and leaves to the caller.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Woken {
    /// To put the future's entry into the queue.
    pub(super) push: bool,
    /// To wake its listeners.
    pub(super) wake_waiters: bool,
}

/// What [`PollState::suspend`] has done.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Suspend {
    /// The future waits for a wake-up: the caller does not touch it, nor its cell, any more.
    Suspended { wake_waiters: bool },
    /// It was woken meanwhile: the caller puts its entry into the queue.
    Requeue { wake_waiters: bool },
    /// It was woken meanwhile, and has an entry in the queue.
    Queued { wake_waiters: bool },
    /// The caller still owns the future, which is closed.
    Close(Close),
}

/// Why a future is closed before it is ready.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Close {
    Cancelled,
    /// The executor refuses whatever it has.
    Refused,
    /// Nobody can ever wake it.
    Abandoned,
}

/// What [`PollState::cancel`] found.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cancel {
    /// The caller owns the future, which is closed.
    Won,
    /// It is being polled; its owner will see to it, whatever the poll returns.
    Requested,
    /// It is cancelled, or another thread is at it.
    Already,
    /// It has ended otherwise.
    TooLate,
}

/// What [`PollState::drop_waker`] left.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DropWaker {
    Dropped,
    /// Nothing was given up yet: this is the last waker of an idle future. The caller does as [`Woken`] says, and then
    /// drops the waker again.
    Lost(Woken),
    /// The runner's reference is the caller's to release.
    Last,
}

/// Whether the caller has the runner's reference to release.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Remaining {
    Others,
    Last,
}

impl Remaining {
    fn after(next: Snapshot) -> Self {
        if next.is_over() { Self::Last } else { Self::Others }
    }
}

pub(super) struct PollState(AtomicUsize);

impl PollState {
    /// A future that is to be polled; its entry is about to be put into the queue.
    pub(super) fn queued() -> Self {
        Self(AtomicUsize::new(SCHEDULED | ENTRY))
    }

    /// Whoever took the entry out of the queue owns the future, if it is to be polled. The entry is gone in any case.
    pub(super) fn take_entry(&self) -> Take {
        self.update(|now| {
            debug_assert!(now.has(ENTRY));
            let next = now.without(ENTRY);
            match (now.is_free_and(SCHEDULED), now.is_disowned()) {
                (true, _) => Ok(next.with(AWAY).taken()),
                (false, false) => Ok((Take::Nothing, next)),
                (false, true) => Ok((Take::Shell(Remaining::after(next)), next)),
            }
        })
    }

    /// A thread that waits for the future owns it, if there is a reason to poll it. Its entry stays in the queue.
    pub(super) fn take_in_place(&self) -> Take {
        self.update(
            |now| if now.is_free_and(SCHEDULED | AWAY) { Ok(now.without(AWAY).taken()) } else { Err(Take::Nothing) },
        )
    }

    /// Might [`take_in_place`](Self::take_in_place) succeed?
    pub(super) fn is_claimable(&self) -> bool {
        Snapshot(self.0.load(Acquire)).is_free_and(SCHEDULED | AWAY)
    }

    pub(super) fn is_closed(&self) -> bool {
        Snapshot(self.0.load(Acquire)).has(CLOSED)
    }

    /// The owner, for whom another thread took the future a while ago, is about to poll it: unless somebody wanted it to end
    /// meanwhile.
    pub(super) fn close_if_wanted(&self) -> Option<Close> {
        self.update(|now| {
            debug_assert!(now.has(RUNNING) && !now.has(CLOSED));
            let close = |why| Ok((Some(why), now.without(SCHEDULED).with(CLOSED)));
            match (now.has(CANCEL), now.has(REFUSE)) {
                (true, _) => close(Close::Cancelled),
                (false, true) => close(Close::Refused),
                (false, false) => Err(None),
            }
        })
    }

    /// The owner has polled the future, which is not ready, and polls it again if it was woken meanwhile; says whether it was.
    pub(super) fn poll_again(&self) -> bool {
        self.update(|now| {
            debug_assert!(now.has(RUNNING) && !now.has(CLOSED));
            if now.has(SCHEDULED) && !now.has(CANCEL | REFUSE) {
                Ok((true, now.without(SCHEDULED)))
            } else {
                Err(false)
            }
        })
    }

    /// The future is to be polled. A closed one is not.
    pub(super) fn wake(&self) -> Woken {
        self.update(|now| {
            if now.has(CLOSED) {
                return Err(Woken { push: false, wake_waiters: false });
            }
            let idle = !now.has(RUNNING | SCHEDULED);
            let woken = Woken { push: idle && !now.has(ENTRY), wake_waiters: idle && now.has(LISTENED) };
            Ok((woken, now.with(if idle { SCHEDULED | ENTRY } else { SCHEDULED })))
        })
    }

    /// The owner has polled the future, which is not ready.
    pub(super) fn suspend(&self) -> Suspend {
        self.update(|now| {
            debug_assert!(now.has(RUNNING) && !now.has(CLOSED));
            let close = |why| Ok((Suspend::Close(why), now.without(SCHEDULED).with(CLOSED)));
            let wake_waiters = now.has(LISTENED);
            if now.has(CANCEL) {
                close(Close::Cancelled)
            } else if now.has(REFUSE) {
                close(Close::Refused)
            } else if now.has(SCHEDULED) && now.has(ENTRY) {
                Ok((Suspend::Queued { wake_waiters }, now.without(RUNNING)))
            } else if now.has(SCHEDULED) {
                Ok((Suspend::Requeue { wake_waiters }, now.without(RUNNING).with(ENTRY)))
            } else if now.has_wakers() {
                Ok((Suspend::Suspended { wake_waiters: wake_waiters && now.has(AWAY) }, now.without(RUNNING)))
            } else {
                close(Close::Abandoned)
            }
        })
    }

    /// The owner has polled the future, which is ready or has panicked; it is closed now. Says whether it was cancelled
    /// meanwhile, which counts unless it has panicked.
    pub(super) fn complete(&self, panicked: bool) -> bool {
        self.update(|now| {
            debug_assert!(now.has(RUNNING) && !now.has(CLOSED));
            let next = now.without(SCHEDULED).with(CLOSED);
            if panicked { Ok((false, next.without(CANCEL))) } else { Ok((now.has(CANCEL), next)) }
        })
    }

    pub(super) fn cancel(&self) -> Cancel {
        self.update(|now| match (now.has(CLOSED), now.has(RUNNING)) {
            (true, _) if now.has(CANCEL) => Err(Cancel::Already),
            (true, _) => Err(Cancel::TooLate),
            (false, true) => Ok((Cancel::Requested, now.with(CANCEL))),
            (false, false) => Ok((Cancel::Won, now.without(SCHEDULED).with(CANCEL | RUNNING | CLOSED))),
        })
    }

    /// The executor refuses the future: the caller owns it, and it is closed, unless some other thread owns it. That one
    /// will see to it if it is not ready; says whether the caller does.
    pub(super) fn refuse(&self) -> bool {
        self.update(|now| match (now.has(CLOSED), now.has(RUNNING)) {
            (true, _) => Err(false),
            (false, true) => Ok((false, now.with(REFUSE))),
            (false, false) => Ok((true, now.without(SCHEDULED).with(RUNNING | CLOSED))),
        })
    }

    /// From now on listeners are woken when they may poll it. Returns `false` if it is closed, so that no listener will be woken.
    pub(super) fn add_listener(&self) -> bool {
        self.update(|now| Ok((!now.has(CLOSED), now.with(LISTENED))))
    }

    /// Returns `true` if there may be listeners. Called by the thread that has closed the word: one that listens later sees that.
    pub(super) fn has_listeners(&self) -> bool {
        Snapshot(self.0.load(Acquire)).has(LISTENED)
    }

    /// A waker was cloned.
    pub(super) fn add_waker(&self) {
        // Relaxed: whoever clones has a waker, or owns the future, so the count cannot come to 0 meanwhile.
        if self.0.fetch_add(WAKER, Relaxed) > TOO_MANY {
            std::process::abort();
        }
    }

    pub(super) fn drop_waker(&self) -> DropWaker {
        self.update(|now| {
            debug_assert!(now.has_wakers());
            let next = Snapshot(now.0 - WAKER);
            if next.has_wakers() || now.has(RUNNING | SCHEDULED) {
                Ok((DropWaker::Dropped, next))
            } else if !now.has(CLOSED) {
                let woken = Woken { push: !now.has(ENTRY), wake_waiters: now.has(LISTENED) };
                Ok((DropWaker::Lost(woken), now.with(SCHEDULED | ENTRY | WAKERLESS)))
            } else if next.is_over() {
                Ok((DropWaker::Last, next))
            } else {
                Ok((DropWaker::Dropped, next))
            }
        })
    }

    /// True once the future is over and its owner has let go of it: an entry in the queue is an empty shell.
    pub(super) fn is_disowned(&self) -> bool {
        Snapshot(self.0.load(Acquire)).is_disowned()
    }

    /// The entry is given up by whoever has taken it out of the queue, without a look at the future. The second value says
    /// whether it was an empty shell.
    pub(super) fn drop_entry(&self) -> (Remaining, bool) {
        self.update(|now| {
            debug_assert!(now.has(ENTRY));
            let next = now.without(ENTRY);
            Ok(((Remaining::after(next), now.is_disowned()), next))
        })
    }

    /// The owner of a closed future has dropped it, and published its outcome. The second value says whether its entry is in
    /// the queue, an empty shell from now on.
    pub(super) fn disown(&self) -> (Remaining, bool) {
        self.update(|now| {
            debug_assert!(now.has(RUNNING) && now.has(CLOSED));
            let next = now.without(RUNNING);
            Ok(((Remaining::after(next), now.has(ENTRY)), next))
        })
    }

    /// The only compare-exchange loop. `step` is a pure function of the word: a new word, or nothing to change. AcqRel on
    /// success serves every transition: each of them hands the future over or takes it, or wakes it (see the module).
    /// Acquire on failure, because a step may decide on what it sees.
    fn update<R>(&self, step: impl Fn(Snapshot) -> Result<(R, Snapshot), R>) -> R {
        let mut now = Snapshot(self.0.load(Acquire));
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
