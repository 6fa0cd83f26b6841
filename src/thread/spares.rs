//! Spare threads: each runs one task for a thread of the pool that waits for the task and must not run it itself (see
//! `future::offload`), and then ends, unless the same wait gives it another task within a short time.
//!
//! A spare thread is a [`Worker`](super::worker::Worker) that does not search for work: no other thread sees its queues, and the
//! counts of `sleep` do not include it. There are at most `max_workers` of them.

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

/// How long a wait that could run a task in place first waits for the end of a spare thread whose own wait has ended. The end of
/// that wait has often just unblocked the spare thread's task.
const GRACE: Duration = Duration::from_millis(100);

pub(super) struct Spares {
    pub(super) watch: Watch,
    table: Mutex<Table>,
    /// Signalled when a spare thread ends.
    ended: Condvar,
    /// Held while threads are joined, so that no caller of several returns before all threads have ended.
    joining: Mutex<()>,
}

#[derive(Default)]
struct Table {
    /// By the key of the wait.
    running: BTreeMap<u64, Running>,
    /// How many running spare threads belong to waits that have ended.
    orphans: usize,
    /// How many of the running threads have no task any more. A thread is counted here before the result of its task is
    /// published: a thread that sees the result and waits again knows that there will be room.
    leaving: usize,
    threads: Vec<JoinHandle<()>>,
    /// The wakers to wake when a spare thread has ended, or continues although it was about to end; by the key of the wait.
    short: BTreeMap<u64, Wakers>,
    /// The sum of the counters of spare threads that have ended.
    past: Counters,
}

/// Sends a spare thread the task to run.
type Give = mpsc::SyncSender<Claimed>;
type Spawned = (JoinHandle<()>, Give);

/// No spare thread could be started. Holds the lock, so that no other thread changes the table.
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

    /// How many tasks all spare threads, past and present, have completed.
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

    /// Starts a thread by `spawn`, if fewer than `max` are running. If all are running tasks, some of them for waits that have
    /// ended, first waits up to `patience` for one to end.
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

    /// It has got another task. If no other thread is leaving, waits that relied on its end may have to run their task in place.
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

    /// Wakes the waits that could not get a spare thread, so that they try again.
    pub(super) fn wake_short(&self) {
        let short = std::mem::take(&mut self.table.lock().short);
        // Wakers are user code.
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

    /// Blocks until no spare thread is left or the deadline has passed; returns whether none is left. Then all of them have been
    /// joined.
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
        // Unless the pool is refusing, its hooks have not been dropped, so a claimed task runs after the initializer.
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
