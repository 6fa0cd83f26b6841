//! Who may touch a spawned future, and whether it is to be polled: one word, changed only by the named transitions of
//! this file.
//!
//! ```text
//!                       take                suspend (nobody woke it)
//!       ┌──▶ QUEUED ────────────▶ OWNED ──────────────────────────▶ idle ──┐ wake
//!       │      ▲ ▲                │   │ suspend (it was woken)             │
//!       │      │ └────────────────│───┘                                    │
//!       │      └──────────────────│────────────────────────────────────────┘
//!    spawned                      │ complete; or seized, from QUEUED and idle: cancel, fail
//!                                 ▼
//!                      OWNED, CLOSED ── disown ──▶ CLOSED
//! ```
//!
//! - QUEUED: the future is to be polled. Together with OWNED: it was woken while it is being polled.
//! - OWNED: one thread has the future to itself. It polls it, or drops it.
//! - CLOSED: the future is over. Its owner drops it and publishes the outcome; nobody will ever poll it.
//! - ENTRY: an entry lies in the executor's queue. There is never more than one: if the future was polled by a thread
//!   that waits for it, the entry is an empty shell, and becomes good again with the next wake-up.
//! - LOST: the last waker of an idle future was dropped, so the future can never be woken. The thread that takes it must resolve it
//!   instead of polling it.
//! - CANCEL, REFUSE: somebody wants it to end while it is being polled; the owner does it when the poll has returned.
//! - ATTENDED: somebody wants to be told when it may be polled in place (`attend`).
//! - AWAY: it was polled last by a thread that does not wait for it. One that does, or its spare thread, may poll it at once,
//!   idle or not: what the future awaits may be for that wait to have run.
//! - Above these bits: how many wakers there are.
//!
//! ENTRY, OWNED and the wakers keep the runner's reference of the cell alive between them: who gives up the last of the
//! three in a closed word is told so (`Last`), and releases it.
//!
//! No wake-up is lost: `wake` changes the word in every case, even if only to the same value. So it stands either before
//! the `take` of the poll that follows, which then sees all that the waker has done before (Release, Acquire); or between
//! `take` and `suspend`, which then sees QUEUED; or after `suspend`, and then it queues the future. It is queued once in
//! all cases, however many wake it.

use crate::sync::atomic::{AtomicUsize, Ordering::*};

const QUEUED: usize = 1;
const OWNED: usize = 1 << 1;
const CLOSED: usize = 1 << 2;
const ENTRY: usize = 1 << 3;
const LOST: usize = 1 << 4;
const CANCEL: usize = 1 << 5;
const REFUSE: usize = 1 << 6;
const ATTENDED: usize = 1 << 7;
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
        self.has(CLOSED) && !self.has(OWNED)
    }

    /// Nobody holds the runner's reference any more.
    fn is_over(self) -> bool {
        self.has(CLOSED) && !self.has(OWNED | ENTRY) && !self.has_wakers()
    }

    /// The future may be taken, if it has one of these flags.
    fn is_free_and(self, flags: usize) -> bool {
        self.has(flags) && !self.has(OWNED | CLOSED)
    }

    fn taken(self) -> (Take, Self) {
        match self.has(LOST) {
            false => (Take::Poll, self.without(QUEUED).with(OWNED)),
            true => (Take::Abandoned, self.without(QUEUED).with(OWNED | CLOSED)),
        }
    }
}

/// What [`Schedule::take_entry`] and [`Schedule::take_in_place`] found.
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
    Shell(Left),
}

/// What [`Schedule::wake`] has done, and leaves to the caller.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Woken {
    /// To put the future's entry into the queue.
    pub(super) push: bool,
    /// To tell those who attend it.
    pub(super) tell: bool,
}

/// What [`Schedule::suspend`] has done.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Suspend {
    /// The future waits for a wake-up: the caller does not touch it, nor its cell, any more.
    Suspended { tell: bool },
    /// It was woken meanwhile: the caller puts its entry into the queue.
    Requeue { tell: bool },
    /// It was woken meanwhile, and has an entry in the queue.
    Queued { tell: bool },
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

/// What [`Schedule::cancel`] found.
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

/// What [`Schedule::drop_waker`] left.
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
pub(super) enum Left {
    Others,
    Last,
}

impl Left {
    fn after(next: Snapshot) -> Self {
        if next.is_over() { Self::Last } else { Self::Others }
    }
}

pub(super) struct Schedule(AtomicUsize);

impl Schedule {
    /// A future that is to be polled; its entry is about to be put into the queue.
    pub(super) fn queued() -> Self {
        Self(AtomicUsize::new(QUEUED | ENTRY))
    }

    /// Whoever took the entry out of the queue owns the future, if it is to be polled. The entry is gone in any case.
    pub(super) fn take_entry(&self) -> Take {
        self.update(|now| {
            debug_assert!(now.has(ENTRY));
            let next = now.without(ENTRY);
            match (now.is_free_and(QUEUED), now.is_disowned()) {
                (true, _) => Ok(next.with(AWAY).taken()),
                (false, false) => Ok((Take::Nothing, next)),
                (false, true) => Ok((Take::Shell(Left::after(next)), next)),
            }
        })
    }

    /// A thread that waits for the future owns it, if there is a reason to poll it. Its entry stays in the queue.
    pub(super) fn take_in_place(&self) -> Take {
        self.update(|now| match now.is_free_and(QUEUED | AWAY) {
            true => Ok(now.without(AWAY).taken()),
            false => Err(Take::Nothing),
        })
    }

