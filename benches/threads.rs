//! What the thread pool costs: submitting, round trips, nesting, fork and join, maps, start and end, waiting for many.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use concurrent_futures::{ReturnWhen, TaskFuture, ThreadPoolExecutor, as_completed, block_on, cpu_workers, wait};
use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

#[path = "../examples/common/primes.rs"]
mod primes;

use primes::{PRIMES, is_prime};

/// Tasks that are submitted at a time.
const TASKS: usize = 20_000;
const PRODUCERS: usize = 4;
const HASHES: u64 = 1_000_000;

fn pool() -> ThreadPoolExecutor {
    ThreadPoolExecutor::new(cpu_workers()).unwrap()
}

fn submit_empty(pool: &ThreadPoolExecutor, tasks: usize) {
    let futures: Vec<TaskFuture<()>> = (0..tasks).map(|_| pool.submit(|| ())).collect();
    futures.into_iter().for_each(|future| future.result().unwrap());
}

/// Many empty tasks, submitted from outside, from inside, and by several threads; each waits for its own.
fn submit(c: &mut Criterion) {
    let mut group = group(c, "submit");
    group.throughput(Throughput::Elements(TASKS as u64));

    let workers = Arc::new(pool());
    group.bench_function("from_outside", |b| b.iter(|| submit_empty(&workers, TASKS)));
    group.bench_function("from_outside_at_once", |b| {
        b.iter(|| {
            let futures = workers.submit_all((0..TASKS).map(|_| || ()));
            futures.into_iter().for_each(|future| future.result().unwrap());
        });
    });
    group.bench_function("from_inside", |b| {
        b.iter(|| {
            let inside = Arc::clone(&workers);
            workers.submit(move || submit_empty(&inside, TASKS)).result().unwrap();
        });
    });
    group.bench_function(BenchmarkId::new("producers", PRODUCERS), |b| {
        b.iter_custom(|rounds| {
            at_once(PRODUCERS, || (0..rounds).for_each(|_| submit_empty(&workers, TASKS / PRODUCERS)))
        });
    });
    group.finish();
}

/// Runs `f` in so many threads, and measures from the moment when all are there until all have ended.
fn at_once(threads: usize, f: impl Fn() + Sync) -> Duration {
    let all_there = Barrier::new(threads + 1);
    let start = thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                all_there.wait();
                f();
            });
        }
        all_there.wait();
        Instant::now()
    });
    start.elapsed()
}

/// One empty task, back to back, and with the submitter busy in between so that the workers fall asleep.
fn round_trip(c: &mut Criterion) {
    let mut group = group(c, "round_trip");
    let workers = pool();
    group.bench_function("back_to_back", |b| b.iter(|| workers.submit(|| ()).result().unwrap()));
    group.bench_function("awaited", |b| b.iter(|| block_on(workers.submit(|| ())).unwrap()));
    group.bench_function("workers_asleep", |b| {
        b.iter_custom(|rounds| {
            let mut total = Duration::ZERO;
            for _ in 0..rounds {
                let pause = Instant::now();
                while pause.elapsed() < Duration::from_micros(200) {
                    std::hint::spin_loop();
                }
                let start = Instant::now();
                workers.submit(|| ()).result().unwrap();
                total += start.elapsed();
            }
            total
        });
    });
    group.finish();
}

fn fib(n: u32) -> u64 {
    if n < 2 { n.into() } else { fib(n - 1) + fib(n - 2) }
}

/// Below this, a Fibonacci number is computed without further tasks.
const SMALL: u32 = 12;

fn fib_join(pool: &ThreadPoolExecutor, n: u32) -> u64 {
    if n < SMALL {
        return fib(n);
    }
    let (a, b) = pool.join(|| fib_join(pool, n - 1), || fib_join(pool, n - 2));
    a + b
}

fn fib_submit(pool: &Arc<ThreadPoolExecutor>, n: u32) -> u64 {
    if n < SMALL {
        return fib(n);
    }
    let inside = Arc::clone(pool);
    let a = pool.submit(move || fib_submit(&inside, n - 1));
    let b = fib_submit(pool, n - 2);
    a.result().unwrap() + b
}

