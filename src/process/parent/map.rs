//! `map` over worker processes: inputs go out in chunks, as many at a time as keep all workers busy, and each chunk that
//! comes back says by the time it took how long the next ones should be.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use std::vec;

use crate::lock::{Condvar, Mutex};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::inner::Inner;
use super::job::{self, Chunk, Job, Limits, Raw, Sink};
use crate::combine::{Lane, MapOptions, Results};
use crate::error::{Cause, CodecError, SizeLimit, TaskError};
use crate::executor::Priority;
use crate::process::body::{Body, Element};
use crate::process::call::{self, Function, Payload};
use crate::process::wire::{self, ReplyKind, Report};
use crate::unwind;

/// What a chunk should take.
const GOAL: Duration = Duration::from_micros(300);
const LONGEST: usize = 8192;
/// How many times as long the next chunk may be at most.
const GROWTH: usize = 8;

pub(crate) struct ChunkLane<A, R> {
    this: Weak<Self>,
    inner: Arc<Inner>,
    function: Result<Function, TaskError>,
    /// The time limit and the retries of each item.
    limits: Limits,
    fixed: Option<usize>,
    ordered: bool,
    track: Mutex<Track<A, R>>,
    arrived: Condvar,
}

struct Track<A, R> {
    /// Inputs that have not been sent, under the index of the first of each stretch.
    waiting: BTreeMap<usize, vec::IntoIter<A>>,
    unsent: usize,
    end: usize,
    done: BTreeMap<usize, Results<R>>,
    /// The tasks that are out.
    out: HashSet<u64>,
    size: usize,
    cancelled: bool,
    /// The consumer sleeps.
    sleeps: bool,
    /// The pool waits for what has not been sent before it ends.
    holds: bool,
}

impl<A, R> ChunkLane<A, R>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    pub(crate) fn new(
        inner: &Arc<Inner>,
        function: Result<Function, TaskError>,
        limits: Limits,
        options: &MapOptions,
    ) -> Arc<Self> {
        // A limit that ends a worker, or a retry, is for one item, and not for those beside it.
        let fixed = if limits.options().is_some() { Some(1) } else { options.fixed_chunk_size() };
        let track = Track {
            waiting: BTreeMap::new(),
            unsent: 0,
            end: 0,
            done: BTreeMap::new(),
            out: HashSet::new(),
            size: fixed.unwrap_or(1),
            cancelled: false,
            sleeps: false,
            holds: false,
        };
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            inner: Arc::clone(inner),
            function,
            limits,
            fixed,
            ordered: options.is_ordered(),
            track: Mutex::new(track),
            arrived: Condvar::new(),
        })
    }

    /// How deep a chunk may be nested.
    fn nesting(&self) -> u32 {
        call::in_chunk(self.inner.config.max_nesting)
    }

    /// Sends chunks as long as that makes sense.
    fn send(&self) {
        let workers = self.inner.max_workers() * self.inner.config.threads;
        loop {
            let mut track = self.track.lock();
            // One to work on and one in store for each.
            if track.unsent == 0 && std::mem::replace(&mut track.holds, false) {
                drop(track);
                return self.inner.let_go();
            }
            if track.out.len() >= 2 * workers || track.unsent == 0 {
                return;
            }
            let size = match self.fixed {
                Some(size) => size,
                None => track.size.min(track.unsent / (2 * workers)).max(1),
            };
            let (first, items) = track.take(size);
            let id = self.inner.next_task_id();
            track.out.insert(id);
            drop(track);
            self.send_chunk(id, first, items);
        }
    }

    fn send_chunk(&self, id: u64, first: usize, items: Vec<A>) {
        let count = items.len();
        let function = match &self.function {
            Ok(function) => *function,
            Err(error) => return self.arrive(id, first, Results::failed(count, error)),
        };
        let limit = self.inner.config.max_payload;
        let reason = match call::encode(items, self.nesting()) {
            Ok(argument) if argument.as_slice().len() as u64 <= limit => {
                let part = Part {
                    lane: self.this.upgrade().expect("it is used through an Arc"),
                    id,
                    first,
                    count,
                    settled: false,
                };
                let element = call::element::<Vec<R>>().unwrap_or(Element::BYTE);
                let sink = Sink::Chunk(Box::new(part));
                let priority = Priority::Normal;
                let options = self.limits.options();
                let job = Job { id, function, argument, element, sink, priority, options, attempts: 0 };
                return self.inner.submit_part(Box::new(job));
            }
            Ok(argument) => match again::<A>(&argument, self.nesting()) {
                Ok(items) if count > 1 => return self.send_singly(id, first, items),
                _ => {
                    let size = argument.as_slice().len() as u64;
                    let error = TaskError::TooLarge(Box::new(SizeLimit { size, limit }));
                    return self.arrive(id, first, Results::failed(count, &error));
                }
            },
            Err((reason, items)) if count > 1 => {
                // One of them spoils the chunk: let the others not suffer.
                unwind::drop_quietly(reason);
                return self.send_singly(id, first, items);
            }
            Err((reason, item)) => {
                unwind::drop_quietly(item);
                reason
            }
        };
        let error = TaskError::Encode(CodecError::new(std::any::type_name::<A>(), reason));
        self.arrive(id, first, Results::failed(1, &error));
    }

    /// Sends these items in chunks of one.
    fn send_singly(&self, id: u64, first: usize, items: Vec<A>) {
        self.track.lock().out.remove(&id);
        for (n, item) in items.into_iter().enumerate() {
            let id = self.inner.next_task_id();
            self.track.lock().out.insert(id);
            self.send_chunk(id, first + n, vec![item]);
        }
    }

    fn arrive(&self, id: u64, first: usize, results: Results<R>) {
        let mut track = self.track.lock();
        track.out.remove(&id);
        if track.cancelled {
            drop(track);
            return unwind::drop_quietly(results);
        }
        track.done.insert(first, results);
        if track.sleeps {
            self.arrived.notify_one();
        }
    }

    /// What has not been sent never is: the pool says why.
    fn give_up(&self, error: &TaskError) {
        let mut track = self.track.lock();
        track.unsent = 0;
        let waiting = std::mem::take(&mut track.waiting);
        for (first, items) in &waiting {
            track.done.insert(*first, Results::failed(items.len(), error));
        }
        if track.sleeps {
            self.arrived.notify_one();
        }
        drop(track);
        unwind::drop_quietly(waiting);
        self.send();
    }

    /// How long the next chunks should be, after one of so many items took so much time.
    fn adapt(&self, count: usize, took: Duration) {
        if self.fixed.is_some() {
            return;
        }
        let per_item = (took.as_nanos() / count as u128).max(1);
        let fit = usize::try_from(GOAL.as_nanos() / per_item).unwrap_or(usize::MAX);
        let mut track = self.track.lock();
        track.size = fit.clamp(1, LONGEST).min(count.saturating_mul(GROWTH).max(track.size));
    }
}

