//! From no pool to one whose workers are all there, to the end of it; and what they take meanwhile.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::{add, add_python};
use crate::measure::{Bench, quantile};
use crate::process_pools::{Kept, ProcessPool, ProcessPools, Task, for_each_process_pool};

/// Long enough for all workers to have got a task before the first is done.
const NAP: Duration = Duration::from_millis(50);

pub(super) fn start(name: &'static str, pools: &ProcessPools, workers: usize, times: usize) -> Bench {
    let what = format!(
        "ms from the start of a pool of {workers} until {workers} tasks of {NAP:?} are done / until it is shut down, \
        minus {NAP:?}"
    );
    let mut bench = Bench::new(name, what, &["ready", "total"]);
    for_each_process_pool!(pools, pool => add(&mut bench, pool, move || {
        let lives: Vec<_> = (0..times).map(|_| life(pool, workers, |_| ())).collect();
        [0, 1].map(|figure| median(lives.iter().map(|(times, ())| times[figure]).collect()))
    }));
    add_python(&mut bench, pools, "start", &[workers, times, NAP.as_millis() as usize]);
    bench
}

pub(super) fn memory(pools: &ProcessPools) -> Bench {
    let workers = pools.workers;
    let what = format!("MiB of a worker that has run a task and is idle, of {workers}");
    let mut bench = Bench::new("P7", what, &["RSS", "PSS", "private"]);
    for_each_process_pool!(pools, pool => add(&mut bench, pool, move || life(pool, workers, memory_of).1));
    add_python(&mut bench, pools, "memory", &[workers, NAP.as_millis() as usize]);
    bench
}

/// A pool of its own; `look` is shown the processes of the workers.
fn life<P: ProcessPool, T>(_: &Kept<P>, workers: usize, look: impl FnOnce(&[u32]) -> T) -> ([f64; 2], T) {
    let millis = |start: Instant| (start.elapsed().as_secs_f64() - NAP.as_secs_f64()) * 1e3;
    let start = Instant::now();
    let pool = P::start(workers);
    let handles: Vec<_> = (0..workers).map(|_| pool.submit::<Nap>(NAP.as_millis() as u64)).collect();
    let pids: Vec<u32> = handles.into_iter().map(P::wait).collect();
    let ready = millis(start);
    let looked = Instant::now();
    let seen = look(&pids);
    let looked = looked.elapsed().as_secs_f64() * 1e3;
    pool.shutdown();
    ([ready, millis(start) - looked], seen)
}

/// The medians over these processes.
fn memory_of(pids: &[u32]) -> [f64; 3] {
    thread::sleep(NAP);
    let of_each: Vec<_> = pids.iter().map(|pid| rollup(*pid)).collect();
    [0, 1, 2].map(|figure| median(of_each.iter().map(|figures| figures[figure]).collect()))
}

/// Resident, proportional and private memory of a process.
fn rollup(pid: u32) -> [f64; 3] {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("the worker is alive");
    let sum = |prefix: &str| {
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<f64>().ok()).sum::<f64>() / 1024.0
    };
    ["Rss:", "Pss:", "Private_"].map(sum)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    quantile(&values, 0.5)
}

/// Sleeps for so many milliseconds, and says in which process.
struct Nap;

impl Task for Nap {
    type Argument = u64;
    type Result = u32;

    fn run(millis: u64) -> u32 {
        thread::sleep(Duration::from_millis(millis));
        std::process::id()
    }
}
