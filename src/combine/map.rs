//! `map` over an executor: results in order, or as they come, with a bound on what is in flight if one is set.
//!
//! A map is one *lane* that both sides work on. The consumer's side puts inputs in at the back; *runners*, of which at
//! most one per worker is in the executor's queue or running, take chunks from the front, run them, and put the
//! results back under the index of their first item. So inputs start in order, a slow item holds up only its chunk,
//! and a map of a million items costs the executor a handful of tasks.
//!
//! How long a chunk is follows what the items cost ([`Pace`]): one at first, twice as many each time a chunk was
//! quick, and a chunk that turns out slow gives back what it has not begun. A consumer that is itself a worker of the
//! executor works on the lane too instead of waiting for items that nobody has begun.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::error::{MapError, TaskError};
use crate::unwind;

/// How a [`map_with`](crate::ThreadPoolExecutor::map_with) runs.
///
/// ```
/// use concurrent_futures::{MapOptions, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new(2)?;
/// // An endless input: at most 8 squares are in flight or waiting for us.
/// let options = MapOptions::new().buffer(8);
/// let squares = pool.map_with(options, |x| x * x, 1u64..)?;
/// let sum: u64 = squares.map(|square| square.unwrap()).take_while(|square| *square < 100).sum();
/// assert_eq!(sum, 285);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct MapOptions {
    chunk_size: Option<usize>,
    buffer: Option<usize>,
    timeout: Option<Duration>,
    ordered: bool,
}

impl MapOptions {
    /// What [`map`](crate::ThreadPoolExecutor::map) does: chunks of automatic size, no bound, no time-out, in order.
    pub fn new() -> Self {
        Self { chunk_size: None, buffer: None, timeout: None, ordered: true }
    }

    /// So many items go to a worker at once. Without it, the size follows what the items cost: 1 for all that take
    /// more than about 50 µs. Set it to 1 if items wait for each other.
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.chunk_size = Some(items);
        self
    }

    /// At most so many items are taken from the input before their results have been handed out. Inputs are then taken
    /// in `next`, in the consumer's thread, so they may be endless, and slow consumers slow the work down. Without it,
    /// the whole input is taken at the call.
    pub fn buffer(mut self, items: usize) -> Self {
        self.buffer = Some(items);
        self
    }

    /// So much time after the call, `next` stops waiting: it yields one [`TaskError::TimedOut`], cancels what has not
    /// started, and ends. A result that is there by then is still handed out.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// `false`: results come as they are ready, not in the order of the input.
    pub fn ordered(mut self, ordered: bool) -> Self {
        self.ordered = ordered;
        self
    }

    pub(crate) fn check(&self) -> Result<(), MapError> {
        match (self.chunk_size, self.buffer) {
            (Some(0), _) => Err(MapError::ZeroChunk),
            (_, Some(0)) => Err(MapError::ZeroBuffer),
            _ => Ok(()),
        }
    }
}

// What a lane of another kind has to know.
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
impl MapOptions {
    pub(crate) fn fixed_chunk_size(&self) -> Option<usize> {
        self.chunk_size
    }

    pub(crate) fn is_ordered(&self) -> bool {
        self.ordered
    }
}

impl Default for MapOptions {
    fn default() -> Self {
        Self::new()
    }
}

/// How many inputs are taken before the first of them can start.
const FIRST_BLOCK: usize = 64;

/// What a map needs of the executor it runs on.
pub(crate) trait Host: Send + Sync + 'static {
    /// Queues a runner. Dropping it unrun is how a refusal or a cancellation is told.
    fn start(&self, runner: Box<dyn FnOnce() + Send>);

    /// Why a runner has been dropped unrun, to be asked while it is being dropped.
    fn why_dropped(&self) -> TaskError;

    /// How many runners make sense.
    fn workers(&self) -> usize;

    /// Why nothing more should be begun, if so.
    fn refusal(&self) -> Option<TaskError>;

    /// May the calling thread, which is about to wait, work on the lane?
    fn may_help(&self) -> bool;

    /// Is something queued that is more urgent than a map?
    fn is_urgent_waiting(&self) -> bool;

    /// Is anything queued?
    fn is_other_waiting(&self) -> bool;
}

