//! The threads of a pool: which there are, their numbers, and when all have ended.
//!
//! What other workers see of a worker is a [`WorkerHandle`], which belongs to its number: it is created for the first thread with
//! that number, reused by the next one, and dropped with the pool. So the cost of starting and ending a thread does not depend on
//! the number of threads, and access to the handles needs no lock and no copy of a list.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::lock::{Condvar, Mutex};
use crossbeam::deque::{Stealer, Worker as Deque};
use crossbeam::utils::CachePadded;

use super::batch::Batch;
use super::join::JobRef;
use super::stats::Counters;
use crate::executor::MAX_WORKERS;
use crate::future::Task;

/// What the workers of a pool see of each other.
pub(super) struct WorkerHandle {
    pub(super) number: usize,
    pub(super) tasks: Stealer<Task>,
    pub(super) jobs: Stealer<JobRef>,
    pub(super) counters: Counters,
    /// The worker's own ends of its queues, while no thread has the number.
    ends: Mutex<Option<Ends>>,
    /// The batch that the worker took last.
    pub(super) batch: Batch,
}

/// The ends of a worker's own queues that only the worker uses.
pub(super) struct Ends {
    /// The batch that it has taken, first in, first out.
    pub(super) tasks: Deque<Task>,
    /// The second halves of the `join`s on its stack, newest first.
    pub(super) jobs: Deque<JobRef>,
}

impl WorkerHandle {
    pub(super) fn new(number: usize) -> Self {
        let (tasks, jobs) = (Deque::new_fifo(), Deque::new_lifo());
        Self {
            number,
            tasks: tasks.stealer(),
            jobs: jobs.stealer(),
            counters: Counters::default(),
            ends: Mutex::new(Some(Ends { tasks, jobs })),
            batch: Batch::new(),
        }
    }

    /// Called by the thread that got the number.
    pub(super) fn take_ends(&self) -> Ends {
        self.ends.lock().take().expect("a number has one thread at a time")
    }

    pub(super) fn give_ends_back(&self, ends: Ends) {
        *self.ends.lock() = Some(ends);
    }

    /// The number of entries in the worker's own queues.
    pub(super) fn waiting(&self) -> usize {
        self.tasks.len() + self.jobs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.jobs.is_empty()
    }
}

type Chunk = Box<[OnceLock<Arc<WorkerHandle>>]>;

/// The places of all workers, by number, in chunks that never move; each chunk is twice as long as the one before.
struct Places {
    chunks: [OnceLock<Chunk>; CHUNKS],
    /// The number of places, from number 0 on, that have been used.
    used: CachePadded<AtomicUsize>,
}

const FIRST_CHUNK: usize = 32;
const CHUNKS: usize = 11;
const _: () = assert!(FIRST_CHUNK * ((1 << CHUNKS) - 1) >= MAX_WORKERS);

impl Places {
    fn new() -> Self {
        Self { chunks: [const { OnceLock::new() }; CHUNKS], used: CachePadded::new(AtomicUsize::new(0)) }
    }

    /// The chunk of a number, and the position in that chunk.
    fn locate(number: usize) -> (usize, usize) {
        let chunk = (number / FIRST_CHUNK + 1).ilog2();
        (chunk as usize, number - FIRST_CHUNK * ((1 << chunk) - 1))
    }

    /// Creates the place for a number on its first use. New numbers are consecutive.
    fn make(&self, number: usize) {
        let (chunk, at) = Self::locate(number);
        let chunk = self.chunks[chunk].get_or_init(|| (0..FIRST_CHUNK << chunk).map(|_| OnceLock::new()).collect());
        chunk[at].get_or_init(|| Arc::new(WorkerHandle::new(number)));
        if number >= self.used.load(Relaxed) {
            // Release: a thread that sees the number finds the place.
            self.used.store(number + 1, Release);
        }
    }

    fn get(&self, number: usize) -> Option<&Arc<WorkerHandle>> {
        let (chunk, at) = Self::locate(number);
        self.chunks.get(chunk)?.get()?.get(at)?.get()
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<WorkerHandle>> {
        let used = self.used.load(Acquire);
        let workers = self.chunks.iter().map_while(OnceLock::get).flatten().map_while(OnceLock::get);
        workers.take(used)
    }
}

pub(super) struct Registry {
    places: Places,
    table: Mutex<Table>,
    /// How many workers are inside a `join`.
    joins: CachePadded<AtomicUsize>,
    /// Signalled when the last thread ends.
    emptied: Condvar,
    /// Held while threads are joined, so that no caller of several returns before all threads have ended.
    joining: Mutex<()>,
}

struct Table {
    /// The numbers below `next` that no running or starting thread has.
    free: BinaryHeap<Reverse<usize>>,
    next: usize,
    handles: Vec<JoinHandle<()>>,
    /// The number of threads, including those being started.
    threads: usize,
    /// How many threads are being started, and have no handle yet.
    starting: usize,
    /// How many of the threads may still run tasks.
    active: usize,
}

impl Table {
    fn is_empty(&self) -> bool {
        self.threads == 0 && self.starting == 0
    }

