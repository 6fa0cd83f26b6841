//! A thread that waits for several futures at once.
//!
//! Every future gets a node of one array as its waiter. A completion pushes its node onto a stack and adds to one
//! number, the *balance*: how many futures have completed, less what the waiting thread demands at the moment. The
//! completion that lifts a negative balance to 0 wakes the thread. So a completion costs O(1) however many futures there
//! are, and a thread that waits for a thousand of them is woken once, not a thousand times.
//!
//! No wake-up is lost: the thread subtracts its demand in one step, and either sees a balance that meets it, or has made
//! the balance negative, so that the completion that meets it will see that.

#![allow(unsafe_code)]

use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Instant;

use crate::future::{AlreadyFinal, SharedFuture, Source, TaskFuture, Waiter, park};
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, Ordering::*};
use crate::sync::thread::{self, Thread};

/// What a failure is worth where one is enough: far above any demand, far below overflow.
const ENOUGH: isize = isize::MAX / 4;

/// What [`wait`](crate::wait) and [`as_completed`](crate::as_completed) take: a [`TaskFuture`] or a [`SharedFuture`],
/// alone or as the second half of a pair whose first half is yours, so that a result finds what it belongs to.
///
/// This trait is sealed: the crate implements it for exactly these four.
#[allow(private_bounds)]
pub trait Completable: AsSource {}

impl<S: AsSource> Completable for S {}

pub(crate) trait AsSource {
    fn source(&self) -> &dyn Source;
    fn source_mut(&mut self) -> &mut dyn Source;
}

macro_rules! completable {
    ($([$($generic:ident)*] $type:ty: $self:ident => $source:expr;)*) => {$(
        impl<$($generic),*> AsSource for $type {
            fn source(&$self) -> &dyn Source {
                &$source
            }

            fn source_mut(&mut $self) -> &mut dyn Source {
                &mut $source
            }
        }
    )*};
}

completable! {
    [T] TaskFuture<T>: self => *self;
    [T] SharedFuture<T>: self => *self;
    [K T] (K, TaskFuture<T>): self => self.1;
    [K T] (K, SharedFuture<T>): self => self.1;
}

/// One future's place in the array.
#[repr(C)]
struct Node {
    waiter: Waiter,
    shared: *const Shared,
    index: usize,
    /// The node below on the stack.
    next: AtomicPtr<Node>,
}

// SAFETY: the pointer is followed only while the registration holds a strong reference to what it points to.
unsafe impl Send for Node {}
// SAFETY: as above; everything that changes is atomic.
unsafe impl Sync for Node {}

struct Shared {
    nodes: Box<[Node]>,
    /// Completed nodes that the waiting side has not seen yet, newest first.
    stack: AtomicPtr<Node>,
    balance: AtomicIsize,
    /// A failure counts as enough, once.
    failure_is_enough: bool,
    failed: AtomicBool,
    sleeper: Mutex<Option<Thread>>,
}

/// The waiting side.
pub(super) struct CompletionSet<S: Completable> {
    shared: Arc<Shared>,
    items: Vec<Option<S>>,
    /// How many items are registered: all, once `new` is through.
    registered: usize,
    /// The items before this one are done, or cannot be run by the waiting thread.
    looked_at: usize,
    /// The items before this one are done.
    helped_at: usize,
}

