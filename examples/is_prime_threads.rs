//! Applies one function to several numbers on all cores; the answers are in input order.

use std::error::Error;
use std::time::Instant;

use concurrent_futures::{ThreadPoolExecutor, cpu_workers};

#[path = "common/args.rs"]
mod args;
#[path = "common/primes.rs"]
mod primes;

use primes::{PRIMES, is_prime};

const USAGE: &str = "\
Determines which of six numbers are prime, on as many threads as there are cores.

Usage: is_prime_threads

It always does the full work of the Python original.";

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    if !arguments.is_empty() {
        args::reject(USAGE, &arguments);
    }

    let start = Instant::now();
    let pool = ThreadPoolExecutor::new(cpu_workers())?;
    for (number, prime) in PRIMES.into_iter().zip(pool.map(is_prime, PRIMES)) {
        println!("{number} is prime: {}", prime?);
    }
    println!("It took {:.3} s on {} threads.", start.elapsed().as_secs_f64(), pool.stats().workers);
    Ok(())
}
