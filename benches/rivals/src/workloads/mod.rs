//! What the contenders are made to do.

mod awaiting;
mod compute;
mod fork_join;
mod latency;
mod memory;
#[cfg(target_os = "linux")]
mod processes;
mod start;
mod throughput;

use crate::measure::Bench;
use crate::pools::Pools;
use crate::settings::Settings;

/// All workloads, in the order in which they are run.
pub(crate) fn all(settings: &Settings, pools: &Pools) -> Vec<Bench> {
    let (tasks, workers) = (settings.tasks, settings.workers);
    let mut benches = vec![
        // First, as the one pool that is not started anew for it has an empty queue then that has never been full.
        memory::pending(pools, workers),
        throughput::from_outside(pools, tasks),
        latency::round_trips(pools),
        latency::asleep(pools),
        throughput::from_inside(pools, tasks),
        fork_join::fibonacci(pools),
        compute::map(pools, workers),
        throughput::producers(pools, tasks),
        compute::primes(pools, workers),
        start::start_and_shutdown("T9-2", pools, 2, 25),
        start::start_and_shutdown("T9-64", pools, 64, 3),
    ];
    benches.extend(awaiting::all(pools));
    #[cfg(target_os = "linux")]
    if settings.wants_any('P') {
        benches.extend(processes::all(workers));
    }
    benches
}
