//! Three async workers share a queue of work. `main` waits until all its items are done, and then cancels the workers,
//! which would wait for more items for ever.

use std::convert::Infallible;
use std::error::Error;
use std::time::{Duration, Instant};

use concurrent_futures::{ThreadPoolExecutor, block_on};
use smol::Timer;
use smol::channel::{self, Receiver, RecvError, Sender};

#[path = "common/args.rs"]
mod args;

const USAGE: &str = "\
Three workers take twenty naps of 0.05 to 1.0 seconds from a queue.

Usage: async_queue [--real]

  --real  wait in real time; without it, a second is scaled down to 100 ms";

/// Nothing is ever sent through it. When the last sender has been dropped, `recv` returns an error: all items are done.
type Undone = Sender<Infallible>;
type Queue = Receiver<(f64, Undone)>;

async fn worker(name: String, queue: Queue, second: Duration) -> Result<Infallible, RecvError> {
    loop {
        let (sleep_for, undone) = queue.recv().await?;
        Timer::after(second.mul_f64(sleep_for)).await;
        println!("{name} has slept for {sleep_for:.2} seconds");
        // `task_done()` in Python. Here it also happens if this worker panics or is cancelled.
        drop(undone);
    }
}

async fn run(second: Duration) -> Result<(), Box<dyn Error>> {
    let (items, queue) = channel::unbounded();
    let (undone, all_done) = channel::bounded(1);
    let mut total_sleep_time = 0.0;
    for _ in 0..20 {
        let sleep_for = 0.05 + 0.95 * fastrand::f64();
        total_sleep_time += sleep_for;
        items.send((sleep_for, undone.clone())).await?;
    }
    drop(undone);

    // One thread is enough for three workers that only wait.
    let pool = ThreadPoolExecutor::new(1)?;
    let started_at = Instant::now();
    let workers = [0, 1, 2].map(|i| pool.spawn(worker(format!("worker-{i}"), queue.clone(), second)));

    // `queue.join()` in Python: the error means that no sender is left.
    let Err(_all_done) = all_done.recv().await;
    let total_slept_for = started_at.elapsed().as_secs_f64() / second.as_secs_f64();

    for worker in &workers {
        assert!(worker.cancel());
    }
    // Python needs `return_exceptions=True` here. A future's output is a `Result` in any case.
    for ending in futures::future::join_all(workers).await {
        assert!(ending.is_err_and(|error| error.is_cancelled()));
    }

    println!("====");
    println!("3 workers slept in parallel for {total_slept_for:.2} seconds");
    println!("total expected sleep time: {total_sleep_time:.2} seconds");
    assert!(total_slept_for * 3.0 >= total_sleep_time);
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = args::arguments(USAGE);
    let second = match arguments[..] {
        [] => Duration::from_millis(100),
        ["--real"] => Duration::from_secs(1),
        _ => args::reject(USAGE, &arguments),
    };
    if second < Duration::from_secs(1) {
        println!("(Here a second lasts {second:?}; --real makes it a real one.)");
    }
    block_on(run(second))
}
