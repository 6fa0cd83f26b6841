//! Handles awaited in real runtimes, which know nothing of this crate, on both pools: every combination, one module a situation.
//! (`polling` looks at single polls, by hand.)

mod blocking;
mod collecting;
mod drops;
mod ends;
mod many;
mod selecting;
mod spawned;
mod support;
mod wakers;
