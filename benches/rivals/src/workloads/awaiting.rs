//! Results awaited from a runtime of another kind: tokio's, on one thread.

use std::future::Future;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

use crate::measure::{Bench, per_task};
use crate::pools::{Handle, Pool, Pools, for_each_pool};

const COLUMNS: &[&str] = &["ns/task", "cpu"];

pub(super) fn all(pools: &Pools) -> [Bench; 3] {
    const TASKS: usize = 100_000;
    const LOOPS: usize = 64;
    const TRIPS: usize = 1000;
    let mut at_once = Bench::new("T10-all", format!("{TASKS} empty tasks, then each awaited"), COLUMNS);
    for_each_pool!(pools, pool => at_once.add(pool, move || on_runtime(TASKS, flood(pool, TASKS))));
    let what = format!("{LOOPS} concurrent loops of round trips, {TASKS} in all");
    let mut many = Bench::new("T10-64", what, COLUMNS);
    for_each_pool!(pools, pool => many.add(pool, move || on_runtime(TASKS, loops(pool, LOOPS, TASKS / LOOPS))));
    let mut one = Bench::new("T10-one", format!("one loop of {TRIPS} round trips"), COLUMNS);
    for_each_pool!(pools, pool => one.add(pool, move || on_runtime(TRIPS, round_trips(pool, TRIPS))));
    [at_once, many, one]
}

fn on_runtime(tasks: usize, future: impl Future<Output = ()>) -> [f64; 2] {
    let runtime = Builder::new_current_thread().build().expect("a valid runtime");
    per_task(tasks, || LocalSet::new().block_on(&runtime, future))
}

async fn flood<P: Pool>(pool: &P, tasks: usize) {
    let mut handles = Vec::with_capacity(tasks);
    handles.extend((0..tasks).map(|_| pool.submit(|| ())));
    for handle in handles {
        handle.awaited().await;
    }
}

async fn round_trips<P: Pool>(pool: &P, trips: usize) {
    for _ in 0..trips {
        pool.submit(|| ()).awaited().await;
    }
}

async fn loops<P: Pool>(pool: &'static P, loops: usize, trips: usize) {
    let loops: Vec<_> = (0..loops).map(|_| tokio::task::spawn_local(round_trips(pool, trips))).collect();
    for each in loops {
        each.await.expect("no task panics");
    }
}
