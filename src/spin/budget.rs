//! How long a thread spins before it sleeps. Each thread adapts this to how often its spinning has succeeded.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::has_idle_cpu;

/// The longest time that a thread spins before it sleeps until it is woken: about half of what the most expensive wake-up costs.
pub(crate) const ONE_WAKE_UP: Duration = Duration::from_micros(50);
const SHORTEST: Duration = Duration::from_micros(1);

/// After this time a spinning thread yields after every batch of checks: if the other CPUs are busy with other programs, the
/// awaited thread may need this CPU. A shorter spin makes no system call.
const YIELD_AFTER: Duration = Duration::from_micros(1);

/// How long a thread spins at the moment.
#[derive(Debug)]
pub(crate) struct SpinBudget {
    now: Cell<Duration>,
    longest: Duration,
}

impl SpinBudget {
    pub(crate) const fn new(longest: Duration) -> Self {
        Self { now: Cell::new(longest), longest }
    }

    /// Spins until `done` returns `true`, and returns `true`; or until the budget is used up. `shares_cpu` returns `true` if the
    /// awaited thread is on the CPU of this one.
    pub(crate) fn spin_until(&self, mut done: impl FnMut() -> bool, mut shares_cpu: impl FnMut() -> bool) -> bool {
        let limit = self.now.get();
        let start = Instant::now();
        loop {
            let shares_cpu = shares_cpu();
            // Reading the clock costs as much as some pauses, so it is read once per batch.
            let batch = if shares_cpu { 1 } else { 16 };
            for _ in 0..batch {
                if done() {
                    self.succeeded();
                    return true;
                }
                std::hint::spin_loop();
            }
            let spun = start.elapsed();
            if spun >= limit {
                self.now.set((limit / 2).max(SHORTEST));
                return false;
            }
            if shares_cpu || spun >= YIELD_AFTER {
                std::thread::yield_now();
            }
        }
    }

    /// The thread slept for this time and was woken: after a short sleep, spinning would have succeeded.
    pub(crate) fn slept(&self, time: Duration) {
        if time < self.longest {
            self.succeeded();
        }
    }

    fn succeeded(&self) {
        self.now.set((self.now.get() * 2).min(self.longest));
    }
}

thread_local! {
    static OWN: SpinBudget = const { SpinBudget::new(ONE_WAKE_UP) };
}

/// Spins with the calling thread's own budget, if a CPU is idle. Returns `true` if `done` became true.
pub(crate) fn until(done: impl FnMut() -> bool) -> bool {
    until_or(done, || false)
}

/// [`until`] for a thread that can tell whether the awaited thread is on its CPU: see [`SpinBudget::spin_until`].
pub(crate) fn until_or(done: impl FnMut() -> bool, shares_cpu: impl FnMut() -> bool) -> bool {
    !cfg!(loom) && has_idle_cpu(1) && OWN.with(|own| own.spin_until(done, shares_cpu))
}

/// Adapts the calling thread's budget to how long it slept.
pub(crate) fn slept(time: Duration) {
    OWN.with(|own| own.slept(time));
}