/// Divide and conquer, 10,945 forks: by `join`, and by tasks that wait for their own tasks.
fn fork_join(c: &mut Criterion) {
    let mut group = group(c, "fib_30");
    let workers = Arc::new(pool());
    group.bench_function("sequential", |b| b.iter(|| fib(black_box(30))));
    group.bench_function("join", |b| b.iter(|| fib_join(&workers, black_box(30))));
    group.bench_function("submit_and_wait", |b| {
        b.iter(|| {
            let inside = Arc::clone(&workers);
            workers.submit(move || fib_submit(&inside, black_box(30))).result().unwrap()
        });
    });
    group.finish();
}

/// A few nanoseconds of work.
fn hash(mut x: u64) -> u64 {
    for _ in 0..12 {
        x = (x ^ (x >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
    x
}

/// Maps: very many cheap items, and six expensive ones.
fn map(c: &mut Criterion) {
    let workers = pool();

    let mut cheap = group(c, "map_hash");
    cheap.throughput(Throughput::Elements(HASHES));
    cheap.bench_function("sequential", |b| b.iter(|| (0..black_box(HASHES)).map(hash).collect::<Vec<u64>>()));
    cheap.bench_function("map", |b| {
        b.iter(|| workers.map(hash, 0..black_box(HASHES)).map(Result::unwrap).collect::<Vec<u64>>());
    });
    cheap.finish();

    let mut expensive = group(c, "map_is_prime");
    expensive.bench_function("sequential", |b| b.iter(|| black_box(PRIMES).map(is_prime)));
    expensive.bench_function("map", |b| {
        b.iter(|| workers.map(is_prime, black_box(PRIMES)).map(Result::unwrap).collect::<Vec<bool>>());
    });
    expensive.finish();
}

/// A pool's whole life: start, one task or as many at the same time as there are workers, end.
fn life(c: &mut Criterion) {
    let mut group = group(c, "start_and_end");
    for n in [2, 64] {
        group.bench_function(BenchmarkId::new("one_task", n), |b| {
            b.iter(|| ThreadPoolExecutor::new(n).unwrap().submit(|| ()).result().unwrap());
        });
        group.bench_function(BenchmarkId::new("all_busy", n), |b| {
            b.iter(|| {
                let (pool, all_there) = (ThreadPoolExecutor::new(n).unwrap(), Arc::new(Barrier::new(n)));
                let meet = (0..n).map(|_| Arc::clone(&all_there)).map(|all| {
                    move || {
                        all.wait();
                    }
                });
                drop(pool.submit_all(meet));
            });
        });
        group.bench_function(BenchmarkId::new("bare_threads", n), |b| b.iter(|| at_once(n, || ())));
    }
    group.finish();
}

/// Waiting for many tasks, per task: what `wait` and `as_completed` add to asking one after the other.
fn many(c: &mut Criterion) {
    let mut group = group(c, "many_futures");
    let workers = pool();
    for n in [1_000, 10_000, 100_000] {
        let futures = || workers.submit_all((0..n).map(|_| || ()));
        group.throughput(Throughput::Elements(n));
        group.bench_function(BenchmarkId::new("one_by_one", n), |b| {
            b.iter(|| futures().into_iter().for_each(|future| future.result().unwrap()));
        });
        group.bench_function(BenchmarkId::new("wait", n), |b| {
            b.iter(|| assert_eq!(wait(futures(), None, ReturnWhen::AllCompleted).not_done.len(), 0));
        });
        group.bench_function(BenchmarkId::new("as_completed", n), |b| {
            b.iter(|| as_completed(futures()).for_each(|future| future.result().unwrap()));
        });
    }
    group.finish();
}

/// A few seconds for each measurement: the spread between runs is larger than what more samples would gain.
fn group<'a>(c: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = c.benchmark_group(name);
    group.sample_size(20).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    group
}

criterion_group!(benches, submit, round_trip, fork_join, map, life, many);
criterion_main!(benches);
