//! The parent's side of a pool: it owns all workers, and every task from `submit` to the end.
//!
//! | file | what it is |
//! |---|---|
//! | `verbs` | what a pool is asked to do: submit, cancel, resize, shut down |
//! | `inner` | the pool: its lock, what is done outside it, and its end |
//! | `config` | what it was built with |
//! | `state` | what the lock guards, and the events that change it; `dispatch`, `replies`, `workers`, `timers` have one kind of event each |
//! | `lifecycle`, `queue`, `restarts`, `alarm`, `child/` | the parts of the state, each with its own transitions |
//! | `deferred` | what a change of the state leaves to be done outside the lock |
//! | `supervisor` | the thread that starts, watches and reaps workers |
//! | `launch` | how a worker process is started |
//! | `output` | what a worker writes to its standard output and error |
//! | `waiting` | what a thread that waits for a task does meanwhile |
//! | `callbacks` | the thread that runs done-callbacks |
//! | `job` | a task from `submit` to its outcome |
//! | `map` | the chunks of a map |
//! | `model` | the state, driven by random events without one process |
//!
//! # Who does what
//!
//! `submit` writes a call straight into a worker's ring if one has room. Replies are collected by the first thread that looks: one that
//! waits for a task, one that submits while all workers are full, or the supervisor, which sleeps in `epoll` with the bell of
//! every busy worker armed.
//!
//! # Rules
//!
//! 1. One lock (`Inner::state`) guards everything but `rings`, `callbacks` and the capacity of the queue. It is held for microseconds:
//!    no code of the user's runs under it, and no system call that may block.
//! 2. A job is in exactly one place: the queue, a worker's `Inflight` or `Incoming`, or `Deferred::settle`. It leaves the last one
//!    by being resolved, outside the lock, and nowhere else.
//! 3. A job is begun by one worker at a time. It goes back to the queue only if its worker gave it back unbegun (the claim word of the
//!    ring decides), or is dead: `workers::redistribute`.
//! 4. Only the supervisor starts and reaps processes, and removes children. Anybody who holds the lock may signal one.
//! 5. Who changes something that the supervisor acts on sets `Deferred::wake_supervisor`; who takes a job from a worker calls
//!    `Deferred::wake_waiters`. `Inner::release` does both after the lock, and after the jobs are resolved.
//! 6. The pool does not end while a thread resolves jobs (`Lifecycle::begin_settling`), or a callback is left to be run.

mod alarm;
mod callbacks;
mod child;
mod config;
mod deferred;
mod dispatch;
mod inner;
mod job;
mod launch;
mod lifecycle;
mod map;
#[cfg(test)]
mod model;
mod output;
mod queue;
mod replies;
mod restarts;
mod state;
mod supervisor;
mod timers;
mod verbs;
mod waiting;
mod workers;

pub(crate) use child::EndReason;
pub(crate) use config::{Config, Hook};
pub(crate) use inner::Inner;
#[cfg(fuzzing)]
pub(crate) use job::Raw;
pub(crate) use job::{Job, JobOptions, Limits, ResultOf, Sink};
pub(crate) use launch::check_ids;
pub(crate) use map::ChunkLane;
pub(crate) use waiting::TaskOwner;
