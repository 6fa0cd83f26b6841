//! Typical uses of asyncio, concurrently on one thread: a page from the network, a subprocess, a signal of the operating
//! system, and a CPU-bound call in a worker process. The same program runs under either of two runtimes.

use std::error::Error;
use std::future::Future;
use std::io;
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use concurrent_futures::{ProcessPoolExecutor, default_executor};
use rustix::process::{Signal, getpid, kill_process};

#[path = "common/args.rs"]
mod args;
#[path = "async_mix/on_smol.rs"]
mod on_smol;
#[path = "async_mix/on_tokio.rs"]
mod on_tokio;
#[path = "common/pages.rs"]
mod pages;
#[allow(dead_code)] // This example does not use its numbers.
#[path = "common/primes.rs"]
mod primes;

const USAGE: &str = "\
Waits for four things at the same time: a page of its own server, the output of a subprocess, a signal, and a worker
process that searches for prime numbers.

Usage: async_mix [--smol | --tokio]

  --smol   run under smol (the default)
  --tokio  run under tokio";

/// What this program needs from a runtime. The futures of the pools need none, only a waker.
trait Runtime {
    /// Runs a future to completion.
    fn block_on<T>(main: impl Future<Output = T>) -> io::Result<T>;
    /// Connects, sends the request, and reads until the end of the reply.
    async fn exchange(address: &str, request: &str) -> io::Result<String>;
    /// Runs the command, and returns its output.
    async fn output(command: Command) -> io::Result<Output>;
    /// Catches SIGUSR1 from this call on; the future is ready when one has arrived.
    fn sigusr1() -> io::Result<impl Future<Output = ()>>;
}

async fn run<R: Runtime>() -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let arrived = |what: &str| println!("{:.2} s: {what}", start.elapsed().as_secs_f64());
    let server = pages::serve()?;
    let pool = ProcessPoolExecutor::new(1)?;
    let caught = R::sigusr1()?;

    let network = async {
        let page = R::exchange(server.trim_start_matches("http://"), "GET /delay/300 HTTP/1.1\r\n\r\n").await?;
        assert!(page.ends_with("This took 300 ms.\n"), "{page}");
        arrived("the page is here");
        Ok::<(), Box<dyn Error>>(())
    };
    let subprocess = async {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 0.2; echo $((6 * 7))"]);
        let output = R::output(command).await?;
        assert_eq!((output.status.success(), &*output.stdout), (true, &b"42\n"[..]));
        arrived("the subprocess says 42");
        Ok(())
    };
    let signal = async {
        let raise = || {
            thread::sleep(Duration::from_millis(100));
            kill_process(getpid(), Signal::USR1)
        };
        default_executor().submit(raise).await??;
        caught.await;
        arrived("SIGUSR1 was caught");
        Ok(())
    };
    let computation = async {
        let primes = pool.submit(|limit| (0..limit).filter(|&n| primes::is_prime(n)).count(), 1_000_000).await?;
        assert_eq!(primes, 78_498);
        arrived("there are 78498 primes below a million");
        Ok(())
    };
    futures::try_join!(network, subprocess, signal, computation)?;
    arrived("that is all");
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    match arguments[..] {
        [] | ["--smol"] => on_smol::Smol::block_on(run::<on_smol::Smol>())?,
        ["--tokio"] => on_tokio::Tokio::block_on(run::<on_tokio::Tokio>())?,
        _ => args::reject(USAGE, &arguments),
    }
}
