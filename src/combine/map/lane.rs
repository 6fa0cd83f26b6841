//! What passes between the two sides of a map.

use std::time::Instant;
use std::vec;

use crate::error::TaskError;

/// The consumer's view of a map; it hides the type of the function.
pub(crate) trait Lane<A, R>: Send + Sync {
    /// Whether this is a forked child and the lane belongs to the parent. Then no other method is called.
    fn is_elsewhere(&self) -> bool;

    /// Takes the next inputs.
    fn put(&self, items: Vec<A>);

    /// The chunk that begins with item `next` (any chunk, if unordered); `None` at the deadline.
    fn next_chunk(&self, next: usize, deadline: Option<Instant>) -> Option<Results<R>>;

    /// Cancels what has not started: the results are no longer needed.
    fn cancel(&self);
}

/// The results of consecutive items. As long as all of them have succeeded, only the values are stored.
pub(crate) enum Results<R> {
    Good(Vec<R>),
    Mixed(Vec<Result<R, TaskError>>),
}

impl<R> Results<R> {
    pub(crate) fn with_capacity(items: usize) -> Self {
        Self::Good(Vec::with_capacity(items))
    }

    /// The results of `items` items that have failed for the same reason.
    pub(crate) fn failed(items: usize, error: &TaskError) -> Self {
        Self::Mixed((0..items).map(|_| Err(error.clone())).collect())
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Good(values) => values.len(),
            Self::Mixed(results) => results.len(),
        }
    }

    #[inline]
    pub(crate) fn push(&mut self, value: R) {
        match self {
            Self::Good(values) => values.push(value),
            Self::Mixed(results) => results.push(Ok(value)),
        }
    }

    pub(crate) fn push_error(&mut self, error: TaskError) {
        if let Self::Good(values) = self {
            *self = Self::Mixed(std::mem::take(values).into_iter().map(Ok).collect());
        }
        if let Self::Mixed(results) = self {
            results.push(Err(error));
        }
    }
}

impl<R> IntoIterator for Results<R> {
    type Item = Result<R, TaskError>;
    type IntoIter = IntoIter<R>;

    fn into_iter(self) -> IntoIter<R> {
        let (good, mixed) = match self {
            Self::Good(values) => (values, Vec::new()),
            Self::Mixed(results) => (Vec::new(), results),
        };
        IntoIter { good: good.into_iter(), mixed: mixed.into_iter() }
    }
}

/// One of the two is empty. Usually one comparison tells whether there is another item.
pub(crate) struct IntoIter<R> {
    good: vec::IntoIter<R>,
    mixed: vec::IntoIter<Result<R, TaskError>>,
}

impl<R> Iterator for IntoIter<R> {
    type Item = Result<R, TaskError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        match self.good.next() {
            Some(value) => Some(Ok(value)),
            None => self.mixed.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let len = self.good.len() + self.mixed.len();
        (len, Some(len))
    }
}

impl<R> ExactSizeIterator for IntoIter<R> {}
