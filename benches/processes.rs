//! What the process pool costs: round trips, many tiny tasks, maps, values of all sizes, start and end.

use std::hint::black_box;
use std::thread;
use std::time::Duration;

use concurrent_futures::{ProcessPoolExecutor, TaskFuture, block_on, cpu_workers};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

/// Tasks that are submitted at a time.
const TASKS: u64 = 10_000;
/// Items of a map.
const ITEMS: u64 = 200_000;
/// Longer than a worker takes to start.
const START: Duration = Duration::from_millis(50);

/// A pool that has started its workers: as long as there are fewer than allowed, each task gets one of its own.
fn pool(workers: usize) -> ProcessPoolExecutor {
    let pool = ProcessPoolExecutor::new(workers).unwrap();
    let tasks: Vec<_> = (0..workers).map(|_| pool.submit(|()| thread::sleep(START), ())).collect();
    tasks.into_iter().for_each(|task| task.result().unwrap());
    assert_eq!(pool.stats().workers, workers);
    pool
}

fn successor(n: u64) -> u64 {
    n + 1
}

fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(format!("processes/{name}"));
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    group
}

/// One tiny task, again and again.
fn round_trip(c: &mut Criterion) {
    let mut group = group(c, "round_trip");
    let pool = pool(1);
    group.bench_function("back_to_back", |b| b.iter(|| pool.submit(successor, 1).result().unwrap()));
    group.bench_function("awaited", |b| b.iter(|| block_on(pool.submit(successor, 1)).unwrap()));
    group.finish();
}

/// Many tiny tasks, submitted one by one, then waited for.
fn batch(c: &mut Criterion) {
    let mut group = group(c, "batch");
    group.throughput(Throughput::Elements(TASKS));
    let pool = pool(cpu_workers());
    group.bench_function(BenchmarkId::from_parameter(TASKS), |b| {
        b.iter(|| {
            let futures: Vec<TaskFuture<u64>> = (0..TASKS).map(|n| pool.submit(successor, n)).collect();
            futures.into_iter().map(|future| future.result().unwrap()).sum::<u64>()
        });
    });
    group.finish();
}

/// Many tiny items, which travel in chunks.
fn map(c: &mut Criterion) {
    let mut group = group(c, "map");
    group.throughput(Throughput::Elements(ITEMS));
    let pool = pool(cpu_workers());
    group.bench_function(BenchmarkId::from_parameter(ITEMS), |b| {
        b.iter(|| pool.map(successor, 0..ITEMS).map(Result::unwrap).sum::<u64>());
    });
    group.finish();
}

/// Bytes there and back. Up to 64 KiB travel in one piece, longer ones as a stream.
fn echo(c: &mut Criterion) {
    let mut group = group(c, "echo");
    let pool = pool(1);
    for (name, size) in [("1_KiB", 1 << 10), ("64_KiB", 64 << 10), ("1_MiB", 1 << 20)] {
        let bytes = vec![42u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_function(name, |b| {
            b.iter(|| pool.submit(|bytes: Vec<u8>| bytes, black_box(&bytes).clone()).result().unwrap());
        });
    }
    group.finish();
}

/// A pool from nothing: two workers, a task for each, and the end.
fn start(c: &mut Criterion) {
    let mut group = group(c, "start");
    group.bench_function(BenchmarkId::new("workers", 2), |b| {
        b.iter(|| {
            let pool = ProcessPoolExecutor::new(2).unwrap();
            [0, 1].map(|n| pool.submit(successor, n)).map(|future| future.result().unwrap())
        });
    });
    group.finish();
}

criterion_group!(benches, round_trip, batch, map, echo, start);
criterion_main!(benches);
