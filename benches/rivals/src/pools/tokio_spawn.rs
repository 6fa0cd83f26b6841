//! tokio's multi-thread runtime: `spawn` of a future that never waits.

use futures_lite::future::block_on;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::{Handle, Pool};

pub(crate) struct TokioSpawn(Runtime);

impl Pool for TokioSpawn {
    const NAME: &'static str = "tokio spawn";
    type Handle<T: Send + 'static> = JoinHandle<T>;

    fn start(workers: usize) -> Self {
        Self(Builder::new_multi_thread().worker_threads(workers).build().expect("threads can be started"))
    }

    fn submit<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.0.spawn(async { f() })
    }

    /// It waits for the threads.
    fn shutdown(self) {}

    /// A task of a runtime awaits: it must not block.
    fn flood_from_inside(&'static self, tasks: usize) {
        let task = self.0.spawn(async move {
            let mut handles = Vec::with_capacity(tasks);
            handles.extend((0..tasks).map(|_| self.submit(|| ())));
            for handle in handles {
                handle.await.expect("the task succeeds");
            }
        });
        task.wait();
    }
}

impl<T: Send + 'static> Handle<T> for JoinHandle<T> {
    fn wait(self) -> T {
        block_on(self).expect("the task succeeds")
    }

    async fn awaited(self) -> T {
        self.await.expect("the task succeeds")
    }
}