impl<S: Completable> CompletionSet<S> {
    /// Registers with every future of `items`; those that are done already are counted and on the stack at once.
    pub(super) fn new(items: impl IntoIterator<Item = S>, failure_is_enough: bool) -> Self {
        let items: Vec<Option<S>> = items.into_iter().map(Some).collect();
        let shared = Arc::new_cyclic(|weak| Shared {
            nodes: (0..items.len()).map(|index| Node::new(weak.as_ptr(), index)).collect(),
            stack: AtomicPtr::new(ptr::null_mut()),
            balance: AtomicIsize::new(0),
            failure_is_enough,
            failed: AtomicBool::new(false),
            sleeper: Mutex::new(None),
        });
        let mut set = Self { shared, items, registered: 0, looked_at: 0, helped_at: 0 };
        for (item, node) in set.items.iter_mut().zip(&set.shared.nodes) {
            let source = item.as_mut().expect("nothing was taken yet").source_mut();
            // The registration holds a strong reference, which `notify` or `dissolve` gives up: the array outlives all
            // that may use it (rule 2 of the waiter contract).
            let registered = Arc::clone(&set.shared);
            match source.register(node.as_waiter()) {
                Ok(()) => std::mem::forget(registered),
                Err(AlreadyFinal) => set.shared.complete(node, source.has_failed()),
            }
            set.registered += 1;
        }
        set
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Blocks until `count` futures are done (or one has failed, where that is enough), or the deadline has passed.
    /// A queued task that the calling thread may run is run instead of waited for.
    pub(super) fn wait_for(&mut self, count: usize, deadline: Option<Instant>) -> bool {
        let demand = isize::try_from(count).expect("no more futures than fit into memory");
        loop {
            // There is no demand outside `sleep_for`. Acquire pairs with the Release of `complete`.
            if self.shared.balance.load(Acquire) >= demand {
                return true;
            }
            let late = deadline.is_some_and(|deadline| deadline <= Instant::now());
            if !late && self.claim_one(count == self.items.len()) {
                continue;
            }
            if !late {
                self.help_one(demand, deadline);
            }
            return self.sleep_for(demand, deadline);
        }
    }

    /// Runs the first task that is still queued and that this thread may run; what could not be claimed once never can
    /// be. Unless `all` are waited for, it leaves that to others as long as an earlier task is running: the caller may have
    /// to do something about that one before the queued one can end.
    fn claim_one(&mut self, all: bool) -> bool {
        while let Some(item) = self.items.get(self.looked_at) {
            if let Some(source) = item.as_ref().map(S::source) {
                if !all && source.is_at_work() {
                    return false;
                }
                if source.claim() {
                    return true;
                }
            }
            self.looked_at += 1;
        }
        false
    }

    /// Lets the executor of the first task that is not done use this thread.
    fn help_one(&mut self, demand: isize, deadline: Option<Instant>) {
        while let Some(item) = self.items.get(self.helped_at) {
            match item.as_ref().map(S::source) {
                Some(source) if !source.is_done() => {
                    source.help(&|| self.shared.balance.load(Acquire) >= demand, deadline, false);
                    return;
                }
                _ => self.helped_at += 1,
            }
        }
    }

    fn sleep_for(&self, demand: isize, deadline: Option<Instant>) -> bool {
        let balance = &self.shared.balance;
        *self.shared.sleeper.lock() = Some(thread::current());
        // Release: whoever lifts the balance to 0 finds the sleeper.
        balance.fetch_sub(demand, AcqRel);
        while balance.load(Acquire) < 0 && park(deadline) {}
        // The demand is withdrawn; what came last counts.
        balance.fetch_add(demand, AcqRel) >= 0
    }

    /// The indices of what has completed since the last call, in the order of completion.
    pub(super) fn drain(&mut self, to: &mut impl Extend<usize>) {
        // Acquire pairs with the Release of `complete`: the links are whole.
        let mut newest_first = self.shared.stack.swap(ptr::null_mut(), Acquire);
        let mut indices = Vec::new();
        // SAFETY: the stack holds nodes of `shared.nodes`, which lives as long as `self.shared`.
        while let Some(node) = unsafe { newest_first.as_ref() } {
            indices.push(node.index);
            newest_first = node.next.load(Relaxed);
        }
        to.extend(indices.into_iter().rev());
    }

    /// Takes an item whose future is done.
    pub(super) fn take_done(&mut self, index: usize) -> S {
        self.items[index].take().expect("a future completes once")
    }

    /// Ends the registrations, and gives back what has not been taken, in the original order.
    pub(super) fn dissolve(&mut self) -> impl Iterator<Item = S> + use<S> {
        for (item, node) in self.items.iter_mut().zip(&self.shared.nodes).take(self.registered) {
            let Some(item) = item else { continue };
            if item.source_mut().unregister(node.as_waiter()).is_ok() {
                // SAFETY: the registration is undone, so its strong reference, from `new`, is given up here. It is
                // not the last one: `self` has its own.
                unsafe { Arc::decrement_strong_count(node.shared) };
            }
        }
        self.registered = 0;
        std::mem::take(&mut self.items).into_iter().flatten()
    }
}

impl<S: Completable> Drop for CompletionSet<S> {
    fn drop(&mut self) {
        drop(self.dissolve());
    }
}

impl Node {
    fn new(shared: *const Shared, index: usize) -> Self {
        Self { waiter: Waiter::new(Self::notify), shared, index, next: AtomicPtr::new(ptr::null_mut()) }
    }

    /// The node as its future knows it; the pointer is good for the whole node.
    fn as_waiter(&self) -> NonNull<Waiter> {
        NonNull::from(self).cast()
    }

    unsafe fn notify(waiter: NonNull<Waiter>, failed: bool, _about_to_call: &dyn Fn()) {
        // SAFETY: `waiter` is the first field of a node (repr(C)), alive by the reference that its registration holds.
        let node = unsafe { waiter.cast::<Self>().as_ref() };
        // SAFETY: that very reference, which `new` left to this call.
        let shared = unsafe { Arc::from_raw(node.shared) };
        shared.complete(node, failed);
    }
}

impl Shared {
    fn complete(&self, node: &Node, failed: bool) {
        let node_ptr = (&raw const *node).cast_mut();
        let mut top = self.stack.load(Relaxed);
        loop {
            node.next.store(top, Relaxed);
            // Release: the link is whole for whoever takes the stack.
            match self.stack.compare_exchange_weak(top, node_ptr, Release, Relaxed) {
                Ok(_) => break,
                Err(changed) => top = changed,
            }
        }
        let first_failure = failed && self.failure_is_enough && !self.failed.swap(true, Relaxed);
        let weight = if first_failure { ENOUGH } else { 1 };
        // Release: the stack is as it is for whoever sees the sum. Acquire: the sleeper is there.
        let before = self.balance.fetch_add(weight, AcqRel);
        if before < 0 && before + weight >= 0 {
            let sleeper = self.sleeper.lock().clone();
            if let Some(thread) = sleeper {
                thread.unpark();
            }
        }
    }
}
