//! The one thread that starts, watches and reaps workers, and runs the timers. It makes the system calls and reports events to
//! the [`State`], which decides what follows from them.
//!
//! Workers are started by this thread alone, because the signal that ends a worker when its parent dies (`PR_SET_PDEATHSIG`) is
//! sent when the thread that started the worker ends, even if the process lives on.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::child::{Child, EndReason};
use super::deferred::Deferred;
use super::ending::reap;
use super::inner::Inner;
use super::launch;
use super::state::State;
use crate::error::Cause;
use crate::os::events::WOKEN;
use crate::unwind;

/// After this many replies in one round, the supervisor pauses before it arms the bells again.
const MANY: usize = 64;

/// The length of that pause. At a high rate of replies it saves one message per reply; after only a few replies it would just
/// delay the next waiter. It is shorter than the work that a worker has in store.
const COALESCE: Duration = Duration::from_micros(100);

/// The most such pauses in a row, while other threads collect the replies.
const PAUSES: usize = 8;

/// How often all children are checked while one of them has no descriptor that reports its end, or has closed its control socket.
const LOOK: Duration = Duration::from_millis(20);

/// How often the supervisor checks whether the program has closed the pool's descriptors, and whether a worker has made this
/// process its tracer and is stopped: the first value while a worker is to end, the second while one is busy.
const HEARTBEAT: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// The program has closed the pool's file descriptors.
struct DescriptorsLost;

pub(super) fn run(inner: &Arc<Inner>) {
    let supervised = unwind::catch(|| {
        Supervisor { inner, serial: 0, events: Vec::new(), ended: Vec::new(), looked: Instant::now() }.run()
    });
    match supervised {
        Ok(Ok(())) => inner.end(),
        Ok(Err(DescriptorsLost)) => {
            let is_first = inner.state.lock().lifecycle.lose_descriptors();
            if is_first {
                inner.end_without_descriptors();
            }
        }
        Err(panic) => {
            // Even after an internal error no thread may wait for ever.
            inner.break_down(Cause::new(format!("internal error: {panic}")));
            inner.end();
        }
    }
}

struct Supervisor<'a> {
    inner: &'a Arc<Inner>,
    /// The serial of the child that was started last.
    serial: u64,
    events: Vec<u64>,
    /// The serials of the children whose processes have been reported to have ended.
    ended: Vec<u64>,
    /// When all children were last checked, whether or not anything was reported about them.
    looked: Instant,
}

/// What an event is about: the two low bits of its number. The rest is the serial of the child.
const SOCKET: u64 = 0;
const END: u64 = 1;
const OUTPUT: u64 = 2;

