//! `ProcessPoolExecutor`: what its worker processes promise, one module a situation.

mod basics;
mod cancel;
mod chaos;
mod checkers;
mod codec;
mod crash;
mod descriptors;
mod environment;
mod floods;
mod forked;
mod forked_host;
mod grandchildren;
mod hybrid;
mod hygiene;
mod inherited;
mod interrupted;
mod large;
mod limited;
mod limits;
mod lost;
mod map;
mod order;
mod orphans;
mod outside;
mod privileges;
mod reaped;
mod refused;
mod seccomp;
mod shutdown;
mod start;
mod stdio;
pub(crate) mod support;
mod terminal;
mod traffic;
mod user_code;

pub(crate) use support::giving_back;
