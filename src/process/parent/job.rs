//! What the parent keeps of a task from `submit` until it is resolved.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Cause, CodecError, SizeLimit, TaskError, TaskPanic};
use crate::executor::{Permit, Priority};
use crate::future::{RemoteTask, Unpublished};
use crate::process::body::{Body, Element};
use crate::process::call::{self, Function, Payload};
use crate::process::codec;
use crate::process::wire::{ProtocolError, ReplyKind, Report};
use crate::quiet;

/// Jobs are moved often, so they are boxed.
pub(crate) type JobBox = Box<Job>;

pub(crate) struct Job {
    pub(crate) id: u64,
    pub(crate) function: Function,
    pub(crate) argument: Payload,
    /// The type of element that the buffer for the result is allocated for.
    pub(crate) element: Element,
    pub(crate) sink: Sink,
    pub(crate) priority: Priority,
    pub(crate) options: Option<Box<JobOptions>>,
    /// How many times a worker has died after it had begun this task.
    pub(crate) attempts: u32,
}

/// Where the outcome is delivered.
pub(crate) enum Sink {
    Future(RemoteTask<Raw>),
    Part(Box<dyn PartOfMap>),
}

/// A chunk of a map, as far as the rest of the parent needs it.
pub(crate) trait PartOfMap: Send {
    /// Returns `true` if the map has been cancelled.
    fn is_cancelled(&self) -> bool;

    /// Receives the outcome, and gets the argument back.
    fn settle(self: Box<Self>, raw: Raw, argument: Payload);
}

impl Sink {
    pub(crate) fn is_cancelled(&self) -> bool {
        match self {
            Self::Future(task) => task.is_cancelled(),
            Self::Part(part) => part.is_cancelled(),
        }
    }

    /// Passes the outcome on. If the future has callbacks, it is returned for the caller to publish.
    pub(crate) fn settle(self, raw: Raw, argument: Payload) -> Option<Unpublished> {
        match self {
            Self::Future(task) => {
                let left = match raw {
                    Raw::Failed(TaskError::Cancelled) => {
                        task.cancel();
                        None
                    }
                    raw => task.settle(raw),
                };
                // The argument may be the user's own memory, whose destructor may panic.
                quiet::drop(argument);
                left
            }
            Self::Part(part) => {
                part.settle(raw, argument);
                None
            }
        }
    }
}

/// The time limit and the number of retries of a task, or the pool's defaults for tasks that set none.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: u32,
}

impl Limits {
    /// Returns these limits as the options of a task; `None` if there are neither.
    pub(super) fn options(self) -> Option<Box<JobOptions>> {
        let options = JobOptions { name: None, timeout: self.timeout, retries: self.retries, permit: None };
        (!options.is_empty()).then(|| Box::new(options))
    }
}

/// Options that most tasks do not have.
#[derive(Debug, Default)]
pub(crate) struct JobOptions {
    pub(crate) name: Option<Arc<str>>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) retries: u32,
    /// The task's place in a bounded queue, given up when the task is handed to a worker or cancelled.
    pub(crate) permit: Option<Permit>,
}

impl JobOptions {
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self { name: None, timeout: None, retries: 0, permit: None })
    }
}

impl Job {
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.options.as_ref()?.timeout
    }

    pub(crate) fn name(&self) -> Option<Arc<str>> {
        self.options.as_ref()?.name.clone()
    }

    /// Returns `true` if the task may be begun again after its worker has died.
    pub(crate) fn may_retry(&self) -> bool {
        self.options.as_ref().is_some_and(|options| self.attempts <= options.retries)
    }
}

/// An outcome that has not been decoded.
pub(crate) enum Raw {
    Reply {
        kind: ReplyKind,
        body: Body,
        pid: u32,
        name: Option<Arc<str>>,
        limit: u64,
        nesting: u32,
        took: Duration,
    },
    Failed(TaskError),
    /// The worker died. The number is the index of the item of the argument that had begun last; it is larger than any index if
    /// all of them had, or if that is not known.
    Lost(TaskError, u64),
}

impl Raw {
    /// The maximum nesting depth of the value.
    pub(crate) fn nesting(&self) -> u32 {
        match self {
            Self::Reply { nesting, .. } => *nesting,
            Self::Failed(_) | Self::Lost(..) => 0,
        }
    }

    /// Returns the body of the value, or the error.
    pub(crate) fn into_body(self) -> Result<(ReplyKind, Body), TaskError> {
        let (kind, body, pid, name, limit) = match self {
            Self::Failed(error) | Self::Lost(error, _) => return Err(error),
            Self::Reply { kind, body, pid, name, limit, nesting: _, took: _ } => (kind, body, pid, name, limit),
        };
        let bytes = body.as_slice();
        Err(match kind {
            ReplyKind::Value | ReplyKind::Mixed => return Ok((kind, body)),
            ReplyKind::Panicked => match codec::from_slice::<Report>(bytes, codec::NESTING) {
                Ok(report) => TaskError::Panicked(panic(report, pid, name)),
                Err(_) => TaskError::Protocol(Cause::new(ProtocolError("a report that cannot be decoded"))),
            },
            ReplyKind::NotDecoded => TaskError::Decode(call::codec_error(bytes)),
            ReplyKind::NotEncoded => TaskError::Encode(call::codec_error(bytes)),
            ReplyKind::TooLarge => {
                let size = bytes.try_into().map_or(u64::MAX, u64::from_ne_bytes);
                TaskError::TooLarge(Box::new(SizeLimit { size, limit }))
            }
        })
    }
}

/// The panic that a report describes.
pub(crate) fn panic(report: Report, pid: u32, name: Option<Arc<str>>) -> TaskPanic {
    TaskPanic::remote(report.message, report.location, report.thread, report.backtrace, pid, name)
}

/// Decodes the result of one task as a value of type `R`.
pub(crate) struct ResultOf<R>(std::marker::PhantomData<fn() -> R>);

impl<R: serde::de::DeserializeOwned + Send + 'static> crate::future::Decode<Raw> for ResultOf<R> {
    type Value = R;

    fn is_plain() -> bool {
        call::is_plain::<R>()
    }

    fn check(raw: Raw) -> Result<Raw, TaskError> {
        match &raw {
            Raw::Reply { kind: ReplyKind::Value | ReplyKind::Mixed, .. } => Ok(raw),
            _ => raw.into_body().map(|_| unreachable!("it is the reply of a task that has failed")),
        }
    }

    fn decode(raw: Raw) -> Result<R, TaskError> {
        let nesting = raw.nesting();
        let (_, body) = raw.into_body()?;
        call::decode(body, nesting)
            .map_err(|reason| TaskError::Decode(CodecError::new(std::any::type_name::<R>(), reason)))
    }
}
