//! What the calling thread is running right now: the chain of tasks on its stack, innermost first.
//!
//! A thread runs more than one task at a time when a task waits for another one and runs it in place. The chain
//! answers two questions: what is the running task called, and would waiting for that task be waiting for
//! oneself?

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::sync::Arc;

thread_local! {
    /// The addresses of the running tasks, outermost first. They are compared, never followed.
    static CHAIN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static NAME: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
    /// False once the thread-locals above may be gone, so that a task in a thread-local's destructor still runs.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

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
        // The threads of a loom model share one thread of the system, and with it these thread-locals.
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
        DEPTH.set(DEPTH.get() - 1);
        let _ = CHAIN.try_with(|chain| chain.borrow_mut().pop());
    }
}

/// True if this thread is inside some task.
pub(crate) fn in_task() -> bool {
    DEPTH.get() > 0
}

/// True if this thread is inside the given task.
pub(crate) fn is_running(task: usize) -> bool {
    in_task() && CHAIN.try_with(|chain| chain.borrow().contains(&task)).unwrap_or(false)
}

/// The tasks this thread is inside of, outermost first.
pub(crate) fn chain() -> Vec<usize> {
    CHAIN.try_with(|chain| chain.borrow().clone()).unwrap_or_default()
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
