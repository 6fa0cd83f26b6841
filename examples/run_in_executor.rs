//! Blocking and CPU-bound calls, awaited in turn from one async `main`: in the default pool, in a pool of threads and in
//! a pool of processes. That `main` runs under tokio, under smol, or under `block_on` alone.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};

use concurrent_futures::{ProcessPoolExecutor, ThreadPoolExecutor, default_executor};

#[path = "common/args.rs"]
mod args;

const USAGE: &str = "\
Reads 100 random bytes in two pools of threads, and adds up ten million squares in a pool of processes.

Usage: run_in_executor [--tokio | --smol]

  --tokio  run under tokio
  --smol   run under smol

Without arguments it uses `block_on` of this crate.";

/// File operations can block, so they should not run on the thread of the event loop.
fn blocking_io() -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 100];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A CPU-bound call would stall the event loop, too. The sum has more than 64 bits.
fn cpu_bound(limit: u128) -> u128 {
    (0..limit).map(|i| i * i).sum()
}

async fn run() -> Result<(), Box<dyn Error>> {
    // 1. In the default pool.
    let result = default_executor().submit(blocking_io).await??;
    assert_eq!(result.len(), 100);
    println!("default thread pool b'{}'", result.escape_ascii());

    // 2. In a separate pool of threads.
    let pool = ThreadPoolExecutor::new(1)?;
    let result = pool.submit(blocking_io).await??;
    assert_eq!(result.len(), 100);
    println!("custom thread pool b'{}'", result.escape_ascii());

    // 3. In a separate pool of processes.
    let pool = ProcessPoolExecutor::new(1)?;
    let result = pool.submit(cpu_bound, 10_000_000).await?;
    assert_eq!(result, 333_333_283_333_335_000_000);
    println!("custom process pool {result}");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    match arguments[..] {
        [] => concurrent_futures::block_on(run()),
        ["--smol"] => smol::block_on(run()),
        ["--tokio"] => tokio::runtime::Builder::new_current_thread().build()?.block_on(run()),
        _ => args::reject(USAGE, &arguments),
    }
}
