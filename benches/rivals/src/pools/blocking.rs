//! `blocking::unblock`: one pool for the whole process.

#![allow(unsafe_code)]

use std::sync::Once;

use blocking::{Task, unblock};
use futures_lite::future::block_on;

use super::{Handle, Pool};

pub(crate) struct Blocking;

impl Pool for Blocking {
    const NAME: &'static str = "blocking";
    const GLOBAL: bool = true;
    type Handle<T: Send + 'static> = Task<T>;

    /// The number of threads is an environment variable, read at the first task.
    fn start(workers: usize) -> Self {
        static SET: Once = Once::new();
        SET.call_once(|| {
            // SAFETY: the first call comes from `Pools::start`, when there is no other thread.
            unsafe { std::env::set_var("BLOCKING_MAX_THREADS", workers.to_string()) }
        });
        Self
    }

    fn submit<F, T>(&self, f: F) -> Task<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        unblock(f)
    }

    fn shutdown(self) {}
}

impl<T: Send + 'static> Handle<T> for Task<T> {
    fn wait(self) -> T {
        block_on(self)
    }

    async fn awaited(self) -> T {
        self.await
    }
}
