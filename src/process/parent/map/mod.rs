//! `map` over worker processes: inputs are sent in chunks, enough of them at a time to keep all workers busy. The time that a
//! chunk took determines how long the next ones are.
//!
//! The thread that collects the reply to a chunk sends the next chunks. It runs no user code for that: inputs are encoded by the
//! thread that puts them in (`inputs`), and results are decoded by the thread that takes them.

use std::collections::{BTreeMap, HashSet};
use std::marker::PhantomData;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

mod inputs;

use crate::future::WaitMode;
use crate::lock::{Condvar, Mutex, MutexGuard};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::inner::Inner;
use super::job::{self, Job, Limits, PartOfMap, Raw, Sink};
use crate::combine::{Lane, MapOptions, Results};
use crate::error::{Cause, CodecError, TaskError};
use crate::executor::Priority;
use crate::process::body::{Body, Element};
use crate::process::call::{self, Function, Payload};
use crate::process::wire::{self, ReplyKind, Report};
use inputs::{Chunk, Inputs, Layout, Stretch};

/// How long a chunk should take.
const GOAL: Duration = Duration::from_micros(300);
const LONGEST: usize = 8192;
/// A chunk may be at most this many times as long as the last one.
const GROWTH: usize = 8;

pub(crate) struct ChunkLane<A, R> {
    this: Weak<Self>,
    inner: Arc<Inner>,
    function: Result<Function, TaskError>,
    /// The time limit and the retries of each item.
    limits: Limits,
    fixed: Option<usize>,
    ordered: bool,
    track: Mutex<Track<R>>,
    arrived: Condvar,
    items: PhantomData<fn(A)>,
}

struct Track<R> {
    /// Inputs that have not been sent, by the index of the first of each stretch.
    waiting: BTreeMap<usize, Inputs>,
    unsent: usize,
    end: usize,
    done: BTreeMap<usize, Arrived<R>>,
    /// The ids of the chunks that have been sent and have no outcome yet.
    out: HashSet<u64>,
    size: usize,
    cancelled: bool,
    /// The consuming thread sleeps.
    sleeps: bool,
    /// This map keeps the pool from ending until all inputs have been sent (`Inner::hold`).
    holds: bool,
}

/// The outcome of a chunk.
enum Arrived<R> {
    Results(Results<R>),
    /// The results of `count` items.
    Undecoded {
        kind: ReplyKind,
        body: Body,
        pid: u32,
        count: usize,
    },
}

