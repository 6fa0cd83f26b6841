//! A worker: one thread that finds work and runs it.

use std::cell::{Cell, RefCell};
use std::io;
use std::mem;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{Ordering::*, fence};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::core::{Core, Hooks, PoolId};
use super::join::JobRef;
use super::queues;
use super::registry::{Ends, WorkerHandle};
use super::sleep::{Counts, Sleeper, Woken};
use crate::current;
use crate::error::{Cause, TaskError};
use crate::executor::Priority;
use crate::fork;
use crate::future::{Claimed, Offload, Task, Unparker};
use crate::quiet;
use crate::spin::{self, ONE_WAKE_UP, SpinBudget};
use crate::unwind::{self, AbortOnUnwind};

thread_local! {
    /// The worker that runs on this thread.
    static CURRENT: Cell<*const Worker> = const { Cell::new(ptr::null()) };
    /// The pool whose worker this thread was: destructors of thread-locals may still run.
    static FORMER: Cell<Option<PoolId>> = const { Cell::new(None) };
    /// The pools whose futures this thread, not necessarily a worker, is polling or dropping (see `inside`).
    static INSIDE: RefCell<Vec<PoolId>> = const { RefCell::new(Vec::new()) };
}

pub(super) struct Worker {
    pub(super) core: Arc<Core>,
    pub(super) number: usize,
    /// This worker's ends of its queues; other workers use its `WorkerHandle`.
    pub(super) own: Ends,
    handle: Arc<WorkerHandle>,
    /// A spare thread: it does not search for work, and is not in the registry.
    is_spare: bool,
    sleeper: Arc<Sleeper>,
    pub(super) thread: Unparker,
    /// Whether the worker is counted as searching in `core.sleep`.
    searching: Cell<bool>,
    /// Whether the running task is in the counters already.
    counted: Cell<bool>,
    /// How many `join`s are on this thread's stack.
    joins: Cell<usize>,
    budget: SpinBudget,
}

/// Why a worker that found nothing should end.
enum End {
    /// The pool is closed, and has nothing left to run.
    Closed,
    /// The pool has been resized, and has more workers than `max_workers`.
    Surplus,
    /// The worker was idle for the whole idle timeout.
    Idle,
}

/// What a worker can find.
enum Work {
    Task(Task),
    Job(JobRef),
}

/// Starts a thread for the pool, unless it has `max_workers` threads, or more threads are searching than in `seen`: a searching
/// thread that finds a task looks for more, so no other is needed. The thread is counted before it runs.
pub(super) fn start(core: &Arc<Core>, seen: Counts) -> io::Result<()> {
    let wanted = || {
        let helped = core.sleep.counts().searching() > seen.searching();
        !helped && core.sleep.add_thread_below(core.max_workers.load(Relaxed))
    };
    // Read before the decision: a pool drops its hooks only when no thread can start any more.
    let hooks = core.hooks();
    let started = core.registry.start(wanted, |number| {
        let mut builder = thread::Builder::new().name(format!("{}_{number}", core.config.name));
        if let Some(size) = core.config.stack_size {
            builder = builder.stack_size(size);
        }
        let (of_thread, hooks) = (Arc::clone(core), hooks.clone());
        spin::worker_starts();
        builder.spawn(move || Worker::main(of_thread, number, hooks)).inspect_err(|_| {
            spin::worker_started();
            core.stopped_being_free(core.sleep.remove_thread());
        })
    });
    quiet::drop(hooks);
    started
}

/// Starts a spare thread for the wait of `offload`: it runs the task that is sent to it, in place of the calling worker, and
/// ends. `hooks` are those of the pool.
pub(super) fn start_spare(
    core: Arc<Core>,
    handle: Arc<WorkerHandle>,
    offload: Arc<Offload>,
    hooks: Hooks,
) -> io::Result<(JoinHandle<()>, SyncSender<Claimed>)> {
    let mut builder = thread::Builder::new().name(format!("{}_{}s", core.config.name, handle.number));
    if let Some(size) = core.config.stack_size {
        builder = builder.stack_size(size);
    }
    let (give, given) = mpsc::sync_channel(1);
    spin::worker_starts();
    let spare = move || Worker::spare_main(core, handle, hooks, &offload, &given);
    let handle = builder.spawn(spare).inspect_err(|_| spin::worker_started())?;
    Ok((handle, give))
}