impl<A, R> Track<A, R> {
    /// Takes up to `size` consecutive inputs from the front.
    fn take(&mut self, size: usize) -> (usize, Vec<A>) {
        let (first, mut items) = self.waiting.pop_first().expect("there are inputs");
        let size = size.min(items.len());
        self.unsent -= size;
        if size == items.len() {
            return (first, items.collect());
        }
        let taken = items.by_ref().take(size).collect();
        self.waiting.insert(first + size, items);
        (first, taken)
    }
}

/// A chunk that is out. Its items have an outcome whatever becomes of it.
struct Part<A, R>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    lane: Arc<ChunkLane<A, R>>,
    id: u64,
    first: usize,
    count: usize,
    settled: bool,
}

impl<A, R> Drop for Part<A, R>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    fn drop(&mut self) {
        if !self.settled {
            self.lane.arrive(self.id, self.first, Results::failed(self.count, &TaskError::Abandoned));
        }
    }
}

impl<A, R> Chunk for Part<A, R>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    fn is_cancelled(&self) -> bool {
        self.lane.track.lock().cancelled
    }

    fn settle(mut self: Box<Self>, raw: Raw, argument: Payload) {
        let (lane, id, first, count) = (Arc::clone(&self.lane), self.id, self.first, self.count);
        // From here on the outcome is certain; a panic of the user's decoding is caught there.
        self.settled = true;
        let took = match &raw {
            Raw::Reply { took, .. } => Some(*took),
            Raw::Failed(_) | Raw::Lost(..) => None,
        };
        let (pid, begun) = match &raw {
            Raw::Reply { pid, .. } => (*pid, 0),
            Raw::Lost(_, begun) => (0, usize::try_from(*begun).unwrap_or(count)),
            Raw::Failed(_) => (0, 0),
        };
        let lost = matches!(raw, Raw::Lost(..));
        // The pool takes nothing any more, or the task was withdrawn: so it is with all that has not been sent.
        let refused = match &raw {
            Raw::Failed(error) if !is_of_one_task(error) => Some(error.clone()),
            _ => None,
        };
        let not_decoded = matches!(raw, Raw::Reply { kind: ReplyKind::NotDecoded, .. });
        let mut results = match raw.into_body() {
            Ok((kind, body)) => decode(kind, body, pid, count, lane.nesting()),
            // Nothing of it has run, and perhaps only one of its items is at fault.
            Err(_) if not_decoded && count > 1 => match again::<A>(&argument, lane.nesting()) {
                Ok(items) => return lane.send_singly(id, first, items),
                Err(error) => Results::failed(count, &error),
            },
            Err(error) => Results::failed(count, &error),
        };
        // If it died while its reply was on the way, all of it had begun: `begun` is then larger than any count.
        let rest_from = begun.saturating_add(1);
        if lost && rest_from < count {
            // What comes after the item that it died of has not begun.
            if let Ok(mut items) = again::<A>(&argument, lane.nesting()) {
                let rest = items.split_off(rest_from);
                results.truncate(rest_from);
                lane.inner.hold();
                let mut track = lane.track.lock();
                let mut held = true;
                if !track.cancelled {
                    track.unsent += rest.len();
                    track.waiting.insert(first + rest_from, rest.into_iter());
                    track.size = 1;
                    held = std::mem::replace(&mut track.holds, true);
                }
                drop(track);
                if held {
                    lane.inner.let_go();
                }
            }
        }
        if let Some(took) = took {
            lane.adapt(count, took);
        }
        lane.arrive(id, first, results);
        match refused {
            Some(error) => lane.give_up(&error),
            None => lane.send(),
        }
    }
}

