//! Models of the rings: loom runs every interleaving that the memory model allows.

use loom::sync::{Arc, Condvar, Mutex};

use super::wait_flags;
use crate::sync::UnsafeCell;
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::*};
use crate::sync::thread;

/// A futex: sleeps only if the word is as expected, in one step with going to sleep.
struct Futex {
    word: AtomicU32,
    queue: Mutex<()>,
    woken: Condvar,
}

impl Futex {
    fn new() -> Self {
        Self { word: AtomicU32::new(0), queue: Mutex::new(()), woken: Condvar::new() }
    }

    fn wait(&self, expected: u32) {
        let mut queue = self.queue.lock().unwrap();
        // The kernel reads the word with its own lock held; a waker takes that lock after it has changed the word.
        while self.word.load(SeqCst) == expected {
            queue = self.woken.wait(queue).unwrap();
        }
    }

    fn wake(&self) {
        drop(self.queue.lock().unwrap());
        self.woken.notify_all();
    }
}

/// One direction: two slots, so that the producer has to wait for room too.
struct Ring {
    tail: AtomicU64,
    head: AtomicU64,
    consumer: Futex,
    producer: Futex,
    slots: [UnsafeCell<u64>; 2],
}

// SAFETY: a slot belongs to the producer or the consumer, as the positions say; the model checks this.
#[allow(unsafe_code)]
unsafe impl Sync for Ring {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl Send for Ring {}

impl Ring {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            tail: AtomicU64::new(0),
            head: AtomicU64::new(0),
            consumer: Futex::new(),
            producer: Futex::new(),
            slots: [UnsafeCell::new(0), UnsafeCell::new(0)],
        })
    }

    #[allow(unsafe_code)]
    fn send(&self, tail: u64, value: u64) {
        while tail - wait_flags::position(&self.head) == 2 {
            wait_flags::announce(&self.producer.word);
            if tail - wait_flags::position(&self.head) == 2 {
                self.producer.wait(1);
            }
        }
        // SAFETY: there is room, so the slot belongs to the producer.
        self.slots[tail as usize % 2].with_mut(|slot| unsafe { *slot = value });
        wait_flags::publish(&self.tail, tail + 1);
        if wait_flags::take(&self.consumer.word) {
            self.consumer.wake();
        }
    }

    #[allow(unsafe_code)]
    fn receive(&self, head: u64) -> u64 {
        while wait_flags::position(&self.tail) == head {
            wait_flags::announce(&self.consumer.word);
            if wait_flags::position(&self.tail) == head {
                self.consumer.wait(1);
            }
        }
        // SAFETY: it has been published, so the slot belongs to the consumer.
        let value = self.slots[head as usize % 2].with(|slot| unsafe { *slot });
        wait_flags::publish(&self.head, head + 1);
        if wait_flags::take(&self.producer.word) {
            self.producer.wake();
        }
        value
    }
}

#[test]
fn everything_arrives_in_order_and_nobody_sleeps_for_ever() {
    loom::model(|| {
        let ring = Ring::new();
        let producer = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || (0..3).for_each(|n| ring.send(n, n + 10)))
        };
        for n in 0..3 {
            assert_eq!(ring.receive(n), n + 10);
        }
        producer.join().unwrap();
    });
}

#[test]
fn a_call_is_begun_or_taken_back_and_never_both() {
    loom::model(|| {
        let claim = Arc::new(AtomicU32::new(wait_flags::QUEUED));
        let ran = Arc::new(AtomicUsize::new(0));
        let worker = {
            let (claim, ran) = (Arc::clone(&claim), Arc::clone(&ran));
            thread::spawn(move || {
                if wait_flags::begin(&claim) {
                    ran.fetch_add(1, Relaxed);
                }
            })
        };
        let parents: Vec<_> = (0..2)
            .map(|_| {
                let claim = Arc::clone(&claim);
                thread::spawn(move || usize::from(wait_flags::take_back(&claim)))
            })
            .collect();
        let taken: usize = parents.into_iter().map(|parent| parent.join().unwrap()).sum();
        worker.join().unwrap();
        assert_eq!(ran.load(Relaxed) + taken, 1);
        assert_ne!(claim.load(Relaxed), wait_flags::QUEUED);
    });
}

const BELL: u32 = 1;
const SLEEPERS: u32 = 2;

/// A worker publishes a reply while the manager arms its bell and a thread goes to sleep for the same reply: both notice it.
#[test]
fn a_reply_is_noticed_by_the_manager_and_by_a_sleeper() {
    loom::model(|| {
        struct Replies {
            tail: AtomicU64,
            futex: Futex,
            rung: AtomicU32,
        }
        let replies = Arc::new(Replies { tail: AtomicU64::new(0), futex: Futex::new(), rung: AtomicU32::new(0) });
        let worker = {
            let replies = Arc::clone(&replies);
            thread::spawn(move || {
                wait_flags::publish(&replies.tail, 1);
                let wanted = wait_flags::take_bits(&replies.futex.word);
                if wanted & SLEEPERS != 0 {
                    replies.futex.wake();
                }
                if wanted & BELL != 0 {
                    replies.rung.store(1, Release);
                }
            })
        };
        let sleeper = {
            let replies = Arc::clone(&replies);
            thread::spawn(move || {
                while wait_flags::position(&replies.tail) == 0 {
                    let seen = wait_flags::announce_bit(&replies.futex.word, SLEEPERS);
                    if wait_flags::position(&replies.tail) == 0 {
                        replies.futex.wait(seen);
                    }
                }
            })
        };
        wait_flags::announce_bit(&replies.futex.word, BELL);
        let seen_at_once = wait_flags::position(&replies.tail) == 1;
        worker.join().unwrap();
        sleeper.join().unwrap();
        assert!(seen_at_once || replies.rung.load(Acquire) == 1);
    });
}
