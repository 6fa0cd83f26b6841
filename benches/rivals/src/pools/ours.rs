//! The pool that all this is about.

use concurrent_futures::{Shutdown, TaskFuture, ThreadPoolExecutor};

use super::{Handle, Pool};

pub(crate) struct Ours(pub(crate) ThreadPoolExecutor);

impl Pool for Ours {
    const NAME: &'static str = "ours";
    type Handle<T: Send + 'static> = TaskFuture<T>;

    fn start(workers: usize) -> Self {
        Self(ThreadPoolExecutor::new(workers).expect("a valid number of workers"))
    }

    fn submit<F, T>(&self, f: F) -> TaskFuture<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0.submit(f)
    }

    fn shutdown(self) {
        self.0.shutdown(Shutdown::Wait).expect("this is no worker of the pool");
    }
}

impl<T: Send + 'static> Handle<T> for TaskFuture<T> {
    fn wait(self) -> T {
        self.result().expect("the task succeeds")
    }

    async fn awaited(self) -> T {
        self.await.expect("the task succeeds")
    }
}
