//! Whether a poll that finds its task unfinished spins for a moment before it returns `Pending`.
//!
//! A poll must not block. But storing a waker, having another thread call it, perhaps waking a thread for that, and polling again
//! costs several microseconds, which is many times what a short task takes. So a poll spins for [`LONGEST`]. With each failure in
//! a row fewer polls do, down to one in [`SELDOM`]. And after [`MOST_IN_A_ROW`] successes one poll does not, because the other
//! futures on the thread need their turn.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::has_idle_cpu;

const LONGEST: Duration = Duration::from_micros(2);

/// After this many polls in a row that were ready only because they spun, one poll does not spin.
const MOST_IN_A_ROW: u32 = 32;

/// After many failures in a row, one poll in `SELDOM` spins: a 32nd of a microsecond per poll, on average.
const SELDOM: u32 = 64;

/// How often the polls of this thread spun successfully.
#[derive(Debug)]
struct HitRate {
    in_a_row: Cell<u32>,
    /// How many of the next polls do not spin.
    without: Cell<u32>,
    /// How many polls do not spin after the next failure.
    then_without: Cell<u32>,
}

impl HitRate {
    const fn new() -> Self {
        Self { in_a_row: Cell::new(0), without: Cell::new(0), then_without: Cell::new(0) }
    }

    /// Returns `true` if the next poll should spin. Counts that poll.
    fn is_promising(&self) -> bool {
        let without = self.without.get();
        if without > 0 {
            self.without.set(without - 1);
            return false;
        }
        if self.in_a_row.get() == MOST_IN_A_ROW {
            self.in_a_row.set(0);
            return false;
        }
        true
    }

    /// A poll has spun, and was ready afterwards.
    fn hit(&self) {
        self.in_a_row.set(self.in_a_row.get() + 1);
        self.then_without.set(0);
    }

    /// A poll has spun, and was not ready afterwards.
    fn missed(&self) {
        self.in_a_row.set(0);
        let without = self.then_without.get();
        self.without.set(without);
        self.then_without.set((2 * without + 1).min(SELDOM - 1));
    }
}

thread_local! {
    static HIT_RATE: HitRate = const { HitRate::new() };
    /// This thread is spinning. Wakers and destructors that run meanwhile may poll other futures, which must not spin.
    static IS_SPINNING: Cell<bool> = const { Cell::new(false) };
}

/// For a poll: runs `attempt`, which should call [`spin_for`], if a CPU is idle and [`HitRate`] allows it. Returns `true` if
/// `attempt` has returned `Some(true)`, which means that the task has ended. `None` means that it could not spin, which counts
/// neither as a success nor as a failure.
pub(crate) fn spin_before_pending(attempt: impl FnOnce() -> Option<bool>) -> bool {
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            IS_SPINNING.set(false);
        }
    }
    if cfg!(loom) || IS_SPINNING.get() || !has_idle_cpu(1) || !HIT_RATE.with(HitRate::is_promising) {
        return false;
    }
    IS_SPINNING.set(true);
    let _done = Done;
    let Some(has_ended) = attempt() else { return false };
    HIT_RATE.with(if has_ended { HitRate::hit } else { HitRate::missed });
    has_ended
}

/// Spins for [`LONGEST`]. Returns `true` if `done` became true.
pub(crate) fn spin_for(mut done: impl FnMut() -> bool) -> bool {
    // Reading the clock costs as much as several pauses, so it is read once per batch.
    const PAUSES: usize = 8;
    let start = Instant::now();
    loop {
        for _ in 0..PAUSES {
            if done() {
                return true;
            }
            std::hint::spin_loop();
        }
        if start.elapsed() >= LONGEST {
            return done();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of `polls` polls spin, if all that do are followed by `outcome`.
    fn spins(rate: &HitRate, polls: usize, outcome: fn(&HitRate)) -> Vec<bool> {
        let poll = |_| {
            let spins = rate.is_promising();
            if spins {
                outcome(rate);
            }
            spins
        };
        (0..polls).map(poll).collect()
    }

    #[test]
    fn the_more_polls_miss_the_fewer_spin() {
        let rate = HitRate::new();
        let spun = spins(&rate, 1000, HitRate::missed);
        let at: Vec<usize> = (0..spun.len()).filter(|n| spun[*n]).collect();
        let gaps: Vec<usize> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps[..8], [1, 2, 4, 8, 16, 32, 64, 64]);
        assert!(gaps[8..].iter().all(|gap| *gap == 64));
    }

    #[test]
    fn one_hit_makes_up_for_all_misses() {
        let rate = HitRate::new();
        spins(&rate, 1000, HitRate::missed);
        let first = spins(&rate, 64, HitRate::hit).iter().position(|spun| *spun).unwrap();
        assert!(first < 64);
        assert_eq!(spins(&rate, 3, HitRate::missed), [true, true, false], "as at the beginning");
    }

    #[test]
    fn no_poll_spins_inside_another() {
        let mut inner = None;
        // Other tests run pool workers, which may leave no CPU idle.
        let outer = spin_before_pending(|| {
            inner = Some(spin_before_pending(|| Some(true)));
            Some(true)
        });
        assert_eq!(inner, outer.then_some(false));
        assert!(!IS_SPINNING.get());
    }

    #[test]
    fn one_poll_in_33_does_not_spin() {
        let spun = spins(&HitRate::new(), 3 * 33, HitRate::hit);
        for (n, spun) in spun.iter().enumerate() {
            assert_eq!(*spun, n % 33 != 32, "{n}");
        }
    }
}
