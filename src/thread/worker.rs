//! A worker: one thread that finds work and runs it.

use std::cell::{Cell, RefCell};
use std::io;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{Ordering::*, fence};
use std::thread::{self, Thread};
use std::time::Instant;

use crossbeam::deque::Worker as Deque;

use super::core::{Core, PoolId};
use super::join::JobRef;
use super::queues;
use super::roster::{Peer, Peers};
use super::sleep::{Bed, Counts, Woken};
use super::stats::Tally;
use crate::current;
use crate::error::Cause;
use crate::executor::Priority;
use crate::future::Task;
use crate::spin::{self, ONE_WAKE_UP, Patience};
use crate::unwind;

/// Every so many tasks a worker fetches from the shared queue although it has tasks of its own, so that tasks which
/// submit tasks for ever cannot keep what came from outside waiting for ever. What it fetches goes behind what it has.
const FAIRNESS: u32 = 32;

thread_local! {
    /// The worker that this thread is.
    static CURRENT: Cell<*const Worker> = const { Cell::new(ptr::null()) };
    /// The pool whose worker this thread was: destructors of thread-locals may still run.
    static FORMER: Cell<Option<PoolId>> = const { Cell::new(None) };
    /// The pools whose futures this thread, which may be nobody's worker, is dropping.
    static INSIDE: RefCell<Vec<PoolId>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Worker {
    pub(super) core: Arc<Core>,
    pub(super) number: usize,
    /// Tasks submitted from inside, first in, first out.
    tasks: Deque<Task>,
    /// The second halves of the `join`s on this thread's stack, newest first.
    pub(super) jobs: Deque<JobRef>,
    bed: Arc<Bed>,
    pub(super) thread: Thread,
    tally: Arc<Tally>,
    /// Counted as searching in `core.sleep`.
    searching: Cell<bool>,
    /// The task that is being run is in the tally.
    counted: Cell<bool>,
    /// Signed off: nobody steals from this worker any more, so it must put nothing into its own queues.
    has_left: Cell<bool>,
    ticks: Cell<u32>,
    patience: Patience,
    /// A copy of the list of peers, and the version it has.
    peers: RefCell<(usize, Peers)>,
}

/// Why a worker that found nothing should end.
enum End {
    /// The pool takes nothing any more.
    Closed,
    /// The pool has been resized, and has more workers than it should.
    Surplus,
    /// There was nothing to do for as long as the keep-alive says.
    Idle,
}

/// What a worker can find.
enum Work {
    Task(Task),
    Job(JobRef),
}

/// Starts a thread for the pool, unless it has enough, or more threads search by now than the caller saw: whoever finds a
/// task looks for more, so that will do. The thread is counted before it runs.
pub(super) fn start(core: &Arc<Core>, seen: Counts) -> io::Result<()> {
    let wanted = || {
        let helped = core.sleep.counts().searching() > seen.searching();
        !helped && core.sleep.add_thread_below(core.max_workers.load(Relaxed))
    };
    core.roster.start(wanted, |number| {
        let mut builder = thread::Builder::new().name(format!("{}_{number}", core.config.thread_name_prefix));
        if let Some(size) = core.config.stack_size {
            builder = builder.stack_size(size);
        }
        let of_thread = Arc::clone(core);
        spin::worker_starts();
        builder.spawn(move || Worker::main(of_thread, number)).inspect_err(|_| {
            spin::worker_started();
            core.sleep.remove_thread();
        })
    })
}

/// The pool whose worker the calling thread is.
pub(super) fn current_pool() -> Option<PoolId> {
    with_current(|worker| worker.core.id())
}

/// True if the calling thread is a worker of the pool, or was one and is about to end; or if it is dropping a future of the
/// pool.
pub(super) fn belongs_to(pool: PoolId) -> bool {
    let inside = || INSIDE.try_with(|inside| inside.borrow().contains(&pool)).unwrap_or(false);
    current_pool().or(FORMER.get()) == Some(pool) || inside()
}

/// True if the calling thread is a worker of the pool and inside no task: it looks for work next.
pub(super) fn is_about_to_search(pool: PoolId) -> bool {
    current_pool() == Some(pool) && !current::in_task()
}

/// Runs `f` as if this thread belonged to the pool.
pub(super) fn inside(pool: PoolId, f: &mut dyn FnMut()) {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            let _ = INSIDE.try_with(|inside| inside.borrow_mut().pop());
        }
    }
    let _ = INSIDE.try_with(|inside| inside.borrow_mut().push(pool));
    let _leave = Leave;
    f();
}

