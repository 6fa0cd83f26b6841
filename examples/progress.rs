//! A long job with a progress bar: `as_completed` knows how many results remain, which is all that a bar needs.

use std::error::Error;

use concurrent_futures::{ThreadPoolExecutor, as_completed, cpu_workers};
use indicatif::{ProgressIterator, ProgressStyle};

#[path = "common/args.rs"]
mod args;

const USAGE: &str = "\
Finds the number with the longest Collatz sequence, and shows the progress.

Usage: progress [LIMIT]

  LIMIT  search below this number; 2000000 by default

The bar is printed to standard error, if that is a terminal.";

const SLICE: u64 = 10_000;

/// The number of steps from `n` to 1.
fn collatz(mut n: u64) -> u32 {
    let mut steps = 0;
    while n > 1 {
        n = if n % 2 == 0 { n / 2 } else { 3 * n + 1 };
        steps += 1;
    }
    steps
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    let limit: u64 = match arguments[..] {
        [] => 2_000_000,
        [limit] => limit.parse().ok().filter(|&limit| limit > 1).unwrap_or_else(|| args::reject(USAGE, &arguments)),
        _ => args::reject(USAGE, &arguments),
    };

    let pool = ThreadPoolExecutor::new(cpu_workers())?;
    let slices = (1..limit).step_by(SLICE as usize).map(|start| start..limit.min(start + SLICE));
    let futures = pool.submit_all(slices.map(|slice| move || slice.map(|n| (collatz(n), n)).max()));

    // No bar if standard error is a pipe, a file or a log.
    let style = ProgressStyle::with_template("{bar:40.cyan/blue} {percent:>3} %  {pos} of {len} slices, {eta} to go")?;
    let mut longest = None;
    for future in as_completed(futures).progress_with_style(style) {
        longest = longest.max(future.result()?);
    }
    let (steps, number) = longest.expect("there is a number below the limit");
    println!("Of all numbers below {limit}, {number} has the longest way to 1: {steps} steps.");
    Ok(())
}
