//! Many empty tasks: from outside, from inside, from several threads.

use std::sync::Barrier;
use std::thread;

use crate::measure::{Bench, Role, per_task};
use crate::pools::{Pool, Pools, flood, for_each_pool};

const COLUMNS: &[&str] = &["ns/task", "cpu"];

pub(super) fn from_outside(pools: &Pools, tasks: usize) -> Bench {
    let mut bench = Bench::new("T1", format!("{tasks} empty tasks from one thread, results in order"), COLUMNS);
    for_each_pool!(pools, pool => bench.add(pool, move || per_task(tasks, || flood(pool, tasks))));
    bench.add_as("one thread", Role::Reference, move || per_task(tasks, || loop_of_boxes(tasks)));
    bench
}

pub(super) fn from_inside(pools: &Pools, tasks: usize) -> Bench {
    let what = format!("{tasks} empty tasks from inside one task, results in order");
    let mut bench = Bench::new("T3", what, COLUMNS);
    for_each_pool!(pools, pool => bench.add(pool, move || per_task(tasks, || pool.flood_from_inside(tasks))));
    let rayon = pools.rayon;
    bench.add_as("rayon scope (no results)", Role::Reference, move || {
        per_task(tasks, || rayon.pool.scope(|scope| (0..tasks).for_each(|_| scope.spawn(|_| ()))))
    });
    bench
}

pub(super) fn producers(pools: &Pools, tasks: usize) -> Bench {
    const PRODUCERS: usize = 4;
    let tasks = tasks / PRODUCERS;
    let what = format!("{PRODUCERS} threads with {tasks} empty tasks each; each waits for its own");
    let mut bench = Bench::new("T6", what, COLUMNS);
    for_each_pool!(pools, pool => bench.add(pool, move || together(pool, PRODUCERS, tasks)));
    bench
}

/// Several threads that start at once; what they do takes as long as the last of them.
fn together<P: Pool>(pool: &P, threads: usize, tasks: usize) -> [f64; 2] {
    let start = Barrier::new(threads + 1);
    thread::scope(|scope| {
        let producer = || {
            start.wait();
            flood(pool, tasks);
        };
        let producers: Vec<_> = (0..threads).map(|_| scope.spawn(producer)).collect();
        per_task(threads * tasks, || {
            start.wait();
            producers.into_iter().for_each(|producer| producer.join().expect("no task panics"));
        })
    })
}

/// The same two allocations a task, without another thread.
fn loop_of_boxes(tasks: usize) {
    use std::cell::Cell;
    use std::collections::VecDeque;
    use std::rc::Rc;
    let mut queue: VecDeque<Box<dyn FnOnce()>> = VecDeque::new();
    let mut results = Vec::with_capacity(tasks);
    for _ in 0..tasks {
        let result = Rc::new(Cell::new(None));
        results.push(Rc::clone(&result));
        queue.push_back(Box::new(move || result.set(Some(()))));
    }
    while let Some(task) = queue.pop_front() {
        task();
    }
    results.into_iter().for_each(|result| result.take().expect("it has run"));
}