    fn take_number(&mut self) -> usize {
        self.threads += 1;
        self.active += 1;
        if let Some(Reverse(number)) = self.free.pop() {
            return number;
        }
        self.next += 1;
        self.next - 1
    }

    fn free_number(&mut self, number: usize) {
        self.threads -= 1;
        self.free.push(Reverse(number));
    }

    /// Threads that have ended need no joining; keeping their handles would keep their stacks. The handles are scanned only when
    /// more than half may be of ended threads, so at an amortized constant cost per thread.
    fn forget_ended(&mut self) {
        if self.handles.len() > 2 * self.threads {
            self.handles.retain(|handle| !handle.is_finished());
        }
    }
}

impl Registry {
    pub(super) fn new() -> Self {
        let table = Table { free: BinaryHeap::new(), next: 0, handles: Vec::new(), threads: 0, starting: 0, active: 0 };
        Self {
            places: Places::new(),
            table: Mutex::new(table),
            joins: CachePadded::new(AtomicUsize::new(0)),
            emptied: Condvar::new(),
            joining: Mutex::new(()),
        }
    }

    /// Starts a thread by `spawn`, under the lowest free number, if `wanted` returns true. `wanted` decides under the lock
    /// whether a closed pool gets a thread; a shutdown that waits waits for that thread too.
    pub(super) fn start(
        &self,
        wanted: impl FnOnce() -> bool,
        spawn: impl FnOnce(usize) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<()> {
        let number = {
            let mut table = self.table.lock();
            if !wanted() {
                return Ok(());
            }
            table.forget_ended();
            let number = table.take_number();
            table.starting += 1;
            self.places.make(number);
            number
        };
        // Outside the lock, since starting a thread may take long.
        let spawned = spawn(number);
        let mut table = self.table.lock();
        table.starting -= 1;
        let outcome = match spawned {
            Ok(handle) => {
                table.handles.push(handle);
                Ok(())
            }
            Err(error) => {
                table.active -= 1;
                table.free_number(number);
                Err(error)
            }
        };
        self.tell_if_empty(&table);
        outcome
    }

    fn tell_if_empty(&self, table: &Table) {
        if table.is_empty() {
            self.emptied.notify_all();
        }
    }

    /// A thread has left the counts of `sleep` and will run no more tasks.
    pub(super) fn retired(&self) {
        self.table.lock().active -= 1;
    }

    /// Whether there is a thread that may still run tasks.
    pub(super) fn is_active(&self) -> bool {
        self.table.lock().active > 0
    }

    /// The thread with that number is about to return.
    pub(super) fn ended(&self, number: usize) {
        let mut table = self.table.lock();
        table.free_number(number);
        self.tell_if_empty(&table);
    }

    /// The handles of all workers, including those that have ended; the queues of the latter are empty.
    pub(super) fn workers(&self) -> impl Iterator<Item = &Arc<WorkerHandle>> {
        self.places.iter()
    }

    pub(super) fn worker(&self, number: usize) -> Option<&Arc<WorkerHandle>> {
        self.places.get(number)
    }

    /// The number of places: the most threads that the pool has had at the same time.
    pub(super) fn places(&self) -> usize {
        self.places.used.load(Acquire)
    }

    /// A worker enters a `join`, the first one on its stack. SeqCst, like everything that is checked before a worker sleeps.
    pub(super) fn join_begins(&self) {
        self.joins.fetch_add(1, SeqCst);
    }

    pub(super) fn join_ends(&self) {
        self.joins.fetch_sub(1, Release);
    }

    /// Whether there may be jobs in the queues of workers.
    pub(super) fn anyone_joins(&self) -> bool {
        self.joins.load(SeqCst) > 0
    }

    /// The sum of the counters of all workers, past and present.
    pub(super) fn counters(&self) -> Counters {
        let sum = Counters::default();
        self.workers().for_each(|handle| sum.add(&handle.counters));
        sum
    }

    /// Blocks until no thread is left or the deadline has passed; returns whether none is left. Then all of them have been
    /// joined.
    pub(super) fn wait_until_empty(&self, deadline: Option<Instant>) -> bool {
        let mut table = self.table.lock();
        if !self.emptied.wait_while(&mut table, deadline, |table| !table.is_empty()) {
            return false;
        }
        drop(table);
        // The threads have only destructors of thread-locals left to run, which may lock the table.
        let _joining = self.joining.lock();
        let handles = std::mem::take(&mut self.table.lock().handles);
        for handle in handles {
            let _ = handle.join();
        }
        true
    }
}