impl Supervisor<'_> {
    fn run(&mut self) -> Result<(), DescriptorsLost> {
        loop {
            let mut state = self.inner.state.lock();
            if state.lifecycle.has_lost_descriptors() {
                return Err(DescriptorsLost);
            }
            let mut deferred = Deferred::new();
            state.lifecycle.awake();
            self.handle_events(&mut state, &mut deferred);
            state.collect(&mut deferred);
            self.reap(&mut state, &mut deferred);
            state.run_timers(&mut deferred);
            state.settle_down(&mut deferred);
            if deferred.settle.is_empty() && self.is_over(&state) {
                // From here on no task is accepted, not even a chunk of a map.
                state.lifecycle.end();
                return Ok(());
            }
            let starts = state.wants_worker(&deferred);
            if starts {
                state.restarts.begin();
            }
            let busy = deferred.settle.len() >= MANY && !state.children.iter().any(Child::is_streaming);
            deferred.wake_supervisor = false;
            self.inner.release(state, deferred);
            // A worker that sends messages without end must not keep the program from the pool.
            self.inner.state.yield_to_waiters();
            if starts {
                self.start_one();
                self.wait(Some(Duration::ZERO))?;
                continue;
            }
            if busy {
                self.coalesce();
                if self.inner.has_replies() {
                    self.wait(Some(Duration::ZERO))?;
                    continue;
                }
            }
            self.sleep()?;
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<(), DescriptorsLost> {
        if self.inner.events.wait(timeout, &mut self.events) { Ok(()) } else { Err(DescriptorsLost) }
    }

    /// Pauses, because more replies are likely to arrive. Does not use `epoll`, whose timeout is in whole milliseconds on some
    /// systems.
    fn coalesce(&self) {
        let mut completed = self.inner.state.lock().completed;
        for _ in 0..PAUSES {
            std::thread::sleep(COALESCE);
            let before = std::mem::replace(&mut completed, self.inner.state.lock().completed);
            if completed == before {
                return;
            }
        }
    }

    fn is_over(&self, state: &State) -> bool {
        let idle = state.children.is_empty() && state.restarts.in_progress() == 0 && !state.lifecycle.is_settling();
        state.is_over() && idle && self.inner.callbacks.is_quiet()
    }

    /// Sleeps until there is something to do, and reads the events. If there is something to do already, it only reads them.
    fn sleep(&mut self) -> Result<(), DescriptorsLost> {
        let mut state = self.inner.state.lock();
        // From here on, threads that hand a call to a worker arm its bell.
        state.lifecycle.asleep();
        let deferred = Deferred::new();
        let mut quiet = !state.wants_worker(&deferred);
        for child in &state.children {
            // Nothing more is read from a worker that has broken the protocol.
            quiet &= (child.is_idle() || child.has_violated() || child.link.arm_bell()) && !child.has_more();
        }
        let by_the_clock = state.alarm.time().map(|time| time.saturating_duration_since(deferred.now));
        let looks = next_look(&state.children);
        let over = self.is_over(&state);
        drop(state);
        if !quiet || over {
            return self.wait(Some(Duration::ZERO));
        }
        self.wait([by_the_clock, looks].into_iter().flatten().min())
    }

    /// Acts on the events that were reported.
    fn handle_events(&mut self, state: &mut State, deferred: &mut Deferred) {
        // Workers that had written more than is read at a time are read again here. The other workers had their turn in between.
        for at in 0..state.children.len() {
            if state.children[at].take_has_more() {
                state.children[at].read_output();
                state.read_messages(at, deferred);
            }
        }
        for event in std::mem::take(&mut self.events) {
            let (serial, what) = (event >> 2, event & 3);
            let Some(at) = state.children.iter().position(|child| child.serial == serial) else { continue };
            match what {
                _ if event == WOKEN => {}
                OUTPUT => state.children[at].read_output(),
                SOCKET => state.read_messages(at, deferred),
                _ => self.ended.push(serial),
            }
        }
    }

    /// Reaps the workers that have ended.
    fn reap(&mut self, state: &mut State, deferred: &mut Deferred) {
        let ended = std::mem::take(&mut self.ended);
        let looks = self.looked.elapsed() >= HEARTBEAT[0];
        if looks {
            self.looked = Instant::now();
        }
        let before = state.children.len();
        let mut at = 0;
        while at < state.children.len() {
            let child = &mut state.children[at];
            let may_be_stopped = !child.is_idle() || !child.life().is_serving();
            if looks && may_be_stopped && child.process.is_traced_and_stopped() {
                child.kill(EndReason::Traced, deferred.now);
            }
            let may_have_ended = looks || ended.contains(&child.serial) || child.process.fd().is_none();
            let ended = may_have_ended.then(|| child.process.try_reap()).flatten();
            if ended.is_none() && !child.life().is_unkillable(deferred.now) {
                at += 1;
                continue;
            }
            let child = state.on_exit(at, ended.flatten(), deferred);
            self.inner.events.forget(child.link.socket());
            if ended.is_none() {
                child.leave_behind();
            }
        }
        if state.children.len() < before {
            self.publish_rings(state);
        }
    }

    fn publish_rings(&self, state: &State) {
        *self.inner.rings.write() = state.children.iter().filter_map(Child::shared).cloned().collect();
    }

    /// Starts one worker. The lock of the state is not held meanwhile.
    fn start_one(&mut self) {
        self.serial += 1;
        let started = launch::launch(&self.inner.config, self.serial).and_then(|mut child| match self.watch(&child) {
            Ok(()) => Ok(child),
            Err(error) => {
                child.kill(EndReason::NotWatched, Instant::now());
                if reap(&mut child).is_none() {
                    child.leave_behind();
                }
                Err(error)
            }
        });
        self.inner.change(|state, deferred| match started {
            Ok(child) => {
                state.on_started(child, deferred);
                self.publish_rings(state);
                state.settle_down(deferred);
            }
            Err(error) => state.on_start_refused(error, deferred),
        });
    }

    fn watch(&self, child: &Child) -> io::Result<()> {
        let number = self.serial << 2;
        let events = &self.inner.events;
        if child.link.can_take_back() {
            events.watch(child.link.socket(), number | SOCKET)?;
        } else {
            events.watch_both_ways(child.link.socket(), number | SOCKET)?;
        }
        if let Some(fd) = child.process.fd() {
            events.watch(fd, number | END)?;
        }
        if let Some(output) = &child.output {
            events.watch(output.fd(), number | OUTPUT)?;
        }
        Ok(())
    }
}

/// How long until all children have to be checked, even if nothing is reported.
fn next_look(children: &[Child]) -> Option<Duration> {
    if children.iter().any(|child| child.process.fd().is_none() || child.is_silent()) {
        Some(LOOK)
    } else if children.iter().any(|child| !child.life().is_serving()) {
        Some(HEARTBEAT[0])
    } else if children.iter().any(|child| !child.is_idle()) {
        Some(HEARTBEAT[1])
    } else {
        None
    }
}
