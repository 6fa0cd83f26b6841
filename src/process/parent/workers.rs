//! The events of workers: a process was started or refused; a worker is ready, closes its socket, or dies.
//!
//! # Rules
//!
//! 1. A task of a dead worker that had not begun is requeued, or fails if the pool begins no more tasks (`Lifecycle::refusal`).
//!    One that had begun fails with `WorkerDied`, or is begun again if it has retries left.
//! 2. A worker that ends by itself before it was prepared is a failed start ([`Child::blame`]).
//! 3. `State::on_exit` removes a worker from the children. It first processes everything that the worker has sent, and then wakes
//!    the threads that sleep on its ring, which must not sleep there again. The only other place is `Inner::end_children`, when
//!    the whole pool is broken.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use super::child::{BegunTask, Blame, Child, DrainedTasks, EndReason};
use super::config::Config;
use super::deferred::Deferred;
use super::job::Raw;
use super::launch;
use super::restarts::AfterFailure;
use super::state::State;
use crate::error::{Cause, ExitInner, StartError, TaskError, WorkerExit};
use crate::os::image;
use crate::os::pidfd::Ended;
use crate::process::wire::{self, ProtocolError, Ready, exit_code, message};

/// How long a worker that has closed its control socket may take to finish the tasks it has begun: the first value if its replies
/// can still be read from shared memory, the second if nothing can be received from it any more.
const HANG_UP: [Duration; 2] = [Duration::from_secs(60 * 60), Duration::from_secs(1)];

impl State {
    // Start.

    /// A process has been started. The caller publishes its ring, so that other threads can see its replies, and only then calls
    /// `settle_down`, which may hand it tasks.
    pub(super) fn on_started(&mut self, mut child: Child, deferred: &mut Deferred) {
        self.restarts.end();
        self.wake_by(child.life().deadline(), deferred);
        if self.lifecycle.is_broken() {
            child.kill(EndReason::PoolBroken, deferred.now);
        }
        self.children.push(child);
    }

    /// A process could not be started.
    pub(super) fn on_start_refused(&mut self, error: io::Error, deferred: &mut Deferred) {
        self.restarts.end();
        self.on_refusal(error, deferred);
    }

    /// The system has refused to start a process, or a new worker could not get what it needs. The pool goes on with the workers
    /// it has. If it has none, the queued tasks fail after `restart_limit` refusals in a row.
    fn on_refusal(&mut self, error: io::Error, deferred: &mut Deferred) {
        match self.restarts.refused(self.children.is_empty(), deferred.now) {
            AfterFailure::TryAgain => self.wake_by(self.restarts.not_before(), deferred),
            AfterFailure::GiveUp => {
                let cause = match error.downcast::<StartError>() {
                    Ok(error) => Cause::new(error),
                    Err(error) => Cause::new(error),
                };
                self.queue.fail_all(&TaskError::Spawn(cause), deferred);
            }
        }
        self.settle_down(deferred);
    }

    // Messages.

    /// Reads the messages of the worker at index `at`, and acts on them.
    pub(super) fn read_messages(&mut self, at: usize, deferred: &mut Deferred) {
        let (messages, open) = self.children[at].read_messages();
        let mut answer = None;
        let mut violation = None;
        for message in messages {
            match message.split_first() {
                // A second READY among these messages is a violation.
                Some((&message::READY, ready)) if answer.is_none() => answer = Some(wire::decode::<Ready>(ready)),
                _ => violation = Some(ProtocolError("a message of an unknown kind")),
            }
        }
        match answer {
            Some(Ok(ready)) => self.on_ready(at, &ready, deferred),
            Some(Err(error)) => violation = Some(error),
            None => {}
        }
        if let Some(violation) = violation {
            if self.children[at].life().is_starting() {
                // The program is not a worker at all, so starting it again would not help.
                self.break_down(Cause::new(StartError::NotAWorker(violation.to_string())), deferred);
            } else {
                self.kill_for_violation(at, violation, deferred);
            }
        }
        if !open {
            self.on_socket_closed(at, deferred);
        }
    }

    /// READY has arrived: the worker is ready, or says why it cannot serve.
    fn on_ready(&mut self, at: usize, ready: &Ready, deferred: &mut Deferred) {
        if !self.children[at].ready(deferred.now) {
            return;
        }
        let ours = image::executable().build_id();
        if ready.build != ours.0 {
            let found = image::BuildId(ready.build).to_string();
            let error = StartError::WrongBuild { expected: ours.to_string(), found };
            return self.break_down(Cause::new(error), deferred);
        }
        if let Some(refusal) = &ready.refusal {
            return self.break_down(Cause::new(StartError::NotAWorker(refusal.clone())), deferred);
        }
        self.restarts.ready();
        if self.config.initializer.is_none() {
            self.restarts.prepared();
        }
    }

