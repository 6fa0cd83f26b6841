//! The life of a worker, from its start until it is reaped.
//!
//! ```text
//!            READY           retire            ask_to_end            terminate            kill
//! Starting ─────────▶ Ready ─────────▶ Retiring ─────────▶ Ending ─────────────▶ Terminating ─────▶ Killed
//! ```
//!
//! # Rules
//!
//! 1. The state only moves to the right, and any state may be skipped. Only in `Starting` and `Ready` does the worker get calls.
//! 2. The first [`EndReason`] is kept: the errors of the worker's tasks report it.
//! 3. When the deadline of a state has passed, `parent::timers` kills the worker. If it was killed before, the supervisor leaves
//!    it behind.
//! 4. Any state ends when the process ends. `State::on_exit` (`parent::workers`) acts on that, or `Inner::end_children` if the
//!    whole pool is broken.

use std::time::{Duration, Instant};

/// How long a killed worker may take to end. A process that the system does not end (it is frozen, or waits for a device; or the
/// executor may not signal it any more) must not keep any thread waiting.
pub(crate) const KILL_TIME: Duration = Duration::from_millis(500);

/// The state of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    /// Its process was started. It has to send READY by the deadline.
    Starting {
        deadline: Instant,
    },
    Ready,
    /// It gets no more calls, and is asked to end when it has answered those it has.
    Retiring,
    /// It was asked to end, and is killed at the deadline.
    Ending {
        deadline: Instant,
    },
    /// It was sent SIGTERM, and is killed at the deadline.
    Terminating {
        deadline: Instant,
        reason: EndReason,
    },
    /// It was sent SIGKILL. If its process is still there at the deadline, the pool goes on without it.
    Killed {
        deadline: Instant,
        reason: EndReason,
    },
}

/// Why the executor ended a worker. The message of [`WorkerExit`](crate::WorkerExit) includes the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndReason {
    TaskTimedOut,
    TaskCancelled,
    ProtocolViolation,
    NotReadyInTime,
    NotEndedInTime,
    /// It closed its control socket before it was ready.
    SocketClosedAtStart,
    /// It closed its control socket, and could not be asked to end.
    SocketClosed,
    /// It made this process its tracer, and stopped.
    Traced,
    /// The supervisor could not register its descriptors with `epoll`.
    NotWatched,
    PoolBroken,
    WorkersTerminated,
    WorkersKilled,
    ShutdownTimedOut,
}

impl EndReason {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::TaskTimedOut => "the task that it ran was over its time",
            Self::TaskCancelled => "the task that it ran was cancelled",
            Self::ProtocolViolation => "it sent something that makes no sense",
            Self::NotReadyInTime => "it did not answer in time",
            Self::NotEndedInTime => "it did not end in time",
            Self::SocketClosedAtStart => {
                "it closed its control socket, which is its standard input, before it was ready"
            }
            Self::SocketClosed => "it closed its control socket",
            Self::Traced => "it was traced by its executor, and stopped",
            Self::NotWatched => "it cannot be watched",
            Self::PoolBroken => "the executor is broken",
            Self::WorkersTerminated => "all workers were terminated",
            Self::WorkersKilled => "all workers were killed",
            Self::ShutdownTimedOut => "the time for the shutdown was over",
        }
    }

    /// Returns `true` if the worker itself was the cause, rather than a task, the user or the executor.
    pub(super) fn is_workers_fault(self) -> bool {
        matches!(self, Self::ProtocolViolation | Self::SocketClosedAtStart)
    }
}