/// Is this how one task fails, whatever becomes of others?
fn is_of_one_task(error: &TaskError) -> bool {
    matches!(error, TaskError::TimedOut | TaskError::Protocol(_))
}

/// The items of a chunk, once more.
fn again<A: DeserializeOwned + 'static>(argument: &Payload, nesting: u32) -> Result<Vec<A>, TaskError> {
    let decoded = call::decode::<Vec<A>>(Body::of::<Vec<A>>(argument.as_slice()), nesting);
    decoded.map_err(|reason| TaskError::Decode(CodecError::new(std::any::type_name::<Vec<A>>(), reason)))
}

fn decode<R>(kind: ReplyKind, body: Body, pid: u32, count: usize, nesting: u32) -> Results<R>
where
    R: DeserializeOwned + Send + 'static,
{
    // A list says first how long it is. A list of nothings could say anything, and take for ever.
    let is_plain = call::element::<Vec<R>>().is_some();
    let said = postcard::take_from_bytes::<u64>(body.as_slice()).map(|(said, _)| said);
    if (kind == ReplyKind::Mixed || !is_plain) && said != Ok(count as u64) {
        return Results::failed(
            count,
            &TaskError::Protocol(Cause::new(wire::ProtocolError("a list of the wrong length"))),
        );
    }
    let decoded = match kind {
        ReplyKind::Mixed => call::decode::<Vec<Result<R, Report>>>(body, nesting).map(|results| {
            let panicked = |report| TaskError::Panicked(job::panic(report, pid, None));
            Results::Mixed(results.into_iter().map(|result| result.map_err(panicked)).collect())
        }),
        _ => call::decode::<Vec<R>>(body, nesting).map(Results::Good),
    };
    match decoded {
        Ok(results) if results.len() == count => results,
        Ok(_) => Results::failed(count, &TaskError::Protocol(Cause::new(wire::ProtocolError("too few results")))),
        Err(reason) => Results::failed(count, &TaskError::Decode(CodecError::new(std::any::type_name::<R>(), reason))),
    }
}

impl<A, R> Lane<A, R> for ChunkLane<A, R>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    fn is_elsewhere(&self) -> bool {
        !self.inner.is_here()
    }

    fn put(&self, items: Vec<A>) {
        // Before anybody can see what there is to send.
        self.inner.hold();
        let mut track = self.track.lock();
        let first = track.end;
        track.end += items.len();
        track.unsent += items.len();
        track.waiting.insert(first, items.into_iter());
        let held = std::mem::replace(&mut track.holds, true);
        drop(track);
        if held {
            self.inner.let_go();
        }
        self.send();
    }

    fn next_chunk(&self, next: usize, deadline: Option<Instant>) -> Option<Results<R>> {
        let is_there = |track: &Track<A, R>| match self.ordered {
            true => track.done.contains_key(&next),
            false => !track.done.is_empty(),
        };
        let mut helped = false;
        let mut track = self.track.lock();
        loop {
            let arrived = match self.ordered {
                true => track.done.remove(&next),
                false => track.done.pop_first().map(|(_, chunk)| chunk),
            };
            if arrived.is_some() {
                return arrived;
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
            if !std::mem::replace(&mut helped, true) {
                drop(track);
                self.inner.help(0, &|| is_there(&self.track.lock()), deadline, false);
                track = self.track.lock();
                continue;
            }
            track.sleeps = true;
            self.arrived.wait_until(&mut track, deadline);
            track.sleeps = false;
        }
    }

    fn cancel(&self) {
        let mut track = self.track.lock();
        track.cancelled = true;
        track.unsent = 0;
        let dropped = (std::mem::take(&mut track.waiting), std::mem::take(&mut track.done));
        let out = std::mem::take(&mut track.out);
        let held = std::mem::replace(&mut track.holds, false);
        drop(track);
        if held {
            self.inner.let_go();
        }
        if !out.is_empty() {
            self.inner.withdraw(&out);
        }
        // Destructors of the caller's values run in the caller's thread, outside the lock.
        drop(dropped);
    }
}
