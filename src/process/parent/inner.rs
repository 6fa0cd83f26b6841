//! A pool: its lock, and what is done after it is released.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use super::callbacks::{CallbackHost, Callbacks, Resolving};
use super::config::Config;
use super::deferred::Deferred;
use super::job::Job;
use super::state::State;
use crate::executor::Capacity;
use crate::fork::{Origin, PerProcess};
use crate::lock::{Condvar, Mutex, MutexGuard, RwLock};
use crate::os::events::Events;
use crate::process::link::Shared;
use crate::quiet;

/// All pools of this process. A task may outlive its pool, so it holds only the pool's number.
static POOLS: PerProcess<RwLock<BTreeMap<usize, Weak<Inner>>>> = PerProcess::new();

pub(crate) struct Inner {
    /// The process that the pool was built in, and a number that no other pool has.
    origin: Origin,
    pub(crate) config: Arc<Config>,
    pub(super) state: Mutex<State>,
    pub(super) events: Events,
    pub(crate) capacity: Option<Arc<Capacity>>,
    next_id: AtomicU64,
    /// The shared memory of all workers, so that replies can be looked for without the lock of the state.
    pub(super) rings: RwLock<Arc<[Arc<Shared>]>>,
    pub(super) callbacks: Callbacks,
    /// A reference to this value itself.
    pub(super) this: Weak<Self>,
    pub(super) ended: Condvar,
    pub(super) supervisor: Mutex<Option<JoinHandle<()>>>,
    /// The pool was shut down without waiting for its end, so dropping it does not wait either.
    pub(crate) is_left_alone: AtomicBool,
}

impl Inner {
    pub(crate) fn new(
        config: Config,
        max_workers: usize,
        capacity: Option<Arc<Capacity>>,
    ) -> std::io::Result<Arc<Self>> {
        let config = Arc::new(config);
        let state = State::new(max_workers, &config);
        let events = Events::new()?;
        let inner = Arc::new_cyclic(|this| Self {
            origin: Origin::new(),
            config,
            state: Mutex::new(state),
            events,
            capacity,
            next_id: AtomicU64::new(1),
            rings: RwLock::new(Arc::new([])),
            callbacks: Callbacks::default(),
            this: Weak::clone(this),
            ended: Condvar::new(),
            supervisor: Mutex::new(None),
            is_left_alone: AtomicBool::new(false),
        });
        POOLS.get().write().insert(inner.id(), Arc::downgrade(&inner));
        Ok(inner)
    }

    /// Returns the pool with that number; `None` if it has been dropped, or was built in another process.
    pub(super) fn of(number: usize) -> Option<Arc<Self>> {
        POOLS.get().read().get(&number)?.upgrade()
    }

    pub(crate) fn id(&self) -> usize {
        self.origin.number()
    }

    /// Returns `true` in the process that built the pool. In a forked child, locks may be held by threads that do not exist
    /// there, and the descriptors, rings and workers are the parent's, so nothing of the pool may be touched. Costs one load.
    #[inline(always)]
    pub(crate) fn is_here(&self) -> bool {
        self.origin.is_here()
    }

    pub(crate) fn next_task_id(&self) -> u64 {
        self.next_id.fetch_add(1, Relaxed)
    }

    /// Changes the state, releases the lock, and carries out what was deferred.
    pub(super) fn change<R>(&self, f: impl FnOnce(&mut State, &mut Deferred) -> R) -> R {
        let mut state = self.state.lock();
        let mut deferred = Deferred::new();
        let result = f(&mut state, &mut deferred);
        self.release(state, deferred);
        result
    }

    /// Releases the lock, and carries out what was deferred. The supervisor does not end the pool before the tasks are resolved.
    pub(super) fn release(&self, mut state: MutexGuard<'_, State>, mut deferred: Deferred) {
        let settles = !deferred.settle.is_empty();
        if settles {
            state.lifecycle.begin_settling();
        }
        drop(state);
        self.settle(&mut deferred);
        if settles {
            let mut state = self.state.lock();
            state.spare.keep(deferred);
            let was_last = state.lifecycle.end_settling();
            drop(state);
            if was_last {
                self.wake_supervisor();
            }
        }
    }

    /// Wakes the supervisor. If that is impossible, because the program has closed the pool's descriptors, the pool is ended.
    pub(super) fn wake_supervisor(&self) {
        if !self.events.wake() {
            self.descriptors_are_closed();
        }
    }

    /// Collects the replies that have arrived. Does not take the lock of the state if no ring has any.
    pub(super) fn collect(&self) {
        if self.has_replies() {
            self.collect_all();
        }
    }

    /// Collects the replies that have arrived, and hands out tasks.
    pub(super) fn collect_all(&self) {
        self.change(|state, deferred| {
            state.collect(deferred);
            state.settle_down(deferred);
        });
    }

    /// Returns `true` if a ring has replies. Does not take the lock of the state.
    pub(super) fn has_replies(&self) -> bool {
        self.rings.read().iter().any(|shared| shared.has_replies())
    }

    /// Carries out what was deferred, without the lock. Futures that have callbacks are passed to the callback thread.
    fn settle(&self, deferred: &mut Deferred) {
        if deferred.is_nothing() {
            return;
        }
        let Deferred { settle, arguments, wake_waiters_of, wake_supervisor, now: _ } = deferred;
        arguments.drain(..).for_each(quiet::drop);
        let _resolving = (!settle.is_empty()).then(|| Resolving::futures_of(self.id()));
        for (job, raw) in settle.drain(..) {
            let Job { sink, argument, .. } = *job;
            if let Some(unpublished) = sink.settle(raw, argument) {
                match self.this.upgrade() {
                    Some(inner) => self.callbacks.add(&inner, unpublished),
                    None => unpublished.publish(),
                }
            }
        }
        for shared in wake_waiters_of.drain(..) {
            shared.wake_sleepers();
        }
        if *wake_supervisor {
            self.wake_supervisor();
        }
    }

    /// A future has been resolved or cancelled: wakes all threads that sleep on a ring, to check theirs.
    pub(super) fn wake_all_sleepers(&self) {
        let rings = Arc::clone(&self.rings.read());
        rings.iter().for_each(|shared| shared.wake_sleepers());
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        POOLS.get().write().remove(&self.id());
    }
}

impl CallbackHost for Inner {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn id(&self) -> usize {
        self.id()
    }

    fn callbacks(&self) -> &Callbacks {
        &self.callbacks
    }

    fn has_published(&self) {
        // A thread that waits for this future may be asleep on the ring of any worker.
        self.wake_all_sleepers();
    }

    fn has_published_all(&self) {
        // The pool may have waited for the last of them.
        self.wake_supervisor();
    }
}
