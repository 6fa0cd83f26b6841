//! The clock that is the same in all processes.

/// The time of the monotonic clock, in nanoseconds. A signal handler may call it.
pub(crate) fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    (now.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec as u64)
}
