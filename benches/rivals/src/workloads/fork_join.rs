//! Divide and conquer: fib(30), sequential below 12, which makes 10945 forks.

use std::hint::black_box;

use crate::measure::{Bench, Role, millis};
use crate::pools::{Ours, Pool, Pools, Rayon};

const N: u64 = 30;
const CUTOFF: u64 = 12;

pub(super) fn fibonacci(pools: &Pools) -> Bench {
    let Pools { ours, rayon, .. } = *pools;
    let mut bench = Bench::new("T4", format!("fib({N}), forked down to {CUTOFF}"), &["ms"]);
    bench.add_as("ours join", Role::Ours, move || millis(|| join_ours(ours, black_box(N))));
    bench.add_as("rayon join", Role::Rival, move || millis(|| rayon.pool.install(|| join_rayon(black_box(N)))));
    bench.add_as("ours submit", Role::Ours, move || {
        millis(|| ours.0.submit(move || submit_ours(ours, black_box(N))).result())
    });
    bench.add_as("rayon spawn, yield_now", Role::Reference, move || {
        millis(|| rayon.pool.install(|| spawn_rayon(rayon, black_box(N))))
    });
    bench.add_as("sequential", Role::Reference, || millis(|| sequential(black_box(N))));
    bench
}

fn sequential(n: u64) -> u64 {
    if n < 2 { n } else { sequential(n - 1) + sequential(n - 2) }
}

fn join_ours(pool: &Ours, n: u64) -> u64 {
    if n < CUTOFF {
        return sequential(n);
    }
    let (a, b) = pool.0.join(|| join_ours(pool, n - 1), || join_ours(pool, n - 2));
    a + b
}

fn join_rayon(n: u64) -> u64 {
    if n < CUTOFF {
        return sequential(n);
    }
    let (a, b) = rayon::join(|| join_rayon(n - 1), || join_rayon(n - 2));
    a + b
}

/// A task that blocks on a task: most pools would run out of threads here.
fn submit_ours(pool: &'static Ours, n: u64) -> u64 {
    if n < CUTOFF {
        return sequential(n);
    }
    let a = pool.0.submit(move || submit_ours(pool, n - 1));
    let b = submit_ours(pool, n - 2);
    a.result().expect("the task succeeds") + b
}

/// The same with rayon, where the waiter must take part by hand; it runs whatever comes its way meanwhile.
fn spawn_rayon(pool: &'static Rayon, n: u64) -> u64 {
    if n < CUTOFF {
        return sequential(n);
    }
    let a = pool.submit(move || spawn_rayon(pool, n - 1));
    let b = spawn_rayon(pool, n - 2);
    loop {
        match a.try_recv() {
            Ok(a) => return a + b,
            Err(_) => drop(rayon::yield_now()),
        }
    }
}
