//! rusty_pool, with the handle that it has.

use std::time::Duration;

use rusty_pool::JoinHandle;

use super::{Handle, Pool};

pub(crate) struct RustyPool(rusty_pool::ThreadPool);

impl Pool for RustyPool {
    const NAME: &'static str = "rusty_pool";
    type Handle<T: Send + 'static> = JoinHandle<T>;

    fn start(workers: usize) -> Self {
        Self(rusty_pool::ThreadPool::new(workers, workers, Duration::from_secs(60)))
    }

    fn submit<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0.evaluate(f)
    }

    fn shutdown(self) {
        self.0.shutdown_join();
    }
}

impl<T: Send + 'static> Handle<T> for JoinHandle<T> {
    fn wait(self) -> T {
        self.await_complete()
    }

    async fn awaited(self) -> T {
        self.receiver.await.expect("the task succeeds")
    }
}
