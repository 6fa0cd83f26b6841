//! The lane of executors that run closures: runners take chunks from its front and leave their results.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Weak};
use std::task::{Wake, Waker};
use std::time::{Duration, Instant};
use std::vec;

use crate::lock::{Condvar, Mutex};

use super::{LONGEST_BLOCK, Lane, MapOptions, Results};
use crate::error::TaskError;
use crate::fork;
use crate::future::{InlineWaitGuard, Offloaded, TaskFuture};
use crate::quiet;
use crate::stack::{self, NoRoom};
use crate::unwind;

/// What a map needs from the executor it runs on.
pub(crate) trait Host: Send + Sync + 'static {
    /// Queues a runner. To report a refusal or a cancellation, the executor drops the runner without running it.
    fn start(&self, runner: Box<dyn FnOnce() + Send>) -> TaskFuture<()>;

    /// Why a runner is dropped without having run; called while it is being dropped.
    fn why_dropped(&self) -> TaskError;

    /// The maximum useful number of runners.
    fn workers(&self) -> usize;

    /// Why no more chunks may be started; `None` if they may.
    fn refusal(&self) -> Option<TaskError>;

    /// Whether the executor belongs to a process from which this one was forked.
    fn is_elsewhere(&self) -> bool;

    /// May the calling thread, which is about to wait, work on the lane?
    fn may_help(&self) -> bool;

    /// Is something queued that is more urgent than a map?
    fn is_urgent_waiting(&self) -> bool;

    /// Is anything queued?
    fn is_other_waiting(&self) -> bool;
}

/// The lane of a map whose function is a closure of this process.
pub(super) struct Job<A, R, F> {
    this: Weak<Self>,
    f: F,
    host: Arc<dyn Host>,
    chunk_size: Option<usize>,
    ordered: bool,
    /// The input may never end.
    endless: bool,
    /// The results are no longer needed. Changes under the lock of the track.
    cancelled: AtomicBool,
    track: Mutex<Track<A, R>>,
    /// Signalled when the chunk named by `awaited` is available, and by the waker of a consumer that offloads.
    arrived: Condvar,
}

struct Track<A, R> {
    /// Inputs that no thread has taken: stretches of consecutive items, by the index of the first.
    waiting: BTreeMap<usize, vec::IntoIter<A>>,
    /// How many there are in all stretches.
    unbegun: usize,
    /// The index of the next input.
    end: usize,
    done: BTreeMap<usize, Results<R>>,
    runners: usize,
    /// The runners that may still be queued: they are cancelled when the map ends, and a consumer that offloads has them run.
    queued: Vec<TaskFuture<()>>,
    /// How many of the runners are working on a chunk, and so not about to take another.
    busy: usize,
    /// The index that the consumer sleeps for.
    awaited: Option<usize>,
    /// The consumer is a worker that must not work on the lane: it offloads queued runners to other threads.
    offloads: bool,
    /// The consumer has to check again for runners to offload.
    look_again: bool,
}

/// Consecutive inputs that one runner has taken.
struct Chunk<A> {
    first: usize,
    items: vec::IntoIter<A>,
}

impl<A, R> Track<A, R> {
    fn new() -> Self {
        let (waiting, done) = (BTreeMap::new(), BTreeMap::new());
        Self {
            waiting,
            unbegun: 0,
            end: 0,
            done,
            runners: 0,
            queued: Vec::new(),
            busy: 0,
            awaited: None,
            offloads: false,
            look_again: false,
        }
    }

    fn add(&mut self, first: usize, items: vec::IntoIter<A>) {
        self.unbegun += items.len();
        self.waiting.insert(first, items);
    }

    fn take_all(&mut self) -> BTreeMap<usize, vec::IntoIter<A>> {
        self.unbegun = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Takes up to `size` consecutive inputs from the front.
    fn claim(&mut self, size: impl FnOnce(usize) -> usize) -> Option<Chunk<A>> {
        let size = size(self.unbegun);
        let (first, mut items) = self.waiting.pop_first()?;
        if size < items.len() {
            let taken: Vec<A> = items.by_ref().take(size).collect();
            self.waiting.insert(first + size, items);
            items = taken.into_iter();
        }
        self.unbegun -= items.len();
        Some(Chunk { first, items })
    }
}

/// How many items a runner takes next.
struct Pace {
    size: usize,
    fixed: bool,
}

impl Pace {
    /// A chunk that takes less may be followed by a longer one.
    const QUICK: Duration = Duration::from_micros(50);
    /// A chunk that takes more gives the rest of its items back.
    const SLOW: Duration = Duration::from_micros(500);
    /// The clock is read once per this many items.
    const CHECK: usize = 32;

