//! The loop of a worker: take a call, run it, reply.
//!
//! Each serving thread holds the lock of the calls while it waits for one and until it has the argument; so with more than one
//! thread, the others queue for the lock. The unsafe code here calls a function by its address, which is sound because the
//! handshake has compared the builds.

#![allow(unsafe_code)]

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::lock::{Mutex, MutexGuard};

use super::super::body::{Body, Element};
use super::super::call::{Function, Invocation};
use super::super::link::{Calls, INLINE, Replies, WorkerLink};
use super::super::shared_bytes::SharedBytes;
use super::super::wire::{Call, CallKind, Hello, ProtocolError, Reply, ReplyKind, exit_code};
use super::host;
use crate::current;
use crate::fork;
use crate::os::clock;
use crate::os::fault::AltStack;
use crate::spin::{ONE_WAKE_UP, SpinBudget};

/// What the serving threads share.
pub(super) struct Server {
    link: WorkerLink,
    calls: Mutex<Calls>,
    replies: Mutex<Replies>,
    /// No more calls are served: the parent has said so, or the initializer has failed. Changes under the lock of the calls.
    over: AtomicBool,
    /// There is only one serving thread.
    alone: bool,
    largest: u64,
    nesting: u32,
    max_rss: Option<u64>,
}

/// How long an idle worker waits for its reply to be noticed before it notifies the manager.
const LAZY: Duration = Duration::from_micros(2);

/// The longest spin for the next call. A thread that awaits a task is woken by the supervisor, which is woken by the worker,
/// and only then submits the next task.
const LONGEST: Duration = ONE_WAKE_UP.saturating_mul(2);

impl Server {
    pub(super) fn new(link: WorkerLink, hello: &Hello) -> Self {
        let (calls, replies) = link.ends();
        Self {
            link,
            calls: Mutex::new(calls),
            replies: Mutex::new(replies),
            over: AtomicBool::new(false),
            alone: hello.threads <= 1,
            largest: hello.largest,
            nesting: hello.nesting,
            max_rss: hello.max_rss,
        }
    }

    /// The next call; `None` at the end.
    fn next(&self, budget: &SpinBudget, thread: usize) -> Result<Option<Serving<'_>>, ProtocolError> {
        let mut calls = self.calls.lock();
        loop {
            if self.over.load(Relaxed) {
                return Ok(None);
            }
            if !calls.is_ready()? {
                self.wait(&mut calls, budget)?;
                continue;
            }
            if self.alone {
                self.ring();
            }
            let begun = clock::now();
            let Some(call) = calls.begin(begun, thread)? else {
                if calls.must_announce_room() {
                    self.link.bell();
                }
                continue;
            };
            if call.kind == CallKind::Exit {
                // The other threads see it when they get the lock.
                self.over.store(true, Relaxed);
                return Ok(None);
            }
            let calls = Some(calls);
            return Ok(Some(Serving { server: self, calls, argument: true, call, thread, begun, failed: Ok(()) }));
        }
    }

    /// Waits for a call: spins first, and then sleeps.
    fn wait(&self, calls: &mut Calls, budget: &SpinBudget) -> Result<(), ProtocolError> {
        let start = Instant::now();
        let mut told = !self.alone;
        let mut ready = Ok(false);
        let spun = crate::spin::cpus() > 1
            && calls.can_spin()
            && budget.spin_until(
                || {
                    ready = calls.is_ready();
                    if !told && start.elapsed() > LAZY {
                        self.ring();
                        told = true;
                    }
                    ready != Ok(false)
                },
                || self.link.shared().is_some_and(|shared| shared.shares_cpu_with_parent()),
            );
        ready?;
        if !spun {
            if !told {
                self.ring();
            }
            if let Some(shared) = self.link.shared() {
                shared.leave_cpu_of_worker();
            }
            let slept = Instant::now();
            calls.sleep()?;
            budget.slept(slept.elapsed());
        }
        Ok(())
    }

    /// Notifies the manager of replies that have not been consumed yet, if it has asked for it.
    fn ring(&self) {
        let replies = self.replies.lock();
        if !replies.are_consumed() {
            replies.ring(&mut || self.link.bell());
        }
    }

    fn serve(&self, thread: usize) -> Result<(), ProtocolError> {
        let budget = SpinBudget::new(LONGEST);
        while let Some(mut invocation) = self.next(&budget, thread)? {
            invocation.run();
            invocation.failed?;
        }
        Ok(())
    }

    fn wants_to_retire(&self) -> bool {
        self.max_rss.is_some_and(|limit| resident() > limit)
    }
}

