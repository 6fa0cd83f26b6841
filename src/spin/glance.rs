//! Whether a poll that finds its task unfinished looks on for a moment before it is pending.
//!
//! A poll must not block. But to leave a waker, to have it called by another thread, perhaps out of its sleep, and to be polled
//! again costs several microseconds, for short tasks many times what the tasks cost. So it looks on for [`LONGEST`], unless that
//! has been in vain of late: then it does so ever more seldom. And not without end in a row, because the others on that
//! thread want their turn.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::room_for;

const LONGEST: Duration = Duration::from_micros(2);

/// After so many polls in a row that were ready only because they had looked on, one does not.
const MOST_IN_A_ROW: u32 = 32;

/// While it is in vain, one poll in so many looks on: a 32nd of a microsecond each, on the average.
const SELDOM: u32 = 64;

/// How it went on this thread of late.
#[derive(Debug)]
struct Luck {
    in_a_row: Cell<u32>,
    /// How many polls do without from here on...
    without: Cell<u32>,
    /// ... and after the next one that is in vain.
    then_without: Cell<u32>,
}

impl Luck {
    const fn new() -> Self {
        Self { in_a_row: Cell::new(0), without: Cell::new(0), then_without: Cell::new(0) }
    }

    /// Should the next poll look on?
    fn is_with_us(&self) -> bool {
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

    /// A poll has looked on, and was ready or not.
    fn went(&self, well: bool) {
        if well {
            self.in_a_row.set(self.in_a_row.get() + 1);
            self.then_without.set(0);
        } else {
            self.in_a_row.set(0);
            let without = self.then_without.get();
            self.without.set(without);
            self.then_without.set((2 * without + 1).min(SELDOM - 1));
        }
    }
}

thread_local! {
    static LUCK: Luck = const { Luck::new() };
    /// This thread is at it: wakers and destructors that run meanwhile may poll other futures.
    static AT_IT: Cell<bool> = const { Cell::new(false) };
}

/// For a poll: lets `attempt` look on (it should call [`look`]), if there is room and luck; says whether it has seen the end.
/// `None`: it could not look, which is neither good luck nor bad.
pub(crate) fn glance(attempt: impl FnOnce() -> Option<bool>) -> bool {
    struct Done;
    impl Drop for Done {
        fn drop(&mut self) {
            AT_IT.set(false);
        }
    }
    if cfg!(loom) || AT_IT.get() || !room_for(1) || !LUCK.with(Luck::is_with_us) {
        return false;
    }
    AT_IT.set(true);
    let _done = Done;
    let Some(well) = attempt() else { return false };
    LUCK.with(|luck| luck.went(well));
    well
}

/// Looks on for a moment; says whether `done` became true.
pub(crate) fn look(mut done: impl FnMut() -> bool) -> bool {
    // Reading the clock costs as much as some pauses.
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

    /// Of so many polls, which looked on, where that goes well or not.
    fn looks(luck: &Luck, polls: usize, well: bool) -> Vec<bool> {
        let poll = |_| {
            let looks = luck.is_with_us();
            if looks {
                luck.went(well);
            }
            looks
        };
        (0..polls).map(poll).collect()
    }

    #[test]
    fn in_vain_it_is_done_ever_more_seldom() {
        let luck = Luck::new();
        let looked = looks(&luck, 1000, false);
        let at: Vec<usize> = (0..looked.len()).filter(|n| looked[*n]).collect();
        let gaps: Vec<usize> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(gaps[..8], [1, 2, 4, 8, 16, 32, 64, 64]);
        assert!(gaps[8..].iter().all(|gap| *gap == 64));
    }

    #[test]
    fn one_success_makes_up_for_all_failures() {
        let luck = Luck::new();
        looks(&luck, 1000, false);
        let first = looks(&luck, 64, true).iter().position(|looked| *looked).unwrap();
        assert!(first < 64);
        assert_eq!(looks(&luck, 3, false), [true, true, false], "as at the beginning");
    }

    #[test]
    fn no_poll_looks_on_inside_another() {
        let mut inner = None;
        // Other tests are workers, and may leave no room.
        let outer = glance(|| {
            inner = Some(glance(|| Some(true)));
            Some(true)
        });
        assert_eq!(inner, outer.then_some(false));
        assert!(!AT_IT.get());
    }

    #[test]
    fn others_have_their_turn() {
        let looked = looks(&Luck::new(), 3 * 33, true);
        for (n, looked) in looked.iter().enumerate() {
            assert_eq!(*looked, n % 33 != 32, "{n}");
        }
    }
}
