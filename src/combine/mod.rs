//! Combinators for many futures, from any source: [`wait()`] and [`as_completed()`], also for asynchronous code, and the ordered,
//! bounded `map` of the executors. `set` is the only mechanism for waiting for several futures.

mod as_completed;
mod map;
#[cfg(all(test, loom))]
mod models;
mod set;
#[cfg(feature = "stream")]
mod stream;
mod wait;
mod wait_async;

pub use as_completed::{AsCompleted, AsCompletedTimeout, as_completed, as_completed_timeout};
pub(crate) use map::Host;
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
pub(crate) use map::{Lane, Results};
pub use map::{Map, MapOptions};
pub(crate) use set::AsSource;
pub use set::Completable;
#[cfg(feature = "stream")]
pub use stream::AsCompletedStream;
pub use wait::{ReturnWhen, Waited, wait};
pub use wait_async::{WaitAsync, wait_async};