/// The results of a map, in the order of the input (or as they come: [`MapOptions::ordered`]). Each item is a
/// `Result`: a failed one does not end the map.
///
/// Work starts at the call, not at the first `next`. Dropping the iterator half-way cancels the items that have not
/// started.
#[must_use = "dropping a map cancels the items that have not started"]
pub struct Map<I: Iterator, R> {
    lane: Arc<dyn Lane<I::Item, R>>,
    /// The rest of the input: always empty unless there is a buffer.
    input: Option<I>,
    options: MapOptions,
    deadline: Option<Instant>,
    /// How many inputs have been taken, and how many results handed out.
    taken: usize,
    yielded: usize,
    /// The chunk that is being handed out.
    chunk: std::vec::IntoIter<Result<R, TaskError>>,
    timed_out: bool,
}

impl<I: Iterator, R> Map<I, R>
where
    I::Item: Send + 'static,
    R: Send + 'static,
{
    pub(crate) fn new<F>(host: Arc<dyn Host>, options: MapOptions, f: F, input: I) -> Result<Self, MapError>
    where
        F: Fn(I::Item) -> R + Send + Sync + 'static,
    {
        options.check()?;
        let lane: Arc<dyn Lane<I::Item, R>> = Arc::new_cyclic(|this| Job {
            this: this.clone(),
            f,
            host,
            chunk_size: options.chunk_size,
            ordered: options.ordered,
            endless: options.buffer.is_some(),
            cancelled: AtomicBool::new(false),
            track: Mutex::new(Track::new()),
            arrived: Condvar::new(),
        });
        Ok(Self::on(lane, options, input))
    }
}

impl<I: Iterator, R> Map<I, R> {
    /// A map over a lane of some other kind.
    pub(crate) fn on(lane: Arc<dyn Lane<I::Item, R>>, options: MapOptions, input: I) -> Self {
        let deadline = options.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let chunk = Vec::new().into_iter();
        let mut map =
            Self { lane, input: Some(input), options, deadline, taken: 0, yielded: 0, chunk, timed_out: false };
        map.take_input();
        map
    }

    /// Moves as much of the input into the lane as the buffer allows, in blocks, so that work starts with the first.
    fn take_input(&mut self) {
        let mut block = FIRST_BLOCK;
        while let Some(input) = &mut self.input {
            let room = self.options.buffer.map_or(usize::MAX, |buffer| buffer - (self.taken - self.yielded));
            if room == 0 {
                return;
            }
            // Blocks end where chunks do.
            let chunk = self.options.chunk_size.unwrap_or(1);
            let size = block.checked_next_multiple_of(chunk).unwrap_or(usize::MAX).min(room);
            // A panic of the input goes through to the caller; what it gave before is in the lane or dropped.
            let mut items = VecDeque::with_capacity(size.min(block).min(input.size_hint().1.unwrap_or(block)));
            items.extend(input.by_ref().take(size));
            if items.len() < size {
                self.input = None;
            }
            self.taken += items.len();
            if !items.is_empty() {
                self.lane.put(items);
            }
            block = (2 * block).min(Pace::LONGEST);
        }
    }
}

impl<I: Iterator, R> Iterator for Map<I, R> {
    type Item = Result<R, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.timed_out {
            return None;
        }
        loop {
            if let Some(result) = self.chunk.next() {
                self.yielded += 1;
                return Some(result);
            }
            self.take_input();
            if self.yielded == self.taken {
                return None;
            }
            match self.lane.next_chunk(self.yielded, self.deadline) {
                Some(chunk) => self.chunk = chunk.into_iter(),
                None => {
                    self.timed_out = true;
                    self.lane.cancel();
                    return Some(Err(TaskError::TimedOut));
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let in_flight = self.taken - self.yielded;
        match (&self.input, self.timed_out) {
            (_, true) => (0, Some(0)),
            (None, false) if self.deadline.is_none() => (in_flight, Some(in_flight)),
            (None, false) => (in_flight.min(1), Some(in_flight)),
            (Some(input), false) => {
                let (low, high) = input.size_hint();
                let low = if self.deadline.is_none() { low.saturating_add(in_flight) } else { in_flight.min(1) };
                (low, high.and_then(|high| high.checked_add(in_flight)))
            }
        }
    }
}

impl<I: ExactSizeIterator, R> ExactSizeIterator for Map<I, R> {
    /// How many results are still to come, if no deadline cuts the map short.
    fn len(&self) -> usize {
        match self.timed_out {
            true => 0,
            false => self.taken - self.yielded + self.input.as_ref().map_or(0, I::len),
        }
    }
}

impl<I: Iterator + FusedIterator, R> FusedIterator for Map<I, R> {}

impl<I: Iterator, R> Drop for Map<I, R> {
    fn drop(&mut self) {
        self.lane.cancel();
    }
}

impl<I: Iterator, R> fmt::Debug for Map<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("taken", &self.taken).field("yielded", &self.yielded).finish_non_exhaustive()
    }
}