/// The resident memory of this process, in bytes.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// A call that is being served.
struct Serving<'a> {
    server: &'a Server,
    /// Held until the argument has been consumed.
    calls: Option<MutexGuard<'a, Calls>>,
    argument: bool,
    call: Call,
    thread: usize,
    begun: u64,
    /// The first error.
    failed: Result<(), ProtocolError>,
}

impl Serving<'_> {
    /// Keeps the first error: a later step that succeeds must not replace it.
    fn note(&mut self, outcome: Result<(), ProtocolError>) {
        if let (Err(error), Ok(())) = (outcome, self.failed) {
            self.failed = Err(error);
        }
    }

    fn run(&mut self) {
        let _running = current::Running::enter(usize::MAX);
        // SAFETY: the handshake has compared the builds.
        if !unsafe { Function(self.call.function).call(self) } {
            self.note(Err(ProtocolError("a function that is not there")));
        }
    }

    /// Runs `f` with the calls if the argument has not been consumed. Afterwards other threads may take calls, except that none
    /// begins before the initializer has ended.
    fn take_argument<R>(&mut self, f: impl FnOnce(&mut Calls, &Self) -> R) -> Option<R> {
        if !std::mem::replace(&mut self.argument, false) {
            return None;
        }
        let mut calls = self.calls.take()?;
        let result = f(&mut calls, self);
        if self.call.kind == CallKind::Initializer {
            self.calls = Some(calls);
        }
        Some(result)
    }
}

impl Invocation for Serving<'_> {
    fn len(&self) -> usize {
        self.call.len
    }

    fn show(&mut self, to: &mut dyn FnMut(&[u8])) -> bool {
        let len = self.call.len;
        if len > INLINE {
            return false;
        }
        match self.take_argument(|calls, _| calls.with_body(len, to)) {
            Some(shown) => {
                self.note(shown);
                true
            }
            None => false,
        }
    }

    fn read(&mut self, to: &mut Body) {
        let len = self.call.len;
        let read = self.take_argument(|calls, this| {
            if len <= INLINE {
                calls.with_body(len, |bytes| to.extend(bytes))
            } else {
                calls.read_body(to, len, || this.server.link.bell())
            }
        });
        self.note(read.unwrap_or(Ok(())));
    }

    fn attachments(&mut self) -> Vec<OwnedFd> {
        self.server.link.attachments(&self.call).unwrap_or_else(|garbled| {
            self.note(Err(garbled));
            Vec::new()
        })
    }

    fn nesting(&self) -> u32 {
        self.server.nesting
    }

    fn progress(&self) -> Option<&AtomicU64> {
        self.server.link.progress(self.thread)
    }

    fn reply(&mut self, kind: ReplyKind, body: &[u8], attachments: &[SharedBytes]) {
        // The process that took the call answers it. A forked child that gets here has reached the end of its task.
        fork::end_if_child(kind != ReplyKind::Value);
        if self.argument {
            // An argument that was not consumed must be skipped.
            match Body::with_capacity(Element::BYTE, self.call.len) {
                Some(mut scratch) => self.read(&mut scratch),
                None => self.note(Err(ProtocolError("more than there is memory for"))),
            }
        }
        let server = self.server;
        let size = (body.len() as u64).to_ne_bytes();
        let (kind, body) = if kind.is_good() && body.len() as u64 > server.largest {
            (ReplyKind::TooLarge, &size[..])
        } else {
            (kind, body)
        };
        if self.call.kind == CallKind::Initializer {
            host::follow_parent_again();
            if kind != ReplyKind::Value {
                server.over.store(true, Relaxed);
            }
        }
        let attachments = if kind == ReplyKind::TooLarge { &[] } else { attachments };
        self.note(server.link.send_attachments(self.call.id, attachments));
        let took = Duration::from_nanos(clock::now().saturating_sub(self.begun));
        let (retire, id, len) = (server.wants_to_retire(), self.call.id, body.len());
        let reply = Reply { kind, retire, id, len, took, attachments: attachments.len() as u16 };
        let mut replies = server.replies.lock();
        let sent = replies.send(reply, body, || server.link.bell());
        self.note(sent);
        if server.alone {
            // The manager is notified later, when there is nothing else to do.
            replies.wake_sleepers()
        } else {
            replies.ring(&mut || server.link.bell())
        }
    }
}

