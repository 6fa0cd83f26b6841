//! Pools of thousands of threads. Each test runs in a child, whose threads are nobody else's.

use std::sync::Arc;
use std::thread;

use concurrent_futures::{ThreadPoolBuilder, ThreadPoolExecutor};

use crate::support::*;

/// How many threads, of so many, the system lets this process have at the same time.
fn allowed(wanted: usize) -> usize {
    let gate = Gate::new();
    let start = |_| {
        let gate = gate.clone();
        thread::Builder::new().stack_size(ThreadPoolBuilder::MIN_STACK_SIZE).spawn(move || gate.pass()).ok()
    };
    let threads: Vec<_> = (0..wanted).map_while(start).collect();
    gate.open();
    let count = threads.len();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    count
}

/// Starts so many threads, each of which blocks until all are there, and ends them.
fn start_and_end(threads: usize) {
    let builder = ThreadPoolExecutor::builder().max_workers(threads).stack_size(ThreadPoolBuilder::MIN_STACK_SIZE);
    let (pool, gate, started) = (builder.build().unwrap(), Gate::new(), Counter::new());
    for _ in 0..threads {
        let (gate, started) = (gate.clone(), Arc::clone(&started));
        let block = move || {
            started.add();
            gate.pass();
        };
        pool.submit(block).detach();
    }
    started.wait_for(threads);
    assert_eq!((pool.stats().workers, pool.stats().busy), (threads, threads));
    gate.open();
}

/// CPU time of this process so far, in ticks of 10 ms.
fn cpu_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("proc is mounted");
    // The name, in parentheses, is the second field; the times are the 14th and the 15th.
    let fields: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn alone(test: &str, body: impl FnOnce() + Send + 'static) {
    if is_child() {
        return watchdog(4 * LIMIT, body);
    }
    let output = in_child(test);
    assert!(output.status.success(), "{}", printed(&output));
}

#[test]
fn thousands_block_and_end() {
    alone("many_threads::thousands_block_and_end", || {
        // Some room for the threads of the test itself.
        let threads = allowed(8000) * 7 / 8;
        start_and_end(threads);
        // Those that end because they have nothing to do, and start again.
        let builder = ThreadPoolExecutor::builder().max_workers(threads.min(1000));
        let pool = builder.stack_size(0).idle_timeout(std::time::Duration::ZERO).build().unwrap();
        for _ in 0..3 {
            Plug::new(&pool, threads.min(1000)).release();
            until(|| pool.stats().workers == 0);
        }
    });
}

/// CPU time, since what the cost would be of is not one operation that could be counted: searches, copies, sums under a lock.
#[test]
fn the_cost_of_a_thread_does_not_grow_with_their_number() {
    alone("many_threads::the_cost_of_a_thread_does_not_grow_with_their_number", || {
        const FEW: usize = 500;
        const FACTOR: usize = 16;
        if allowed(FEW * FACTOR + 100) < FEW * FACTOR + 100 {
            return;
        }
        let cost = |rounds: usize, threads: usize| {
            let before = cpu_time();
            (0..rounds).for_each(|_| start_and_end(threads));
            cpu_time() - before
        };
        // The same number of starts and ends: many times few, and once many.
        let (few, many) = (cost(FACTOR, FEW), cost(1, FEW * FACTOR));
        assert!(
            many <= 4 * few + 20,
            "{many} ticks for {} threads at once, {few} for as many one after the other",
            FEW * FACTOR
        );
    });
}