    /// The worker's end of the control socket is closed: it is dead, or one of its tasks has closed all descriptors. Shared
    /// memory can still be read, but the worker cannot announce its replies. So it may finish the tasks that it has begun, and is
    /// asked to end then.
    fn on_socket_closed(&mut self, at: usize, deferred: &mut Deferred) {
        let child = &mut self.children[at];
        if child.life().is_starting() {
            if !child.process.is_ending() {
                // The process has closed the socket, so it can never become ready.
                child.socket_closed();
                child.kill(EndReason::SocketClosedAtStart, deferred.now);
            }
            return;
        }
        if !child.life().is_serving() {
            return;
        }
        child.socket_closed();
        let back = child.take_back(usize::MAX, |_| true);
        deferred.wake_waiters(child);
        let patience = if child.link.can_take_back() { HANG_UP[0] } else { HANG_UP[1] };
        if child.ask_to_end(deferred.now + patience).is_err() {
            child.kill(EndReason::SocketClosed, deferred.now);
        }
        let deadline = child.life().deadline();
        self.requeue(back);
        self.wake_by(deadline, deferred);
    }

    // End.

    /// The process of that worker has ended, and has been reaped; or it cannot be killed, and the pool goes on without it.
    pub(super) fn on_exit(&mut self, at: usize, ended: Ended, deferred: &mut Deferred) -> Child {
        // Messages and replies that it has sent before count.
        self.read_messages(at, deferred);
        self.collect(deferred);
        let mut child = self.children.remove(at);
        if let Some(shared) = child.shared() {
            // The woken threads find that this worker no longer has their task.
            shared.release_sleepers();
        }
        let exit = describe(&mut child, ended, &self.config);
        let blame = child.blame();
        self.redistribute(child.drain_tasks(), &exit, deferred);
        if blame == Blame::FailedStart {
            self.on_failed_start(ended.and_then(|status| status.code()), exit, deferred);
        }
        child
    }

    /// Requeues or fails the tasks of a dead worker.
    fn redistribute(&mut self, tasks: DrainedTasks, exit: &WorkerExit, deferred: &mut Deferred) {
        let DrainedTasks { begun, not_begun } = tasks;
        match self.lifecycle.refusal() {
            None => self.requeue(not_begun),
            Some(reason) => not_begun.into_iter().for_each(|job| deferred.fail(job, reason.clone())),
        }
        for BegunTask { job, item, since } in begun {
            if job.may_retry() && self.lifecycle.allows_retries() {
                self.requeue(vec![job]);
            } else {
                let exit = exit.of_task(job.name(), job.attempts, since);
                deferred.settle.push((job, Raw::Lost(TaskError::WorkerDied(exit), item)));
            }
        }
    }

    /// A worker has died before it was prepared. Some exit codes say why.
    fn on_failed_start(&mut self, code: Option<i32>, exit: WorkerExit, deferred: &mut Deferred) {
        match code {
            Some(exit_code::NO_THREADS) => {
                let error = io::Error::from(rustix::io::Errno::AGAIN);
                self.on_refusal(error, deferred);
            }
            Some(exit_code::DISTRUSTED) => {
                let reason = "the system gives it more rights than this process has";
                self.on_refusal(io::Error::other(StartError::NotAWorker(reason.to_owned())), deferred);
            }
            Some(exit_code::NO_SOCKET) => {
                let reason = "its standard input is not the socket that it was given; the program that starts workers has closed \
                              or replaced it";
                self.break_down(Cause::new(StartError::NotAWorker(reason.to_owned())), deferred);
            }
            _ => {
                if self.restarts.failed() == AfterFailure::GiveUp {
                    self.break_down(Cause::new(StartError::Died(exit)), deferred);
                }
            }
        }
    }
}

/// Collects what is known about the end of a worker.
pub(super) fn describe(child: &mut Child, ended: Ended, config: &Config) -> WorkerExit {
    let signal = ended.and_then(|status| status.signal());
    // An end is attributed to the pool only if the signal was SIGKILL or SIGTERM, or if the status is unknown. Any other end was
    // the worker's own, even if the pool had sent it a signal.
    let by_us = ended.is_none() || matches!(signal, Some(9 | 15));
    let reason = child.life().end_reason().filter(|_| by_us);
    let note = child.shared().map(|shared| shared.note());
    let killed_by_others = signal == Some(9) && reason.is_none();
    WorkerExit::new(ExitInner {
        pid: child.process.id(),
        code: ended.and_then(|status| status.code()),
        signal,
        core_dumped: ended.is_some_and(|status| status.core_dumped()),
        note: note.and_then(|note| note.read()),
        panic: note.and_then(|note| note.read_panic()),
        out_of_memory: killed_by_others && launch::oom_kills() > child.oom_kills,
        memory_limit: config.memory_limit,
        stderr: child.output.as_mut().map(|output| output.text()),
        task: None,
        attempts: 0,
        killed_because: reason.map(EndReason::text),
    })
}