/// The consumer's view of a job; it hides the type of the function.
pub(crate) trait Lane<A, R>: Send + Sync {
    fn put(&self, items: VecDeque<A>);

    /// The chunk that begins with item `next` (any chunk, if unordered); `None` at the deadline.
    fn next_chunk(&self, next: usize, deadline: Option<Instant>) -> Option<Vec<Result<R, TaskError>>>;

    fn cancel(&self);
}

struct Job<A, R, F> {
    this: std::sync::Weak<Self>,
    f: F,
    host: Arc<dyn Host>,
    chunk_size: Option<usize>,
    ordered: bool,
    /// The input may never end.
    endless: bool,
    /// Nobody wants the results any more. Changes under the lock of the track.
    cancelled: AtomicBool,
    track: Mutex<Track<A, R>>,
    /// Signalled when the chunk that `awaited` asks for is there.
    arrived: Condvar,
}

struct Track<A, R> {
    /// Inputs that nobody has begun: stretches of consecutive items under the index of the first.
    waiting: BTreeMap<usize, VecDeque<A>>,
    /// How many there are in all stretches.
    unbegun: usize,
    /// The index of the next input.
    end: usize,
    done: BTreeMap<usize, Vec<Result<R, TaskError>>>,
    runners: usize,
    /// How many of the runners are at a chunk, and so not about to take another.
    busy: usize,
    /// What the consumer sleeps for.
    awaited: Option<usize>,
}

/// Consecutive inputs that one runner has taken.
struct Chunk<A> {
    first: usize,
    items: VecDeque<A>,
}

impl<A, R> Track<A, R> {
    fn new() -> Self {
        let (waiting, done) = (BTreeMap::new(), BTreeMap::new());
        Self { waiting, unbegun: 0, end: 0, done, runners: 0, busy: 0, awaited: None }
    }

    fn add(&mut self, first: usize, items: VecDeque<A>) {
        self.unbegun += items.len();
        self.waiting.insert(first, items);
    }

