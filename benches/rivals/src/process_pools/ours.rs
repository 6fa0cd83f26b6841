//! The process pool that all this is about.

use concurrent_futures::{ProcessPoolExecutor, Shutdown, TaskFuture};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{ProcessPool, Task};

pub(crate) struct Ours(pub(crate) ProcessPoolExecutor);

impl ProcessPool for Ours {
    const NAME: &'static str = "ours";
    const WINDOW: usize = usize::MAX;
    type Handle<R: Serialize + DeserializeOwned + Send + 'static> = TaskFuture<R>;

    fn start(workers: usize) -> Self {
        Self(ProcessPoolExecutor::new(workers).expect("a valid number of workers"))
    }

    fn submit<T: Task>(&self, argument: T::Argument) -> TaskFuture<T::Result> {
        self.0.submit(T::run, argument)
    }

    fn wait<R: Serialize + DeserializeOwned + Send + 'static>(handle: TaskFuture<R>) -> R {
        handle.result().expect("the task succeeds")
    }

    fn shutdown(self) {
        self.0.shutdown(Shutdown::Wait).expect("this is no callback");
    }
}
