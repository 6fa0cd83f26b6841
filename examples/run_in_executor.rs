//! Calls that block, and calls that compute, awaited in turn from one async `main`: in the default pool, in a pool of threads
//! and in a pool of processes. Whatever runs that `main` is welcome: tokio, smol, or nothing at all.

use std::error::Error;
use std::fs::File;
use std::io::{self, Read};

use concurrent_futures::{ProcessPoolExecutor, ThreadPoolExecutor, default_executor};

#[path = "common/args.rs"]
mod args;

const USAGE: &str = "\
Reads 100 random bytes in two pools of threads, and adds up ten million squares in a pool of processes.

Usage: run_in_executor [--tokio | --smol]

  --tokio  awaits all that under tokio
  --smol   awaits all that under smol

Without arguments nothing but this crate is needed.";

/// File operations can block a thread, so they belong on another one than the one that runs the event loop.
fn blocking_io() -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 100];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// What computes would block everybody, too. The sum has more than 64 bits.
fn cpu_bound(limit: u128) -> u128 {
    (0..limit).map(|i| i * i).sum()
}

async fn run() -> Result<(), Box<dyn Error>> {
    // 1. In the default pool.
    let result = default_executor().submit(blocking_io).await??;
    assert_eq!(result.len(), 100);
    println!("default thread pool b'{}'", result.escape_ascii());

    // 2. In a pool of threads of one's own.
    let pool = ThreadPoolExecutor::new(1)?;
    let result = pool.submit(blocking_io).await??;
    assert_eq!(result.len(), 100);
    println!("custom thread pool b'{}'", result.escape_ascii());

    // 3. In a pool of processes of one's own.
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