/// Serves with as many threads as `hello` says until the parent ends it; returns the exit code. `answer` tells the parent that
/// all threads have started.
pub(super) fn run(server: Arc<Server>, hello: &Hello, answer: &[u8]) -> i32 {
    let (threads, name) = (hello.threads, &hello.name);
    let start = |n: u32| {
        let name = if threads > 1 { format!("{name}_{n}") } else { name.clone() };
        let server = Arc::clone(&server);
        let mut builder = std::thread::Builder::new().name(name);
        if let Some(size) = hello.stack_size {
            builder = builder.stack_size(usize::try_from(size).unwrap_or(usize::MAX));
        }
        builder.spawn(move || {
            let _stack = AltStack::install();
            let served = server.serve(n as usize);
            if served.is_err() {
                // The parent must be informed at once, whatever the other threads do.
                std::process::exit(exit_code::VIOLATION);
            }
            served
        })
    };
    fork::mark_process();
    let mut serving = Vec::new();
    // No call begins before the answer is sent.
    let calls = server.calls.lock();
    for n in 0..threads.max(1) {
        match start(n) {
            Ok(thread) => serving.push(thread),
            // With fewer threads than requested, fewer calls would run at the same time than the parent sends.
            Err(_) => return exit_code::NO_THREADS,
        }
    }
    if server.link.send_message(answer).is_err() || host::empty_stdin().is_err() {
        return exit_code::FAILED;
    }
    drop(calls);
    for thread in serving {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return exit_code::VIOLATION,
            Err(_) => return exit_code::PANICKED,
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::super::super::wire::PROTOCOL;
    use super::*;
    use crate::os::socket;

    // Even without its descriptors, the argument may be readable.
    #[test]
    fn an_error_about_lost_descriptors_is_kept() {
        let (ours, theirs) = socket::pair().unwrap();
        let hello = Hello {
            magic: Hello::MAGIC,
            protocol: PROTOCOL,
            build: [0; 32],
            depth: 1,
            threads: 1,
            stack_size: None,
            name: String::new(),
            ring: 0,
            largest: 1,
            nesting: 1,
            max_rss: None,
            memory_limit: None,
            cpu_limit: None,
        };
        let server = Server::new(WorkerLink::new(theirs, None, 0, 1).unwrap(), &hello);
        drop(ours);
        let serving = || Serving {
            server: &server,
            calls: Some(server.calls.lock()),
            argument: true,
            call: Call { kind: CallKind::Task, id: 1, function: 0, len: 0, attachments: 1 },
            thread: 0,
            begun: 0,
            failed: Ok(()),
        };
        let mut shown = serving();
        assert!(shown.attachments().is_empty());
        assert!(shown.show(&mut |bytes| assert!(bytes.is_empty())));
        assert_eq!(shown.failed, Err(ProtocolError("too few descriptors")));
        drop(shown);
        let mut read = serving();
        assert!(read.attachments().is_empty());
        read.read(&mut Body::with_capacity(Element::BYTE, 0).unwrap());
        assert_eq!(read.failed, Err(ProtocolError("too few descriptors")));
    }
}
