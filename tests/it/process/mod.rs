//! `ProcessPoolExecutor`: what its worker processes promise, one module a situation.

mod basics;
mod cancel;
mod codec;
mod crash;
mod map;
mod support;
