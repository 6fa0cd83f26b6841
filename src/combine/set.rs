//! A thread, or an asynchronous task, that waits for several futures at once.
//!
//! Every future gets a node of one array as its waiter. A completion pushes its node onto a stack and adds to one number, the
//! *balance*: how many futures have completed, minus the current demand of the waiting thread. The completion that raises a
//! negative balance to 0 wakes the thread. So a completion costs O(1) however many futures there are, and a thread that waits for
//! all of a thousand futures is woken once.
//!
//! No wake-up is lost: the thread subtracts its demand atomically, and either sees that it is met, or has made the balance
//! negative, which the completion that meets the demand sees.
//!
//! A task does the same with its waker instead of the thread, except that its demand remains from one poll to the next. Each poll
//! withdraws the demand, stores the waker, and then makes a new demand if necessary: so the poll sees a completion in between,
//! and a completion that still finds the old waker at worst wakes it needlessly.
//!
//! A worker that waits for spawned futures of its own pool registers a listener with each of them (`inline_wait`), and checks
//! each, once. From then on listeners report by index which futures may be polled in place: they put the index on a list, and
//! then wake the sleeper. The waiting side stores itself as the sleeper, then checks the list, and only then sleeps or returns.
//! So it either sees the index or is woken. Hence the number of checks in a wait is linear in the number of futures plus
//! wake-ups.

#![allow(unsafe_code)]

use std::collections::{BTreeSet, VecDeque};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::ptr::{self, NonNull};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use crate::current::{self, ThreadKey};
use crate::fork;
use crate::future::{
    AlreadyFinal, Entered, InlineWait, InlineWaitGuard, ItemListener, Left, Listener, Offloaded, SharedFuture, Source,
    TaskFuture, Unparker, Wait, WaitMode, Waiter, enter_wait, is_past, only_unparks, park, polls_itself,
};
use crate::quiet;
use crate::spin;
use crate::sync::Mutex;
use crate::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, Ordering::*};

/// Added to the balance for the first failure if one failure ends the wait: larger than any demand, too small to overflow.
const ENOUGH: isize = isize::MAX / 4;

/// What [`wait`](crate::wait) and [`as_completed`](crate::as_completed) take: a [`TaskFuture`], a [`SharedFuture`] or a
/// [`ScopedFuture`](crate::ScopedFuture); the first two also as the second element of a tuple, whose first element can be any
/// key.
///
/// This trait is sealed: the crate implements it for exactly these five.
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
#[repr(C, align(64))]
struct Node {
    waiter: Waiter,
    shared: *const Shared,
    index: usize,
    /// The node below on the stack.
    next: AtomicPtr<Node>,
    /// Whether it is in `pollable`.
    listed: AtomicBool,
}

const _: () = assert!(align_of::<Node>() == Waiter::ALIGN);

// SAFETY: the pointer is dereferenced only while the registration holds a strong reference to what it points to.
unsafe impl Send for Node {}
// SAFETY: as above; everything that changes is atomic.
unsafe impl Sync for Node {}

struct Shared {
    nodes: Box<[Node]>,
    /// Completed nodes that the waiting side has not seen yet, newest first.
    stack: AtomicPtr<Node>,
    balance: AtomicIsize,
    /// The first failure ends the wait: it adds `ENOUGH` to the balance.
    failure_is_enough: bool,
    failed: AtomicBool,
    sleeper: Mutex<Option<Sleeper>>,
    /// The futures that have become pollable in place since the waiting side last checked, each at most once.
    pollable: Mutex<Vec<usize>>,
}

/// What to wake.
enum Sleeper {
    Thread(Unparker),
    Waker(Waker),
}

/// What a thread may do with queued tasks of its own pool that it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    /// It waits for all of them, without a deadline: it runs them in place.
    Claim,
    /// Its deadline may pass before they are done: it leaves them to other threads.
    Offload,
    /// The wait may end when other futures are done: the same, but if no other thread is available it runs them.
    OffloadOrClaim,
}

