//! procspawn: a channel of its own for each argument and each result.

use procspawn::{JoinHandle, Pool};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ProcessPool, Task};

pub(crate) struct Procspawn(Pool);

impl ProcessPool for Procspawn {
    const NAME: &'static str = "procspawn";
    /// Each takes some file descriptors.
    const WINDOW: usize = 100;
    type Handle<R: Serialize + DeserializeOwned + Send + 'static> = JoinHandle<R>;

    fn start(workers: usize) -> Self {
        Self(Pool::new(workers).expect("processes can be started"))
    }

    fn submit<T: Task>(&self, argument: T::Argument) -> JoinHandle<T::Result> {
        self.0.spawn(argument, T::run)
    }

    fn wait<R: Serialize + DeserializeOwned + Send + 'static>(handle: JoinHandle<R>) -> R {
        handle.join().expect("the task succeeds")
    }

    fn shutdown(self) {
        self.0.shutdown();
    }
}
