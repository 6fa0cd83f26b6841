//! Whether, and how long, a thread that has nothing to do watches a memory location before it sleeps.
//!
//! Waking a sleeping thread costs microseconds (tens of them where its CPU has halted), so a short wait is
//! cheaper awake. But a thread that spins while others want the CPU is worse than useless. Three rules:
//! 1. Nobody spins unless a CPU is free for it, as far as this process can know ([`room_for`]).
//! 2. Each thread adapts how long it spins to how often spinning succeeded ([`Patience`]): it doubles when spinning paid off,
//!    halves when it did not, and never exceeds its `longest`, as [`ONE_WAKE_UP`].
//! 3. A thread that knows that the thread it waits for is on the same CPU yields immediately.
//!
//! A poll, which must not block, does it in another way: see [`glance`](mod@glance).

mod glance;

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

pub(crate) use glance::{glance, look};

/// The longest spin of who will be told when there is something, about half of the dearest wake-up.
pub(crate) const ONE_WAKE_UP: Duration = Duration::from_micros(50);
const SHORTEST: Duration = Duration::from_micros(1);

/// From then on a spinning thread yields now and then: if others keep the rest of the CPUs busy, whoever is awaited may want
/// this very one. What is quicker than that is found without a system call.
const POLITE: Duration = Duration::from_micros(1);

/// How many pool workers of this process are awake. A statistic, not a lock: hence Relaxed.
static AWAKE: AtomicUsize = AtomicUsize::new(0);

/// How many threads have been started and have not run yet. Also a statistic.
static STARTING: AtomicUsize = AtomicUsize::new(0);

/// A thread is about to be started...
pub(crate) fn worker_starts() {
    STARTING.fetch_add(1, Relaxed);
}

/// ... and now it runs, or could not be started.
pub(crate) fn worker_started() {
    STARTING.fetch_sub(1, Relaxed);
}

pub(crate) fn worker_wakes() {
    AWAKE.fetch_add(1, Relaxed);
}

pub(crate) fn worker_sleeps() {
    AWAKE.fetch_sub(1, Relaxed);
}

/// The logical CPUs this process may use, cgroup quotas and affinity included. Read once, or by several threads at the same time.
/// The first call of `num_cpus` takes a lock, which a forked child could inherit: see `fork::Origin::new`.
pub(crate) fn cpus() -> usize {
    /// 0 if nobody has looked yet.
    static CPUS: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: a number, and everybody finds the same one.
    match CPUS.load(Relaxed) {
        0 => {
            let cpus = num_cpus::get().max(1);
            CPUS.store(cpus, Relaxed);
            cpus
        }
        cpus => cpus,
    }
}

/// Is there a CPU for so many threads beside the workers that are awake? Not while a new thread waits for its first time
/// slice: on the CPU of a waiter that sleeps it gets it at once.
pub(crate) fn room_for(threads: usize) -> bool {
    AWAKE.load(Relaxed) + threads <= cpus() && STARTING.load(Relaxed) == 0
}

/// How long this thread is willing to spin at the moment.
#[derive(Debug)]
pub(crate) struct Patience {
    now: Cell<Duration>,
    longest: Duration,
}

impl Patience {
    pub(crate) const fn new(longest: Duration) -> Self {
        Self { now: Cell::new(longest), longest }
    }

    /// Watches `done` until it is true (and says so) or patience has run out. `in_the_way`: is the one that is awaited on
    /// the CPU of this thread?
    pub(crate) fn spin_until(&self, mut done: impl FnMut() -> bool, mut in_the_way: impl FnMut() -> bool) -> bool {
        let limit = self.now.get();
        let start = Instant::now();
        loop {
            let in_the_way = in_the_way();
            // Reading the clock costs as much as some pauses, so it is read once a batch.
            for _ in 0..if in_the_way { 1 } else { 16 } {
                if done() {
                    self.rewarded();
                    return true;
                }
                std::hint::spin_loop();
            }
            let spun = start.elapsed();
            if spun >= limit {
                self.now.set((limit / 2).max(SHORTEST));
                return false;
            }
            if in_the_way || spun >= POLITE {
                std::thread::yield_now();
            }
        }
    }

    /// The thread went to sleep and was woken this much later: a short sleep says that spinning would have paid.
    pub(crate) fn slept(&self, time: Duration) {
        if time < self.longest {
            self.rewarded();
        }
    }

    fn rewarded(&self) {
        self.now.set((self.now.get() * 2).min(self.longest));
    }
}

thread_local! {
    static OWN: Patience = const { Patience::new(ONE_WAKE_UP) };
}

/// Spins for the calling thread, a waiter, if there is room; says whether `done` became true.
pub(crate) fn until(done: impl FnMut() -> bool) -> bool {
    until_or(done, || false)
}

/// The same for who knows whether the one that is awaited is `in_the_way`: see [`Patience::spin_until`].
pub(crate) fn until_or(done: impl FnMut() -> bool, in_the_way: impl FnMut() -> bool) -> bool {
    !cfg!(loom) && room_for(1) && OWN.with(|own| own.spin_until(done, in_the_way))
}

/// Tells the calling thread's patience how long it slept in vain or not.
pub(crate) fn slept(time: Duration) {
    OWN.with(|own| own.slept(time));
}
