//! The time at which the supervisor has to run its timers.

use std::time::Instant;

/// The time at which the supervisor has to run its timers at the latest; `None` if it need not.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Instant>);

impl Alarm {
    pub(super) fn time(&self) -> Option<Instant> {
        self.0
    }

    /// Sets the alarm to `time`, unless it is set to an earlier time. Returns `true` if this has changed it.
    #[must_use]
    pub(super) fn set(&mut self, time: Option<Instant>) -> bool {
        let Some(time) = time else { return false };
        let is_earlier = self.0.is_none_or(|before| time < before);
        if is_earlier {
            self.0 = Some(time);
        }
        is_earlier
    }

    /// Returns `true` if the alarm's time has come, and clears it.
    #[must_use]
    pub(super) fn ring(&mut self, now: Instant) -> bool {
        let is_time = self.0.is_some_and(|time| time <= now);
        if is_time {
            self.0 = None;
        }
        is_time
    }
}