    fn new(chunk_size: Option<usize>) -> Self {
        Self { size: chunk_size.unwrap_or(1), fixed: chunk_size.is_some() }
    }

    /// Chunks get shorter near the end, so that all workers stay busy until the end.
    fn next(&self, unbegun: usize, workers: usize) -> usize {
        if self.fixed { self.size } else { self.size.min(unbegun / (2 * workers)).max(1) }
    }

    fn took(&mut self, time: Duration) {
        if self.fixed {
            return;
        }
        if time < Self::QUICK {
            self.size = (self.size * 2).min(LONGEST_BLOCK);
        } else if time > 2 * Self::QUICK {
            self.size = (self.size / 2).max(1);
        }
    }

    fn is_slow(&self, done: usize, start: Instant) -> bool {
        !self.fixed && done % Self::CHECK == 0 && start.elapsed() > Self::SLOW
    }
}

impl<A, R, F> Job<A, R, F>
where
    A: Send + 'static,
    R: Send + 'static,
    F: Fn(A) -> R + Send + Sync + 'static,
{
    pub(super) fn new(host: Arc<dyn Host>, options: &MapOptions, f: F) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            f,
            host,
            chunk_size: options.chunk_size,
            ordered: options.ordered,
            endless: options.buffer.is_some(),
            cancelled: AtomicBool::new(false),
            track: Mutex::new(Track::new()),
            arrived: Condvar::new(),
        })
    }

    /// The main loop of a runner.
    fn run(&self) {
        let mut pace = Pace::new(self.chunk_size);
        let mut begun = false;
        while let Some(chunk) = self.claim_or_leave(&pace, begun) {
            begun = true;
            self.work(chunk, &mut pace);
            self.track.lock().busy -= 1;
        }
    }

    /// Takes the next chunk. If there is none, the runner signs off under the same lock, so a later input finds either a runner
    /// that will see it or none.
    fn claim_or_leave(&self, pace: &Pace, begun: bool) -> Option<Chunk<A>> {
        if let Some(reason) = self.host.refusal() {
            self.give_up(reason);
            return None;
        }
        // Urgent tasks do not wait for the end of a map, and an endless map would keep its workers forever.
        let makes_room = begun && (self.host.is_urgent_waiting() || self.endless && self.host.is_other_waiting());
        let mut track = self.track.lock();
        if !makes_room {
            if let Some(chunk) = track.claim(|unbegun| pace.next(unbegun, self.host.workers())) {
                track.busy += 1;
                return Some(chunk);
            }
        }
        track.runners -= 1;
        // If there is something left to do, the runner's place goes to the end of the executor's queue.
        let missing = self.sign_on(&mut track);
        drop(track);
        self.start_runners(missing);
        None
    }

    /// Signs a runner off for `reason`. If it was the last one, the inputs that are left fail for that reason.
    fn give_up(&self, reason: TaskError) {
        let mut track = self.track.lock();
        track.runners -= 1;
        if track.runners > 0 {
            return;
        }
        let abandoned = track.take_all();
        for (first, items) in &abandoned {
            track.done.insert(*first, Results::failed(items.len(), &reason));
        }
        self.wake_consumer(&mut track);
        drop(track);
        quiet::drop(abandoned);
    }

    /// [`work`](Self::work) inside a wait, which may be nested deeply: the items fail if there is no room for them.
    fn work_nested(&self, chunk: Chunk<A>, pace: &mut Pace) {
        let mut chunk = Some(chunk);
        let work = || chunk.take().map(|chunk| self.work(chunk, pace));
        if stack::deepen(work) == Err(NoRoom) {
            if let Some(Chunk { first, items }) = chunk {
                let results = Results::failed(items.len(), &TaskError::TooDeep);
                self.track.lock().done.insert(first, results);
                quiet::drop(items);
            }
        }
    }

    fn work(&self, chunk: Chunk<A>, pace: &mut Pace) {
        let Chunk { first, mut items } = chunk;
        let mut results = Results::with_capacity(items.len());
        let start = Instant::now();
        // A panic ends the stretch, not the chunk: one `catch` serves many items.
        while items.len() > 0 && !self.is_interrupted(results.len(), pace, start) {
            let stretch = unwind::catch(|| {
                for item in items.by_ref() {
                    results.push((self.f)(item));
                    self.end_forked_child(false);
                    if self.is_interrupted(results.len(), pace, start) {
                        return;
                    }
                }
            });
            if let Err(panic) = stretch {
                self.end_forked_child(true);
                results.push_error(TaskError::Panicked(panic));
            }
        }
        pace.took(start.elapsed());
        let mut track = self.track.lock();
        let (rest_first, rest) = (first + results.len(), items);
        if self.cancelled.load(Relaxed) {
            drop(track);
            quiet::drop((results, rest));
            return;
        }
        track.done.insert(first, results);
        let mut missing = 0;
        if rest.len() > 0 {
            track.add(rest_first, rest);
            missing = self.sign_on(&mut track);
            self.tell_who_offloads(&mut track);
        }
        self.wake_consumer(&mut track);
        drop(track);
        self.start_runners(missing);
    }

    /// If an item has forked and has returned in the child as well, ends the child: the rest of the map runs in the parent.
    #[inline]
    fn end_forked_child(&self, panicked: bool) {
        if fork::is_child() && self.host.is_elsewhere() {
            fork::end_child(panicked);
        }
    }

    /// Called between two items: whether the map was cancelled, or the chunk has taken too long.
    fn is_interrupted(&self, done: usize, pace: &Pace, start: Instant) -> bool {
        done > 0 && (self.cancelled.load(Relaxed) || pace.is_slow(done, start))
    }

    fn wake_consumer(&self, track: &mut Track<A, R>) {
        let Some(awaited) = track.awaited else { return };
        if !self.ordered || track.done.contains_key(&awaited) {
            track.awaited = None;
            self.arrived.notify_one();
        }
    }

    /// Counts and returns the additional runners that the unbegun inputs need: the caller starts them.
    fn sign_on(&self, track: &mut Track<A, R>) -> usize {
        let chunks = track.unbegun.div_ceil(self.chunk_size.unwrap_or(1));
        let idle = track.runners - track.busy;
        let missing = chunks.saturating_sub(idle).min(self.host.workers().saturating_sub(track.runners));
        track.runners += missing;
        missing
    }

    fn start_runners(&self, missing: usize) {
        if missing == 0 {
            return;
        }
        for _ in 0..missing {
            let Some(this) = self.this.upgrade() else { return };
            let runner = Runner(Some(this));
            self.keep(self.host.start(Box::new(move || runner.run())));
        }
        self.tell_who_offloads(&mut self.track.lock());
    }

    /// Tells a consumer that offloads to check again for queued runners.
    fn tell_who_offloads(&self, track: &mut Track<A, R>) {
        if track.offloads {
            track.look_again = true;
            self.arrived.notify_all();
        }
    }

    /// Keeps a runner's handle until it has begun, or the map ends.
    fn keep(&self, runner: TaskFuture<()>) {
        let mut track = self.track.lock();
        if self.cancelled.load(Relaxed) {
            drop(track);
            runner.cancel();
            return;
        }
        if track.queued.len() == track.queued.capacity() {
            track.queued.retain(|runner| !runner.is_done());
        }
        track.queued.push(runner);
    }

    fn waker(&self) -> (Waker, InlineWaitGuard) {
        let waker = self.this.upgrade().map_or(Waker::noop().clone(), Waker::from);
        let inline_wait = InlineWaitGuard::woken_by(&waker);
        (waker, inline_wait)
    }

    /// Offloads a queued runner to another thread than the consumer, which must not run it itself. False if that is impossible.
    fn offload(&self, inline_wait: &InlineWaitGuard, waker: &Waker, or_here: bool) -> bool {
        // Not under the lock, which the waker takes.
        let mut queued = std::mem::take(&mut self.track.lock().queued);
        let mut offloaded = queued.iter().map(|runner| inline_wait.offload(runner, waker, or_here));
        let is_possible = offloaded.find(|offloaded| *offloaded != Offloaded::Nothing) != Some(Offloaded::Impossible);
        self.track.lock().queued.append(&mut queued);
        is_possible
    }
}

