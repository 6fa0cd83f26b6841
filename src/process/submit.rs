//! Makes a task of the pool from a function and its argument.

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::body::Element;
use super::call::{self, Function};
use super::parent::{Inner, Job, JobOptions, ResultOf, Sink, TaskOwner};
use crate::error::{CodecError, SizeLimit, SubmitError, TaskError};
use crate::executor::{Priority, QueuePolicy};
use crate::future::{RemoteTask, TaskFuture};
use crate::stack;

impl Inner {
    pub(super) fn submit_with<F, A, R>(
        self: &Arc<Self>,
        f: F,
        argument: A,
        priority: Priority,
        mut options: JobOptions,
    ) -> TaskFuture<R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        if !self.is_here() {
            return TaskFuture::ready(Err(TaskError::WrongProcess));
        }
        if let Some(capacity) = &self.capacity {
            if let Some(reason) = self.closed_because() {
                return TaskFuture::ready(Err(reason));
            }
            options.permit = match capacity.policy {
                QueuePolicy::Block => capacity.acquire(),
                QueuePolicy::Fail | QueuePolicy::CallerRuns => capacity.try_acquire(),
            };
            match (&options.permit, capacity.policy) {
                (Some(_), _) => {}
                (None, QueuePolicy::Block) => return TaskFuture::ready(Err(TaskError::ShutDown)),
                (None, QueuePolicy::Fail) => return TaskFuture::ready(Err(TaskError::QueueFull)),
                (None, QueuePolicy::CallerRuns) => {
                    let run = || crate::unwind::catch(|| f(argument)).map_err(TaskError::Panicked);
                    return TaskFuture::ready(stack::deepen(run).unwrap_or(Err(TaskError::TooDeep)));
                }
            }
        }
        self.send(f, argument, priority, options)
    }

    pub(super) fn try_submit_with<F, A, R>(
        self: &Arc<Self>,
        f: F,
        argument: A,
        priority: Priority,
        mut options: JobOptions,
    ) -> Result<TaskFuture<R>, SubmitError<A>>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        if let Some(reason) = self.closed_because() {
            return Err(SubmitError::new(argument, reason));
        }
        if let Some(capacity) = &self.capacity {
            options.permit = capacity.try_acquire();
            if options.permit.is_none() {
                return Err(SubmitError::new(argument, TaskError::QueueFull));
            }
        }
        Ok(self.send(f, argument, priority, options))
    }

    fn send<F, A, R>(self: &Arc<Self>, f: F, argument: A, priority: Priority, options: JobOptions) -> TaskFuture<R>
    where
        F: Fn(A) -> R + Copy + Send + Sync + 'static,
        A: Serialize + DeserializeOwned + Send + 'static,
        R: Serialize + DeserializeOwned + Send + 'static,
    {
        let function = match Function::of_task(f) {
            Ok(function) => function,
            Err(error) => return TaskFuture::ready(Err(error)),
        };
        let argument = match call::encode(argument, self.config.max_nesting) {
            Ok(argument) => argument,
            Err((reason, argument)) => {
                crate::quiet::drop(argument);
                let error = CodecError::new(std::any::type_name::<A>(), reason);
                return TaskFuture::ready(Err(TaskError::Encode(error)));
            }
        };
        let (size, limit) = (argument.as_slice().len() as u64, self.config.max_payload);
        if size > limit {
            return TaskFuture::ready(Err(TaskError::TooLarge(Box::new(SizeLimit { size, limit }))));
        }
        let id = self.next_task_id();
        let (task, future) = RemoteTask::new::<ResultOf<R>, _>(TaskOwner { pool: self.id(), task: id });
        let options = (!options.is_empty()).then(|| Box::new(options));
        let element = call::element::<R>().unwrap_or(Element::BYTE);
        let sink = Sink::Future(task);
        self.submit(Box::new(Job { id, function, argument, element, sink, priority, options, attempts: 0 }));
        future
    }
}