impl<R> Arrived<R> {
    fn failed(items: usize, error: &TaskError) -> Self {
        Self::Results(Results::failed(items, error))
    }
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
        // Time limits and retries apply to single items, so items with either must not share a chunk.
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
            items: PhantomData,
        })
    }

    /// The maximum nesting depth of a chunk.
    fn nesting(&self) -> u32 {
        call::in_chunk(self.inner.config.max_nesting)
    }

    /// Sends chunks until there are two for each thread of the workers, or no inputs are left.
    fn send(&self) {
        let workers = self.inner.max_workers() * self.inner.config.threads;
        loop {
            let mut track = self.track.lock();
            if track.unsent == 0 && std::mem::replace(&mut track.holds, false) {
                drop(track);
                return self.inner.let_go();
            }
            // For each thread one chunk to work on and one in store.
            if track.out.len() >= 2 * workers || track.unsent == 0 {
                return;
            }
            let size = match self.fixed {
                Some(size) => size,
                None => track.size.min(track.unsent / (2 * workers)).max(1),
            };
            let (first, chunk) = track.take(size, self.inner.config.max_payload);
            let id = self.inner.next_task_id();
            track.out.insert(id);
            drop(track);
            self.send_chunk(id, first, chunk);
        }
    }

    fn send_chunk(&self, id: u64, first: usize, chunk: Chunk) {
        let Chunk { argument, layout } = chunk;
        let function = match &self.function {
            Ok(function) => *function,
            Err(error) => return self.arrive(id, first, Arrived::failed(layout.count(), error)),
        };
        let lane = self.this.upgrade().expect("it is used through an Arc");
        let sink = Sink::Part(Box::new(Part { lane, id, first, layout: Some(layout) }));
        let element = call::element::<Vec<R>>().unwrap_or(Element::BYTE);
        let (priority, options) = (Priority::Normal, self.limits.options());
        let job = Job { id, function, argument, element, sink, priority, options, attempts: 0 };
        self.inner.submit_part(Box::new(job));
    }

    /// Sends these items in chunks of one, instead of the chunk with that id.
    fn send_singly(&self, id: u64, first: usize, mut items: Inputs) {
        self.track.lock().out.remove(&id);
        for n in 0..items.len() {
            let id = self.inner.next_task_id();
            self.track.lock().out.insert(id);
            self.send_chunk(id, first + n, items.take(1, u64::MAX));
        }
    }

    fn arrive(&self, id: u64, first: usize, arrived: Arrived<R>) {
        let mut track = self.track.lock();
        track.out.remove(&id);
        if track.cancelled {
            drop(track);
            return drop(arrived);
        }
        track.done.insert(first, arrived);
        if track.sleeps {
            self.arrived.notify_one();
        }
    }

    /// Fails all items that have not been sent with `error`, the reason why the pool takes no more tasks.
    fn give_up(&self, error: &TaskError) {
        let mut track = self.track.lock();
        track.unsent = 0;
        let waiting = std::mem::take(&mut track.waiting);
        for (first, items) in &waiting {
            track.done.insert(*first, Arrived::failed(items.len(), error));
        }
        if track.sleeps {
            self.arrived.notify_one();
        }
        drop(track);
        self.send();
    }

    /// Puts inputs back that have been sent and not begun. The caller records the outcome of the rest of their chunk.
    fn put_back(&self, first: usize, items: Inputs) {
        self.inner.hold();
        let mut track = self.track.lock();
        if track.cancelled {
            drop(track);
            return self.inner.let_go();
        }
        track.unsent += items.len();
        track.waiting.insert(first, items);
        track.size = 1;
        self.let_go_if_held(track);
    }

    /// Called after `Inner::hold`. A map holds the pool once for all that it has not sent, so a second hold is released.
    fn let_go_if_held(&self, mut track: MutexGuard<'_, Track<R>>) {
        let held = std::mem::replace(&mut track.holds, true);
        drop(track);
        if held {
            self.inner.let_go();
        }
    }

    fn decode(&self, arrived: Arrived<R>) -> Results<R> {
        match arrived {
            Arrived::Results(results) => results,
            Arrived::Undecoded { kind, body, pid, count } => decode(kind, body, pid, count, self.nesting()),
        }
    }

    /// Adapts the length of the next chunks, after a chunk of `count` items took `took`.
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

impl<R> Track<R> {
    /// Takes up to `size` consecutive inputs from the front.
    fn take(&mut self, size: usize, limit: u64) -> (usize, Chunk) {
        let (first, mut items) = self.waiting.pop_first().expect("there are inputs");
        let chunk = items.take(size, limit);
        self.unsent -= chunk.layout.count();
        if items.len() > 0 {
            self.waiting.insert(first + chunk.layout.count(), items);
        }
        (first, chunk)
    }
}

/// A chunk that has been sent. Dropping it fails its items.
struct Part<A, R>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    lane: Arc<ChunkLane<A, R>>,
    id: u64,
    first: usize,
    /// `None` once its outcome is known.
    layout: Option<Layout>,
}

impl<A, R> Drop for Part<A, R>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    fn drop(&mut self) {
        if let Some(layout) = self.layout.take() {
            self.lane.arrive(self.id, self.first, Arrived::failed(layout.count(), &TaskError::Abandoned));
        }
    }
}