/// Runs `f` with the worker that the calling thread is, if it is one.
#[allow(unsafe_code)]
pub(super) fn with_current<R>(f: impl FnOnce(&Worker) -> R) -> Option<R> {
    // SAFETY: `main` sets the pointer to a worker on its stack, and resets it before that worker goes; the pointer is
    // thread-local, so no other thread follows it.
    unsafe { CURRENT.get().as_ref() }.map(f)
}

/// Puts a task into the own queue of the calling thread, if it is a worker of that pool and has one to itself.
pub(super) fn push_own(pool: PoolId, task: Task) -> Result<(), Task> {
    let mut task = Some(task);
    with_current(|worker| {
        if worker.core.id() == pool && !worker.is_alone() && !worker.has_left.get() {
            if let Some(task) = task.take() {
                worker.tasks.push(task);
            }
        }
    });
    task.map_or(Ok(()), Err)
}

impl Worker {
    fn main(core: Arc<Core>, number: usize) {
        spin::worker_wakes();
        spin::worker_started();
        let worker = Self::enter(core, number);
        CURRENT.set(&raw const worker);
        if worker.initialize() {
            worker.run();
            worker.finalize();
        } else {
            while !worker.leave() {
                worker.refuse_all();
            }
        }
        CURRENT.set(ptr::null());
        FORMER.set(Some(worker.core.id()));
        spin::worker_sleeps();
        worker.core.roster.ended(number);
    }

    fn enter(core: Arc<Core>, number: usize) -> Self {
        let (tasks, jobs) = (Deque::new_fifo(), Deque::new_lifo());
        let tally = Arc::new(Tally::default());
        let peer = Peer { number, tasks: tasks.stealer(), jobs: jobs.stealer(), tally: Arc::clone(&tally) };
        core.roster.enter(Arc::new(peer));
        let peers = RefCell::new((usize::MAX, Peers::from([])));
        Self {
            core,
            number,
            tasks,
            jobs,
            bed: Bed::new(),
            thread: thread::current(),
            tally,
            searching: Cell::new(true),
            counted: Cell::new(false),
            has_left: Cell::new(false),
            ticks: Cell::new(0),
            patience: Patience::new(ONE_WAKE_UP),
            peers,
        }
    }

    fn initialize(&self) -> bool {
        let Some(initializer) = &self.core.config.initializer else { return true };
        let outcome = unwind::catch(|| initializer());
        if let Err(panic) = &outcome {
            self.core.break_down(Cause::new(format!("the initializer of a worker panicked: {}", panic.message())));
        }
        outcome.is_ok()
    }

    fn finalize(&self) {
        if let Some(finalizer) = &self.core.config.finalizer {
            unwind::call_quietly(|| finalizer());
        }
    }

    /// The loop of a worker's life.
    fn run(&self) {
        loop {
            let work = match self.find().map_or_else(|| self.search(), Ok) {
                Ok(work) => work,
                Err(End::Surplus) if self.leave_if_surplus() => return,
                Err(End::Closed | End::Idle) if self.leave() => return,
                Err(_) => continue,
            };
            self.begin();
            match work {
                Work::Task(task) => self.execute(task),
                Work::Job(job) => job.execute(self),
            }
            if self.leave_if_surplus() {
                return;
            }
        }
    }

