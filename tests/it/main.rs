//! The integration tests, one module a situation.

mod callbacks;
mod drops;
mod map;
mod nested;
mod order;
mod spawn_failure;
#[allow(dead_code)] // Parts of it are for modules that are still to come.
mod support;
mod thread_locals;
