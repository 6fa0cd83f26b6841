//! What this crate asks of the operating system, without policy. Linux only.
//!
//! | file | what it is |
//! |---|---|
//! | `shm` | memory that two processes share |
//! | `futex` | sleeping on a word of such memory |
//! | `socket` | a pair of connected sockets that carry messages and descriptors |
//! | `fd` | descriptors that are no standard ones |
//! | `events` | waiting for many descriptors at once |
//! | `pidfd` | a process that is known by a descriptor |
//! | `clock` | the time, as all processes see it |
//! | `cpu` | which processor a thread is on |
//! | `image` | the running executable |
//! | `fault` | last words of a process that crashes |

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
