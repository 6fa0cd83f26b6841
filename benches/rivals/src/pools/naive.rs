//! What one would write in twenty lines: a channel of boxed closures, and a oneshot channel as the handle.

use std::thread::{self, JoinHandle};

use crossbeam_channel::{Sender, unbounded};

use super::{Handle, Pool};

pub(crate) struct Naive {
    sender: Sender<Box<dyn FnOnce() + Send>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool for Naive {
    const NAME: &'static str = "naive";
    type Handle<T: Send + 'static> = oneshot::Receiver<T>;

    fn start(workers: usize) -> Self {
        let (sender, receiver) = unbounded::<Box<dyn FnOnce() + Send>>();
        let threads = (0..workers).map(|_| {
            let receiver = receiver.clone();
            thread::spawn(move || receiver.iter().for_each(|task| task()))
        });
        Self { sender, threads: threads.collect() }
    }

    fn submit<F, T>(&self, f: F) -> oneshot::Receiver<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        self.sender.send(Box::new(move || drop(sender.send(f())))).expect("the threads are there");
        receiver
    }

    fn shutdown(self) {
        drop(self.sender);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no task panics"));
    }
}

impl<T: Send + 'static> Handle<T> for oneshot::Receiver<T> {
    fn wait(self) -> T {
        self.recv().expect("the task succeeds")
    }

    async fn awaited(self) -> T {
        self.await.expect("the task succeeds")
    }
}
