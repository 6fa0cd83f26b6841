//! From no pool to the first result, and to the end.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use crate::measure::{Bench, Role, quantile};
use crate::pools::{Handle, Pool, Pools, for_each_pool};

pub(super) fn start_and_shutdown(name: &'static str, pools: &Pools, threads: usize, times: usize) -> Bench {
    let what = format!(
        "us from the start of a pool of {threads} to the first result / start, 1 task, shutdown / \
        start, {threads} tasks alive at once, shutdown"
    );
    let mut bench = Bench::new(name, what, &["first", "one", "all"]);
    for_each_pool!(pools, pool => add(&mut bench, pool, threads, times));
    bench.add_as("bare threads", Role::Reference, move || {
        medians(times, || {
            let start = Instant::now();
            thread::spawn(|| ()).join().expect("it does nothing");
            let one = micros(start);
            let start = Instant::now();
            let barrier = Arc::new(Barrier::new(threads));
            let meet = |_| {
                let barrier = Arc::clone(&barrier);
                thread::spawn(move || {
                    barrier.wait();
                })
            };
            let handles: Vec<_> = (0..threads).map(meet).collect();
            handles.into_iter().for_each(|handle| handle.join().expect("it only waits"));
            [one, one, micros(start)]
        })
    });
    bench
}

fn add<P: Pool>(bench: &mut Bench, pool: &P, threads: usize, times: usize) {
    if !P::GLOBAL {
        bench.add(pool, move || medians(times, || life::<P>(threads)));
    }
}

fn life<P: Pool>(threads: usize) -> [f64; 3] {
    let start = Instant::now();
    let pool = P::start(threads);
    pool.submit(|| ()).wait();
    let first = micros(start);
    pool.shutdown();
    let one = micros(start);

    let start = Instant::now();
    let pool = P::start(threads);
    let barrier = Arc::new(Barrier::new(threads));
    let meet = |_| {
        let barrier = Arc::clone(&barrier);
        pool.submit(move || {
            barrier.wait();
        })
    };
    let handles: Vec<_> = (0..threads).map(meet).collect();
    handles.into_iter().for_each(Handle::wait);
    pool.shutdown();
    [first, one, micros(start)]
}

fn micros(start: Instant) -> f64 {
    start.elapsed().as_nanos() as f64 / 1e3
}

fn medians(times: usize, mut f: impl FnMut() -> [f64; 3]) -> [f64; 3] {
    let samples: Vec<_> = (0..times).map(|_| f()).collect();
    [0, 1, 2].map(|figure| {
        let mut values: Vec<_> = samples.iter().map(|sample| sample[figure]).collect();
        values.sort_by(f64::total_cmp);
        quantile(&values, 0.5)
    })
}
