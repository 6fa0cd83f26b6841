//! The examples in which time is the point, one after the other, on threads and in processes: downloads, web pages, prime
//! numbers, a long sum; and calls that async code waits for.

use std::hint::black_box;
use std::ops::Range;
use std::thread;
use std::time::Duration;

use concurrent_futures::{
    ProcessPoolExecutor, ThreadPoolExecutor, as_completed, block_on, cpu_workers, default_executor,
};
use criterion::{Criterion, criterion_group, criterion_main};
use ureq::Agent;

#[path = "../examples/common/pages.rs"]
mod pages;
#[path = "../examples/common/primes.rs"]
mod primes;

use primes::{PRIMES, is_prime};

/// Two downloads that only sleep; a second of the example lasts a millisecond.
fn downloads(c: &mut Criterion) {
    const SECONDS: [u64; 2] = [10, 5];
    let download = |seconds| thread::sleep(Duration::from_millis(seconds));
    let mut group = c.benchmark_group("downloads");
    group.bench_function("sequential", |b| b.iter(|| SECONDS.map(download)));
    let pool = ThreadPoolExecutor::new(SECONDS.len()).unwrap();
    group.bench_function("threads", |b| {
        b.iter(|| SECONDS.map(|seconds| pool.submit(move || download(seconds))).map(|future| future.result().unwrap()));
    });
    let pool = ProcessPoolExecutor::new(SECONDS.len()).unwrap();
    group.bench_function("processes", |b| {
        b.iter(|| SECONDS.map(|seconds| pool.submit(download, seconds)).map(|future| future.result().unwrap()));
    });
    group.finish();
}

/// Five pages of a server on the loopback interface: short, long, slow, slow again, and one that is not there.
fn fetch(c: &mut Criterion) {
    let server = pages::serve().unwrap();
    let agent = Agent::new_with_config(Agent::config_builder().proxy(None).build());
    let urls =
        ["/bytes/1256", "/bytes/1000000", "/delay/5", "/delay/10", "/missing"].map(|path| format!("{server}{path}"));
    let get = |agent: &Agent, url: &str| agent.get(url).call()?.body_mut().read_to_vec();

    let mut group = c.benchmark_group("fetch");
    group.bench_function("sequential", |b| b.iter(|| urls.iter().filter(|url| get(&agent, url).is_ok()).count()));
    let pool = ThreadPoolExecutor::new(urls.len()).unwrap();
    group.bench_function("threads", |b| {
        b.iter(|| {
            let futures = urls.clone().map(|url| {
                let agent = agent.clone();
                pool.submit(move || get(&agent, &url))
            });
            as_completed(futures).filter_map(|future| future.result().unwrap().ok()).count()
        });
    });
    group.finish();
}

/// The six numbers, which keep a core busy for tens of milliseconds.
fn numbers(c: &mut Criterion) {
    let mut group = c.benchmark_group("is_prime");
    group.sample_size(30);
    group.bench_function("sequential", |b| b.iter(|| PRIMES.map(is_prime)));
    let pool = ThreadPoolExecutor::new(cpu_workers()).unwrap();
    group.bench_function("threads", |b| {
        b.iter(|| pool.map(is_prime, PRIMES).map(Result::unwrap).collect::<Vec<bool>>());
    });
    let pool = ProcessPoolExecutor::builder().build().unwrap();
    group.bench_function("processes", |b| {
        b.iter(|| pool.map(is_prime, PRIMES).map(Result::unwrap).collect::<Vec<bool>>());
    });
    group.finish();
}

/// The numbers from 1 to a million, in 8 slices: as ranges, and as lists (which the processes have to be sent).
fn sums(c: &mut Criterion) {
    const SLICES: u32 = 8;
    const SLICE: u32 = 125_000;
    fn sum<S: IntoIterator<Item = u32>>(slice: S) -> u64 {
        slice.into_iter().map(|number| u64::from(black_box(number))).sum()
    }
    let ranges = || (0..SLICES).map(|n| n * SLICE + 1..(n + 1) * SLICE + 1);
    let lists: Vec<Vec<u32>> = ranges().map(Vec::from_iter).collect();

    let mut group = c.benchmark_group("sum_slices");
    group.bench_function("sequential", |b| b.iter(|| ranges().map(sum).sum::<u64>()));
    let pool = ThreadPoolExecutor::new(cpu_workers()).unwrap();
    group.bench_function("threads", |b| {
        b.iter(|| {
            let sums = pool.submit_all(ranges().map(|range| move || sum(range)));
            as_completed(sums).map(|sum| sum.result().unwrap()).sum::<u64>()
        });
    });
    let pool = ProcessPoolExecutor::new(SLICES as usize).unwrap();
    group.bench_function("processes", |b| {
        b.iter(|| {
            let sums = ranges().map(|range| pool.submit(sum::<Range<u32>>, range));
            as_completed(sums).map(|sum| sum.result().unwrap()).sum::<u64>()
        });
    });
    group.bench_function("processes_lists", |b| {
        b.iter(|| {
            let sums = lists.iter().map(|list| pool.submit(sum::<Vec<u32>>, list.clone()));
            as_completed(sums).map(|sum| sum.result().unwrap()).sum::<u64>()
        });
    });
    group.finish();
}

/// A call in each of three pools, one after the other, blocked on and awaited: what the way of waiting costs.
fn executors(c: &mut Criterion) {
    fn squares(limit: u128) -> u128 {
        (0..limit).map(|i| black_box(i) * i).sum()
    }
    const LIMIT: u128 = 1000;
    let (threads, processes) = (ThreadPoolExecutor::new(1).unwrap(), ProcessPoolExecutor::new(1).unwrap());
    let calls = async || {
        default_executor().submit(|| squares(LIMIT)).await.unwrap()
            + threads.submit(|| squares(LIMIT)).await.unwrap()
            + processes.submit(squares, LIMIT).await.unwrap()
    };

    let mut group = c.benchmark_group("run_in_executor");
    group.bench_function("result", |b| {
        b.iter(|| {
            default_executor().submit(|| squares(LIMIT)).result().unwrap()
                + threads.submit(|| squares(LIMIT)).result().unwrap()
                + processes.submit(squares, LIMIT).result().unwrap()
        });
    });
    group.bench_function("block_on", |b| b.iter(|| block_on(calls())));
    let tokio = tokio::runtime::Builder::new_current_thread().build().unwrap();
    group.bench_function("tokio", |b| b.iter(|| tokio.block_on(calls())));
    group.bench_function("smol", |b| b.iter(|| smol::block_on(calls())));
    group.finish();
}

criterion_group!(benches, downloads, fetch, numbers, sums, executors);
criterion_main!(benches);
