//! tokio's `spawn_blocking`, on a runtime that has no other threads.

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::Pool;

pub(crate) struct TokioSpawnBlocking(Runtime);

impl Pool for TokioSpawnBlocking {
    const NAME: &'static str = "spawn_blocking";
    type Handle<T: Send + 'static> = JoinHandle<T>;

    fn start(workers: usize) -> Self {
        Self(Builder::new_current_thread().max_blocking_threads(workers).build().expect("a valid runtime"))
    }

    fn submit<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0.spawn_blocking(f)
    }

    /// It waits for the threads.
    fn shutdown(self) {}
}
