//! Random operations on a pool, against a model of what may come of them: every task that was accepted resolves exactly
//! once, what is refused says so, nothing is lost and nothing runs twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use concurrent_futures::{
    MapOptions, Priority, ReturnWhen, Shutdown, TaskError, TaskFuture, ThreadPoolExecutor, as_completed,
    as_completed_timeout, wait,
};
use proptest::prelude::*;

/// How long one case may take before it counts as hung.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
enum Op {
    /// Submits a task; it panics, if so, and submits and waits for so many tasks of its own.
    Submit {
        priority: Priority,
        panics: bool,
        children: u8,
    },
    Batch(u8),
    Map {
        items: u8,
        chunk: Option<usize>,
        buffer: Option<usize>,
        ordered: bool,
        take: u8,
    },
    Scope(u8),
    /// The index is taken modulo the number of handles.
    Cancel(usize),
    DropHandle(usize),
    Take(usize),
    TakeWithTimeout(usize),
    AddCallback(usize),
    WaitForSome(ReturnWhen),
    CompleteAll,
    CompleteSome,
    Resize(usize),
    Shutdown(Shutdown),
}

fn priority() -> impl Strategy<Value = Priority> {
    prop_oneof![Just(Priority::Low), Just(Priority::Normal), Just(Priority::High)]
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (priority(), prop::bool::weighted(0.1), 0..4u8)
            .prop_map(|(priority, panics, children)| Op::Submit { priority, panics, children }),
        2 => (0..20u8).prop_map(Op::Batch),
        2 => (0..30u8, prop::option::of(1..5usize), prop::option::of(1..5usize), any::<bool>(), 0..40u8)
            .prop_map(|(items, chunk, buffer, ordered, take)| Op::Map { items, chunk, buffer, ordered, take }),
        1 => (0..10u8).prop_map(Op::Scope),
        4 => any::<usize>().prop_map(Op::Cancel),
        2 => any::<usize>().prop_map(Op::DropHandle),
        2 => any::<usize>().prop_map(Op::Take),
        2 => any::<usize>().prop_map(Op::TakeWithTimeout),
        2 => any::<usize>().prop_map(Op::AddCallback),
        1 => prop_oneof![
            Just(ReturnWhen::FirstCompleted), Just(ReturnWhen::FirstException), Just(ReturnWhen::AllCompleted)
        ]
        .prop_map(Op::WaitForSome),
        1 => Just(Op::CompleteAll),
        1 => Just(Op::CompleteSome),
        2 => (1..5usize).prop_map(Op::Resize),
        1 => prop_oneof![
            Just(Shutdown::Wait), Just(Shutdown::NoWait), Just(Shutdown::CancelPending),
            Just(Shutdown::Within(LIMIT))
        ]
        .prop_map(Op::Shutdown),
    ]
}

/// What is known of one task.
#[derive(Default)]
struct Record {
    runs: AtomicUsize,
    drops: AtomicUsize,
    callbacks_added: AtomicUsize,
    callbacks_run: AtomicUsize,
    /// Set by the test's own thread.
    cancelled: AtomicUsize,
    refused: AtomicUsize,
    panics: bool,
}

/// Goes with the closure of a task.
struct Captured(Arc<Record>);

impl Drop for Captured {
    fn drop(&mut self) {
        self.0.drops.fetch_add(1, SeqCst);
    }
}

struct Handle {
    future: TaskFuture<usize>,
    record: Arc<Record>,
    number: usize,
}

struct Model {
    pool: Arc<ThreadPoolExecutor>,
    handles: Vec<Handle>,
    records: Vec<Arc<Record>>,
    closed: bool,
    cancelling: bool,
}

impl Model {
    fn new(workers: usize) -> Self {
        let pool = Arc::new(ThreadPoolExecutor::new(workers).unwrap());
        Self { pool, handles: Vec::new(), records: Vec::new(), closed: false, cancelling: false }
    }

    fn closure(&mut self, panics: bool, children: u8) -> (Arc<Record>, usize, impl FnOnce() -> usize + Send + 'static) {
        let (record, number) = (Arc::new(Record { panics, ..Record::default() }), self.records.len());
        self.records.push(Arc::clone(&record));
        let (captured, pool) = (Captured(Arc::clone(&record)), Arc::downgrade(&self.pool));
        let closure = move || {
            captured.0.runs.fetch_add(1, SeqCst);
            let futures: Vec<_> = match pool.upgrade() {
                Some(pool) => (0..children).map(|n| pool.submit(move || n)).collect(),
                None => Vec::new(),
            };
            for (n, future) in futures.into_iter().enumerate() {
                match future.result() {
                    Ok(value) => assert_eq!(value as usize, n),
                    Err(error) => assert!(error.is_shut_down() || error.is_cancelled(), "{error}"),
                }
            }
            if panics {
                std::panic::resume_unwind(Box::new(number));
            }
            number
        };
        (record, number, closure)
    }

