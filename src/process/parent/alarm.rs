//! When the supervisor has to look at the clock.

use std::time::Instant;

/// When the supervisor has to look at the clock, at the latest.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Instant>);

impl Alarm {
    pub(super) fn time(&self) -> Option<Instant> {
        self.0
    }

    /// Sets it, unless it is set for an earlier time. True: it was changed.
    #[must_use]
    pub(super) fn set(&mut self, time: Option<Instant>) -> bool {
        let Some(time) = time else { return false };
        let is_earlier = self.0.is_none_or(|before| time < before);
        if is_earlier {
            self.0 = Some(time);
        }
        is_earlier
    }

    /// Is it time? Then it is not set any more.
    #[must_use]
    pub(super) fn ring(&mut self, now: Instant) -> bool {
        let is_time = self.0.is_some_and(|time| time <= now);
        if is_time {
            self.0 = None;
        }
        is_time
    }
}
