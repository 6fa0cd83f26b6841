//! A long list in slices, with one worker process per slice: futures return the sums, instead of the queue that processes
//! would share in Python.

use std::error::Error;
use std::hint::black_box;
use std::ops::Range;
use std::time::{Duration, Instant};

use concurrent_futures::{ProcessPoolExecutor, TaskError, as_completed};
use serde::Serialize;
use serde::de::DeserializeOwned;

#[path = "common/args.rs"]
mod args;

const USAGE: &str = "\
Adds up the numbers from 1 to 100,000,000 in 8 processes, 12,500,000 numbers each.

Usage: sum_slices [--lists] [--count N]

  --lists    send each process all its numbers (400 MB in total), instead of only the first and the last
  --count N  add up the numbers from 1 to N";

const PROCESSES: u32 = 8;

/// Runs in a worker process. It adds the numbers one by one, as the Python original does; without the black box the
/// compiler would replace the loop over a range by a formula.
fn sum<S: IntoIterator<Item = u32>>(slice: S) -> u64 {
    slice.into_iter().map(|number| u64::from(black_box(number))).sum()
}

/// Runs in this process: each slice is sent to a separate worker, and the sums are added as they arrive.
fn sum_of_sums<S>(slices: Vec<S>) -> Result<(u64, Duration), Box<dyn Error>>
where
    S: IntoIterator<Item = u32> + Serialize + DeserializeOwned + Send + 'static,
{
    let start = Instant::now();
    let pool = ProcessPoolExecutor::new(PROCESSES as usize)?;
    let sums = as_completed(slices.into_iter().map(|slice| pool.submit(sum::<S>, slice)));
    let total = sums.map(|sum| sum.result()).sum::<Result<u64, TaskError>>()?;
    Ok((total, start.elapsed()))
}

/// The numbers from 1 to `count` in 8 slices, of equal length if `count` is divisible by 8.
fn slices(count: u32) -> impl Iterator<Item = Range<u32>> {
    let cut = move |n: u32| (u64::from(count) * u64::from(n) / u64::from(PROCESSES)) as u32 + 1;
    (0..PROCESSES).map(move |n| cut(n)..cut(n + 1))
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    let (lists, count) = match arguments[..] {
        [] => (false, "100000000"),
        ["--lists"] => (true, "100000000"),
        ["--count", count] => (false, count),
        ["--lists", "--count", count] | ["--count", count, "--lists"] => (true, count),
        _ => args::reject(USAGE, &arguments),
    };
    let count = count.parse().ok().filter(|&count| count < u32::MAX).unwrap_or_else(|| args::reject(USAGE, &arguments));

    let (total, time) = match lists {
        true => sum_of_sums(slices(count).map(Vec::from_iter).collect())?,
        false => sum_of_sums(slices(count).collect())?,
    };
    println!("{total}");
    println!("Execution time: {:.3}s", time.as_secs_f64());
    Ok(())
}