    fn keep(&mut self, future: TaskFuture<usize>, record: Arc<Record>, number: usize) {
        if self.closed {
            assert!(future.is_done());
            record.refused.store(1, SeqCst);
        }
        self.handles.push(Handle { future, record, number });
    }

    fn index(&self, index: usize) -> Option<usize> {
        index.checked_rem(self.handles.len())
    }

    /// Checks the outcome of a task against what is known of it.
    fn check(&self, result: Result<usize, TaskError>, record: &Record, number: usize) {
        let runs = record.runs.load(SeqCst);
        let (cancelled, refused) = (record.cancelled.load(SeqCst) == 1, record.refused.load(SeqCst) == 1);
        match result {
            Ok(value) => assert_eq!((value, runs, record.panics, cancelled, refused), (number, 1, false, false, false)),
            Err(TaskError::Panicked(panic)) => {
                assert_eq!(*panic.into_payload().unwrap().downcast::<usize>().unwrap(), number);
                assert_eq!((runs, record.panics, cancelled, refused), (1, true, false, false));
            }
            Err(TaskError::Cancelled) => {
                assert_eq!((runs, refused), (0, false));
                assert!(cancelled || self.cancelling);
            }
            Err(TaskError::ShutDown) => assert_eq!((runs, cancelled, refused), (0, false, true)),
            Err(other) => panic!("{other:?}"),
        }
        assert_eq!(record.callbacks_run.load(SeqCst), record.callbacks_added.load(SeqCst));
    }