impl<A, R> PartOfMap for Part<A, R>
where
    A: Serialize + DeserializeOwned + Send + 'static,
    R: DeserializeOwned + Send + 'static,
{
    fn is_cancelled(&self) -> bool {
        self.lane.track.lock().cancelled
    }

    fn settle(mut self: Box<Self>, raw: Raw, argument: Payload) {
        let (lane, id, first) = (Arc::clone(&self.lane), self.id, self.first);
        let Some(layout) = self.layout.take() else { return };
        let count = layout.count();
        let chunk = Chunk { argument, layout };
        let (arrived, refusal) = match raw {
            // None of its items has run, and perhaps only one of them cannot be decoded.
            Raw::Reply { kind: ReplyKind::NotDecoded, .. } if count > 1 => {
                return lane.send_singly(id, first, Inputs::of(chunk));
            }
            Raw::Reply { pid, took, .. } => {
                lane.adapt(count, took);
                let arrived = match raw.into_body() {
                    Ok((kind, body)) => Arrived::Undecoded { kind, body, pid, count },
                    Err(error) => Arrived::failed(count, &error),
                };
                (arrived, None)
            }
            Raw::Lost(error, begun) => {
                // `begun` is the index of the item that was running; the items after it have not begun. If the worker died while
                // the reply was being sent, all items had begun. `begun` is then larger than any index, as it is over the socket,
                // where progress is not known.
                let rest_from = usize::try_from(begun).unwrap_or(count).saturating_add(1).min(count);
                if rest_from < count {
                    lane.put_back(first + rest_from, Inputs::of(chunk).skip(rest_from));
                }
                (Arrived::failed(rest_from, &error), None)
            }
            Raw::Failed(error) => {
                let arrived = Arrived::failed(count, &error);
                // The pool takes no more tasks, or the task was withdrawn. Either holds for all items that have not been sent.
                (arrived, if is_of_one_task(&error) { None } else { Some(error) })
            }
        };
        lane.arrive(id, first, arrived);
        match refusal {
            Some(error) => lane.give_up(&error),
            None => lane.send(),
        }
    }
}

/// Returns `true` if the error concerns a single task, so that others may still succeed.
fn is_of_one_task(error: &TaskError) -> bool {
    matches!(error, TaskError::TimedOut | TaskError::Protocol(_))
}

fn decode<R>(kind: ReplyKind, body: Body, pid: u32, count: usize, nesting: u32) -> Results<R>
where
    R: DeserializeOwned + Send + 'static,
{
    // The length at the head of the list is checked first: items without bytes, such as `()`, could be decoded for ever if it
    // were wrong.
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
        let config = &self.inner.config;
        let stretches = inputs::encode(items, config.max_nesting, config.max_payload);
        // This comes before other threads can see the inputs, which may send all of them and release the hold.
        self.inner.hold();
        let mut track = self.track.lock();
        for stretch in stretches {
            let first = track.end;
            track.end += stretch.len();
            match stretch {
                Stretch::Encoded(inputs) => {
                    track.unsent += inputs.len();
                    track.waiting.insert(first, inputs);
                }
                Stretch::Failed(error) => {
                    track.done.insert(first, Arrived::failed(1, &error));
                }
            }
        }
        self.let_go_if_held(track);
        self.send();
    }

    fn next_chunk(&self, next: usize, deadline: Option<Instant>) -> Option<Results<R>> {
        let is_there =
            |track: &Track<R>| if self.ordered { track.done.contains_key(&next) } else { !track.done.is_empty() };
        let mut helped = false;
        let mut track = self.track.lock();
        loop {
            let arrived =
                if self.ordered { track.done.remove(&next) } else { track.done.pop_first().map(|(_, chunk)| chunk) };
            if let Some(arrived) = arrived {
                drop(track);
                return Some(self.decode(arrived));
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return None;
            }
            if !std::mem::replace(&mut helped, true) {
                drop(track);
                self.inner.drive_while_waiting(0, &|| is_there(&self.track.lock()), deadline, WaitMode::Spin);
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
        drop(dropped);
    }
}
