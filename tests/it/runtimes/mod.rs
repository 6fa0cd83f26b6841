//! Handles awaited in real runtimes, which know nothing of this crate, on both pools: every combination, one module a situation.
//! (`polling` looks at single polls, by hand.)

mod blocking;
mod drops;
mod ends;
mod many;
mod selecting;
mod support;
mod wakers;
