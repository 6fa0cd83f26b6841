//! What the pools of processes are made to do.

mod compute;
mod echo;
mod life;
mod many;
mod round_trip;

use std::rc::Rc;

use crate::measure::{Bench, Role};
use crate::process_pools::{Kept, ProcessPool, ProcessPools, Python, PythonPool, Task};

/// All workloads, in the order in which they are run.
pub(super) fn all(workers: usize) -> Vec<Bench> {
    let python = Python::find();
    let pools = ProcessPools::new(workers, python);
    let mut benches = vec![
        round_trip::back_to_back(&pools),
        round_trip::asleep(&pools),
        many::tasks(&pools),
        many::items(&pools),
        echo::echo("P3-1K", &pools, 1 << 10, 200),
        echo::echo("P3-64K", &pools, 64 << 10, 100),
        echo::echo("P3-1M", &pools, 1 << 20, 30),
        echo::echo("P3-64M", &pools, 64 << 20, 2),
        life::start("P4-2", &pools, 2, 5),
        life::start("P4-8", &pools, 8, 3),
        compute::primes(&pools),
    ];
    let wide = ProcessPools::new(compute::PARTS, python);
    benches.extend([compute::sums(&wide), compute::sums_of_lists(&wide), life::memory(&pools)]);
    benches
}

/// A pool takes part, under its name.
fn add<P: ProcessPool, R: Into<Vec<f64>>>(bench: &mut Bench, _: &Kept<P>, run: impl FnMut() -> R + 'static) {
    let role = if P::NAME == "ours" { Role::Ours } else { Role::Rival };
    bench.add_as(P::NAME, role, run);
}

/// The pools of Python take part. Their script knows the workload by its name, and gets some numbers.
fn add_python(bench: &mut Bench, pools: &ProcessPools, workload: &'static str, numbers: &[usize]) {
    let Some(python) = pools.python else { return };
    let numbers: Rc<[usize]> = numbers.into();
    for pool in PythonPool::ALL {
        let numbers = Rc::clone(&numbers);
        bench.add_as(pool.name(), Role::Rival, move || python.run(pool, workload, &numbers));
    }
}

/// One task, from its submission to its result.
fn call<T: Task, P: ProcessPool>(pool: &P, argument: T::Argument) -> T::Result {
    P::wait(pool.submit::<T>(argument))
}

/// The least that a task can do.
struct Nothing;

impl Task for Nothing {
    type Argument = ();
    type Result = ();

    fn run((): ()) {}
}
