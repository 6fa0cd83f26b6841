//! Three ways to use all cores: many threads, many processes, and several processes with several threads each.

use std::collections::BTreeMap;
use std::error::Error;
use std::ops::Range;
use std::time::Instant;
use std::{process, thread};

use concurrent_futures::{ProcessPoolExecutor, TaskFuture, ThreadPoolExecutor, as_completed, cpu_workers};

#[path = "common/args.rs"]
mod args;
#[allow(dead_code)] // Of its numbers nothing is needed here.
#[path = "common/primes.rs"]
mod primes;

const USAGE: &str = "\
Counts the primes below a limit, slice by slice: on threads, in processes, and on the threads of processes.
Shows which thread of which process counted which slice.

Usage: hybrid [LIMIT]

  LIMIT  count the primes below this number; 500000 by default";

const SLICES: u64 = 12;

/// A slice, the number of primes in it, and the process and thread that counted them.
type Counted = (u64, usize, u32, String);

/// Runs in all three pools.
fn count((slice, numbers): (u64, Range<u64>)) -> Counted {
    let found = numbers.filter(|&number| primes::is_prime(number)).count();
    (slice, found, process::id(), thread::current().name().unwrap_or("?").to_owned())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    let limit: u64 = match arguments[..] {
        [] => 500_000,
        [limit] => limit.parse::<u32>().unwrap_or_else(|_| args::reject(USAGE, &arguments)).into(),
        _ => args::reject(USAGE, &arguments),
    };
    let slices = || (0..SLICES).map(|slice| (slice, limit * slice / SLICES..limit * (slice + 1) / SLICES));
    let cores = cpu_workers();
    println!("This is process {}, on {cores} cores.", process::id());

    // CPU-bound tasks need as many workers as there are cores. (With fewer than four cores the third pool has more workers,
    // so that it has several processes with several threads each.)
    let (processes, threads) = (2, cores.div_ceil(2).max(2));

    let start = Instant::now();
    let pool = ThreadPoolExecutor::new(cores)?;
    report(&format!("{cores} threads"), start, slices().map(|slice| pool.submit(move || count(slice))))?;

    let start = Instant::now();
    let pool = ProcessPoolExecutor::new(cores)?;
    report(&format!("{cores} processes"), start, slices().map(|slice| pool.submit(count, slice)))?;

    let start = Instant::now();
    let pool = ProcessPoolExecutor::builder().max_workers(processes).threads_per_worker(threads).build()?;
    let way = format!("{processes} processes with {threads} threads each");
    report(&way, start, slices().map(|slice| pool.submit(count, slice)))?;
    Ok(())
}

/// Waits for all slices, and prints the results, which threads found them, and the time, including the start of the pool.
fn report(way: &str, start: Instant, futures: impl Iterator<Item = TaskFuture<Counted>>) -> Result<(), Box<dyn Error>> {
    let mut total = 0;
    let mut slices_of: BTreeMap<(u32, String), Vec<u64>> = BTreeMap::new();
    for future in as_completed(futures) {
        let (slice, found, pid, thread) = future.result()?;
        total += found;
        slices_of.entry((pid, thread)).or_default().push(slice);
    }
    println!("\n{way}: {total} primes in {:.3} s", start.elapsed().as_secs_f64());
    for ((pid, thread), slices) in slices_of {
        println!("  process {pid}, thread {thread:26} slices {slices:?}");
    }
    Ok(())
}
