//! `map` over an executor: results in order, or as they complete, with a bound on what is in flight if one is set.
//!
//! A map is one *lane* that both sides work on. The consumer's side puts inputs in at the back; *runners*, of which at
//! most one per worker is in the executor's queue or running, take chunks from the front, run them, and put the
//! results back under the index of their first item. So inputs start in order, a slow item holds up only its chunk,
//! and a map of a million items costs the executor a handful of tasks.
//!
//! The length of a chunk adapts to the cost of the items (`Pace`): one item at first, twice as many each time a chunk was quick,
//! and the unbegun rest of a slow chunk is put back. A consumer that is itself a worker of the executor works on unbegun items
//! instead of waiting for them, unless it may have to return before they are done, at a deadline or because others are done
//! first: then it offloads a queued runner to a spare thread.
//!
//! | file | what it is |
//! |---|---|
//! | here | the options, and the consumer: [`Map`] |
//! | `lane` | what passes between the two sides: [`Lane`], [`Results`] |
//! | `job` | the lane of executors that run closures, and its runners |

use std::fmt;
use std::iter::FusedIterator;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::error::{MapError, TaskError};

mod job;
mod lane;

pub(crate) use job::Host;
pub(crate) use lane::{Lane, Results};

use job::Job;

/// Options of [`map_with`](crate::ThreadPoolExecutor::map_with).
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
    /// The options of [`map`](crate::ThreadPoolExecutor::map): chunks of automatic size, no bound, no time-out, in order.
    pub fn new() -> Self {
        Self { chunk_size: None, buffer: None, timeout: None, ordered: true }
    }

    /// Sets how many items a worker takes at a time. By default the size adapts to how long the items take: 1 for all that take
    /// more than about 50 µs. Set it to 1 if items wait for each other.
    pub fn chunk_size(mut self, items: usize) -> Self {
        self.chunk_size = Some(items);
        self
    }

    /// Sets how many items at most are taken from the input before their results have been yielded. Inputs are then taken in
    /// `next`, in the consumer's thread, so the input may be endless, and a slow consumer slows the work down. By default the
    /// whole input is taken at the call.
    pub fn buffer(mut self, items: usize) -> Self {
        self.buffer = Some(items);
        self
    }

    /// When `timeout` has passed since the call, `next` yields results that are already available, then one
    /// [`TaskError::TimedOut`]; items that have not started are cancelled, and the iterator ends. A consumer that is a worker of
    /// the same pool then works on no items itself: if no worker is free, a [spare
    /// thread](crate::ThreadPoolExecutor#spare-threads) does.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// With `false`, results are yielded as they complete, not in the order of the input. A consumer that is a worker of the same
    /// pool works on the last item only, as with [`timeout`](Self::timeout).
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

// For other kinds of lanes.
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

/// How many inputs are put in at a time at most, rounded up to whole chunks. Chunks of automatic size are never longer.
const LONGEST_BLOCK: usize = 8192;

/// The results of a map, in the order of the input (or as they complete: [`MapOptions::ordered`]). Each item is a `Result`: a
/// failed one does not end the map.
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
    /// How many inputs have been taken.
    taken: usize,
    /// How many results have come out of the lane.
    arrived: usize,
    /// Those of them that have not been yielded.
    chunk: lane::IntoIter<R>,
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
        let lane = Job::new(host, &options, f);
        Ok(Self::on(lane, options, input))
    }
}

// State shared with the workers is behind locks that are not held while user code runs. A panic of the input iterator leaves the
// map consistent; the iterator itself is in the state in which the panic left it.
impl<I: Iterator + UnwindSafe, R: UnwindSafe> UnwindSafe for Map<I, R> {}
impl<I: Iterator + RefUnwindSafe, R: RefUnwindSafe> RefUnwindSafe for Map<I, R> {}

impl<I: Iterator, R> Map<I, R> {
    /// A map over a lane of some other kind.
    pub(crate) fn on(lane: Arc<dyn Lane<I::Item, R>>, options: MapOptions, input: I) -> Self {
        let deadline = options.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let chunk = Results::with_capacity(0).into_iter();
        let mut map =
            Self { lane, input: Some(input), options, deadline, taken: 0, arrived: 0, chunk, timed_out: false };
        map.take_input();
        map
    }

    /// How many results of the inputs taken have not been yielded.
    fn in_flight(&self) -> usize {
        self.taken - self.arrived + self.chunk.len()
    }

    /// Moves as much of the input into the lane as the buffer allows, in blocks, so that work starts with the first.
    fn take_input(&mut self) {
        let mut block = FIRST_BLOCK;
        while self.input.is_some() {
            let room = self.options.buffer.map_or(usize::MAX, |buffer| buffer - self.in_flight());
            if room == 0 {
                return;
            }
            // Blocks end where chunks do.
            let chunk = self.options.chunk_size.unwrap_or(1);
            let size = block.checked_next_multiple_of(chunk).unwrap_or(usize::MAX).min(room);
            let Some(input) = &mut self.input else { return };
            // A panic of the input propagates to the caller; items taken before are in the lane or dropped.
            let mut items = Vec::with_capacity(size.min(block).min(input.size_hint().1.unwrap_or(block)));
            items.extend(input.by_ref().take(size));
            if items.len() < size {
                self.input = None;
            }
            self.taken += items.len();
            if !items.is_empty() && !self.lane.is_elsewhere() {
                self.lane.put(items);
            }
            block = (2 * block).min(LONGEST_BLOCK);
        }
    }

    #[inline(never)]
    fn first_of_next_chunk(&mut self) -> Option<Result<R, TaskError>> {
        if self.timed_out {
            return None;
        }
        self.take_input();
        if self.arrived == self.taken {
            return None;
        }
        if self.lane.is_elsewhere() {
            self.chunk = Results::failed(self.taken - self.arrived, &TaskError::WrongProcess).into_iter();
            self.arrived = self.taken;
            return self.chunk.next();
        }
        match self.lane.next_chunk(self.arrived, self.deadline) {
            Some(chunk) => {
                self.arrived += chunk.len();
                self.chunk = chunk.into_iter();
                self.chunk.next()
            }
            None => {
                self.timed_out = true;
                self.lane.cancel();
                Some(Err(TaskError::TimedOut))
            }
        }
    }
}

impl<I: Iterator, R> Iterator for Map<I, R> {
    type Item = Result<R, TaskError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.chunk.next() {
            Some(result) => Some(result),
            None => self.first_of_next_chunk(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let in_flight = self.in_flight();
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
    /// How many results are still to come, if no deadline ends the map.
    fn len(&self) -> usize {
        if self.timed_out { 0 } else { self.in_flight() + self.input.as_ref().map_or(0, I::len) }
    }
}

impl<I: Iterator + FusedIterator, R> FusedIterator for Map<I, R> {}

impl<I: Iterator, R> Drop for Map<I, R> {
    fn drop(&mut self) {
        if self.lane.is_elsewhere() {
            // The unbegun items are the parent's to run or to drop.
            return std::mem::forget(Arc::clone(&self.lane));
        }
        self.lane.cancel();
    }
}

impl<I: Iterator, R> fmt::Debug for Map<I, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("taken", &self.taken).field("in_flight", &self.in_flight()).finish_non_exhaustive()
    }
}
