//! The thread that runs done-callbacks. It starts with the first future that has one, and ends with the pool.
//!
//! Callbacks are the user's code: they may take their time, and wait for other tasks of the pool. So they run neither where a
//! thread happens to collect results (it may hold a lock that the callback wants) nor on the supervisor.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::lock::{Condvar, Mutex};

use crate::fork;
use crate::future::Unpublished;

thread_local! {
    /// The pools whose futures the calling thread is resolving: it may be inside their callbacks and wakers.
    static RESOLVES: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Is the calling thread inside a callback or a waker that one of this pool's futures has? The end of the pool waits for that.
pub(super) fn is_inside(pool: usize) -> bool {
    RESOLVES.with_borrow(|pools| pools.contains(&pool))
}

/// As long as there is this, the thread is resolving futures of a pool.
pub(super) struct Resolving(());

impl Resolving {
    pub(super) fn futures_of(pool: usize) -> Self {
        RESOLVES.with_borrow_mut(|pools| pools.push(pool));
        Self(())
    }
}

impl Drop for Resolving {
    fn drop(&mut self) {
        RESOLVES.with_borrow_mut(Vec::pop);
    }
}

/// The pool, as the thread knows it.
pub(super) trait CallbackHost: Send + Sync + 'static {
    fn name(&self) -> &str;

    fn id(&self) -> usize;

    fn callbacks(&self) -> &Callbacks;

    /// A future was resolved.
    fn has_published(&self);

    /// No future is left to be resolved.
    fn has_published_all(&self);
}

#[derive(Default)]
pub(super) struct Callbacks {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Unpublished>,
    thread: Option<JoinHandle<()>>,
    /// One of them is being published.
    busy: bool,
    over: bool,
}

impl Callbacks {
    /// Leaves a future to the thread.
    pub(super) fn add<H: CallbackHost>(&self, host: &Arc<H>, unpublished: Unpublished) {
        let mut queue = self.queue.lock();
        if queue.thread.is_none() && !queue.over {
            let host = Arc::clone(host);
            let name = format!("{}-cb", host.name());
            queue.thread = std::thread::Builder::new().name(name).spawn(move || host.callbacks().run(&*host)).ok();
        }
        if queue.thread.is_none() || queue.over {
            drop(queue);
            // There is no callback thread, so the callbacks run here.
            return unpublished.publish();
        }
        queue.waiting.push_back(unpublished);
        self.changed.notify_one();
    }

    /// Is there nothing to be published?
    pub(super) fn is_quiet(&self) -> bool {
        let queue = self.queue.lock();
        queue.waiting.is_empty() && !queue.busy
    }

    fn run(&self, host: &impl CallbackHost) {
        let _resolving = Resolving::futures_of(host.id());
        let mut queue = self.queue.lock();
        loop {
            if let Some(unpublished) = queue.waiting.pop_front() {
                queue.busy = true;
                drop(queue);
                unpublished.publish();
                // A callback may fork and return: the rest is for the parent.
                fork::end_if_child(false);
                host.has_published();
                queue = self.queue.lock();
                queue.busy = false;
                if queue.waiting.is_empty() {
                    // The host may take its own lock, under which it asks whether all is quiet.
                    drop(queue);
                    host.has_published_all();
                    queue = self.queue.lock();
                }
            } else if queue.over {
                return;
            } else {
                self.changed.wait(&mut queue);
            }
        }
    }

    /// Ends the thread when it has done what it has.
    pub(super) fn end(&self) {
        let mut queue = self.queue.lock();
        queue.over = true;
        self.changed.notify_one();
        let thread = queue.thread.take();
        drop(queue);
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}
