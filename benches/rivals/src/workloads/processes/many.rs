//! Many tiny tasks at once, and many tiny items of a map.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

use super::{Nothing, add, add_python};
use crate::measure::{Bench, Role};
use crate::process_pools::{Ours, ProcessPool, ProcessPools, Task, for_each_process_pool};

const ITEMS: u64 = 200_000;
/// For those who have to be told how to cut; fewer and more are slower.
const CHUNKS: u64 = 16;

pub(super) fn tasks(pools: &ProcessPools) -> Bench {
    const TASKS: usize = 20_000;
    let mut bench = Bench::new("P2", format!("{TASKS} empty tasks at once, results in order"), &["us/task", "tasks/s"]);
    for_each_process_pool!(pools, pool => add(&mut bench, pool, move || {
        let pool = pool.get();
        micros_and_rate(TASKS, || flood(pool, TASKS))
    }));
    add_python(&mut bench, pools, "tasks", &[pools.workers, TASKS]);
    bench
}

pub(super) fn items(pools: &ProcessPools) -> Bench {
    let what = format!("the square of each of {ITEMS} numbers into a Vec, in order");
    let mut bench = Bench::new("P2map", what, &["ns/item", "M items/s"]);
    let ours = pools.ours;
    bench.add_as("ours", Role::Ours, move || {
        let pool = &ours.get().0;
        nanos_and_rate(|| pool.map(square, 0..ITEMS).collect::<Result<Vec<_>, _>>().expect("no item fails"))
    });
    let procspawn = pools.procspawn;
    bench.add_as("procspawn", Role::Rival, move || {
        let pool = procspawn.get();
        nanos_and_rate(|| in_chunks(pool))
    });
    add_python(&mut bench, pools, "items", &[pools.workers, ITEMS as usize, (ITEMS / CHUNKS) as usize]);
    bench.add_as("ours, a Vec a chunk", Role::Reference, move || {
        let pool: &Ours = ours.get();
        nanos_and_rate(|| in_chunks(pool))
    });
    bench
}

fn flood<P: ProcessPool>(pool: &P, tasks: usize) {
    let mut handles = VecDeque::with_capacity(tasks.min(P::WINDOW));
    for _ in 0..tasks {
        if handles.len() == P::WINDOW {
            P::wait(handles.pop_front().expect("there are some"));
        }
        handles.push_back(pool.submit::<Nothing>(()));
    }
    handles.into_iter().for_each(P::wait);
}

fn in_chunks<P: ProcessPool>(pool: &P) -> Vec<u64> {
    let chunk = |n| (n * ITEMS / CHUNKS..(n + 1) * ITEMS / CHUNKS).collect();
    let handles: Vec<_> = (0..CHUNKS).map(|n| pool.submit::<Squares>(chunk(n))).collect();
    let mut all = Vec::with_capacity(ITEMS as usize);
    handles.into_iter().for_each(|handle| all.extend(P::wait(handle)));
    all
}

fn micros_and_rate(tasks: usize, f: impl FnOnce()) -> [f64; 2] {
    let start = Instant::now();
    f();
    let micros = start.elapsed().as_secs_f64() * 1e6 / tasks as f64;
    [micros, 1e6 / micros]
}

fn nanos_and_rate(f: impl FnOnce() -> Vec<u64>) -> [f64; 2] {
    let start = Instant::now();
    let squares = black_box(f());
    let nanos = start.elapsed().as_nanos() as f64 / ITEMS as f64;
    assert_eq!(squares.len() as u64, ITEMS);
    assert_eq!(squares.last(), Some(&square(ITEMS - 1)));
    [nanos, 1e3 / nanos]
}

fn square(n: u64) -> u64 {
    n * n
}

struct Squares;

impl Task for Squares {
    type Argument = Vec<u64>;
    type Result = Vec<u64>;

    fn run(numbers: Vec<u64>) -> Vec<u64> {
        numbers.into_iter().map(square).collect()
    }
}
