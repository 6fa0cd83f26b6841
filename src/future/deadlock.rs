//! Detection of deadlocks: which threads that run tasks are blocked, and on which tasks.
//!
//! A thread that is about to block without a deadline inside a task registers here what it waits for: one task, all of several,
//! or any of several. A thread is *stuck* if the task it waits for is run by a stuck thread; if it waits for all of several
//! tasks, when one of them is; if it waits for any, when each of them is. The last thread to register sees all the others; if
//! it would be stuck, it is not registered and gets an error instead. So no registered thread is ever stuck. A thread that runs
//! what it waits for, such as a woken future that it polls in place, stays registered meanwhile and is not stuck.
//!
//! Waits with a deadline end by themselves and are not registered. Suspended futures are not registered either: a cycle through
//! one is not detected, except when a future polls its own handle ([`polls_itself`]).

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Waker;

use crate::lock::Mutex;

use super::spawned;
use crate::current::{self, ThreadKey};
use crate::fork::PerProcess;

/// What a blocked thread waits for: addresses of tasks, which are alive as long as the wait is.
#[derive(Debug, Clone)]
pub(crate) enum Wait {
    One(usize),
    /// In ascending order.
    All(Arc<[usize]>),
    Any(Arc<Left>),
}

/// The remaining tasks of a wait for any of several.
#[derive(Debug)]
pub(crate) struct Left {
    tasks: Box<[AtomicUsize]>,
    /// All entries before this index have been removed.
    first: AtomicUsize,
}

// Relaxed: only the waiting thread changes it, while it is not registered.
impl Left {
    pub(crate) fn new(tasks: impl Iterator<Item = usize>) -> Self {
        Self { tasks: tasks.map(AtomicUsize::new).collect(), first: AtomicUsize::new(0) }
    }

    /// Removes a task that is done, or no longer waited for.
    pub(crate) fn remove(&self, index: usize) {
        self.tasks[index].store(0, Relaxed);
        while self.tasks.get(self.first.load(Relaxed)).is_some_and(|task| task.load(Relaxed) == 0) {
            self.first.fetch_add(1, Relaxed);
        }
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let rest = self.tasks.iter().skip(self.first.load(Relaxed));
        rest.map(|task| task.load(Relaxed)).filter(|task| *task != 0)
    }
}

/// The waits of each registered thread, innermost last.
static BLOCKED: PerProcess<Mutex<BTreeMap<ThreadKey, Vec<Wait>>>> = PerProcess::new();

/// The wait would close a cycle.
#[derive(Debug)]
pub(super) struct WaitCycle;

/// Keeps the calling thread registered until it is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Entered(Option<ThreadKey>);

/// Registers the calling thread as waiting for `awaited`, if it is inside a task.
pub(super) fn enter(awaited: usize) -> Result<Entered, WaitCycle> {
    enter_wait(|| Wait::One(awaited)).map_err(|_| WaitCycle)
}

/// Registers the calling thread, if it is inside a task. The error is the tasks that would never be done.
pub(crate) fn enter_wait(wait: impl FnOnce() -> Wait) -> Result<Entered, Vec<usize>> {
    if !current::in_task() {
        return Ok(Entered(None));
    }
    let (me, wait) = (current::enter_chain(), wait());
    let mut blocked = BLOCKED.get().lock();
    let in_vain = Waits { me, blocked: &blocked, inside: &current::inside() }.in_vain(&wait);
    if !in_vain.is_empty() {
        return Err(in_vain);
    }
    blocked.entry(me).or_default().push(wait);
    Ok(Entered(Some(me)))
}

impl Drop for Entered {
    fn drop(&mut self) {
        let Some(me) = self.0 else { return };
        let mut blocked = BLOCKED.get().lock();
        // A forked child has a table of its own.
        let Some(waits) = blocked.get_mut(&me) else { return };
        waits.pop();
        if waits.is_empty() {
            blocked.remove(&me);
        }
    }
}

/// Everything that is known when `me` registers.
struct Waits<'a> {
    me: ThreadKey,
    blocked: &'a BTreeMap<ThreadKey, Vec<Wait>>,
    inside: &'a BTreeMap<usize, ThreadKey>,
}

/// A thread that is blocked, or about to be.
struct Node {
    /// The thread is stuck if any of these is, or, with `all`, if all of them are.
    needs: Vec<usize>,
    all: bool,
    stuck: bool,
}

