//! rayon: `spawn`, with a oneshot channel as the handle.

use std::sync::{Arc, Condvar, Mutex};

use super::Pool;

pub(crate) struct Rayon {
    pub(crate) pool: rayon::ThreadPool,
    threads: Arc<Threads>,
}

/// How many threads there are: dropping the pool does not wait for them.
struct Threads {
    left: Mutex<usize>,
    changed: Condvar,
}

impl Pool for Rayon {
    const NAME: &'static str = "rayon";
    type Handle<T: Send + 'static> = oneshot::Receiver<T>;

    fn start(workers: usize) -> Self {
        let threads = Arc::new(Threads { left: Mutex::new(workers), changed: Condvar::new() });
        let ended = Arc::clone(&threads);
        let builder = rayon::ThreadPoolBuilder::new().num_threads(workers).exit_handler(move |_| {
            *ended.left.lock().expect("nobody panics here") -= 1;
            ended.changed.notify_one();
        });
        Self { pool: builder.build().expect("threads can be started"), threads }
    }

    fn submit<F, T>(&self, f: F) -> oneshot::Receiver<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.pool.spawn(move || drop(sender.send(f())));
        receiver
    }

    fn shutdown(self) {
        drop(self.pool);
        let left = self.threads.left.lock().expect("nobody panics here");
        drop(self.threads.changed.wait_while(left, |left| *left > 0));
    }
}