/// The pool whose worker the calling thread is.
pub(super) fn current_pool() -> Option<PoolId> {
    with_current(|worker| worker.core.is_here().then(|| worker.core.id())).flatten()
}

/// True if the calling thread is a worker of the pool, or was one and is about to end; or if it runs [`inside`] the pool.
pub(super) fn belongs_to(pool: PoolId) -> bool {
    let inside = || INSIDE.try_with(|inside| inside.borrow().contains(&pool)).unwrap_or(false);
    current_pool().or(FORMER.get()) == Some(pool) || inside()
}

/// True if the calling thread is a worker of the pool and inside no task: it looks for work next.
pub(super) fn is_about_to_search(pool: PoolId) -> bool {
    let searches = || with_current(|worker| !worker.is_spare) == Some(true);
    current_pool() == Some(pool) && searches() && !current::in_task()
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

/// Runs `f` with the calling thread's worker, if the thread is a worker.
#[allow(unsafe_code)]
pub(super) fn with_current<R>(f: impl FnOnce(&Worker) -> R) -> Option<R> {
    // SAFETY: `main` and `spare_main` set the pointer to a worker on their stack, and reset it before that worker is dropped; the
    // pointer is thread-local, so no other thread dereferences it.
    unsafe { CURRENT.get().as_ref() }.map(f)
}

impl Worker {
    fn main(core: Arc<Core>, number: usize, hooks: Hooks) {
        spin::worker_wakes();
        spin::worker_started();
        current::begin_to_serve();
        let worker = Self::enter(core, number);
        CURRENT.set(&raw const worker);
        // Panics of user code are caught where it is called. A panic of this module itself would leave `CURRENT` dangling, and
        // tasks that no thread runs.
        let abort = AbortOnUnwind;
        if worker.initialize(&hooks) {
            worker.run();
            Self::finalize(&hooks);
            worker.end_forked_child(false);
        } else {
            while !worker.leave() {
                worker.refuse_all();
            }
        }
        CURRENT.set(ptr::null());
        FORMER.set(Some(worker.core.id()));
        quiet::drop(hooks);
        worker.core.registry.retired();
        worker.core.drop_hooks_if_over();
        spin::worker_sleeps();
        let Self { core, number, own, handle, .. } = worker;
        handle.give_ends_back(own);
        core.registry.ended(number);
        mem::forget(abort);
    }

    fn enter(core: Arc<Core>, number: usize) -> Self {
        let handle = Arc::clone(core.registry.worker(number).expect("the place was made before the thread"));
        Self::new(core, handle, false)
    }

    fn new(core: Arc<Core>, handle: Arc<WorkerHandle>, is_spare: bool) -> Self {
        Self {
            core,
            number: handle.number,
            own: handle.take_ends(),
            handle,
            is_spare,
            sleeper: Sleeper::new(),
            thread: Unparker::current(),
            searching: Cell::new(!is_spare),
            counted: Cell::new(false),
            joins: Cell::new(0),
            budget: SpinBudget::new(ONE_WAKE_UP),
        }
    }

    /// The main function of a spare thread, whose queues no other thread sees.
    fn spare_main(
        core: Arc<Core>,
        handle: Arc<WorkerHandle>,
        hooks: Hooks,
        offload: &Arc<Offload>,
        given: &Receiver<Claimed>,
    ) {
        spin::worker_wakes();
        spin::worker_started();
        current::begin_to_serve();
        let leaves = Cell::new(false);
        let leave = || {
            if !leaves.replace(true) {
                core.spares.leaves();
            }
        };
        // As in `main`.
        let abort = AbortOnUnwind;
        if let Ok(claimed) = given.recv() {
            let worker = Self::new(Arc::clone(&core), handle, true);
            CURRENT.set(&raw const worker);
            if worker.initialize(&hooks) {
                let mut next = Some(claimed);
                while let Some(claimed) = next {
                    if leaves.replace(false) {
                        core.spares.stays();
                    }
                    worker.run_claimed(claimed, offload, &leave);
                    if !offload.has_next() {
                        leave();
                    }
                    next = offload.take_next();
                }
                Self::finalize(&hooks);
                worker.end_forked_child(false);
            } else {
                claimed.fail(core.reason(core.sleep.counts(), TaskError::ShutDown));
            }
            CURRENT.set(ptr::null());
            FORMER.set(Some(core.id()));
        }
        quiet::drop(hooks);
        leave();
        spin::worker_sleeps();
        core.spares.ended(offload.key());
        core.drop_hooks_if_over();
        offload.spare_ends();
        mem::forget(abort);
    }

    /// Runs a task on a spare thread. Calls `leave` before the result is published, unless another task is waiting for this
    /// thread.
    fn run_claimed(&self, claimed: Claimed, offload: &Arc<Offload>, leave: &dyn Fn()) {
        self.counted.set(false);
        let about_to_publish = |publishing| {
            if publishing {
                self.count(true);
                if !offload.has_next() {
                    leave();
                }
            }
        };
        let ran = claimed.run(offload, &about_to_publish);
        self.end_forked_child(false);
        self.count(ran);
    }

    fn initialize(&self, hooks: &Hooks) -> bool {
        let Some(initializer) = &hooks.initializer else { return true };
        let outcome = unwind::catch(|| initializer());
        self.end_forked_child(outcome.is_err());
        if let Err(panic) = &outcome {
            self.core.break_down(Cause::new(format!("the initializer of a worker panicked: {}", panic.message())));
        }
        outcome.is_ok()
    }

    /// If user code has forked and has returned in the child as well, ends the child: it must not go on as a worker.
    #[inline]
    pub(super) fn end_forked_child(&self, panicked: bool) {
        if !self.core.is_here() {
            fork::end_child(panicked);
        }
    }

    fn finalize(hooks: &Hooks) {
        if let Some(finalizer) = &hooks.finalizer {
            quiet::call(|| finalizer());
        }
    }

    /// The main loop of a worker.
    fn run(&self) {
        loop {
            #[cfg(all(test, not(loom)))]
            tests::unwind_if_told();
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

    /// Looks for work, in this order. Tasks in the worker's own queue were taken from the shared one, so they are older than the
    /// rest of it.
    fn find(&self) -> Option<Work> {
        let shared = &self.core.queues;
        shared
            .pop(Priority::High)
            .or_else(|| self.own.tasks.pop())
            .or_else(|| self.fetch())
            .map(Work::Task)
            .or_else(|| if self.core.anything_own() { self.steal() } else { None })
            .or_else(|| shared.pop(Priority::Low).map(Work::Task))
    }

    /// Takes from the shared queue of normal priority; the own queue is empty. See `queues` for why this keeps the order.
    fn fetch(&self) -> Option<Task> {
        let shared = &self.core.queues;
        if shared.has_batches() {
            self.look_at_another();
        }
        // With `max_workers` of 1 no task is taken in advance, so the order is exactly first in, first out.
        let workers = self.max_workers();
        let share = if workers == 1 { 1 } else { shared.share(workers) };
        if share == 1 {
            self.end_batch();
            return shared.pop(Priority::Normal);
        }
        if self.handle.batch.begin() {
            shared.begin_batch();
        }
        let task = shared.pop_batch(&self.own.tasks, share);
        self.handle.batch.filled();
        task
    }

    /// Discounts this worker's batch; its queue of tasks is empty.
    fn end_batch(&self) {
        if self.handle.batch.end() {
            self.core.queues.end_batch();
        }
    }

    /// Looks at the next worker in turn. If its batch is overdue, puts the rest of the batch back.
    #[cold]
    fn look_at_another(&self) {
        let (shared, registry) = (&self.core.queues, &self.core.registry);
        let Some(handle) = registry.worker(shared.next_look(registry.places())) else { return };
        if handle.number == self.number || handle.tasks.is_empty() {
            return;
        }
        if let Some(overdue) = handle.batch.look() {
            shared.put_back(|| queues::steal(&handle.tasks));
            if handle.batch.gone_back(overdue) {
                shared.end_batch();
            }
        }
    }

    fn max_workers(&self) -> usize {
        self.core.max_workers.load(Relaxed)
    }

    /// Takes the oldest job or task of another worker, beginning with the next in number.
    fn steal(&self) -> Option<Work> {
        let workers = || self.core.registry.workers();
        let others = workers().skip(self.number + 1).chain(workers().take(self.number));
        others.into_iter().find_map(|handle| {
            let job = queues::steal(&handle.jobs).map(Work::Job);
            job.or_else(|| queues::steal(&handle.tasks).map(Work::Task))
        })
    }

    /// Takes the oldest job of the worker with that number, if it has one.
    pub(super) fn steal_job_from(&self, number: usize) -> Option<JobRef> {
        self.core.registry.worker(number).and_then(|handle| queues::steal(&handle.jobs))
    }

    /// A `join` begins on this thread.
    pub(super) fn join_begins(&self) {
        if self.joins.replace(self.joins.get() + 1) == 0 {
            self.core.registry.join_begins();
        }
    }

    /// A `join` has ended: its job is not in the queue any more.
    pub(super) fn join_ends(&self) {
        self.joins.set(self.joins.get() - 1);
        if self.joins.get() == 0 {
            self.core.registry.join_ends();
        }
    }

    /// Searches, awake at first and then asleep, until there is work or a reason to end.
    fn search(&self) -> Result<Work, End> {
        self.start_searching();
        loop {
            // SeqCst: orders the search after this worker is counted as searching (see `sleep`).
            fence(SeqCst);
            if let Some(work) = self.find() {
                return Ok(work);
            }
            if let Some(end) = self.should_end() {
                return Err(end);
            }
            if spin::has_idle_cpu(1) && self.budget.spin_until(|| self.is_wanted(), || false) {
                continue;
            }
            let start = Instant::now();
            let stays = self.must_stay();
            let idle_timeout = self.core.config.idle_timeout.filter(|_| !stays);
            let deadline = idle_timeout.and_then(|time| start.checked_add(time));
            spin::worker_sleeps();
            let woken = self.core.sleep.sleep(&self.sleeper, deadline, || {
                fence(SeqCst);
                self.is_wanted() || stays && !self.is_needed_by_futures()
            });
            spin::worker_wakes();
            match woken {
                Woken::TimedOut => return Err(End::Idle),
                Woken::Called | Woken::Found => self.budget.slept(start.elapsed()),
            }
        }
    }

    /// Is there anything to find, or a reason to end?
    fn is_wanted(&self) -> bool {
        self.should_end().is_some() || self.sees_work()
    }

    /// Is there anything in any queue, this worker's own included?
    fn sees_work(&self) -> bool {
        self.core.has_work()
    }

    fn should_end(&self) -> Option<End> {
        if self.core.sleep.counts().is_closed() && self.core.unfinished.is_empty() {
            return Some(End::Closed);
        }
        self.is_surplus().then_some(End::Surplus)
    }

    /// Whether this is the last worker and there are unfinished futures, which a worker has to poll when they are woken. Then it
    /// does not end, however long it is idle.
    fn must_stay(&self) -> bool {
        let alone = || self.core.sleep.counts().threads() == 1;
        let stays = self.core.config.idle_timeout.is_some() && self.is_needed_by_futures() && alone();
        if stays {
            // SeqCst: ordered before the last check of the list, see `all_finished`.
            self.core.someone_stays.store(true, SeqCst);
        }
        stays
    }

    /// A broken pool polls no futures.
    fn is_needed_by_futures(&self) -> bool {
        !self.core.unfinished.is_empty() && !self.core.sleep.counts().is_broken()
    }

    fn is_surplus(&self) -> bool {
        self.core.sleep.counts().threads() > self.max_workers()
    }

    /// Work was found: stops searching, and wakes another worker if there is more (rule 2 of `sleep`).
    fn begin(&self) {
        self.stop_searching();
        self.wake_more();
    }

    /// Notifies the pool if there is more work, and a worker that could be woken or started for it.
    fn wake_more(&self) {
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
            self.end_forked_child(false);
            return;
        }
        self.handle.counters.busy();
        self.counted.set(false);
        let ran = task.run(&|publishing| self.about_to_publish(publishing));
        self.end_forked_child(false);
        self.count(ran);
        self.handle.counters.idle();
    }

    /// Counts the task that is being run, once.
    fn count(&self, ran: bool) {
        if ran && !self.counted.replace(true) {
            self.handle.counters.done();
        }
    }

    /// If another worker could be woken or started, counts this one as searching before its result is published: a thread that
    /// sees the result and submits again finds this worker free, and starts or wakes no other.
    fn about_to_publish(&self, publishing: bool) {
        if !publishing {
            self.handle.counters.busy();
            self.stop_searching();
            // A thread that submitted in the meantime may have relied on this worker.
            self.wake_more();
            return;
        }
        self.count(true);
        self.handle.counters.idle();
        let counts = self.core.sleep.counts();
        let could_be_more = counts.asleep() > 0 || counts.threads() < self.max_workers();
        if could_be_more && self.own.tasks.is_empty() {
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
            self.core.stopped_being_free(self.core.sleep.stop_searching());
        }
    }

    /// A waiter on this thread has run a queued task in place.
    pub(super) fn count_claimed(&self) {
        self.handle.counters.done();
    }

    /// Discounts this worker if it is surplus; false if it is not, or if work appeared that no other worker might see.
    fn leave_if_surplus(&self) -> bool {
        if !self.is_surplus() {
            return false;
        }
        self.start_searching();
        match self.core.sleep.remove_thread_above(self.max_workers()) {
            Some(counts) => {
                self.core.stopped_being_free(counts);
                self.left()
            }
            None => false,
        }
    }

    /// Discounts this worker, which is about to end; false if work appeared that no other worker might see.
    fn leave(&self) -> bool {
        self.start_searching();
        self.core.stopped_being_free(self.core.sleep.remove_thread());
        self.left()
    }

    /// Rule 3 of `sleep`, for a worker that ends: it is not counted any more, so it has to look for work once more.
    fn left(&self) -> bool {
        if !self.own.tasks.is_empty() {
            self.core.queues.put_back(|| self.own.tasks.pop());
        }
        self.end_batch();
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
        true
    }

    /// The initializer has panicked: queued tasks fail.
    fn refuse_all(&self) {
        let counts = self.core.sleep.counts();
        self.core.drain(|task| self.core.refuse(task, counts));
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::process::Command;
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::ThreadPoolExecutor;

    static UNWINDS: AtomicBool = AtomicBool::new(false);

    /// Called where the scheduler runs no user code.
    pub(super) fn unwind_if_told() {
        if UNWINDS.load(SeqCst) {
            panic!("the scheduler panics, as a test wants it");
        }
    }

    /// Without the guard the thread would end, but its task would not, and threads that wait for the pool would hang.
    #[test]
    fn a_panic_of_the_scheduler_ends_the_process() {
        const CHILD: &str = "CONCURRENT_FUTURES_TEST_CHILD";
        if std::env::var_os(CHILD).is_some() {
            UNWINDS.store(true, SeqCst);
            let pool = ThreadPoolExecutor::new(1).unwrap();
            let _ = pool.submit(|| ()).result();
            return;
        }
        let name = "thread::worker::tests::a_panic_of_the_scheduler_ends_the_process";
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args([name, "--exact", "--nocapture"]).env(CHILD, "1");
        let mut child = child.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap();
        // A deadline, so that the test cannot hang.
        let deadline = Instant::now() + std::time::Duration::from_secs(30);
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None if Instant::now() > deadline => {
                    child.kill().unwrap();
                    panic!("the child hangs: {:?}", child.wait());
                }
                None => thread::yield_now(),
            }
        };
        assert!(!status.success());
        assert_eq!(status.code(), None, "it ends by a signal: {status:?}");
    }
}
