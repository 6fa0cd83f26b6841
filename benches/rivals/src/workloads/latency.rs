//! The round trip of one empty task.

use std::hint;
use std::time::{Duration, Instant};

use crate::measure::{Bench, cpu_time, quantile};
use crate::pools::{Handle, Pool, Pools, for_each_pool};

pub(super) fn round_trips(pools: &Pools) -> Bench {
    const TRIPS: usize = 2000;
    let what = format!("round trip of an empty task, {TRIPS} back to back, ns");
    let mut bench = Bench::new("T2", what, &["median", "mean", "p99", "cpu"]);
    for_each_pool!(pools, pool => bench.add(pool, move || back_to_back(pool, TRIPS)));
    bench
}

pub(super) fn asleep(pools: &Pools) -> Bench {
    const TRIPS: usize = 300;
    const BUSY: Duration = Duration::from_micros(200);
    let what = format!("the same, {TRIPS} times, busy for {BUSY:?} in between so that the workers sleep, ns");
    let mut bench = Bench::new("T2b", what, &["median", "mean", "p99"]);
    for_each_pool!(pools, pool => bench.add(pool, move || after_pauses(pool, TRIPS, BUSY)));
    bench
}

fn back_to_back<P: Pool>(pool: &P, trips: usize) -> Vec<f64> {
    (0..100).for_each(|_| pool.submit(|| ()).wait());
    let mut times = Vec::with_capacity(trips);
    let cpu = cpu_time();
    let mut last = Instant::now();
    for _ in 0..trips {
        pool.submit(|| ()).wait();
        let now = Instant::now();
        times.push(now - last);
        last = now;
    }
    let cpu = cpu_time() - cpu;
    let mut figures = distribution(times).to_vec();
    figures.push(cpu.as_nanos() as f64 / trips as f64);
    figures
}

fn after_pauses<P: Pool>(pool: &P, trips: usize, busy: Duration) -> [f64; 3] {
    let times = (0..trips).map(|_| {
        let pause = Instant::now();
        while pause.elapsed() < busy {
            hint::spin_loop();
        }
        let start = Instant::now();
        pool.submit(|| ()).wait();
        start.elapsed()
    });
    distribution(times.collect())
}

/// Median, mean and 99th percentile, in nanoseconds.
pub(super) fn distribution(times: Vec<Duration>) -> [f64; 3] {
    let mut times: Vec<f64> = times.iter().map(|time| time.as_nanos() as f64).collect();
    times.sort_by(f64::total_cmp);
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    [quantile(&times, 0.5), mean, quantile(&times, 0.99)]
}