    fn take_all(&mut self) -> BTreeMap<usize, VecDeque<A>> {
        self.unbegun = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Takes up to `size` consecutive inputs from the front.
    fn claim(&mut self, size: impl FnOnce(usize) -> usize) -> Option<Chunk<A>> {
        let size = size(self.unbegun);
        let (first, mut items) = self.waiting.pop_first()?;
        if size < items.len() {
            let mut taken = VecDeque::with_capacity(size);
            taken.extend(items.drain(..size));
            self.waiting.insert(first + size, items);
            items = taken;
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
    /// Every so many items the clock is read.
    const CHECK: usize = 32;
    const LONGEST: usize = 8192;

    fn new(chunk_size: Option<usize>) -> Self {
        Self { size: chunk_size.unwrap_or(1), fixed: chunk_size.is_some() }
    }

    /// Short chunks near the end keep all workers busy until it.
    fn next(&self, unbegun: usize, workers: usize) -> usize {
        if self.fixed { self.size } else { self.size.min(unbegun / (2 * workers)).max(1) }
    }

    fn took(&mut self, time: Duration) {
        if self.fixed {
            return;
        }
        if time < Self::QUICK {
            self.size = (self.size * 2).min(Self::LONGEST);
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
    /// What a runner does.
    fn run(&self) {
        let mut pace = Pace::new(self.chunk_size);
        let mut begun = false;
        while let Some(chunk) = self.claim_or_leave(&pace, begun) {
            begun = true;
            self.work(chunk, &mut pace);
            self.track.lock().busy -= 1;
        }
    }

    /// The next chunk. Without one, the runner is signed off in the same step, so an input that is put in later finds
    /// either a runner that will see it or none.
    fn claim_or_leave(&self, pace: &Pace, begun: bool) -> Option<Chunk<A>> {
        if let Some(reason) = self.host.refusal() {
            self.give_up(reason);
            return None;
        }
        // What is urgent does not wait for the end of a map; and an endless map would keep its workers for ever.
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

    /// A runner ends for a reason. If it was the last one, the inputs that it leaves behind fail for that reason.
    fn give_up(&self, reason: TaskError) {
        let mut track = self.track.lock();
        track.runners -= 1;
        if track.runners > 0 {
            return;
        }
        let abandoned = track.take_all();
        for (first, items) in &abandoned {
            track.done.insert(*first, items.iter().map(|_| Err(reason.clone())).collect());
        }
        self.wake_consumer(&mut track);
        drop(track);
        unwind::drop_quietly(abandoned);
    }

    fn work(&self, chunk: Chunk<A>, pace: &mut Pace) {
        let Chunk { first, mut items } = chunk;
        let mut results = Vec::with_capacity(items.len());
        let start = Instant::now();
        // A panic ends the stretch, not the chunk: one `catch` serves many items.
        while !items.is_empty() && !self.is_interrupted(results.len(), pace, start) {
            let stretch = unwind::catch(|| {
                while let Some(item) = items.pop_front() {
                    results.push(Ok((self.f)(item)));
                    if self.is_interrupted(results.len(), pace, start) {
                        return;
                    }
                }
            });
            if let Err(panic) = stretch {
                results.push(Err(TaskError::Panicked(panic)));
            }
        }
        pace.took(start.elapsed());
        let mut track = self.track.lock();
        let (rest_first, rest) = (first + results.len(), items);
        if self.cancelled.load(Relaxed) {
            drop(track);
            unwind::drop_quietly((results, rest));
            return;
        }
        track.done.insert(first, results);
        let mut missing = 0;
        if !rest.is_empty() {
            track.add(rest_first, rest);
            missing = self.sign_on(&mut track);
        }
        self.wake_consumer(&mut track);
        drop(track);
        self.start_runners(missing);
    }

    /// Between two items: is the map gone, or has the chunk taken too long?
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

    /// Counts the runners that the unbegun inputs call for and that are not there yet: the caller starts them.
    fn sign_on(&self, track: &mut Track<A, R>) -> usize {
        let chunks = track.unbegun.div_ceil(self.chunk_size.unwrap_or(1));
        let idle = track.runners - track.busy;
        let missing = chunks.saturating_sub(idle).min(self.host.workers().saturating_sub(track.runners));
        track.runners += missing;
        missing
    }

    fn start_runners(&self, missing: usize) {
        for _ in 0..missing {
            let Some(this) = self.this.upgrade() else { return };
            let runner = Runner(Some(this));
            self.host.start(Box::new(move || runner.run()));
        }
    }
}

/// A runner in the executor's queue, signed on. Dropped unrun, it signs off with the executor's reason.
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
    fn put(&self, items: VecDeque<A>) {
        let mut track = self.track.lock();
        let first = track.end;
        track.end += items.len();
        track.add(first, items);
        let missing = self.sign_on(&mut track);
        drop(track);
        self.start_runners(missing);
    }

    fn next_chunk(&self, next: usize, deadline: Option<Instant>) -> Option<Vec<Result<R, TaskError>>> {
        let mut pace = Pace::new(self.chunk_size);
        let mut track = self.track.lock();
        loop {
            let arrived = match self.ordered {
                true => track.done.remove(&next),
                false => track.done.pop_first().map(|(_, chunk)| chunk),
            };
            if arrived.is_some() {
                return arrived;
            }
            let late = deadline.is_some_and(|deadline| Instant::now() >= deadline);
            if !late && self.host.may_help() && self.host.refusal().is_none() {
                if let Some(chunk) = track.claim(|unbegun| pace.next(unbegun, self.host.workers())) {
                    drop(track);
                    self.work(chunk, &mut pace);
                    track = self.track.lock();
                    continue;
                }
            }
            track.awaited = Some(next);
            let timed_out = match deadline {
                Some(deadline) => self.arrived.wait_until(&mut track, deadline).timed_out(),
                None => {
                    self.arrived.wait(&mut track);
                    false
                }
            };
            if timed_out && track.awaited.take().is_some() {
                return None;
            }
        }
    }

    fn cancel(&self) {
        let mut track = self.track.lock();
        // Relaxed: whoever adds to the track reads it under the lock, and between items a moment later will do.
        self.cancelled.store(true, Relaxed);
        let dropped = (track.take_all(), std::mem::take(&mut track.done));
        drop(track);
        // Destructors of the caller's values run in the caller's thread, outside the lock.
        drop(dropped);
    }
}
