//! Spare threads: each runs a task for a thread of the pool that waits for it and must not run it itself (see
//! `future::offload`), and ends, unless the same wait has another one for it within a moment.
//!
//! A spare thread is a [`Worker`](super::worker::Worker) that looks for no work: it has no queue, nobody steals from it, and
//! the counts of `sleep` do not include it. There are at most as many as the pool may have workers.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::task::Waker;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::lock::{Condvar, Mutex, MutexGuard};

use super::core::Core;
use super::registry::WorkerHandle;
use super::stats::Counters;
use super::watch::Watch;
use super::worker;
use crate::future::{Claimed, Offload, SpareHost, StartSpare, Wakers};
use crate::quiet;

/// How long a wait that could run a task in place first waits for a spare thread whose own wait has ended. The end of that wait
/// has often just unblocked its task.
const GRACE: Duration = Duration::from_millis(100);

pub(super) struct Spares {
    pub(super) watch: Watch,
    table: Mutex<Table>,
    /// Signalled when a spare thread ends.
    ended: Condvar,
    /// Held by whoever joins threads, so that of several callers none returns before they are gone.
    joining: Mutex<()>,
}

#[derive(Default)]
struct Table {
    /// By the key of the wait.
    running: BTreeMap<u64, Running>,
    /// How many running spare threads belong to waits that have ended.
    orphans: usize,
    /// How many of those that run have no task any more. Such a thread is counted here before the result of its task is out:
    /// whoever sees the result and waits again knows that there will be room.
    leaving: usize,
    threads: Vec<JoinHandle<()>>,
    /// Who is to be woken when a spare thread has ended, or goes on although it was about to end; by the key of the wait.
    short: BTreeMap<u64, Wakers>,
    /// What the spare threads that have ended did.
    past: Counters,
}

/// How a spare thread is given what it is to run.
type Give = mpsc::SyncSender<Claimed>;
type Spawned = (JoinHandle<()>, Give);

/// There is no thread; nobody else changes the table for the time being.
struct Full<'a> {
    /// A spare thread is about to end.
    one_leaves: bool,
    table: MutexGuard<'a, Table>,
}

/// A spare thread that has not ended.
struct Running {
    handle: Arc<WorkerHandle>,
    is_orphan: bool,
}

impl Spares {
    pub(super) fn new() -> Self {
        Self { watch: Watch::new(), table: Mutex::default(), ended: Condvar::new(), joining: Mutex::new(()) }
    }

    pub(super) fn count(&self) -> usize {
        self.table.lock().running.len()
    }

    /// What all spare threads, past and present, have done.
    pub(super) fn completed(&self) -> u64 {
        let table = self.table.lock();
        let sum = Counters::default();
        table
            .running
            .values()
            .map(|running| &running.handle.counters)
            .chain([&table.past])
            .for_each(|counters| sum.add(counters));
        sum.read().0
    }

    /// Starts a thread by `spawn`, if there are fewer than `max`, or soon will be and the caller has `patience`.
    fn start(
        &self,
        max: usize,
        key: u64,
        patience: Duration,
        spawn: impl FnOnce(Arc<WorkerHandle>) -> io::Result<Spawned>,
    ) -> Result<Give, Full<'_>> {
        let mut table = self.table.lock();
        let start = Instant::now();
        while table.running.len() >= max && table.leaving == 0 && table.orphans > 0 && start.elapsed() < patience {
            self.ended.wait_until(&mut table, Some(start + patience));
        }
        if table.running.len() >= max {
            return Err(Full { one_leaves: table.leaving > 0, table });
        }
        // Threads that have ended need no joining; keeping their handles would keep their stacks.
        if table.threads.len() > 2 * table.running.len() + 4 {
            table.threads.retain(|handle| !handle.is_finished());
        }
        let number = worker::with_current(|worker| worker.number).unwrap_or_default();
        let handle = Arc::new(WorkerHandle::new(number));
        // Under the lock, so that the handle is there before the thread ends.
        match spawn(Arc::clone(&handle)) {
            Ok((thread, give)) => {
                table.running.insert(key, Running { handle, is_orphan: false });
                table.threads.push(thread);
                Ok(give)
            }
            Err(_) => Err(Full { one_leaves: false, table }),
        }
    }

    /// A spare thread has no task any more, and will end.
    pub(super) fn leaves(&self) {
        self.table.lock().leaving += 1;
    }

    /// It has got another one. Who relies on its end, and on that of no other thread, may have to run its task in place.
    pub(super) fn stays(&self) {
        let leaving = {
            let mut table = self.table.lock();
            table.leaving -= 1;
            table.leaving
        };
        if leaving == 0 {
            self.wake_short();
        }
    }

    /// Who could not have a thread may try again.
    pub(super) fn wake_short(&self) {
        let short = std::mem::take(&mut self.table.lock().short);
        // Wakers are the user's code.
        short.into_values().flatten().for_each(|waker| quiet::call(|| waker.wake()));
    }

    /// A spare thread, counted as leaving, is about to end.
    pub(super) fn ended(&self, key: u64) {
        {
            let mut table = self.table.lock();
            table.leaving -= 1;
            if let Some(running) = table.running.remove(&key) {
                table.orphans -= usize::from(running.is_orphan);
                table.past.add(&running.handle.counters);
            }
            self.ended.notify_all();
        }
        self.wake_short();
    }

    /// Blocks until no spare thread is left, or the deadline; says whether none is left. All of them have been joined then.
    pub(super) fn wait_until_empty(&self, deadline: Option<Instant>) -> bool {
        let mut table = self.table.lock();
        if !self.ended.wait_while(&mut table, deadline, |table| !table.running.is_empty()) {
            return false;
        }
        drop(table);
        let _joining = self.joining.lock();
        let threads = std::mem::take(&mut self.table.lock().threads);
        for thread in threads {
            let _ = thread.join();
        }
        true
    }
}

