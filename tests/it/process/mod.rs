//! `ProcessPoolExecutor`: what its worker processes promise, one module a situation.

mod basics;
mod cancel;
mod chaos;
mod codec;
mod crash;
mod descriptors;
mod floods;
mod grandchildren;
mod hybrid;
mod hygiene;
mod interrupted;
mod large;
mod limited;
mod limits;
mod map;
mod order;
mod orphans;
mod outside;
mod refused;
mod seccomp;
mod shutdown;
mod start;
mod support;
mod terminal;
mod traffic;
