//! Whether, and how long, a thread watches a memory location before it sleeps.
//!
//! Waking a sleeping thread costs microseconds (tens of them if its CPU has halted), so for a short wait spinning is cheaper. But
//! a thread that spins while others need the CPU slows everything down. Three rules:
//! 1. A thread spins only if a CPU is idle, judging by the pool workers of this process ([`has_idle_cpu`]).
//! 2. Each thread adapts how long it spins to how often spinning succeeded ([`SpinBudget`]): it doubles when spinning paid off,
//!    halves when it did not, and never exceeds a maximum, such as [`ONE_WAKE_UP`].
//! 3. A thread that knows that the thread it waits for is on the same CPU yields immediately.
//!
//! A poll must not block, so it spins differently: see [`before_pending`].

mod before_pending;
mod budget;

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

pub(crate) use before_pending::{spin_before_pending, spin_for};
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub(crate) use budget::until_or;
pub(crate) use budget::{ONE_WAKE_UP, SpinBudget, slept, until};

/// How many pool workers of this process are awake. A statistic, not a lock: hence Relaxed.
static AWAKE: AtomicUsize = AtomicUsize::new(0);

/// How many pool threads are being started and have not run yet. Also a statistic.
static STARTING: AtomicUsize = AtomicUsize::new(0);

/// A thread is about to be started.
pub(crate) fn worker_starts() {
    STARTING.fetch_add(1, Relaxed);
}

/// A thread that was counted by [`worker_starts`] runs now, or could not be started.
pub(crate) fn worker_started() {
    STARTING.fetch_sub(1, Relaxed);
}

pub(crate) fn worker_wakes() {
    AWAKE.fetch_add(1, Relaxed);
}

pub(crate) fn worker_sleeps() {
    AWAKE.fetch_sub(1, Relaxed);
}

/// The number of logical CPUs that this process may use, given its cgroup quota and affinity. It is determined once, or by
/// several threads at the same time. The first call of `num_cpus` takes a lock, which a forked child could inherit: see
/// `fork::Origin::new`.
pub(crate) fn cpus() -> usize {
    /// 0 until it has been read.
    static CPUS: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: only the number itself matters, and every thread determines the same one.
    match CPUS.load(Relaxed) {
        0 => {
            let cpus = num_cpus::get().max(1);
            CPUS.store(cpus, Relaxed);
            cpus
        }
        cpus => cpus,
    }
}

/// Returns `true` if there are CPUs for `threads` more threads than the workers that are awake. It returns `false` while a new
/// thread waits for its first time slice, because that thread can run at once on the CPU of a waiter that sleeps.
pub(crate) fn has_idle_cpu(threads: usize) -> bool {
    AWAKE.load(Relaxed) + threads <= cpus() && STARTING.load(Relaxed) == 0
}