/// The waiting side.
pub(super) struct CompletionSet<S: Completable> {
    shared: Arc<Shared>,
    items: Vec<Option<S>>,
    /// How many items are registered: all of them once `new` has returned.
    registered: usize,
    /// The items before this one are done, or cannot be run by the waiting thread.
    looked_at: usize,
    /// The items before this one are done.
    helped_at: usize,
    /// What the last poll has subtracted from the balance.
    demand: isize,
    inline_wait: InlineWaitGuard,
    /// The thread to which `inline_wait` belongs.
    waited_on: Option<ThreadKey>,
    /// The wait under which the listeners are registered: this set's own, or that of the thread that polls it in place.
    entered_for: Option<u64>,
    /// The items that the waiting side has to check, since they may be polled in place, or run.
    to_claim: VecDeque<usize>,
    /// Indices of futures that count as done because waiting for them would deadlock. They are no longer registered.
    refused: BTreeSet<usize>,
    /// Whether the items have been searched for the polling task itself.
    own_refused: bool,
    /// The tasks of a wait for any of them, for deadlock detection. Created on first use.
    left: Option<Arc<Left>>,
}

// No user code runs between two changes that belong together: a panic of a waker, or of a task that is run in place, leaves the
// set consistent.
impl<S: Completable + UnwindSafe> UnwindSafe for CompletionSet<S> {}
impl<S: Completable + RefUnwindSafe> RefUnwindSafe for CompletionSet<S> {}

