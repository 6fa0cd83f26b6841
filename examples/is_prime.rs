//! Applies one function to several numbers, in as many processes as there are cores; the answers are in input order.

use std::error::Error;
use std::time::Instant;

use concurrent_futures::ProcessPoolExecutor;

#[path = "common/args.rs"]
mod args;
#[path = "common/primes.rs"]
mod primes;

use primes::{PRIMES, is_prime};

const USAGE: &str = "\
Determines which of six numbers are prime, in as many processes as there are cores.

Usage: is_prime

It always does the full work of the Python original.";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    if !arguments.is_empty() {
        args::reject(USAGE, &arguments);
    }

    let start = Instant::now();
    let pool = ProcessPoolExecutor::builder().build()?;
    for (number, prime) in PRIMES.into_iter().zip(pool.map(is_prime, PRIMES)) {
        println!("{number} is prime: {}", prime?);
    }
    println!("It took {:.3} s in {} processes.", start.elapsed().as_secs_f64(), pool.stats().workers);
    Ok(())
}