    /// Where work is looked for, in this order. Tasks come from the shared queue in batches, so the own queue holds what
    /// is older than the rest of the shared one, and behind it what was submitted from inside.
    fn find(&self) -> Option<Work> {
        let shared = &self.core.queues;
        let alone = self.is_alone();
        let ticks = self.ticks.get().wrapping_add(1);
        self.ticks.set(ticks);
        if ticks % FAIRNESS == 0 && !alone {
            shared.move_batch(&self.tasks);
        }
        shared
            .pop(Priority::High)
            .or_else(|| self.tasks.pop())
            .or_else(|| {
                if alone { shared.pop(Priority::Normal) } else { shared.pop_batch(&self.tasks, self.max_workers()) }
            })
            .map(Work::Task)
            .or_else(|| self.steal())
            .or_else(|| shared.pop(Priority::Low).map(Work::Task))
    }

    fn max_workers(&self) -> usize {
        self.core.max_workers.load(Relaxed)
    }

    /// The only worker that the pool may have keeps nothing to itself: so its order is exactly first in, first out.
    fn is_alone(&self) -> bool {
        self.max_workers() == 1
    }

    /// Takes the oldest job or task of another worker, beginning with the next in number.
    fn steal(&self) -> Option<Work> {
        self.with_peers(|peers| {
            let start = peers.iter().position(|peer| peer.number == self.number).unwrap_or(0);
            let others = peers[start..].iter().chain(&peers[..start]).filter(|peer| peer.number != self.number);
            others.into_iter().find_map(|peer| {
                let job = queues::steal(&peer.jobs).map(Work::Job);
                job.or_else(|| queues::steal(&peer.tasks).map(Work::Task))
            })
        })
    }

    /// Takes the oldest job of the worker with that number, if it is still there and has one.
    pub(super) fn steal_job_from(&self, number: usize) -> Option<JobRef> {
        self.with_peers(|peers| {
            peers.iter().find(|peer| peer.number == number).and_then(|peer| queues::steal(&peer.jobs))
        })
    }

    /// Looks at the list of peers as it is now; `f` must not run anything that is the user's.
    fn with_peers<R>(&self, f: impl FnOnce(&[Arc<Peer>]) -> R) -> R {
        let version = self.core.roster.version();
        if self.peers.borrow().0 != version {
            self.peers.replace((version, self.core.roster.peers()));
        }
        f(&self.peers.borrow().1)
    }

    /// Looks on, awake at first and then asleep, until there is work or a reason to end.
    fn search(&self) -> Result<Work, End> {
        self.start_searching();
        loop {
            // SeqCst: this look comes after the announcement that this worker searches (see `sleep`).
            fence(SeqCst);
            if let Some(work) = self.find() {
                return Ok(work);
            }
            if let Some(end) = self.should_end() {
                return Err(end);
            }
            if spin::room_for(1) && self.patience.spin_until(|| self.is_wanted(), || false) {
                continue;
            }
            let start = Instant::now();
            let stays = self.must_stay();
            let keep_alive = self.core.config.keep_alive.filter(|_| !stays);
            let deadline = keep_alive.and_then(|time| start.checked_add(time));
            spin::worker_sleeps();
            let woken = self.core.sleep.sleep(&self.bed, deadline, || {
                fence(SeqCst);
                self.is_wanted() || stays && !self.is_needed_by_futures()
            });
            spin::worker_wakes();
            match woken {
                Woken::TimedOut => return Err(End::Idle),
                Woken::Called | Woken::Found => self.patience.slept(start.elapsed()),
            }
        }
    }

    /// Is there anything to find, or a reason to end?
    fn is_wanted(&self) -> bool {
        self.should_end().is_some() || self.sees_work()
    }

    /// Is there anything in any queue, this worker's own included?
    fn sees_work(&self) -> bool {
        !self.core.queues.is_empty() || self.with_peers(|peers| peers.iter().any(|peer| !peer.is_empty()))
    }

    fn should_end(&self) -> Option<End> {
        if self.core.sleep.counts().is_closed() && self.core.unfinished.is_empty() {
            return Some(End::Closed);
        }
        self.is_surplus().then_some(End::Surplus)
    }