    /// Might [`take_in_place`](Self::take_in_place) succeed?
    pub(super) fn is_claimable(&self) -> bool {
        Snapshot(self.0.load(Acquire)).is_free_and(QUEUED | AWAY)
    }

    pub(super) fn is_closed(&self) -> bool {
        Snapshot(self.0.load(Acquire)).has(CLOSED)
    }

    /// The owner, for whom another thread took the future a while ago, is about to poll it: unless somebody wanted it to end
    /// meanwhile.
    pub(super) fn close_if_wanted(&self) -> Option<Close> {
        self.update(|now| {
            debug_assert!(now.has(OWNED) && !now.has(CLOSED));
            let close = |why| Ok((Some(why), now.without(QUEUED).with(CLOSED)));
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
            debug_assert!(now.has(OWNED) && !now.has(CLOSED));
            match now.has(QUEUED) && !now.has(CANCEL | REFUSE) {
                true => Ok((true, now.without(QUEUED))),
                false => Err(false),
            }
        })
    }

    /// The future is to be polled. A closed one is not.
    pub(super) fn wake(&self) -> Woken {
        self.update(|now| {
            if now.has(CLOSED) {
                return Err(Woken { push: false, tell: false });
            }
            let idle = !now.has(OWNED | QUEUED);
            let woken = Woken { push: idle && !now.has(ENTRY), tell: idle && now.has(ATTENDED) };
            Ok((woken, now.with(if idle { QUEUED | ENTRY } else { QUEUED })))
        })
    }

    /// The owner has polled the future, which is not ready.
    pub(super) fn suspend(&self) -> Suspend {
        self.update(|now| {
            debug_assert!(now.has(OWNED) && !now.has(CLOSED));
            let close = |why| Ok((Suspend::Close(why), now.without(QUEUED).with(CLOSED)));
            let tell = now.has(ATTENDED);
            if now.has(CANCEL) {
                close(Close::Cancelled)
            } else if now.has(REFUSE) {
                close(Close::Refused)
            } else if now.has(QUEUED) && now.has(ENTRY) {
                Ok((Suspend::Queued { tell }, now.without(OWNED)))
            } else if now.has(QUEUED) {
                Ok((Suspend::Requeue { tell }, now.without(OWNED).with(ENTRY)))
            } else if now.has_wakers() {
                Ok((Suspend::Suspended { tell: tell && now.has(AWAY) }, now.without(OWNED)))
            } else {
                close(Close::Abandoned)
            }
        })
    }

    /// The owner has polled the future, which is ready or has panicked; it is closed now. Says whether it was cancelled
    /// meanwhile, which counts unless it has panicked.
    pub(super) fn complete(&self, panicked: bool) -> bool {
        self.update(|now| {
            debug_assert!(now.has(OWNED) && !now.has(CLOSED));
            let next = now.without(QUEUED).with(CLOSED);
            match panicked {
                true => Ok((false, next.without(CANCEL))),
                false => Ok((now.has(CANCEL), next)),
            }
        })
    }

    pub(super) fn cancel(&self) -> Cancel {
        self.update(|now| match (now.has(CLOSED), now.has(OWNED)) {
            (true, _) if now.has(CANCEL) => Err(Cancel::Already),
            (true, _) => Err(Cancel::TooLate),
            (false, true) => Ok((Cancel::Requested, now.with(CANCEL))),
            (false, false) => Ok((Cancel::Won, now.without(QUEUED).with(CANCEL | OWNED | CLOSED))),
        })
    }

    /// The executor refuses the future: the caller owns it, and it is closed, unless some other thread owns it. That one
    /// will see to it if it is not ready; says whether the caller does.
    pub(super) fn refuse(&self) -> bool {
        self.update(|now| match (now.has(CLOSED), now.has(OWNED)) {
            (true, _) => Err(false),
            (false, true) => Ok((false, now.with(REFUSE))),
            (false, false) => Ok((true, now.without(QUEUED).with(OWNED | CLOSED))),
        })
    }

    /// From now on those who attend it are told when they may poll it; false if it is closed, so that nobody will be told.
    pub(super) fn attend(&self) -> bool {
        self.update(|now| Ok((!now.has(CLOSED), now.with(ATTENDED))))
    }

    /// True if somebody has attended it. Asked by whoever has closed the word: one that attends it later sees that.
    pub(super) fn is_attended(&self) -> bool {
        Snapshot(self.0.load(Acquire)).has(ATTENDED)
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
            if next.has_wakers() || now.has(OWNED | QUEUED) {
                Ok((DropWaker::Dropped, next))
            } else if !now.has(CLOSED) {
                let woken = Woken { push: !now.has(ENTRY), tell: now.has(ATTENDED) };
                Ok((DropWaker::Lost(woken), now.with(QUEUED | ENTRY | LOST)))
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
    pub(super) fn drop_entry(&self) -> (Left, bool) {
        self.update(|now| {
            debug_assert!(now.has(ENTRY));
            let next = now.without(ENTRY);
            Ok(((Left::after(next), now.is_disowned()), next))
        })
    }

    /// The owner of a closed future has dropped it, and published its outcome. The second value says whether its entry is in
    /// the queue, an empty shell from now on.
    pub(super) fn disown(&self) -> (Left, bool) {
        self.update(|now| {
            debug_assert!(now.has(OWNED) && now.has(CLOSED));
            let next = now.without(OWNED);
            Ok(((Left::after(next), now.has(ENTRY)), next))
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
