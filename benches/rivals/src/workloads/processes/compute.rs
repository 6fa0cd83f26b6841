//! Work that is worth more processes.

use std::hint::black_box;
use std::sync::OnceLock;

use concurrent_futures::ThreadPoolExecutor;

use super::{add, add_python};
use crate::measure::{Bench, Role, millis};
use crate::process_pools::{ProcessPool, ProcessPools, Task, for_each_process_pool};
use crate::workloads::compute::{PRIMES, is_prime, primes_on_threads};

/// The sums are cut into so many parts, for as many workers.
pub(super) const PARTS: usize = 8;
const LAST: u64 = 100_000_000;

pub(super) fn primes(pools: &ProcessPools) -> Bench {
    let workers = pools.workers;
    let mut bench = Bench::new("P5", "is it a prime? for six large numbers, one task each", &["ms"]);
    for_each_process_pool!(pools, pool => add(&mut bench, pool, move || {
        let pool = pool.get();
        millis(|| primes_on_pool(pool))
    }));
    add_python(&mut bench, pools, "primes", &[&[workers], PRIMES.map(|n| n as usize).as_slice()].concat());
    let ours = pools.ours;
    bench.add_as("ours map", Role::Reference, move || {
        let pool = &ours.get().0;
        millis(|| count(pool.map(is_prime, PRIMES).map(|prime| prime.expect("no item fails"))))
    });
    let threads = OnceLock::new();
    bench.add_as("ours threads", Role::Reference, move || {
        let pool = threads.get_or_init(|| ThreadPoolExecutor::new(workers).expect("a valid number of workers"));
        millis(|| {
            let futures = PRIMES.map(|n| pool.submit(move || is_prime(n)));
            count(futures.into_iter().map(|future| future.result().expect("the task succeeds")))
        })
    });
    bench.add_as("bare threads", Role::Reference, move || millis(|| primes_on_threads(workers)));
    bench
}

pub(super) fn sums(pools: &ProcessPools) -> Bench {
    let what = format!("the sum of the numbers to {LAST}, in {PARTS} ranges on {PARTS} workers");
    let mut bench = Bench::new("P6", what, &["ms"]);
    for_each_process_pool!(pools, pool => add(&mut bench, pool, move || sum::<SumOfRange, _>(pool.get(), part)));
    add_python(&mut bench, pools, "sums", &[PARTS, LAST as usize]);
    bench
}

pub(super) fn sums_of_lists(pools: &ProcessPools) -> Bench {
    let what = format!("the same with the numbers sent, as {PARTS} lists; making them does not count");
    let mut bench = Bench::new("P6list", what, &["ms"]).once().rare();
    for_each_process_pool!(pools, pool => add(&mut bench, pool, move || {
        let pool = pool.get();
        // So that the workers are there.
        sum::<SumOfRange, _>(pool, part);
        sum::<SumOfList, _>(pool, |n| {
            let (first, end) = part(n);
            (first..end).collect()
        })
    }));
    add_python(&mut bench, pools, "sums_of_lists", &[PARTS, LAST as usize]);
    bench
}

/// First and one past the last of the numbers of a part.
fn part(n: usize) -> (u64, u64) {
    let border = |n| 1 + n as u64 * LAST / PARTS as u64;
    (border(n), border(n + 1))
}

fn sum<T: Task<Result = u64>, P: ProcessPool>(pool: &P, argument: impl Fn(usize) -> T::Argument) -> [f64; 1] {
    let arguments: Vec<_> = (0..PARTS).map(argument).collect();
    let mut sum = 0;
    let millis = millis(|| {
        let handles: Vec<_> = arguments.into_iter().map(|argument| pool.submit::<T>(argument)).collect();
        sum = handles.into_iter().map(P::wait).sum();
    });
    assert_eq!(sum, LAST * (LAST + 1) / 2);
    millis
}

fn primes_on_pool<P: ProcessPool>(pool: &P) -> usize {
    let handles = PRIMES.map(|n| pool.submit::<IsPrime>(n));
    count(handles.into_iter().map(P::wait))
}

fn count(primes: impl Iterator<Item = bool>) -> usize {
    primes.filter(|prime| *prime).count()
}

struct IsPrime;

impl Task for IsPrime {
    type Argument = u64;
    type Result = bool;

    fn run(n: u64) -> bool {
        is_prime(n)
    }
}

/// Without a formula for it.
struct SumOfRange;

impl Task for SumOfRange {
    type Argument = (u64, u64);
    type Result = u64;

    fn run((first, end): (u64, u64)) -> u64 {
        (first..end).fold(0, |sum, n| sum + black_box(n))
    }
}

struct SumOfList;

impl Task for SumOfList {
    type Argument = Vec<u64>;
    type Result = u64;

    fn run(numbers: Vec<u64>) -> u64 {
        numbers.into_iter().sum()
    }
}