/// The waker of a consumer that offloads.
impl<A, R, F> Wake for Job<A, R, F>
where
    A: Send + 'static,
    R: Send + 'static,
    F: Fn(A) -> R + Send + Sync + 'static,
{
    fn wake(self: Arc<Self>) {
        self.tell_who_offloads(&mut self.track.lock());
    }
}

/// A runner in the executor's queue, signed on. If it is dropped without having run, it signs off with the executor's reason.
struct Runner<A, R, F>(Option<Arc<Job<A, R, F>>>)
where
    A: Send + 'static,
    R: Send + 'static,
    F: Fn(A) -> R + Send + Sync + 'static;

impl<A, R, F> Runner<A, R, F>
where
    A: Send + 'static,
    R: Send + 'static,
    F: Fn(A) -> R + Send + Sync + 'static,
{
    fn run(mut self) {
        let job = self.0.take().expect("a runner runs once");
        job.run();
    }
}

impl<A, R, F> Drop for Runner<A, R, F>
where
    A: Send + 'static,
    R: Send + 'static,
    F: Fn(A) -> R + Send + Sync + 'static,
{
    fn drop(&mut self) {
        if let Some(job) = self.0.take() {
            job.give_up(job.host.why_dropped());
        }
    }
}

impl<A, R, F> Lane<A, R> for Job<A, R, F>
where
    A: Send + 'static,
    R: Send + 'static,
    F: Fn(A) -> R + Send + Sync + 'static,
{
    fn is_elsewhere(&self) -> bool {
        self.host.is_elsewhere()
    }

    fn put(&self, items: Vec<A>) {
        let mut track = self.track.lock();
        let first = track.end;
        track.end += items.len();
        track.add(first, items.into_iter());
        let missing = self.sign_on(&mut track);
        drop(track);
        self.start_runners(missing);
    }

    fn next_chunk(&self, next: usize, deadline: Option<Instant>) -> Option<Results<R>> {
        let mut pace = Pace::new(self.chunk_size);
        // Made when the consumer first offloads.
        let mut offloading: Option<(Waker, InlineWaitGuard)> = None;
        let mut track = self.track.lock();
        let may_work = deadline.is_none() && (self.ordered || track.end - next == 1);
        // A consumer that may have to return before a chunk is done, at its deadline or because another chunk is done, does not
        // work on it.
        track.offloads = !may_work && self.host.may_help();
        track.look_again = true;
        loop {
            let arrived =
                if self.ordered { track.done.remove(&next) } else { track.done.pop_first().map(|(_, chunk)| chunk) };
            if arrived.is_some() {
                return arrived;
            }
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if !late && self.host.may_help() && self.host.refusal().is_none() {
                let mut may_work = may_work;
                let looks = !may_work && track.unbegun > 0 && std::mem::take(&mut track.look_again);
                if looks {
                    drop(track);
                    let (waker, inline_wait) = offloading.get_or_insert_with(|| self.waker());
                    may_work = !self.offload(inline_wait, waker, deadline.is_none());
                    track = self.track.lock();
                }
                let chunk =
                    if may_work { track.claim(|unbegun| pace.next(unbegun, self.host.workers())) } else { None };
                if let Some(chunk) = chunk {
                    drop(track);
                    self.work_nested(chunk, &mut pace);
                    track = self.track.lock();
                    track.look_again = true;
                    continue;
                }
                if looks {
                    // Results may have arrived while the lock was not held and `awaited` was not set.
                    continue;
                }
            }
            track.awaited = Some(next);
            let timed_out = self.arrived.wait_until(&mut track, deadline);
            if timed_out && track.awaited.take().is_some() {
                return None;
            }
        }
    }

    fn cancel(&self) {
        let mut track = self.track.lock();
        // Relaxed: code that adds to the track reads it under the lock, and between items a delayed read does no harm.
        self.cancelled.store(true, Relaxed);
        let dropped = (track.take_all(), std::mem::take(&mut track.done));
        let queued = std::mem::take(&mut track.queued);
        drop(track);
        // A runner that is dropped signs off, which takes the lock.
        for runner in queued {
            runner.cancel();
        }
        // Destructors of the caller's values run in the caller's thread, outside the lock.
        drop(dropped);
    }
}
