//! Bytes there and back.

use std::time::Instant;

use super::{add, add_python, call};
use crate::measure::Bench;
use crate::process_pools::{ProcessPool, ProcessPools, Task, for_each_process_pool};

const WARM_UP: usize = 1;

pub(super) fn echo(name: &'static str, pools: &ProcessPools, size: usize, times: usize) -> Bench {
    let what = format!("echo of a Vec<u8> of {size}, {times} one after the other; MB/s counts one way");
    let mut bench = Bench::new(name, what, &["us", "MB/s"]);
    for_each_process_pool!(pools, pool => add(&mut bench, pool, move || run(pool.get(), size, times)));
    add_python(&mut bench, pools, "echo", &[pools.workers, size, WARM_UP, times]);
    bench
}

fn run<P: ProcessPool>(pool: &P, size: usize, times: usize) -> [f64; 2] {
    let mut bytes = vec![7; size];
    (0..WARM_UP).for_each(|_| bytes = call::<Echo, _>(pool, std::mem::take(&mut bytes)));
    let start = Instant::now();
    (0..times).for_each(|_| bytes = call::<Echo, _>(pool, std::mem::take(&mut bytes)));
    let micros = start.elapsed().as_secs_f64() * 1e6 / times as f64;
    assert!(bytes.len() == size && bytes[size - 1] == 7);
    [micros, size as f64 / micros]
}

struct Echo;

impl Task for Echo {
    type Argument = Vec<u8>;
    type Result = Vec<u8>;

    fn run(bytes: Vec<u8>) -> Vec<u8> {
        bytes
    }
}