impl Waits<'_> {
    /// Returns the thread that runs the task, if it is blocked or is `me`.
    fn blocked_in(&self, task: usize) -> Option<ThreadKey> {
        let thread = *self.inside.get(&task)?;
        (thread == self.me || self.blocked.contains_key(&thread)).then_some(thread)
    }

    /// Returns the tasks of `wait` that will never be done if `me` blocks on it.
    fn in_vain(&self, wait: &Wait) -> Vec<usize> {
        if let Wait::One(task) = wait {
            // The most frequent case; usually it decides the question.
            match self.follow(*task) {
                Some(true) => return vec![*task],
                Some(false) => return Vec::new(),
                None => {}
            }
        }
        let (mut threads, mut numbers) = (vec![self.me], BTreeMap::from([(self.me, 0)]));
        let mut nodes: Vec<Node> = Vec::new();
        while let Some(thread) = threads.get(nodes.len()).copied() {
            let wait =
                if thread == self.me { wait } else { self.blocked[&thread].last().expect("a blocked thread waits") };
            let mut number = |thread| {
                *numbers.entry(thread).or_insert_with(|| {
                    threads.push(thread);
                    threads.len() - 1
                })
            };
            nodes.push(match wait {
                _ if thread != self.me && self.is_active(thread, wait) => {
                    Node { needs: Vec::new(), all: false, stuck: false }
                }
                Wait::Any(left) => {
                    let needs: Option<Vec<ThreadKey>> = left.iter().map(|task| self.blocked_in(task)).collect();
                    let stuck = needs.is_some();
                    Node { needs: needs.into_iter().flatten().map(number).collect(), all: true, stuck }
                }
                wait => Node {
                    needs: self.stoppers(wait).map(|(_, thread)| number(thread)).collect(),
                    all: false,
                    stuck: true,
                },
            });
        }
        // All are assumed to be stuck, and those that can be shown not to be are removed until none is left.
        loop {
            let is_free = |node: &Node| {
                let mut needs = node.needs.iter().map(|need| nodes[*need].stuck);
                node.stuck && if node.all { needs.any(|stuck| !stuck) } else { !needs.any(|stuck| stuck) }
            };
            let free: Vec<usize> = (0..nodes.len()).filter(|number| is_free(&nodes[*number])).collect();
            if free.is_empty() {
                break;
            }
            free.into_iter().for_each(|number| nodes[number].stuck = false);
        }
        match (nodes[0].stuck, wait) {
            (false, _) => Vec::new(),
            (true, Wait::Any(left)) => left.iter().collect(),
            (true, wait) => {
                let is_stuck = |(_, thread): &(usize, ThreadKey)| nodes[numbers[thread]].stuck;
                self.stoppers(wait).filter(is_stuck).map(|(task, _)| task).collect()
            }
        }
    }

    /// Follows waits for one task each: would `me` be stuck? `None` if there are other waits on the way.
    fn follow(&self, awaited: usize) -> Option<bool> {
        let mut task = awaited;
        loop {
            match self.blocked_in(task) {
                None => return Some(false),
                Some(thread) if thread == self.me => return Some(true),
                // The loop ends: registered threads form no cycle, except that one may run what it waits for.
                Some(thread) => match self.blocked[&thread].last() {
                    Some(Wait::One(next)) if self.inside.get(next) == Some(&thread) => return Some(false),
                    Some(Wait::One(next)) => task = *next,
                    _ => return None,
                },
            }
        }
    }

    /// Does the thread run what it waits for?
    fn is_active(&self, thread: ThreadKey, wait: &Wait) -> bool {
        self.stoppers(wait).any(|(_, other)| other == thread)
    }

    /// The tasks of `wait` that are being run by a blocked thread, each with that thread.
    fn stoppers<'a>(&'a self, wait: &'a Wait) -> Box<dyn Iterator<Item = (usize, ThreadKey)> + 'a> {
        let with_thread = |task: usize| Some((task, self.blocked_in(task)?));
        match wait {
            Wait::One(task) => Box::new(with_thread(*task).into_iter()),
            // Few tasks are registered, and many may be waited for.
            Wait::All(tasks) => {
                let entered = self.inside.keys().copied();
                Box::new(entered.filter(|task| tasks.binary_search(task).is_ok()).filter_map(with_thread))
            }
            Wait::Any(left) => Box::new(left.iter().filter_map(with_thread)),
        }
    }
}

thread_local! {
    /// The data pointer of the waker of this thread's innermost `block_on`.
    static BLOCK_ON: Cell<*const ()> = const { Cell::new(std::ptr::null()) };
}

/// Notes that the calling thread blocks in `block_on`, with that waker, until the value is dropped.
#[must_use]
#[derive(Debug)]
pub(super) struct BlockingOn(*const ());

impl BlockingOn {
    pub(super) fn enter(waker: &Waker) -> Self {
        Self(BLOCK_ON.replace(waker.data()))
    }
}

impl Drop for BlockingOn {
    fn drop(&mut self) {
        BLOCK_ON.set(self.0);
    }
}

/// Is this task polling its own handle, so that it would wait for itself? The waker identifies the poller: the task itself if
/// it is a spawned future, or a `block_on` inside it. With other wakers, such as those of a set of futures, this cannot be
/// detected.
pub(crate) fn polls_itself(task: usize, waker: &Waker) -> bool {
    spawned::is_waker_of(task, waker)
        || current::in_task() && std::ptr::eq(waker.data(), BLOCK_ON.get()) && current::is_running(task)
}