    /// Is this the last worker, and are there futures which somebody has to poll when they are woken? Then it does not end,
    /// however long it has nothing to do.
    fn must_stay(&self) -> bool {
        let alone = || self.core.sleep.counts().threads() == 1;
        let stays = self.core.config.keep_alive.is_some() && self.is_needed_by_futures() && alone();
        if stays {
            // SeqCst: before the last look at the list, see `all_finished`.
            self.core.someone_stays.store(true, SeqCst);
        }
        stays
    }

    /// In a broken pool nothing is polled any more.
    fn is_needed_by_futures(&self) -> bool {
        !self.core.unfinished.is_empty() && !self.core.sleep.counts().is_broken()
    }

    fn is_surplus(&self) -> bool {
        self.core.sleep.counts().threads() > self.max_workers()
    }

    /// Work was found: no longer searching, and if there is more, somebody else is wanted (rule 2 of `sleep`).
    fn begin(&self) {
        self.stop_searching();
        self.call_others();
    }

    /// If there is more than this worker has in hand, and somebody who could take it, tells them.
    fn call_others(&self) {
        let counts = self.core.sleep.counts();
        let could_be_more = counts.asleep() > 0 || counts.threads() < self.max_workers();
        if could_be_more && self.sees_work() {
            self.core.notify();
        }
    }

    fn execute(&self, task: Task) {
        let counts = self.core.sleep.counts();
        if counts.is_refusing() {
            self.core.refuse(task, counts);
            return;
        }
        self.tally.busy();
        self.counted.set(false);
        let ran = task.run(&|publishing| self.about_to_publish(publishing));
        self.count(ran);
        self.tally.idle();
    }

    /// Counts the task that is being run, once.
    fn count(&self, ran: bool) {
        if ran && !self.counted.replace(true) {
            self.tally.done();
        }
    }

    /// While there could be more workers, one counts as searching from the moment its result is out: whoever sees the
    /// result and submits again finds it free, and starts or wakes no other.
    fn about_to_publish(&self, publishing: bool) {
        if !publishing {
            self.tally.busy();
            self.stop_searching();
            // Whoever submitted meanwhile may have relied on this worker.
            self.call_others();
            return;
        }
        self.count(true);
        self.tally.idle();
        let counts = self.core.sleep.counts();
        let could_be_more = counts.asleep() > 0 || counts.threads() < self.max_workers();
        if could_be_more && self.tasks.is_empty() {
            self.start_searching();
        }
    }

    fn start_searching(&self) {
        if !self.searching.replace(true) {
            self.core.sleep.start_searching();
        }
    }

    fn stop_searching(&self) {
        if self.searching.replace(false) {
            self.core.sleep.stop_searching();
        }
    }

    /// A waiter on this thread has run a queued task in place.
    pub(super) fn count_claimed(&self) {
        self.tally.done();
    }

    /// Ends the life of a worker that is one too many; false if it is not, or if work turned up that nobody else might
    /// see.
    fn leave_if_surplus(&self) -> bool {
        if !self.is_surplus() {
            return false;
        }
        self.start_searching();
        self.core.sleep.remove_thread_above(self.max_workers()) && self.left()
    }

    /// Ends the life of a worker; false if work turned up meanwhile that nobody else might see.
    fn leave(&self) -> bool {
        self.start_searching();
        self.core.sleep.remove_thread();
        self.left()
    }

    /// Rule 3 of `sleep`, as if this were falling asleep for good: this worker is not counted any more, so now it has
    /// to look once more.
    fn left(&self) -> bool {
        while let Some(task) = self.tasks.pop() {
            self.core.queues.push(task, Priority::Normal);
        }
        fence(SeqCst);
        let has_work = self.core.has_work();
        if has_work || self.is_needed_by_futures() {
            if self.core.sleep.keep_last_thread() {
                return false;
            }
            if has_work {
                self.core.notify();
            }
        }
        self.has_left.set(true);
        self.core.roster.leave(self.number);
        true
    }

    /// The initializer has failed: what is queued fails with it.
    fn refuse_all(&self) {
        let counts = self.core.sleep.counts();
        self.core.drain(|task| self.core.refuse(task, counts));
    }
}
