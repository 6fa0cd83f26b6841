//! The round trip of one empty task.

use std::cell::RefCell;
use std::hint;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Nothing, add, add_python, call};
use crate::measure::{Bench, Role};
use crate::process_pools::{Floor, ProcessPools, for_each_process_pool};
use crate::workloads::latency::distribution;

const COLUMNS: &[&str] = &["median", "mean", "p99"];
const WARM_UP: usize = 50;

pub(super) fn back_to_back(pools: &ProcessPools) -> Bench {
    const TRIPS: usize = 1000;
    let what = format!("round trip of an empty task, {TRIPS} back to back, us");
    rows(Bench::new("P1", what, COLUMNS), pools, TRIPS, Duration::ZERO)
}

pub(super) fn asleep(pools: &ProcessPools) -> Bench {
    const TRIPS: usize = 300;
    const BUSY: Duration = Duration::from_micros(200);
    let what = format!("the same, {TRIPS} times, busy for {BUSY:?} in between so that the workers sleep, us");
    rows(Bench::new("P1b", what, COLUMNS), pools, TRIPS, BUSY)
}

fn rows(mut bench: Bench, pools: &ProcessPools, trips: usize, pause: Duration) -> Bench {
    for_each_process_pool!(pools, pool => add(&mut bench, pool, move || {
        let pool = pool.get();
        times(trips, pause, || call::<Nothing, _>(pool, ()))
    }));
    add_python(&mut bench, pools, "round_trip", &[pools.workers, WARM_UP, trips, pause.as_micros() as usize]);
    // Started in the first round.
    let floor = Rc::new(RefCell::new(None));
    bench.add_as("shm + futex", Role::Reference, move || {
        let mut floor = floor.borrow_mut();
        let floor = floor.get_or_insert_with(Floor::start);
        times(trips, pause, || floor.round_trip())
    });
    bench
}

/// What a trip takes, in microseconds.
fn times(trips: usize, pause: Duration, mut trip: impl FnMut()) -> [f64; 3] {
    (0..WARM_UP).for_each(|_| trip());
    let times = (0..trips).map(|_| {
        let paused = Instant::now();
        while !pause.is_zero() && paused.elapsed() < pause {
            hint::spin_loop();
        }
        let start = Instant::now();
        trip();
        start.elapsed()
    });
    distribution(times.collect()).map(|nanos| nanos / 1e3)
}
