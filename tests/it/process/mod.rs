//! `ProcessPoolExecutor`: what its worker processes promise, one module a situation.

mod basics;
mod cancel;
mod codec;
mod crash;
mod hybrid;
mod limits;
mod map;
mod order;
mod shutdown;
mod start;
mod support;
