//! The parent's side of a pool: it owns all workers, and every task from `submit` until it is resolved.
//!
//! | file | what it is |
//! |---|---|
//! | `verbs` | the operations of a pool: submit, cancel, resize, shut down |
//! | `inner` | the pool: its lock, and what is done after it is released |
//! | `ending` | the end of a pool whose supervisor panicked or whose descriptors were closed; the last step of every end |
//! | `config` | its settings |
//! | `state` | what the lock guards, and its events; `dispatch`, `replies`, `workers`, `timers` have one kind of event each |
//! | `lifecycle`, `queue`, `restarts`, `alarm`, `child/` | the parts of the state, each with its own transitions |
//! | `deferred` | what has to be done after a change of the state, outside the lock |
//! | `supervisor` | the thread that starts, watches and reaps workers |
//! | `launch` | how a worker process is started |
//! | `output` | what a worker writes to its standard output and error |
//! | `waiting` | what a thread does while it waits for a task |
//! | `callbacks` | the thread that runs done-callbacks |
//! | `job` | a task, from `submit` until it is resolved |
//! | `map` | the chunks of a map |
//! | `model` | tests: the state, driven by random events, without any process |
//!
//! # Who does what
//!
//! `submit` writes a call straight into a worker's ring if one has room. Replies are collected by the first thread that finds
//! them: one that waits for a task, one that submits while all workers are full, or the supervisor, which sleeps in `epoll` with
//! the bell of every busy worker armed.
//!
//! # Rules
//!
//! 1. One lock (`Inner::state`) guards the whole [`State`](state::State). `rings`, `callbacks`, `supervisor` and the capacity of
//!    the queue have locks of their own. No user code runs under it, and no system call that may block. It is held for
//!    microseconds, or for longer while the captured output of a worker is read or its end is examined.
//! 2. A job is in exactly one place: the queue, a worker's `Inflight` or `Incoming`, or `Deferred::settle`. Jobs are resolved
//!    only from `Deferred::settle`, without the lock.
//! 3. A job is given to one worker at a time. It returns to the queue only if it did not fit into the worker's ring, if it was
//!    taken back before it began (the claim word of the ring decides), or if the worker is dead or left behind because it cannot
//!    be killed (`State::redistribute`).
//! 4. Only the supervisor starts processes. It also reaps them and removes children, with two exceptions: `Inner::end_children`
//!    (`ending`), which may run in a thread of its own, and `Child::leave_behind`. Any thread that holds the lock may send a
//!    worker a signal.
//! 5. A method that changes something the supervisor acts on sets `Deferred::wake_supervisor`. A method that takes a job from a
//!    worker calls `Deferred::wake_waiters`, with two exceptions: `State::on_exit` releases the sleeping threads itself, and
//!    `State::withdraw` takes chunks of maps, for which no thread sleeps on a ring. `Inner::release` carries out both, after it
//!    has released the lock and resolved the jobs.
//! 6. The supervisor does not end the pool while a thread resolves jobs (`Lifecycle::begin_settling`) or callbacks remain to be
//!    run. An end by `ending` waits only for the callbacks.

mod alarm;
mod callbacks;
mod child;
mod config;
mod deferred;
mod dispatch;
mod ending;
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
