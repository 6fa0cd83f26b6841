//! The parent's side of a pool: it owns all workers, and every task from `submit` to the end.
//!
//! | file | what it is |
//! |---|---|
//! | `state` | what the lock of a pool guards: queues, children, and how tasks move between them |
//! | `core` | the pool as its users see it: submit, cancel, collect |
//! | `callbacks` | the thread that runs done-callbacks |
//! | `help` | what a thread that waits for a task does meanwhile |
//! | `spawn` | a new worker process |
//! | `supervise` | the one thread that starts, watches and buries workers |
//!
//! **Who does what.** `submit` writes a call straight into a worker's ring if one has room. Replies are collected by whoever
//! is there first: a thread that waits for one of the tasks, a thread that submits while all workers are full, or the
//! supervisor, which sleeps in `epoll` with the bell of every busy worker armed. All that needs the lock takes
//! microseconds; the user's code (decoding, callbacks) runs outside it, callbacks on a thread of their own.
//!
//! Workers are started by the supervisor alone, because the signal that ends a worker when its parent dies
//! (`PR_SET_PDEATHSIG`) really follows the thread that started it.

mod callbacks;
mod core;
mod help;
mod spawn;
mod state;
mod supervise;

pub(super) use self::core::{Config, Core, Hook};
pub(super) use self::help::TaskOwner;
pub(super) use self::spawn::check_ids;
