//! threadpool, with a oneshot channel as the handle.

use super::Pool;

pub(crate) struct Threadpool(threadpool::ThreadPool);

impl Pool for Threadpool {
    const NAME: &'static str = "threadpool";
    type Handle<T: Send + 'static> = oneshot::Receiver<T>;

    fn start(workers: usize) -> Self {
        Self(threadpool::ThreadPool::new(workers))
    }

    fn submit<F, T>(&self, f: F) -> oneshot::Receiver<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.0.execute(move || drop(sender.send(f())));
        receiver
    }

    /// It waits for the tasks; there is no way to wait for the threads.
    fn shutdown(self) {
        self.0.join();
    }
}
