//! Which thread may access a spawned future, and whether it is to be polled: one word, changed only by the named transitions of
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
//! - SCHEDULED: the future is to be polled. Together with RUNNING: it was woken during its poll.
//! - RUNNING: one thread owns the future, and polls or drops it.
//! - CLOSED: the future has ended. Its owner drops it and publishes the outcome; it is never polled again.
//! - ENTRY: an entry is in the executor's queue. There is at most one: if a waiting thread has polled the future in place, the
//!   entry is ignored until the next wake-up makes it valid again.
//! - WAKERLESS: the last waker of an idle future was dropped, so the future can never be woken. The thread that takes it
//!   resolves it instead of polling it.
//! - CANCEL, REFUSE: it was cancelled or refused during its poll; the owner ends it when the poll has returned.
//! - LISTENED: a listener is to be woken when it may be polled in place (`inline_wait`).
//! - AWAY: it was last polled by a thread that does not wait for it. A thread that waits for it, or that wait's spare thread,
//!   may poll it at once, even if it is idle, because the wait may have to run what the future awaits.
//! - The higher bits: the number of wakers.
//!
//! ENTRY, RUNNING and the wakers share the runner's reference of the cell: the thread that gives up the last of them in a
//! closed word gets `Last`, and releases it.
//!
//! No wake-up is lost: `wake` writes the word unless that is closed, even if the value stays the same. So in the word's
//! modification order it comes either before the `take` of the next poll, which then sees everything that the waking thread did
//! before (Release, Acquire); or between `take` and `suspend`, which then sees SCHEDULED; or after `suspend`, and then it
//! queues the future. However many wake-ups there are, the future is queued once.

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

/// A loaded value of the word.
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

    /// The future has ended, and its owner has given up its share.
    fn is_disowned(self) -> bool {
        self.has(CLOSED) && !self.has(RUNNING)
    }

    /// No share of the runner's reference is left.
    fn is_over(self) -> bool {
        self.has(CLOSED) && !self.has(RUNNING | ENTRY) && !self.has_wakers()
    }

    /// No thread owns the future, it has not ended, and it has one of these flags.
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
    /// The caller owns the future, which is closed, and resolves it as abandoned.
    Abandoned,
    /// There is nothing to do.
    Nothing,
    /// The future has ended, and its entry was an empty shell. The caller may have to release the runner's reference.
    Shell(Remaining),
}

/// What the caller of [`PollState::wake`] must do.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Woken {
    /// Put the future's entry into the queue.
    pub(super) push: bool,
    /// Wake its listeners.
    pub(super) wake_waiters: bool,
}

/// What [`PollState::suspend`] did.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Suspend {
    /// The future waits for a wake-up: the caller no longer accesses it or its cell.
    Suspended { wake_waiters: bool },
    /// It was woken during the poll: the caller puts its entry into the queue.
    Requeue { wake_waiters: bool },
    /// It was woken during the poll, and already has an entry in the queue.
    Queued { wake_waiters: bool },
    /// The caller still owns the future, which is closed.
    Close(Close),
}

/// Why a future is closed before it is ready.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Close {
    Cancelled,
    /// The executor fails all its futures.
    Refused,
    /// It has no wakers, so it can never be woken.
    Abandoned,
}

/// What [`PollState::cancel`] found.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cancel {
    /// The caller owns the future, which is closed.
    Won,
    /// It is being polled; its owner will cancel it when the poll returns, unless the poll panics.
    Requested,
    /// It is cancelled, or another thread is cancelling it.
    Already,
    /// It has ended otherwise.
    TooLate,
}

/// What [`PollState::drop_waker`] left.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DropWaker {
    Dropped,
    /// Nothing was given up yet: this is the last waker of an idle future. The caller acts on [`Woken`], and then drops the
    /// waker again.
    Lost(Woken),
    /// The caller must release the runner's reference.
    Last,
}

/// Whether the caller must release the runner's reference (`Last`).
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

    /// Called by the thread that took the entry out of the queue. It owns the future if that is to be polled. The entry is
    /// given up in any case.
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

    /// Called by a thread that waits for the future. It owns the future if there is a reason to poll it. The entry stays in the
    /// queue.
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

    /// Called by the owner of a future that another thread has taken for it, before it polls. Closes the future if it was
    /// cancelled or refused in between.
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

    /// Called by the owner when a poll returned pending. Returns `true` if the future was woken during the poll and is to be
    /// polled again.
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

    /// Schedules the future to be polled, unless it is closed.
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

    /// Called by the owner when a poll returned pending.
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

    /// Called by the owner when the future is ready or its poll has panicked. Closes it, and returns whether it was cancelled
    /// during the poll; after a panic a cancellation is ignored.
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

    /// The executor refuses the future. Returns `true` if the caller now owns it and it is closed. If another thread owns it,
    /// that one ends it if its poll returns pending.
    pub(super) fn refuse(&self) -> bool {
        self.update(|now| match (now.has(CLOSED), now.has(RUNNING)) {
            (true, _) => Err(false),
            (false, true) => Ok((false, now.with(REFUSE))),
            (false, false) => Ok((true, now.without(SCHEDULED).with(RUNNING | CLOSED))),
        })
    }

    /// From now on listeners are woken when the future may be polled. Returns `false` if it is closed, so that no listener will
    /// be woken.
    pub(super) fn add_listener(&self) -> bool {
        self.update(|now| Ok((!now.has(CLOSED), now.with(LISTENED))))
    }

    /// Returns `true` if there may be listeners. Called by the thread that has closed the word: a thread that listens later
    /// sees that it is closed.
    pub(super) fn has_listeners(&self) -> bool {
        Snapshot(self.0.load(Acquire)).has(LISTENED)
    }

    /// Counts a cloned waker.
    pub(super) fn add_waker(&self) {
        // Relaxed: the cloning thread has a waker or owns the future, so its share of the reference is not given up meanwhile.
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

    /// True once the future has ended and its owner has given up its share: an entry in the queue is an empty shell.
    pub(super) fn is_disowned(&self) -> bool {
        Snapshot(self.0.load(Acquire)).is_disowned()
    }

    /// Called by the thread that has taken the entry out of the queue, to give it up without polling the future. The second
    /// value says whether it was an empty shell.
    pub(super) fn drop_entry(&self) -> (Remaining, bool) {
        self.update(|now| {
            debug_assert!(now.has(ENTRY));
            let next = now.without(ENTRY);
            Ok(((Remaining::after(next), now.is_disowned()), next))
        })
    }

    /// Called by the owner of a closed future that has dropped it and published its outcome. The second value says whether its
    /// entry is in the queue, where it is an empty shell from now on.
    pub(super) fn disown(&self) -> (Remaining, bool) {
        self.update(|now| {
            debug_assert!(now.has(RUNNING) && now.has(CLOSED));
            let next = now.without(RUNNING);
            Ok(((Remaining::after(next), now.has(ENTRY)), next))
        })
    }

    /// The only compare-exchange loop. `step` is a pure function of the word that returns a new word, or nothing to change.
    /// AcqRel on success serves every transition: each of them releases the future, takes it, or wakes it (see the module).
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
