//! What a thread that waits for a task does meanwhile: it collects what comes back, for itself and for others, so that a
//! round trip costs two wake-ups and not four.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Weak};
use std::time::Instant;

use parking_lot::RwLock;

use super::super::transport::Shared;
use super::core::Core;
use crate::future::Owner;
use crate::spin;

/// All pools of this process. A task may outlive its pool, so it knows it by number only.
static POOLS: LazyLock<RwLock<HashMap<u64, Weak<Core>>>> = LazyLock::new(Default::default);

pub(super) fn enter(core: &Arc<Core>) {
    POOLS.write().insert(core.id, Arc::downgrade(core));
}

impl Drop for Core {
    fn drop(&mut self) {
        POOLS.write().remove(&self.id);
    }
}

/// What a task knows of its pool.
#[derive(Debug, Clone, Copy)]
pub(in crate::process) struct TaskOwner {
    pub(in crate::process) pool: u64,
    pub(in crate::process) task: u64,
}

impl TaskOwner {
    fn core(self) -> Option<Arc<Core>> {
        POOLS.read().get(&self.pool)?.upgrade()
    }
}

impl Owner for TaskOwner {
    fn may_claim(self) -> bool {
        false
    }

    fn released(self) {
        // Cancelled: whoever sleeps for it has to look again.
        if let Some(core) = self.core() {
            let rings = Arc::clone(&core.rings.read());
            rings.iter().for_each(|shared| shared.wake_sleepers());
        }
    }

    fn revoke(self) {
        if let Some(core) = self.core() {
            core.revoke(self.task);
        }
    }

    fn has_begun(self) -> bool {
        self.core().is_some_and(|core| core.has_begun(self.task))
    }

    fn help(self, done: &dyn Fn() -> bool, deadline: Option<Instant>, alone: bool) -> bool {
        let Some(core) = self.core() else { return false };
        core.help(self.task, done, deadline, alone);
        true
    }
}

impl Core {
    pub(in crate::process) fn help(&self, id: u64, done: &dyn Fn() -> bool, deadline: Option<Instant>, alone: bool) {
        let late = || deadline.is_some_and(|deadline| deadline <= Instant::now());
        while !done() && !late() {
            if self.collect() {
                continue;
            }
            let rings = Arc::clone(&self.rings.read());
            let place = self.place_of(id);
            if let Some(shared) = &place {
                // While this thread looks, nobody else need be told.
                shared.disarm_bell();
            }
            let news = || done() || rings.iter().any(|shared| shared.has_replies());
            let seen = spin::until(news);
            match (&place, seen) {
                (_, true) => continue,
                (Some(shared), false) if alone => {
                    let start = Instant::now();
                    // Its worker may have died, or the task been moved, before anybody could know of this sleeper.
                    let moved = || !self.place_of(id).is_some_and(|now| Arc::ptr_eq(&now, shared));
                    shared.sleep(|| done() || moved(), deadline);
                    spin::slept(start.elapsed());
                    self.rearm(shared);
                }
                (place, false) => {
                    if let Some(shared) = place {
                        self.rearm(shared);
                    }
                    return;
                }
            }
        }
        if let Some(shared) = self.place_of(id) {
            self.rearm(&shared);
        }
    }

    /// The worker that has the task.
    fn place_of(&self, id: u64) -> Option<Arc<Shared>> {
        let state = self.state.lock();
        let child = state.children.iter().find(|child| child.find(id).is_some())?;
        Some(Arc::clone(child.shared()))
    }

    /// This thread looks at that worker's replies no more, so the supervisor has to be told of them.
    fn rearm(&self, shared: &Shared) {
        if !shared.arm_bell() {
            self.collect();
        }
    }
}