    fn finish(&self, handle: Handle) {
        let Handle { future, record, number } = handle;
        self.check(future.result(), &record, number);
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Submit { priority, panics, children } => {
                let (record, number, closure) = self.closure(panics, children);
                let future = self.pool.task(closure).priority(priority).submit();
                self.keep(future, record, number);
            }
            Op::Batch(count) => {
                let (mut ids, mut closures) = (Vec::new(), Vec::new());
                for _ in 0..count {
                    let (record, number, closure) = self.closure(false, 0);
                    ids.push((record, number));
                    closures.push(closure);
                }
                let futures = self.pool.submit_all(closures);
                assert_eq!(futures.len(), ids.len());
                for (future, (record, number)) in futures.into_iter().zip(ids) {
                    self.keep(future, record, number);
                }
            }
            Op::Map { items, chunk, buffer, ordered, take } => {
                let mut options = MapOptions::new().ordered(ordered);
                options = chunk.map_or(options, |chunk| options.chunk_size(chunk));
                options = buffer.map_or(options, |buffer| options.buffer(buffer));
                let results = self.pool.map_with(options, |n| n, 0..items).unwrap();
                let mut values = Vec::new();
                for result in results.take(take as usize) {
                    match result {
                        Ok(value) => values.push(value),
                        Err(error) => assert!(self.closed && (error.is_shut_down() || error.is_cancelled()), "{error}"),
                    }
                }
                if !self.closed {
                    assert_eq!(values.len(), items.min(take) as usize);
                    if !ordered {
                        values.sort_unstable();
                        values.dedup();
                        assert_eq!(values.len(), items.min(take) as usize);
                    } else {
                        assert!(values.iter().copied().eq(0..items.min(take)));
                    }
                }
            }
            Op::Scope(tasks) => {
                let ran = AtomicUsize::new(0);
                self.pool.scope(|scope| {
                    for _ in 0..tasks {
                        drop(scope.submit(|| ran.fetch_add(1, SeqCst)));
                    }
                });
                assert_eq!(ran.into_inner(), if self.closed { 0 } else { tasks as usize });
            }
            Op::Cancel(index) => {
                let Some(index) = self.index(index) else { return };
                let Handle { future, record, .. } = &self.handles[index];
                if future.cancel() {
                    assert!(future.is_done() && future.is_cancelled());
                    assert_eq!((record.runs.load(SeqCst), record.drops.load(SeqCst)), (0, 1));
                    record.cancelled.store(1, SeqCst);
                }
            }
            Op::DropHandle(index) => {
                let Some(index) = self.index(index) else { return };
                drop(self.handles.swap_remove(index));
            }
            Op::Take(index) => {
                let Some(index) = self.index(index) else { return };
                let handle = self.handles.swap_remove(index);
                self.finish(handle);
            }
            Op::TakeWithTimeout(index) => {
                let Some(index) = self.index(index) else { return };
                let Handle { future, record, number } = self.handles.swap_remove(index);
                match future.result_timeout(Duration::from_micros(50)) {
                    Ok(result) => self.check(result, &record, number),
                    Err(future) => self.handles.push(Handle { future, record, number }),
                }
            }
            Op::AddCallback(index) => {
                let Some(index) = self.index(index) else { return };
                let Handle { future, record, number } = &self.handles[index];
                record.callbacks_added.fetch_add(1, SeqCst);
                let (called, number) = (Arc::clone(record), *number);
                future.add_done_callback(move |outcome| {
                    assert!(outcome.is_err() || *outcome.unwrap() == number);
                    called.callbacks_run.fetch_add(1, SeqCst);
                });
            }
            Op::WaitForSome(when) => {
                let numbers: Vec<usize> = self.handles.iter().map(|handle| handle.number).collect();
                let (mut records, mut futures) = (Vec::new(), Vec::new());
                for handle in self.handles.drain(..) {
                    futures.push((records.len(), handle.future));
                    records.push((handle.record, handle.number));
                }
                let waited = wait(futures, None, when);
                assert!(waited.done.iter().all(|(_, future)| future.is_done()));
                assert!(!waited.done.is_empty() || numbers.is_empty());
                if when == ReturnWhen::AllCompleted {
                    assert!(waited.not_done.is_empty());
                }
                assert_eq!(waited.done.len() + waited.not_done.len(), numbers.len());
                for (key, future) in waited.done.into_iter().chain(waited.not_done) {
                    let (record, number) = &records[key];
                    self.handles.push(Handle { future, record: Arc::clone(record), number: *number });
                }
            }
            Op::CompleteAll => {
                let (records, futures) = self.split();
                let mut seen = 0;
                for (key, future) in as_completed(futures) {
                    seen += 1;
                    let (record, number) = &records[key];
                    self.check(future.try_result().expect("it is done"), record, *number);
                }
                assert_eq!(seen, records.len());
            }
            Op::CompleteSome => {
                let (records, futures) = self.split();
                let mut completed = as_completed_timeout(futures, Duration::from_micros(50));
                let mut done = 0;
                while let Some(Ok((key, future))) = completed.next() {
                    done += 1;
                    let (record, number) = &records[key];
                    self.check(future.try_result().expect("it is done"), record, *number);
                }
                let unfinished = completed.into_unfinished();
                assert_eq!(done + unfinished.len(), records.len());
                for (key, future) in unfinished {
                    let (record, number) = &records[key];
                    self.handles.push(Handle { future, record: Arc::clone(record), number: *number });
                }
            }
            Op::Resize(workers) => {
                self.pool.resize(workers).unwrap();
                assert_eq!(self.pool.stats().max_workers, workers);
            }
            Op::Shutdown(how) => {
                self.closed = true;
                self.cancelling |= how == Shutdown::CancelPending;
                self.pool.shutdown(how).unwrap();
                if how != Shutdown::NoWait {
                    assert_eq!(self.pool.stats().workers, 0);
                    assert!(self.handles.iter().all(|handle| handle.future.is_done()));
                }
            }
        }
    }

    #[allow(clippy::type_complexity)]
    fn split(&mut self) -> (Vec<(Arc<Record>, usize)>, Vec<(usize, TaskFuture<usize>)>) {
        let handles = self.handles.drain(..).enumerate();
        handles.map(|(key, handle)| ((handle.record, handle.number), (key, handle.future))).unzip()
    }

    fn end(mut self) {
        for handle in std::mem::take(&mut self.handles) {
            self.finish(handle);
        }
        self.pool.shutdown(Shutdown::Wait).unwrap();
        assert_eq!(self.pool.stats().workers, 0);
        for (number, record) in self.records.iter().enumerate() {
            let runs = record.runs.load(SeqCst);
            assert_eq!(record.drops.load(SeqCst), 1, "the closure of task {number}");
            assert_eq!(record.callbacks_run.load(SeqCst), record.callbacks_added.load(SeqCst), "task {number}");
            let spared = record.cancelled.load(SeqCst) == 1 || record.refused.load(SeqCst) == 1;
            match (spared, self.cancelling) {
                (true, _) => assert_eq!(runs, 0, "task {number}"),
                (false, false) => assert_eq!(runs, 1, "task {number}"),
                (false, true) => assert!(runs <= 1, "task {number}"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_task_resolves_exactly_once(workers in 1..5usize, ops in prop::collection::vec(op(), 1..80)) {
        let (done, ended) = mpsc::channel();
        let operations = ops.clone();
        let case = thread::spawn(move || {
            let mut model = Model::new(workers);
            operations.into_iter().for_each(|op| model.apply(op));
            model.end();
            let _ = done.send(());
        });
        if ended.recv_timeout(LIMIT) == Err(mpsc::RecvTimeoutError::Timeout) {
            eprintln!("\n{workers} workers hang with {ops:?}");
            std::process::abort();
        }
        prop_assert!(case.join().is_ok());
    }
}