impl<S: Completable> CompletionSet<S> {
    /// Registers with every future of `items`; those that are already done are counted, and pushed onto the stack.
    pub(super) fn new(items: impl IntoIterator<Item = S>, failure_is_enough: bool) -> Self {
        let items: Vec<Option<S>> = items.into_iter().map(Some).collect();
        let shared = Arc::new_cyclic(|weak| Shared {
            nodes: (0..items.len()).map(|index| Node::new(weak.as_ptr(), index)).collect(),
            stack: AtomicPtr::new(ptr::null_mut()),
            balance: AtomicIsize::new(0),
            failure_is_enough,
            failed: AtomicBool::new(false),
            sleeper: Mutex::new(None),
            pollable: Mutex::new(Vec::new()),
        });
        let mut set = Self {
            shared,
            items,
            registered: 0,
            looked_at: 0,
            helped_at: 0,
            demand: 0,
            inline_wait: InlineWaitGuard::new(),
            waited_on: None,
            entered_for: None,
            to_claim: VecDeque::new(),
            refused: BTreeSet::new(),
            own_refused: false,
            left: None,
        };
        for (item, node) in set.items.iter_mut().zip(&set.shared.nodes) {
            let source = item.as_mut().expect("nothing was taken yet").source_mut();
            // The registration holds a strong reference, which `notify`, `refuse` or `dissolve` releases: the array outlives its
            // users (rule 2 of the waiter contract).
            let registered = Arc::clone(&set.shared);
            match source.register(node.as_waiter()) {
                Ok(()) => std::mem::forget(registered),
                Err(AlreadyFinal) => set.shared.complete(node, source.has_failed(), &|| ()),
            }
            set.registered += 1;
        }
        set
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Blocks until `count` futures are done (or one has failed, where that is enough), or the deadline has passed. A queued task
    /// that the calling thread may run is run instead of waited for, unless the wait may have to end before the task does: see
    /// [`Meanwhile`].
    pub(super) fn wait_for(&mut self, count: usize, deadline: Option<Instant>) -> bool {
        loop {
            let is_met = self.wait_once(count, deadline);
            if !is_met || self.is_really_over(count) {
                return is_met;
            }
        }
    }

    fn wait_once(&mut self, count: usize, deadline: Option<Instant>) -> bool {
        let demand = isize::try_from(count).expect("no more futures than fit into memory");
        self.waits_here();
        loop {
            // There is no demand outside `sleep_for`. Acquire pairs with the Release of `complete`.
            if self.shared.balance.load(Acquire) >= demand || fork::is_child() && self.meets_without_foreign(demand) {
                return true;
            }
            let late = is_past(deadline);
            let meanwhile = self.meanwhile(demand, deadline);
            if !late && meanwhile == Meanwhile::Claim && self.claim_one() {
                continue;
            }
            if !late {
                if current::may_be_needed() {
                    let own = self.inline_wait.same();
                    self.listen(&own, |source, listener| source.listen(&own, listener));
                    if meanwhile != Meanwhile::Claim && self.act(meanwhile) {
                        continue;
                    }
                }
                self.drive_one(demand, deadline, WaitMode::Spin);
            }
            let _entered = match deadline {
                None => match self.enter(count == self.items.len()) {
                    Some(entered) => Some(entered),
                    None => continue,
                },
                Some(_) => None,
            };
            return self.sleep_for(demand, deadline, meanwhile);
        }
    }

    /// Resets what was recorded for another thread, if the set has been moved to this one.
    fn waits_here(&mut self) {
        let here = current::key();
        if self.waited_on.replace(here) != Some(here) {
            (self.inline_wait, self.entered_for) = (InlineWaitGuard::new(), None);
            self.to_claim.clear();
            self.looked_at = 0;
        }
    }

    /// Called while the balance contains no demand.
    fn meanwhile(&self, demand: isize, deadline: Option<Instant>) -> Meanwhile {
        let all = demand == self.items.len() as isize;
        // If a failure is enough, the wait is for all only if a single future is left that may fail.
        let is_last = demand - self.shared.balance.load(Acquire) <= 1;
        match deadline {
            Some(_) => Meanwhile::Offload,
            None if all && (!self.shared.failure_is_enough || is_last) => Meanwhile::Claim,
            None => Meanwhile::OffloadOrClaim,
        }
    }

    /// Ready when `count` futures are done (or one has failed, where that is enough). Otherwise the waker is woken once when
    /// that may be so.
    pub(super) fn poll_for(&mut self, count: usize, context: &Context<'_>) -> Poll<()> {
        loop {
            ready!(self.poll_once(count, context));
            if self.is_really_over(count) {
                return Poll::Ready(());
            }
        }
    }

    fn poll_once(&mut self, count: usize, context: &Context<'_>) -> Poll<()> {
        let demand = isize::try_from(count).expect("no more futures than fit into memory");
        self.refuse_own(context.waker());
        let first = self.demand == 0;
        let in_place = InlineWait::in_place();
        if let Some(wait) = &in_place {
            self.offload_in_place(wait, demand, context.waker());
        }
        // AcqRel here and below: as in `sleep_for`.
        if self.shared.balance.fetch_add(self.demand, AcqRel) + std::mem::take(&mut self.demand) >= demand
            || fork::is_child() && self.meets_without_foreign(demand)
        {
            return Poll::Ready(());
        }
        if first
            && !current::may_be_needed()
            && spin::spin_before_pending(|| self.drive_one(demand, None, WaitMode::Poll))
        {
            return Poll::Ready(());
        }
        self.shared.set_waker(context.waker());
        // A thread that listed an item before the waker was stored may have woken nothing. This does not loop: a future that
        // wakes itself may wait for something else that the caller polls.
        if in_place.is_some() && !self.shared.pollable.lock().is_empty() {
            context.waker().wake_by_ref();
        }
        let balance = &self.shared.balance;
        if balance.fetch_sub(demand, AcqRel) >= demand {
            balance.fetch_add(demand, AcqRel);
            return Poll::Ready(());
        }
        self.demand = demand;
        Poll::Pending
    }

    /// Before it sleeps without a deadline inside a task, the thread enters what it waits for. Futures for which waiting would
    /// deadlock count as done from then on: returns `None` if there are any, since the demand may be met then.
    fn enter(&mut self, all: bool) -> Option<Entered> {
        let (items, refused) = (&self.items, &self.refused);
        // 0 for items that are no longer waited for. A future that is done and about to be counted is still waited for: its
        // completion follows.
        let task = |index: usize| {
            let source = items[index].as_ref().map(S::source).filter(|_| !refused.contains(&index));
            source.map_or(0, |source| source.address())
        };
        let tasks = || (0..items.len()).map(task);
        let wait = || {
            if all {
                let mut tasks: Vec<usize> = tasks().filter(|task| *task != 0).collect();
                tasks.sort_unstable();
                Wait::All(tasks.into())
            } else {
                Wait::Any(Arc::clone(self.left.get_or_insert_with(|| Arc::new(Left::new(tasks())))))
            }
        };
        let mut in_vain = match enter_wait(wait) {
            Ok(entered) => return Some(entered),
            Err(in_vain) => in_vain,
        };
        in_vain.sort_unstable();
        let is_in_vain = |index: &usize| in_vain.binary_search(&task(*index)).is_ok();
        let in_vain: Vec<usize> = (0..items.len()).filter(is_in_vain).collect();
        in_vain.into_iter().for_each(|index| self.refuse(index));
        None
    }

    /// If the polling task is among the items, counts it as done: waiting for itself would deadlock.
    fn refuse_own(&mut self, waker: &Waker) {
        if std::mem::replace(&mut self.own_refused, true) {
            return;
        }
        let is_own = |index: &usize| {
            let source = self.items[*index].as_ref().map(S::source).filter(|source| !source.is_done());
            source.is_some_and(|source| polls_itself(source.address(), waker))
        };
        let own: Vec<usize> = (0..self.items.len()).filter(is_own).collect();
        own.into_iter().for_each(|index| self.refuse(index));
    }

    /// Counts the future as done, and as failed, although it is neither: its `result` returns an error at once.
    fn refuse(&mut self, index: usize) {
        let node = &self.shared.nodes[index];
        let Some(item) = &mut self.items[index] else { return };
        if !self.refused.contains(&index) && item.source_mut().unregister(node.as_waiter()).is_ok() {
            // SAFETY: as in `dissolve`, which leaves this one out.
            unsafe { Arc::decrement_strong_count(node.shared) };
            self.refused.insert(index);
            self.shared.complete(node, true, &|| ());
        }
        self.forget_left(index);
    }

    fn forget_left(&self, index: usize) {
        if let Some(left) = &self.left {
            left.remove(index);
        }
    }

    /// In a forked child: resolves the futures of the parent's pools, and returns whether the demand is met then. There is no
    /// demand at the moment, so nothing is woken.
    #[cold]
    fn meets_without_foreign(&self, demand: isize) -> bool {
        for item in self.items.iter().flatten() {
            item.source().is_done();
        }
        self.shared.balance.load(Acquire) >= demand
    }

    /// Runs the first task that is still queued and that this thread may run. Each is checked once: a closure that could not be
    /// claimed never can be, and a future that is woken later is put on the list `pollable`.
    fn claim_one(&mut self) -> bool {
        while let Some(item) = self.items.get(self.looked_at) {
            self.looked_at += 1;
            let source = item.as_ref().map(S::source).filter(|source| source.may_claim());
            if source.is_some_and(|source| source.claim(&self.inline_wait)) {
                return true;
            }
        }
        false
    }

    /// Runs or offloads one task that this thread waits for. True if this thread has run one.
    fn act(&mut self, meanwhile: Meanwhile) -> bool {
        match meanwhile {
            Meanwhile::Claim => self.claim_woken(),
            Meanwhile::Offload => self.offload_one(false),
            Meanwhile::OffloadOrClaim => self.offload_one(true),
        }
    }

    /// Offloads the first task that could be claimed to another thread; if that is impossible and `or_here` is set, runs it here.
    /// True if it was run here. Offloaded items are checked again after the rest: a future that wakes itself can be claimed each
    /// time.
    fn offload_one(&mut self, or_here: bool) -> bool {
        while let Some(item) = self.items.get(self.looked_at) {
            match Self::offload(item, &self.inline_wait, self.inline_wait.unpark(), or_here) {
                Some(false) => {
                    self.to_claim.push_back(self.looked_at);
                    self.looked_at += 1;
                    return false;
                }
                Some(true) => {
                    self.look_again(self.looked_at);
                    self.looked_at += 1;
                    return true;
                }
                None => self.looked_at += 1,
            }
        }
        while let Some(index) = self.next_to_claim() {
            match Self::offload(&self.items[index], &self.inline_wait, self.inline_wait.unpark(), or_here) {
                Some(false) => {
                    self.to_claim.push_back(index);
                    return false;
                }
                Some(true) => {
                    self.look_again(index);
                    return true;
                }
                None => {}
            }
        }
        false
    }

    /// The item has been run here. If it is a future that has been woken in the meantime, it is checked again, after the others:
    /// a future that wakes itself might wait for them.
    fn look_again(&self, index: usize) {
        let may_be_polled = |item: &S| item.source().is_future() && item.source().claimable().is_some();
        if self.items[index].as_ref().is_some_and(may_be_polled) {
            self.shared.list(index);
        }
    }

    /// `None` if there is nothing to run; else whether it was run here.
    fn offload(item: &Option<S>, wait: &InlineWait, waker: &Waker, or_here: bool) -> Option<bool> {
        let source = item.as_ref().map(S::source)?;
        if wait.is_by_spare() && source.is_future() {
            return source.claim(wait).then_some(true);
        }
        match wait.offload(source, waker, or_here) {
            Offloaded::Nothing => None,
            Offloaded::ToOthers => Some(false),
            Offloaded::Impossible => source.claim(wait).then_some(true),
        }
    }

    /// Lets the executor of the first unfinished task use this thread; if it did, returns whether the demand is met.
    fn drive_one(&mut self, demand: isize, deadline: Option<Instant>, mode: WaitMode) -> Option<bool> {
        while let Some(item) = self.items.get(self.helped_at) {
            match item.as_ref().map(S::source) {
                Some(source) if !source.is_done() => {
                    let is_met = || self.shared.balance.load(Acquire) >= demand;
                    return source.drive_while_waiting(&is_met, deadline, mode).then(is_met);
                }
                _ => self.helped_at += 1,
            }
        }
        None
    }

    /// For a thread that polls on behalf of a blocking wait: like `Source::poll_in_place`, for the items that have not been
    /// checked, or have become pollable since; each once.
    fn offload_in_place(&mut self, wait: &InlineWait, demand: isize, waker: &Waker) {
        self.listen(wait, |source, listener| {
            source.listen(wait, listener);
            true
        });
        // Ahead of the offloaded items.
        for index in self.shared.pollable.lock().drain(..).rev() {
            self.to_claim.push_front(index);
        }
        for _ in 0..self.to_claim.len() {
            if self.shared.balance.load(Acquire) + self.demand >= demand {
                return;
            }
            let Some(index) = self.next_to_claim() else { return };
            match Self::offload(&self.items[index], wait, waker, true) {
                None => {}
                Some(true) => self.look_again(index),
                // Checked again at the next poll, for which the waker is woken.
                Some(false) => {
                    self.to_claim.push_back(index);
                    return;
                }
            }
        }
    }

    /// Registers a listener for all unfinished items, once for each wait, and schedules another check of the items for which
    /// `enter` is true.
    fn listen(&mut self, wait: &InlineWait, enter: impl Fn(&dyn Source, Listener<'_>) -> bool) {
        if self.entered_for.replace(wait.key()) == Some(wait.key()) {
            return;
        }
        let listener: Weak<dyn ItemListener> = Arc::downgrade(&self.shared) as Weak<dyn ItemListener>;
        let is_to_be_claimed = |index: &usize| {
            let source = self.items[*index].as_ref().map(S::source).filter(|source| !source.is_done());
            source.is_some_and(|source| enter(source, Listener::Item(&listener, *index)))
        };
        self.to_claim = (0..self.items.len()).filter(is_to_be_claimed).collect();
    }

    /// Returns the next item that the waiting side has to check.
    fn next_to_claim(&mut self) -> Option<usize> {
        if self.to_claim.is_empty() {
            self.to_claim.extend(self.shared.pollable.lock().drain(..));
        }
        let index = self.to_claim.pop_front()?;
        // AcqRel: the poll sees what the waking thread did before it listed the item, or the item is listed again.
        self.shared.nodes[index].listed.swap(false, AcqRel);
        Some(index)
    }

    /// Polls one future that was woken; false if there is none.
    fn claim_woken(&mut self) -> bool {
        while let Some(index) = self.next_to_claim() {
            if self.items[index].as_ref().map(S::source).is_some_and(|source| source.claim(&self.inline_wait)) {
                return true;
            }
        }
        false
    }

    fn sleep_for(&mut self, demand: isize, deadline: Option<Instant>, meanwhile: Meanwhile) -> bool {
        let listens = self.entered_for.is_some();
        *self.shared.sleeper.lock() = Some(Sleeper::Thread(Unparker::current()));
        // Release: the thread that raises the balance to 0 finds the sleeper.
        self.shared.balance.fetch_sub(demand, AcqRel);
        while self.shared.balance.load(Acquire) < 0 {
            let acted = listens && !is_past(deadline) && self.act(meanwhile);
            if !acted && !park(deadline) {
                break;
            }
        }
        self.inline_wait.pause();
        // Withdraws the demand; a completion after the loop still counts.
        self.shared.balance.fetch_add(demand, AcqRel) >= 0
    }

    /// Adds to `to` the indices of the futures that have completed since the last call, in the order of completion.
    pub(super) fn drain(&mut self, to: &mut impl Extend<usize>) {
        // Acquire pairs with the Release of `complete`: the links are visible.
        let mut newest_first = self.shared.stack.swap(ptr::null_mut(), Acquire);
        let mut indices = Vec::new();
        // SAFETY: the stack holds nodes of `shared.nodes`, which lives as long as `self.shared`.
        while let Some(node) = unsafe { newest_first.as_ref() } {
            indices.push(node.index);
            self.forget_left(node.index);
            newest_first = node.next.load(Relaxed);
        }
        to.extend(indices.into_iter().rev());
    }

    /// If a failure is enough, and one may have ended the wait: whether it really failed. Some values are created only when they
    /// are inspected, and that may fail. If none has failed, the wait may have to go on: returns whether `count` futures are
    /// done.
    fn is_really_over(&mut self, count: usize) -> bool {
        // AcqRel: what has completed before this is on the stack, and a failure from now on is enough again.
        while self.shared.failure_is_enough && self.shared.failed.swap(false, AcqRel) {
            let mut completed = Vec::new();
            self.drain(&mut completed);
            let has_failed = |index: usize| {
                self.refused.contains(&index)
                    || self.items[index].as_ref().is_some_and(|item| item.source().has_failed())
            };
            if completed.into_iter().any(has_failed) {
                return true;
            }
            let balance = self.shared.balance.fetch_sub(ENOUGH - 1, AcqRel) - (ENOUGH - 1);
            if balance < count as isize {
                return false;
            }
            // All are done, or another one that may have failed has completed meanwhile.
        }
        true
    }

    /// Takes an item whose future is done.
    pub(super) fn take_done(&mut self, index: usize) -> S {
        self.items[index].take().expect("a future completes once")
    }

    /// Ends the registrations, and returns the items that have not been taken, in the original order.
    pub(super) fn dissolve(&mut self) -> impl Iterator<Item = S> + use<S> {
        for (item, node) in self.items.iter_mut().zip(&self.shared.nodes).take(self.registered) {
            let Some(item) = item.as_mut().filter(|_| !self.refused.contains(&node.index)) else { continue };
            if item.source_mut().unregister(node.as_waiter()).is_ok() {
                // SAFETY: the registration is undone, so its strong reference, from `new`, is released here. It is not the last
                // one: `self` has its own.
                unsafe { Arc::decrement_strong_count(node.shared) };
            }
        }
        self.registered = 0;
        self.refused.clear();
        (self.inline_wait, self.entered_for) = (InlineWaitGuard::new(), None);
        self.to_claim.clear();
        let waker = self.shared.sleeper.lock().take();
        // A waker's destructor is the runtime's code.
        quiet::drop(waker);
        std::mem::take(&mut self.items).into_iter().flatten()
    }
}

impl<S: Completable> CompletionSet<S> {
    /// Like [`dissolve`](Self::dissolve), for a set from which nothing was taken: returns what counts as done, and the rest.
    pub(super) fn partition(&mut self) -> (Vec<S>, Vec<S>) {
        let refused = self.refused.clone();
        let (mut done, mut not_done) = (Vec::new(), Vec::new());
        for (index, item) in self.dissolve().enumerate() {
            let is_done = item.source().is_done() || refused.contains(&index);
            if is_done { done.push(item) } else { not_done.push(item) }
        }
        (done, not_done)
    }
}

impl<S: Completable> Drop for CompletionSet<S> {
    fn drop(&mut self) {
        drop(self.dissolve());
    }
}

impl Node {
    fn new(shared: *const Shared, index: usize) -> Self {
        Self {
            waiter: Waiter::new(Self::notify),
            shared,
            index,
            next: AtomicPtr::new(ptr::null_mut()),
            listed: AtomicBool::new(false),
        }
    }

    /// The node as its future sees it; the pointer is valid for the whole node.
    fn as_waiter(&self) -> NonNull<Waiter> {
        NonNull::from(self).cast()
    }

    unsafe fn notify(waiter: NonNull<Waiter>, failed: bool, about_to_call: &dyn Fn()) {
        // SAFETY: `waiter` is the first field of a node (repr(C)), alive by the reference that its registration holds.
        let node = unsafe { waiter.cast::<Self>().as_ref() };
        // SAFETY: that very reference, which `new` leaked for this call.
        let shared = unsafe { Arc::from_raw(node.shared) };
        shared.complete(node, failed, about_to_call);
    }
}

impl ItemListener for Shared {
    fn may_be_polled(&self, index: usize) {
        if self.list(index) {
            self.wake(&|| ());
        }
    }
}

impl Shared {
    /// Puts an item on the list `pollable`; returns whether it was not there yet.
    fn list(&self, index: usize) -> bool {
        // AcqRel: see `next_to_claim`.
        let is_new = !self.nodes[index].listed.swap(true, AcqRel);
        if is_new {
            self.pollable.lock().push(index);
        }
        is_new
    }

    fn complete(&self, node: &Node, failed: bool, about_to_call: &dyn Fn()) {
        let node_ptr = (&raw const *node).cast_mut();
        let mut top = self.stack.load(Relaxed);
        loop {
            node.next.store(top, Relaxed);
            // Release: the link is visible to the thread that takes the stack.
            match self.stack.compare_exchange_weak(top, node_ptr, Release, Relaxed) {
                Ok(_) => break,
                Err(changed) => top = changed,
            }
        }
        let first_failure = failed && self.failure_is_enough && !self.failed.swap(true, AcqRel);
        let weight = if first_failure { ENOUGH } else { 1 };
        // Release: a thread that sees the sum sees the stack. Acquire: the sleeper is visible.
        let before = self.balance.fetch_add(weight, AcqRel);
        if before < 0 && before + weight >= 0 {
            self.wake(about_to_call);
        }
    }

    /// A waker is removed: the poll that it causes stores a new one. A thread remains, since it may have been woken for an
    /// earlier demand, and sleep on.
    fn wake(&self, about_to_call: &dyn Fn()) {
        let mut sleeper = self.sleeper.lock();
        match sleeper.take() {
            Some(Sleeper::Thread(thread)) => {
                *sleeper = Some(Sleeper::Thread(thread.clone()));
                drop(sleeper);
                thread.unpark();
            }
            Some(Sleeper::Waker(waker)) => {
                drop(sleeper);
                if !only_unparks(&waker) {
                    about_to_call();
                }
                // A waker is the runtime's code; its panic must not reach the resolver.
                quiet::call(|| waker.wake());
            }
            None => {}
        }
    }

    fn set_waker(&self, waker: &Waker) {
        let is_there = matches!(&*self.sleeper.lock(), Some(Sleeper::Waker(old)) if old.will_wake(waker));
        if !is_there {
            // Cloning and dropping wakers is the runtime's code, so it happens outside the lock.
            let new = Sleeper::Waker(waker.clone());
            let old = self.sleeper.lock().replace(new);
            quiet::drop(old);
        }
    }
}
