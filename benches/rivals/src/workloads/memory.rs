//! What a task takes that waits.

use std::sync::{Arc, Barrier};

use crate::measure::Bench;
use crate::memory::kept_by;
use crate::pools::{Handle, Pool, Pools, for_each_pool};

pub(super) fn pending(pools: &Pools, workers: usize) -> Bench {
    const TASKS: usize = 1_000_000;
    let what = format!("bytes per pending task that captures a u64, with its handle in a Vec, of {TASKS}");
    let mut bench = Bench::new("T8", what, &["bytes", "asked for"]).once();
    for_each_pool!(pools, pool => bench.add(pool, move || queued(pool, workers, TASKS)));
    bench
}

/// On a pool of its own, all threads of which are kept busy.
fn queued<P: Pool>(_: &P, workers: usize, tasks: usize) -> [f64; 2] {
    let pool = P::start(workers);
    let (held, release) = (Arc::new(Barrier::new(workers + 1)), Arc::new(Barrier::new(workers + 1)));
    let hold = || {
        let (held, release) = (Arc::clone(&held), Arc::clone(&release));
        pool.submit(move || {
            held.wait();
            release.wait();
        })
    };
    let holders: Vec<_> = (0..workers).map(|_| hold()).collect();
    held.wait();
    let (handles, [asked, given]) = kept_by(|| {
        let mut handles = Vec::with_capacity(tasks);
        handles.extend((0..tasks as u64).map(|n| pool.submit(move || n)));
        handles
    });
    release.wait();
    holders.into_iter().for_each(Handle::wait);
    let sum: u64 = handles.into_iter().map(Handle::wait).sum();
    std::hint::black_box(sum);
    pool.shutdown();
    [given, asked].map(|bytes| bytes / tasks as f64)
}
