//! Wrappers around the operating system, without policy. Linux only.
//!
//! | file | what it is |
//! |---|---|
//! | `shm` | memory that two processes share |
//! | `futex` | sleeping on a word of such memory |
//! | `socket` | a pair of connected sockets that carry messages and descriptors |
//! | `fd` | descriptors other than the standard ones |
//! | `events` | waiting for many descriptors at once |
//! | `pidfd` | a process that is identified by a descriptor |
//! | `clock` | the time, as all processes see it |
//! | `cpu` | which processor a thread is on |
//! | `image` | the running executable |
//! | `fault` | crash notes of a process |

pub(crate) mod clock;
pub(crate) mod cpu;
pub(crate) mod events;
pub(crate) mod fault;
pub(crate) mod fd;
pub(crate) mod futex;
pub(crate) mod image;
pub(crate) mod pidfd;
pub(crate) mod shm;
pub(crate) mod socket;
