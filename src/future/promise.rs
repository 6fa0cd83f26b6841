//! A future that callback code resolves.

#![allow(unsafe_code)]

use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;

use super::cell::{self, Header, Now, Unowned};
use super::handle::TaskFuture;
use super::state::Phase;
use crate::error::{Cause, TaskError};

/// Makes a future that no executor resolves, and the promise that does: it connects code that calls back with code that waits.
///
/// ```
/// use std::thread;
/// use concurrent_futures::promise;
///
/// fn read_sensor(callback: impl FnOnce(f64) + Send + 'static) {
///     thread::spawn(move || callback(21.5)); // some API that calls back, some time
/// }
///
/// let (promise, future) = promise();
/// read_sensor(|value| {
///     let _ = promise.set_result(value);
/// });
/// assert_eq!(future.result()?, 21.5);
/// # Ok::<(), concurrent_futures::TaskError>(())
/// ```
///
/// In asynchronous code it turns a function that calls back into an `async fn`. Awaiting it occupies no thread, and the
/// callback wakes the awaiting task:
///
/// ```
/// use std::thread;
/// use concurrent_futures::{block_on, promise, TaskError};
///
/// # fn read_sensor(callback: impl FnOnce(f64) + Send + 'static) {
/// #     thread::spawn(move || callback(21.5));
/// # }
/// async fn sensor() -> Result<f64, TaskError> {
///     let (promise, future) = promise();
///     read_sensor(|value| {
///         let _ = promise.set_result(value); // an error if nobody wants it any more
///     });
///     future.await // `TaskError::Abandoned` if the callback is dropped without being called
/// }
///
/// assert_eq!(block_on(sensor())?, 21.5);
/// # Ok::<(), TaskError>(())
/// ```
pub fn promise<T: Send>() -> (Promise<T>, TaskFuture<T>) {
    let cell = cell::promised::<Now<T>, Unowned>(Unowned);
    // SAFETY: `promised` counts two references; these are they.
    (Promise { cell, value: PhantomData }, unsafe { TaskFuture::from_cell(cell) })
}

/// The producing half of a [`TaskFuture`], made by [`promise()`].
///
/// Setting an outcome consumes it, so there is at most one outcome. Dropped unused, it resolves the future to
/// [`TaskError::Abandoned`], so that no thread waits forever.
///
/// It connects code that calls back with code that blocks or awaits: [`set_result`](Self::set_result) wakes the waiting side
/// and can be called on any thread.
///
/// ```
/// use concurrent_futures::{block_on, promise, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new(1)?;
/// let (promise, answer) = promise::<u32>();
/// let doubled = pool.spawn(async move { answer.await.map(|answer| answer * 2) });
/// promise.set_result(21).unwrap(); // some event handler
/// assert_eq!(block_on(doubled)??, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a Promise resolves its future to TaskError::Abandoned"]
pub struct Promise<T: Send> {
    cell: NonNull<Header>,
    /// Invariant in `T`: a promise of a long-lived value must not be usable as one of a shorter-lived value, which the future
    /// would then return as a long-lived one.
    value: PhantomData<fn(T) -> T>,
}

// SAFETY: it moves a `T` into the cell, at most once; everything else is the state word.
unsafe impl<T: Send> Send for Promise<T> {}
// SAFETY: through `&self` only the state word can be read.
unsafe impl<T: Send> Sync for Promise<T> {}

impl<T: Send> Promise<T> {
    /// Resolves the future. Its callbacks run on this thread before this returns.
    ///
    /// # Errors
    ///
    /// The value itself, if the future has been cancelled.
    pub fn set_result(self, value: T) -> Result<(), T> {
        self.settle(Ok(value)).map_err(|outcome| match outcome {
            Ok(value) => value,
            Err(_) => unreachable!("what comes back is what was given"),
        })
    }

    /// Resolves the future to a failure: to `error` itself if it is a [`TaskError`], or else to
    /// [`TaskError::Failed`] with `error` as its source.
    ///
    /// ```
    /// # use concurrent_futures::promise;
    /// let (promise, future) = promise::<u32>();
    /// promise.set_error("the sensor is unplugged").unwrap();
    /// let error = future.result().unwrap_err();
    /// assert!(error.is_failed());
    /// assert_eq!(error.to_string(), "the task failed: the sensor is unplugged");
    /// ```
    ///
    /// # Errors
    ///
    /// The error itself, if the future has been cancelled.
    pub fn set_error(self, error: impl Into<Box<dyn Error + Send + Sync>>) -> Result<(), TaskError> {
        let error = match error.into().downcast::<TaskError>() {
            Ok(error) => *error,
            Err(other) => TaskError::Failed(Cause::new(other)),
        };
        self.settle(Err(error)).map_err(|outcome| match outcome {
            Err(error) => error,
            Ok(_) => unreachable!("what comes back is what was given"),
        })
    }

    /// True if the future has been cancelled, so that the value need not be produced.
    pub fn is_cancelled(&self) -> bool {
        // SAFETY: the producer's reference keeps the cell alive.
        matches!(unsafe { self.cell.as_ref() }.state.phase(), Phase::Cancelled | Phase::Cancelling)
    }

    pub(crate) fn settle(self, outcome: Result<T, TaskError>) -> Result<(), Result<T, TaskError>> {
        let cell = self.cell;
        mem::forget(self);
        // SAFETY: `promise` made the cell; the producer's reference goes into the call.
        unsafe { cell::settle::<T, Unowned>(cell, outcome) }
    }
}

impl<T: Send> Drop for Promise<T> {
    fn drop(&mut self) {
        // SAFETY: as in `settle`. If the future was cancelled, only the error of this line is returned.
        let _ = unsafe { cell::settle::<T, Unowned>(self.cell, Err(TaskError::Abandoned)) };
    }
}

impl<T: Send> fmt::Debug for Promise<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promise").field("cancelled", &self.is_cancelled()).finish()
    }
}