impl SpareHost for Core {
    fn grow(&self) {
        let counts = self.sleep.counts();
        if counts.is_nobody_free() {
            self.grow_if_room(counts);
        }
    }

    fn leave_to_workers(&self, key: u64, waker: &mut Option<Waker>) -> bool {
        self.is_anyone_free() && self.spares.watch.watch(&self.sleep, key, waker)
    }

    fn is_anyone_free(&self) -> bool {
        !self.sleep.counts().is_nobody_free()
    }

    fn start_spare(&self, offload: &Arc<Offload>, or_here: bool, waker: &mut Option<Waker>) -> StartSpare {
        let Some(me) = self.myself() else { return StartSpare::Impossible };
        // As long as the pool does not refuse, these are all that it has: a task that is claimed runs behind the initializer.
        let hooks = self.hooks();
        let start = |handle| worker::start_spare(me, handle, Arc::clone(offload), hooks.clone());
        let patience = if or_here { GRACE } else { Duration::ZERO };
        let started = if self.sleep.counts().is_refusing() {
            Err(Full { one_leaves: false, table: self.spares.table.lock() })
        } else {
            self.spares.start(self.max_workers(), offload.key(), patience, start)
        };
        let started = match started {
            Ok(give) => StartSpare::Started(give),
            Err(full) if or_here && !full.one_leaves => StartSpare::Impossible,
            Err(mut full) => {
                full.table.short.entry(offload.key()).or_default().add(waker);
                StartSpare::Later
            }
        };
        quiet::drop(hooks);
        started
    }

    fn wait_ended(&self, key: u64) {
        let mut table = self.spares.table.lock();
        let orphan =
            table.running.get_mut(&key).is_some_and(|running| !std::mem::replace(&mut running.is_orphan, true));
        table.orphans += usize::from(orphan);
    }

    fn forget(&self, key: u64) -> Vec<Waker> {
        let watching = self.spares.watch.forget(&self.sleep, key);
        let short = self.spares.table.lock().short.remove(&key).unwrap_or_default();
        watching.into_iter().chain(short).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::Wake;
    use std::thread;

    use super::super::core::{Config, Hooks};
    use super::*;

    struct Counting(AtomicUsize);

    impl Wake for Counting {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// A wait that could run its task in place relies on the end of a spare thread, which gets another task.
    #[test]
    fn who_relies_on_a_spare_thread_that_stays_is_woken() {
        let config = Config { name: "spares".to_owned(), stack_size: None, idle_timeout: None };
        let core = Core::new(config, Hooks::default(), 2, None);
        let spawn = |_| Ok((thread::spawn(|| ()), mpsc::sync_channel(1).0));
        for key in [1, 2] {
            assert!(core.spares.start(2, key, Duration::ZERO, spawn).is_ok());
        }
        core.spares.leaves();
        core.spares.leaves();
        let counting = Arc::new(Counting(AtomicUsize::new(0)));
        let started = core.start_spare(&Arc::new(Offload::new(3)), true, &mut Some(Waker::from(Arc::clone(&counting))));
        assert!(matches!(started, StartSpare::Later));
        core.spares.stays();
        assert_eq!(counting.0.load(SeqCst), 0, "the other one still leaves");
        core.spares.stays();
        assert_eq!(counting.0.load(SeqCst), 1);
    }
}