impl Life {
    pub(crate) fn takes_calls(self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Ready)
    }

    pub(crate) fn is_starting(self) -> bool {
        matches!(self, Self::Starting { .. })
    }

    /// Returns `true` if the worker has not been asked or forced to end.
    pub(crate) fn is_serving(self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Ready | Self::Retiring)
    }

    /// Why it is being ended by force, if it is.
    pub(crate) fn end_reason(self) -> Option<EndReason> {
        match self {
            Self::Terminating { reason, .. } | Self::Killed { reason, .. } => Some(reason),
            Self::Starting { .. } | Self::Ready | Self::Retiring | Self::Ending { .. } => None,
        }
    }

    /// When the worker has to be checked, whatever else happens.
    pub(crate) fn deadline(self) -> Option<Instant> {
        match self {
            Self::Starting { deadline }
            | Self::Ending { deadline }
            | Self::Terminating { deadline, .. }
            | Self::Killed { deadline, .. } => Some(deadline),
            Self::Ready | Self::Retiring => None,
        }
    }

    /// READY has arrived. Returns `false`, and changes nothing, if the state is not `Starting`.
    #[must_use]
    pub(super) fn ready(&mut self) -> bool {
        let was_starting = self.is_starting();
        if was_starting {
            *self = Self::Ready;
        }
        was_starting
    }

    /// It gets no more calls.
    pub(super) fn retire(&mut self) {
        if self.takes_calls() {
            *self = Self::Retiring;
        }
    }

    /// It is being asked to end. Returns `false`, and changes nothing, if that, or more, was done before.
    #[must_use]
    pub(super) fn ask_to_end(&mut self, deadline: Instant) -> bool {
        let may_be_asked = self.is_serving();
        if may_be_asked {
            *self = Self::Ending { deadline };
        }
        may_be_asked
    }

    /// SIGTERM has to be sent. Returns `false`, and changes nothing, if it or SIGKILL was sent before.
    #[must_use]
    pub(super) fn terminate(&mut self, deadline: Instant, reason: EndReason) -> bool {
        let is_first = self.end_reason().is_none();
        if is_first {
            *self = Self::Terminating { deadline, reason };
        }
        is_first
    }

    /// Returns `true` if it was killed, and the time in which it should have ended has passed.
    pub(crate) fn is_unkillable(self, now: Instant) -> bool {
        matches!(self, Self::Killed { deadline, .. } if deadline <= now)
    }

    /// SIGKILL is being sent, which may happen any number of times.
    pub(super) fn kill(&mut self, reason: EndReason, now: Instant) {
        let reason = self.end_reason().unwrap_or(reason);
        if !matches!(self, Self::Killed { .. }) {
            *self = Self::Killed { deadline: now + KILL_TIME, reason };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Every state, in the order of the diagram.
    fn states(now: Instant) -> [Life; 6] {
        let (deadline, reason) = (now, EndReason::TaskTimedOut);
        [
            Life::Starting { deadline },
            Life::Ready,
            Life::Retiring,
            Life::Ending { deadline },
            Life::Terminating { deadline, reason },
            Life::Killed { deadline, reason },
        ]
    }

    fn place(life: Life) -> usize {
        match life {
            Life::Starting { .. } => 0,
            Life::Ready => 1,
            Life::Retiring => 2,
            Life::Ending { .. } => 3,
            Life::Terminating { .. } => 4,
            Life::Killed { .. } => 5,
        }
    }

    #[test]
    fn a_life_only_goes_forward_and_its_first_reason_stays() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let transitions: [fn(&mut Life, Instant); 5] = [
            |life, _| _ = life.ready(),
            |life, _| life.retire(),
            |life, time| _ = life.ask_to_end(time),
            |life, time| _ = life.terminate(time, EndReason::TaskCancelled),
            |life, time| life.kill(EndReason::PoolBroken, time),
        ];
        for before in states(now) {
            for (target, transition) in transitions.into_iter().enumerate() {
                let mut after = before;
                transition(&mut after, later);
                assert!(place(after) >= place(before), "{before:?} -> {after:?}");
                if place(before) > target && place(before) != 5 {
                    assert_eq!(after, before, "it is past that");
                }
                if let Some(reason) = before.end_reason() {
                    assert_eq!(after.end_reason(), Some(reason));
                }
            }
        }
    }

    #[test]
    fn only_what_starts_or_is_ready_takes_calls() {
        assert_eq!(states(Instant::now()).map(Life::takes_calls), [true, true, false, false, false, false]);
    }
}
