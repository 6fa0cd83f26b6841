//! The thread that runs done-callbacks. It starts with the first future that has one, and ends with the pool.
//!
//! Callbacks are user code: they may take long, and may wait for other tasks of the pool. So they run neither in the thread that
//! collects the result (it may hold a lock that the callback needs) nor in the supervisor, unless the callback thread cannot be
//! started.

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

/// Returns `true` if the calling thread may be inside a callback or a waker of one of this pool's futures. It must not wait for
/// the end of the pool, which waits for those.
pub(super) fn is_inside(pool: usize) -> bool {
    RESOLVES.with_borrow(|pools| pools.contains(&pool))
}

/// While this value exists, the thread is resolving futures of a pool.
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

/// What the callback thread needs from the pool.
pub(super) trait CallbackHost: Send + Sync + 'static {
    fn name(&self) -> &str;

    fn id(&self) -> usize;

    fn callbacks(&self) -> &Callbacks;

    /// A future was resolved.
    fn has_published(&self);

    /// No future is left that the callback thread has to publish.
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
    /// A future is being published.
    busy: bool,
    over: bool,
}

impl Callbacks {
    /// Passes a future to the callback thread, which is started if there is none.
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

    /// Returns `true` if no future is being published or waits to be.
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
                // A callback may fork and return in the child, which must not run the rest.
                fork::end_if_child(false);
                host.has_published();
                queue = self.queue.lock();
                queue.busy = false;
                if queue.waiting.is_empty() {
                    // The host may take its own lock here. It calls `is_quiet`, which takes this lock, while it holds that one.
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

    /// Ends and joins the thread, after it has published the futures that it has.
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
