//! What the calling thread is running right now: the chain of tasks on its stack, innermost first.
//!
//! A thread runs more than one task at a time when a task waits for another one and runs it in place. The chain answers two
//! questions: what is the name of the running task, and is the thread about to wait for a task that it is running itself?
//!
//! Other threads know which thread is inside a task only once that thread has been about to block: then it
//! [enters](enter_chain) its chain into a table of the process. The next wait does not enter the same tasks again, so its cost
//! does not depend on the length of the chain.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crate::lock::{Mutex, MutexGuard};

use crate::fork::PerProcess;

thread_local! {
    /// The addresses of the running tasks, outermost first. They are compared, never dereferenced.
    static CHAIN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static NAME: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
    /// The length of the chain. It has no destructor, so that it can be used when the thread-locals above have been destroyed.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The number of tasks of the chain, from the outermost on, that are in the table.
    static ENTERED: Cell<usize> = const { Cell::new(0) };
    /// Whether this thread is one of a pool's.
    static SERVES: Cell<bool> = const { Cell::new(false) };
    /// The key of this thread in tables of threads; 0 until it is first needed.
    static KEY: Cell<usize> = const { Cell::new(0) };
}

/// The tasks that were entered, each with the thread that is inside it.
static INSIDE: PerProcess<Mutex<BTreeMap<usize, ThreadKey>>> = PerProcess::new();

/// Identifies a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ThreadKey(usize);

/// A chain is searched up to this length, and longer ones are entered instead.
const SHORT: usize = 64;

/// Keeps a task on the chain of this thread until it is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct Running {
    /// The chain is the thread's own.
    not_send: PhantomData<*const ()>,
}

impl Running {
    #[inline]
    pub(crate) fn enter(task: usize) -> Self {
        // The threads of a loom model share one system thread, and with it these thread-locals.
        if cfg!(loom) {
            return Self { not_send: PhantomData };
        }
        let _ = CHAIN.try_with(|chain| chain.borrow_mut().push(task));
        DEPTH.set(DEPTH.get() + 1);
        Self { not_send: PhantomData }
    }
}

impl Drop for Running {
    #[inline]
    fn drop(&mut self) {
        if cfg!(loom) {
            return;
        }
        let depth = DEPTH.get() - 1;
        DEPTH.set(depth);
        let task = CHAIN.try_with(|chain| chain.borrow_mut().pop()).ok().flatten();
        if depth < ENTERED.get() {
            leave(depth, task);
        }
    }
}

/// Removes a task that ends from the table.
#[cold]
fn leave(depth: usize, task: Option<usize>) {
    ENTERED.set(depth);
    if let Some(task) = task {
        INSIDE.get().lock().remove(&task);
    }
}

/// True if this thread is inside some task.
pub(crate) fn in_task() -> bool {
    DEPTH.get() > 0
}

/// Marks this thread as one of a pool's.
pub(crate) fn begin_to_serve() {
    if !cfg!(loom) {
        SERVES.set(true);
    }
}

/// True if what this thread waits for may need the thread itself: it is inside a task, or is one of a pool's and runs other
/// user code, such as an initializer, a waker or a destructor.
pub(crate) fn may_be_needed() -> bool {
    in_task() || SERVES.get()
}

/// True if this thread is inside the given task.
pub(crate) fn is_running(task: usize) -> bool {
    if !in_task() {
        return false;
    }
    let found = |chain: &Vec<usize>| (chain.len() <= SHORT).then(|| chain.contains(&task));
    match CHAIN.try_with(|chain| found(&chain.borrow())) {
        Ok(Some(found)) => found,
        Ok(None) => {
            let me = enter_chain();
            INSIDE.get().lock().get(&task) == Some(&me)
        }
        Err(_) => false,
    }
}

/// Enters the tasks that this thread is inside, because it is about to block.
pub(crate) fn enter_chain() -> ThreadKey {
    let _ = CHAIN.try_with(|chain| {
        let (chain, me) = (chain.borrow(), key());
        if ENTERED.get() < chain.len() {
            INSIDE.get().lock().extend(chain[ENTERED.get()..].iter().map(|task| (*task, me)));
            ENTERED.set(chain.len());
        }
    });
    key()
}

/// Which threads are inside which tasks, for threads that have been about to block.
pub(crate) fn inside() -> MutexGuard<'static, BTreeMap<usize, ThreadKey>> {
    INSIDE.get().lock()
}

/// The key of the calling thread.
pub(crate) fn key() -> ThreadKey {
    static LAST: AtomicUsize = AtomicUsize::new(0);
    if KEY.get() == 0 {
        // Relaxed: it only has to be unique.
        KEY.set(LAST.fetch_add(1, Relaxed) + 1);
    }
    ThreadKey(KEY.get())
}

/// The name of the innermost task, if it was given one.
pub(crate) fn task_name() -> Option<Arc<str>> {
    NAME.try_with(|name| name.borrow().clone()).ok().flatten()
}

/// Runs `f` as the task of that name.
pub(crate) fn named<T>(name: Arc<str>, f: impl FnOnce() -> T) -> T {
    struct Restore(Option<Arc<str>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let _ = NAME.try_with(|name| *name.borrow_mut() = self.0.take());
        }
    }
    let before = NAME.try_with(|cell| cell.replace(Some(name))).ok().flatten();
    let _restore = Restore(before);
    f()
}
