//! Locks without poisoning, and condition variables.
//!
//! These are wrappers around the locks of std that ignore poisoning. User code does not run under a lock of this crate, with
//! one exception: in a worker process arguments are decoded, and the initializer runs, under the lock of the calls. A panic of
//! this crate's own code leaves consistent state or ends the process.
//!
//! They are not those of parking_lot, for one reason: its locks share one table of the waiting threads of the whole process, in
//! which every waiting thread has an entry in its own stack. A forked child inherits that table with the entries of threads
//! that do not exist, whose stacks are reused, and perhaps with a locked bucket. So even locks that the child has made could
//! lose wake-ups. A lock of std is a single word on systems with futexes.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{self, PoisonError};
use std::time::Instant;

#[derive(Default)]
pub(crate) struct Mutex<T: ?Sized> {
    order: Order,
    /// How many threads sleep until they get the lock.
    waiting: AtomicU32,
    lock: sync::Mutex<T>,
}

pub(crate) struct MutexGuard<'a, T: ?Sized> {
    order: &'a Order,
    /// `None` only while the thread waits for a condition.
    held: Option<sync::MutexGuard<'a, T>>,
}

/// The number of times a thread yields before it sleeps for a lock.
const YIELDS: usize = 8;

/// About as long as it takes to wake a thread.
#[cfg(all(feature = "process", target_os = "linux", not(loom)))]
const PAUSE: std::time::Duration = std::time::Duration::from_micros(50);

const HELD: &str = "the lock is held as long as there is a guard";

/// For ThreadSanitizer (`ci/tsan.sh`), which does not instrument std and so misses that unlocking happens before the next
/// locking: establishes this order in this crate's own code. Does nothing in other builds.
#[derive(Default)]
struct Order(#[cfg(tsan)] std::sync::atomic::AtomicBool);

impl Order {
    const NEW: Self = Self(
        #[cfg(tsan)]
        std::sync::atomic::AtomicBool::new(false),
    );

    #[inline(always)]
    fn locked(&self) {
        #[cfg(tsan)]
        self.0.load(std::sync::atomic::Ordering::Acquire);
    }

    #[inline(always)]
    fn about_to_unlock(&self) {
        #[cfg(tsan)]
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }
}

impl<'a, T: ?Sized> MutexGuard<'a, T> {
    #[inline]
    fn new(order: &'a Order, held: sync::MutexGuard<'a, T>) -> Self {
        order.locked();
        Self { order, held: Some(held) }
    }
}

#[cfg(tsan)]
impl<T: ?Sized> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        self.order.about_to_unlock();
    }
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self { order: Order::NEW, waiting: AtomicU32::new(0), lock: sync::Mutex::new(value) }
    }

    #[inline]
    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        match self.try_lock() {
            Some(guard) => guard,
            None => self.lock_contended(),
        }
    }

    /// Another thread holds the lock, most often for less time than it takes to sleep and be woken. The lock of std spins for a
    /// shorter time than that, so this yields a few times first. Without it, the threads that submit to worker processes and
    /// the one that supervises these repeatedly put each other to sleep.
    #[cold]
    fn lock_contended(&self) -> MutexGuard<'_, T> {
        for _ in 0..YIELDS {
            std::thread::yield_now();
            if let Some(guard) = self.try_lock() {
                return guard;
            }
        }
        self.waiting.fetch_add(1, Relaxed);
        let held = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.fetch_sub(1, Relaxed);
        MutexGuard::new(&self.order, held)
    }

    /// For a thread that takes the lock again and again: pauses if other threads sleep for it. The lock of std is not fair: it would be
    /// taken again before a thread that is woken can run.
    #[cfg(all(feature = "process", target_os = "linux", not(loom)))]
    pub(crate) fn yield_to_waiters(&self) {
        if self.waiting.load(Relaxed) > 0 {
            std::thread::sleep(PAUSE);
        }
    }

    #[inline]
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.lock.try_lock() {
            Ok(held) => Some(MutexGuard::new(&self.order, held)),
            Err(sync::TryLockError::Poisoned(poisoned)) => Some(MutexGuard::new(&self.order, poisoned.into_inner())),
            Err(sync::TryLockError::WouldBlock) => None,
        }
    }

    #[cfg(all(feature = "process", target_os = "linux", any(not(loom), test)))]
    pub(crate) fn into_inner(self) -> T {
        self.lock.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        self.held.as_deref().expect(HELD)
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_deref_mut().expect(HELD)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.lock, f)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Condvar(sync::Condvar);

impl Condvar {
    pub(crate) const fn new() -> Self {
        Self(sync::Condvar::new())
    }

    /// Releases the lock and waits to be notified; may return spuriously.
    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        guard.order.about_to_unlock();
        let held = guard.held.take().expect(HELD);
        guard.held = Some(self.0.wait(held).unwrap_or_else(PoisonError::into_inner));
        guard.order.locked();
    }

    /// [`wait`](Self::wait), until the deadline if there is one. Returns `true` if the deadline has passed.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            self.wait(guard);
            return false;
        };
        guard.order.about_to_unlock();
        let held = guard.held.take().expect(HELD);
        let left = deadline.saturating_duration_since(Instant::now());
        let (held, _) = self.0.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner);
        guard.held = Some(held);
        guard.order.locked();
        // Not the result of the system call: a time-out that is too long for it would seem to have passed.
        Instant::now() >= deadline
    }

    /// Waits as long as `condition` holds, or until the deadline. Returns `false` if the deadline has passed and it still
    /// holds.
    pub(crate) fn wait_while<T>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        deadline: Option<Instant>,
        condition: impl Fn(&T) -> bool,
    ) -> bool {
        while condition(guard) {
            if self.wait_until(guard, deadline) {
                return !condition(guard);
            }
        }
        true
    }

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

#[cfg(all(feature = "process", target_os = "linux", not(any(loom, tsan))))]
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(sync::RwLock<T>);

#[cfg(all(feature = "process", target_os = "linux", not(any(loom, tsan))))]
impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(sync::RwLock::new(value))
    }

    pub(crate) fn read(&self) -> sync::RwLockReadGuard<'_, T> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn write(&self) -> sync::RwLockWriteGuard<'_, T> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// ThreadSanitizer does not instrument std: see [`Order`].
#[cfg(all(feature = "process", target_os = "linux", tsan))]
#[derive(Debug, Default)]
pub(crate) struct RwLock<T>(Mutex<T>);

#[cfg(all(feature = "process", target_os = "linux", tsan))]
impl<T> RwLock<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(crate) fn read(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }

    pub(crate) fn write(&self) -> MutexGuard<'_, T> {
        self.0.lock()
    }
}
