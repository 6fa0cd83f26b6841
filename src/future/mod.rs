//! The core that all executors share; it depends on none of them.
//!
//! | file | what it is |
//! |---|---|
//! | `state` | the state of a task: one word and its transitions |
//! | `cell` | the one allocation of a task |
//! | `waiter` | what waits for the end of a task |
//! | `park` | how a thread sleeps |
//! | `task` | the runner's half: [`Task`] |
//! | `handle` | the caller's half: [`TaskFuture`], and how it blocks |
//! | `block` | the steps of a blocking wait |
//! | `poll` | the caller's half as a `std::future::Future` |
//! | `remote` | the runner's half of a task that another process runs, whose outcome has to be decoded |
//! | `promise` | a future that callback code resolves: [`Promise`] |
//! | `shared` | many readers of one result: [`SharedFuture`] |
//! | `deadlock` | which blocked threads wait for which tasks |
//! | `poll_state` | a spawned future: which thread may access it, and whether it is to be polled |
//! | `spawned` | its cell, and its wakers |
//! | `live` | the list of an executor's spawned futures that have not ended |
//! | `shells` | queue entries whose task was claimed or cancelled, and how they are swept |
//! | `inline_wait` | workers that block on a spawned future and poll it in place |
//! | `offload` | spare threads, which run what a waiting thread must not run itself |
//! | `block_on` | any future on the calling thread: [`block_on()`] |
//!
//! An executor makes a pair with [`task()`], runs or fails the [`Task`], and describes itself to the core by an [`Owner`],
//! which says among other things what a thread that is about to block on one of its tasks may do instead. An executor that
//! polls futures makes pairs with [`spawned()`], and is a [`Scheduler`].

use std::sync::Arc;
use std::task::Waker;
use std::time::Instant;

use crate::current;
use crate::spin;

mod block;
mod block_on;
mod cell;
mod deadlock;
mod handle;
mod inline_wait;
mod live;
#[cfg(all(test, loom))]
pub(crate) mod models;
mod offload;
mod park;
mod poll;
mod poll_state;
mod promise;
#[cfg(all(feature = "process", target_os = "linux", any(not(loom), test)))]
mod remote;
mod shared;
mod shells;
mod spawned;
mod state;
mod task;
mod waiter;

pub use block_on::block_on;
pub(crate) use cell::{Owner, WaitMode};
pub(crate) use deadlock::{Entered, Left, Wait, enter_wait, polls_itself};
pub use handle::{CancelOnDrop, TaskFuture, TaskId};
pub(crate) use inline_wait::{InlineWait, InlineWaitGuard, ItemListener, Listener};
pub(crate) use live::LiveFutures;
pub(crate) use offload::{Offload, Offloaded, SpareHost, StartSpare, Wakers};
pub(crate) use park::{Unparker, only_unparks, park};
pub use promise::{Promise, promise};
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub(crate) use remote::Unpublished;
#[cfg(all(feature = "process", target_os = "linux", any(not(loom), test)))]
pub(crate) use remote::{Decode, RemoteTask};
pub use shared::SharedFuture;
pub(crate) use shells::{Shells, Sweep};
pub(crate) use spawned::{Scheduler, spawned};
pub(crate) use state::AlreadyFinal;
pub(crate) use task::{Claimed, Task, borrowing_task, task};
pub(crate) use waiter::{Waiter, is_past};

/// Closures and futures larger than this many bytes are boxed before they are moved. By value they would take several times
/// their size on the stacks of the caller and the worker.
pub(crate) const LARGE: usize = 2048;

/// What the combinators require of the handles they wait for.
pub(crate) trait Source {
    /// True once the outcome is available.
    fn is_done(&self) -> bool;

    /// Whether the outcome is a failure (a cancelled task has not failed). Call only once it is done.
    fn has_failed(&self) -> bool;

    /// The address that identifies the task in the tables of running and blocked tasks.
    fn address(&self) -> usize;

    /// Registers a waiter, which must obey the contract in `waiter`.
    fn register(&mut self, waiter: std::ptr::NonNull<Waiter>) -> Result<(), AlreadyFinal>;

    /// Takes that waiter back. If that fails, the waiter has been notified or is about to be.
    fn unregister(&mut self, waiter: std::ptr::NonNull<Waiter>) -> Result<(), AlreadyFinal>;

    /// Whether this thread may run the task in place. If not, `claim`, `claimable` and `listen` have no effect.
    fn may_claim(&self) -> bool;

    /// Runs the task in place if it is queued and this thread may run it; returns whether it did. A spawned future is polled
    /// once, and may be claimed again when it has been woken.
    fn claim(&self, wait: &InlineWait) -> bool;

    /// Whether it is a spawned future.
    fn is_future(&self) -> bool;

    /// If [`claim`](Self::claim) might succeed now, returns the executor whose spare threads can claim instead of this thread.
    fn claimable(&self) -> Option<Arc<dyn SpareHost>>;

    /// Claims the task for a spare thread.
    fn claim_for_spare(&self) -> Option<Claimed>;

    /// If it is a spawned future that this thread may poll, registers the listener, which is woken whenever the future may be
    /// claimed. The caller must then check whether it may be claimed already.
    fn listen(&self, wait: &InlineWait, listener: Listener<'_>) -> bool;

    /// If the calling thread is polling on behalf of a blocking wait, there may be no other thread to run the task: has a spare
    /// thread run it, or runs it in place if there can be none. A spare thread itself polls a spawned future in place.
    fn poll_in_place(&self, waker: &Waker) {
        let Some(wait) = InlineWait::in_place() else { return };
        self.listen(&wait, Listener::Waker(waker));
        if wait.is_by_spare() && self.is_future() || wait.offload(self, waker, true) == Offloaded::Impossible {
            self.claim(&wait);
        }
    }

    /// Called before a poll registers a waker: spins for a moment, which may save the registration and two wake-ups. Returns
    /// `true` if it is done now. Does not spin on a worker, which has other work.
    fn spin_before_pending(&self) -> bool {
        let is_done = || self.is_done();
        !current::may_be_needed()
            && spin::spin_before_pending(|| self.drive_while_waiting(&is_done, None, WaitMode::Poll).then(is_done))
    }

    /// Lets the executor use this thread, which waits until `done`: see [`Owner::drive_while_waiting`].
    fn drive_while_waiting(&self, done: &dyn Fn() -> bool, deadline: Option<Instant>, mode: WaitMode) -> bool;
}
