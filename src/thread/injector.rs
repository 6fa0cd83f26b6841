//! The queue behind each lane: unbounded, first in, first out, for any number of producers and consumers, and without a lock.
//!
//! # Layout
//!
//! The queue is a list of blocks with [`CAPACITY`] slots each. A slot is an element, as a pointer, or null. `tail` and `head` are
//! an index each, and the block that the index is in. Index `i` is that of slot `i % LAP` in block number `i / LAP`. The last
//! index of each lap belongs to no slot: while an end has it, the thread that claimed the last slot of the block moves that end to
//! the next block, and all others wait. So indexes only grow, and, being of 64 bits, they never come again.
//!
//! A producer claims a slot by a compare-exchange on the index of `tail`, and then stores the element in it. A consumer claims one
//! or more slots of a block by a compare-exchange on the index of `head`. It takes the element out of each and stores null; where
//! the producer has claimed the slot and not yet stored the element, it waits for that. Then it adds the number of these slots
//! to the block's count of slots that are done.
//!
//! The consumer whose addition makes that count `CAPACITY` retires the block: the block becomes the queue's *spare*, or is
//! freed if there is one. A producer that needs a block takes the spare before it allocates. So nobody frees a block as long as
//! no more blocks are retired than are needed. (It is not the memory that matters. A block would be freed by another thread than the
//! one that allocated it, and allocators let the two wait for each other.)
//!
//! # Rules
//!
//! 1. A thread follows a pointer to a block only for a slot there that it has claimed and is not done with. A producer is done
//!    with a slot when it stores the element; a consumer, when it adds the slot to the count of the block.
//! 2. Who has claimed the last slot of a block links the next one (a producer), or reads the link (a consumer), before it is
//!    done with that slot.
//! 3. A pointer that is not null, in a slot, is an element that belongs to the queue, until a consumer that has claimed the slot
//!    takes it and stores null.
//! 4. A block that is not linked has one owner, which may change it and free it: the consumer that retires it, until it has
//!    left it in `spare`; the producer that has made it, or has taken it from `spare`, until it links it.
//!
//! # Why no thread touches a block that another one has retired
//!
//! *A claimed slot is in the block that was read for it.* A thread reads an index, then the block, and then claims: it moves the
//! index from what it has read. The block is not one of an earlier lap, because each block is stored before the first index of its
//! lap (Release; the index is read with Acquire). Nor is it one of a later lap: such a block is stored when the index has left the
//! lap that the thread has read, and who reads that block (Acquire) finds the index changed. Then the compare-exchange fails, and
//! the thread does not follow the pointer: that block may be retired, freed, or in use again.
//!
//! *A claimed slot keeps its block.* A block is retired when consumers are done with all of its slots. A consumer is done with a slot
//! after it has found the element there, so after the producer of that slot was done with it (Release; Acquire). So at
//! that time nobody has claimed a slot there that he is not done with; and as all are claimed, nobody claims another until the
//! block is linked again. The additions to the count are AcqRel, so all that was done for these slots happens before the
//! block is retired.
//!
//! *A block that is linked again is as good as new.* Its slots are null, for each consumer has stored null before it added to the
//! count. Who retires the block resets its link and its count. All this comes before the block is left in `spare` (Release), so before
//! it is taken from there (Acquire), and before it is linked and stored in `tail` (Release): who claims a slot there has read its
//! address from one of these (Acquire). So no consumer finds an element of an earlier lap.

#![allow(unsafe_code)]

#[cfg(all(test, not(loom)))]
mod tests;

use std::array;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use crossbeam::deque::Worker as Deque;
use crossbeam::utils::CachePadded;

use crate::future::Task;
use crate::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};

/// How many slots a block has. With the link they fill eight cache lines. (Models have to come to an end.)
const CAPACITY: usize = if cfg!(loom) { 2 } else { 63 };

/// How many indexes there are for each block.
const LAP: u64 = CAPACITY as u64 + 1;

/// How many slots there are before that of an index.
fn slots_before(index: u64) -> u64 {
    index - index / LAP
}

/// What fits into one pointer.
pub(super) trait Element: Send {
    fn into_raw(self) -> NonNull<()>;

    /// # Safety
    /// `raw` comes from [`into_raw`](Self::into_raw), and goes into one such call.
    unsafe fn from_raw(raw: NonNull<()>) -> Self;
}

impl Element for Task {
    #[inline]
    fn into_raw(self) -> NonNull<()> {
        self.into_raw()
    }

    #[inline]
    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: the contract is the same.
        unsafe { Self::from_raw(raw) }
    }
}

struct Block {
    slots: [AtomicPtr<()>; CAPACITY],
    next: AtomicPtr<Self>,
    /// How many slots consumers are done with.
    done: CachePadded<AtomicUsize>,
}

impl Block {
    fn new() -> Box<Self> {
        Box::new(Self {
            slots: array::from_fn(|_| AtomicPtr::new(ptr::null_mut())),
            next: AtomicPtr::new(ptr::null_mut()),
            done: CachePadded::new(AtomicUsize::new(0)),
        })
    }
}

/// One end of the queue.
#[derive(Debug)]
struct End {
    index: AtomicU64,
    block: AtomicPtr<Block>,
}

impl End {
    fn new(block: *mut Block) -> Self {
        Self { index: AtomicU64::new(0), block: AtomicPtr::new(block) }
    }

    /// The index, and the block that it is in if the index is still the same when a slot is claimed.
    fn read(&self) -> (u64, *mut Block) {
        // In this order. Acquire: pairs with the stores of `advance`.
        let index = self.index.load(Acquire);
        (index, self.block.load(Acquire))
    }

    /// Claims so many slots from an index on, if the end is still there. SeqCst: a push comes before the look at who sleeps
    /// that follows it, and nothing that was taken is missed by who looks where it is next (see `sleep` and `Lane`).
    fn claim(&self, index: u64, count: usize) -> bool {
        self.index.compare_exchange_weak(index, index + count as u64, SeqCst, Relaxed).is_ok()
    }

    /// Moves the end, which has the last index of a lap, to the first one of the next. In this order, Release: see the head
    /// of this file.
    fn advance(&self, next: *mut Block, index: u64) {
        self.block.store(next, Release);
        self.index.store(index, Release);
    }
}

#[derive(Debug)]
struct Head {
    end: End,
    /// The index of the tail as a consumer has seen it, or an earlier one. To know that there is something before it nobody has
    /// to read the tail, which producers change all the time.
    seen: AtomicU64,
}

/// The queue; see the head of this file.
#[derive(Debug)]
pub(super) struct Injector<T: Element> {
    head: CachePadded<Head>,
    tail: CachePadded<End>,
    /// A block that was retired, or null.
    spare: CachePadded<AtomicPtr<Block>>,
    #[cfg(all(test, not(loom)))]
    counts: tests::Counts,
    /// Elements go in and come out, in any thread: they are `Send`. There are no references to any.
    elements: PhantomData<fn(T) -> T>,
}

impl<T: Element> Injector<T> {
    pub(super) fn new() -> Self {
        let block = Box::into_raw(Block::new());
        Self {
            head: CachePadded::new(Head { end: End::new(block), seen: AtomicU64::new(0) }),
            tail: CachePadded::new(End::new(block)),
            spare: CachePadded::new(AtomicPtr::new(ptr::null_mut())),
            #[cfg(all(test, not(loom)))]
            counts: tests::Counts::default(),
            elements: PhantomData,
        }
    }

    pub(super) fn push(&self, element: T) {
        let element = element.into_raw();
        let mut fresh = None;
        let pause = Pause::new();
        loop {
            let (index, block) = self.tail.read();
            let slot = (index % LAP) as usize;
            if slot == CAPACITY {
                pause.wait();
                continue;
            }
            let is_last = slot + 1 == CAPACITY;
            if is_last && fresh.is_none() {
                // Before the slot is claimed, since all others wait from then on.
                fresh = Some(self.unused_block());
            }
            if !self.tail.claim(index, 1) {
                pause.lost();
                continue;
            }
            // SAFETY: rule 1.
            let block = unsafe { &*block };
            if let Some(next) = fresh.take_if(|_| is_last) {
                let next = Box::into_raw(next);
                self.tail.advance(next, index + 2);
                // Rule 2. Release: what is in the new block.
                block.next.store(next, Release);
            }
            // Release: the element, and the link.
            block.slots[slot].store(element.as_ptr(), Release);
            break;
        }
        // Another producer was faster.
        if let Some(unused) = fresh {
            self.leave(unused);
        }
    }

    /// Takes the oldest element.
    pub(super) fn pop(&self) -> Option<T> {
        self.claim(1)?.next()
    }

    /// Takes the oldest element, and moves those that follow it to another queue: so many in all, or fewer.
    pub(super) fn pop_batch(&self, to: &Deque<T>, most: usize) -> Option<T> {
        let mut claimed = self.claim(most)?;
        let first = claimed.next();
        claimed.for_each(|element| to.push(element));
        first
    }

    /// Claims at least one and at most so many slots for this thread.
    fn claim(&self, most: usize) -> Option<Claimed<'_, T>> {
        let pause = Pause::new();
        loop {
            let (index, block) = self.head.end.read();
            let first = (index % LAP) as usize;
            // Acquire: a tail that is known here is known to who sees the head behind it. So the tail is never seen before the head.
            let mut tail = self.head.seen.load(Acquire);
            if tail < index + most as u64 {
                // SeqCst: see `is_empty`.
                tail = self.tail.index.load(SeqCst);
                if slots_before(tail) == slots_before(index) {
                    return None;
                }
                self.head.seen.store(tail, Release);
            }
            if first == CAPACITY {
                pause.wait();
                continue;
            }
            let count = most.min(CAPACITY - first).min((tail - index) as usize);
            if !self.head.end.claim(index, count) {
                pause.lost();
                continue;
            }
            let end = first + count;
            if end == CAPACITY {
                // SAFETY: rule 1.
                let link = unsafe { &(*block).next };
                // Rule 2. Acquire: what is in the next block.
                let next = pause.until(|| NonNull::new(link.load(Acquire)));
                self.head.end.advance(next.as_ptr(), index + count as u64 + 1);
            }
            return Some(Claimed { queue: self, block, next: first, end, count });
        }
    }

    fn unused_block(&self) -> Box<Block> {
        // Acquire: all that was done with it.
        match NonNull::new(self.spare.swap(ptr::null_mut(), Acquire)) {
            // SAFETY: rule 4.
            Some(spare) => unsafe { Box::from_raw(spare.as_ptr()) },
            None => {
                #[cfg(all(test, not(loom)))]
                self.counts.allocated.fetch_add(1, Relaxed);
                Block::new()
            }
        }
    }

    /// For the next who needs a block, which is as new.
    fn leave(&self, block: Box<Block>) {
        let block = Box::into_raw(block);
        // Release: all that was done with it.
        if self.spare.compare_exchange(ptr::null_mut(), block, Release, Relaxed).is_err() {
            #[cfg(all(test, not(loom)))]
            self.counts.freed.fetch_add(1, Relaxed);
            // SAFETY: rule 4.
            drop(unsafe { Box::from_raw(block) });
        }
    }

    /// Is there nothing that no consumer has claimed? SeqCst: a worker that is about to sleep looks here, see `sleep`.
    pub(super) fn is_empty(&self) -> bool {
        // In this order: both were the same when the second was read, for neither ever goes back.
        let head = self.head.end.index.load(SeqCst);
        slots_before(head) == slots_before(self.tail.index.load(SeqCst))
    }

    /// How many elements there are that no consumer has claimed.
    pub(super) fn len(&self) -> usize {
        loop {
            let tail = self.tail.index.load(SeqCst);
            let head = self.head.end.index.load(SeqCst);
            // Then it was the tail when the head was read, too.
            if self.tail.index.load(SeqCst) == tail {
                return (slots_before(tail) - slots_before(head)) as usize;
            }
        }
    }

    /// [`len`](Self::len), or `enough` if there are so many or more: to see that may take no look at the tail.
    pub(super) fn len_up_to(&self, enough: usize) -> usize {
        let head = self.head.end.index.load(Acquire);
        let seen = self.head.seen.load(Acquire);
        if slots_before(seen).saturating_sub(slots_before(head)) >= enough as u64 {
            enough
        } else {
            self.len().min(enough)
        }
    }
}

/// Slots of one block which this thread has claimed as a consumer, and is not done with. They give their elements.
struct Claimed<'a, T: Element> {
    queue: &'a Injector<T>,
    block: *mut Block,
    /// What is left of them.
    next: usize,
    end: usize,
    count: usize,
}

impl<T: Element> Iterator for Claimed<'_, T> {
    type Item = T;

    #[inline]
    fn next(&mut self) -> Option<T> {
        if self.next == self.end {
            return None;
        }
        // SAFETY: rule 1.
        let slot = unsafe { &(*self.block).slots[self.next] };
        self.next += 1;
        // Acquire: the element, and all that its producer did here.
        let element = Pause::new().until(|| NonNull::new(slot.load(Acquire)));
        // Relaxed: the addition to the count publishes it.
        slot.store(ptr::null_mut(), Relaxed);
        // SAFETY: rule 3.
        Some(unsafe { T::from_raw(element) })
    }
}

impl<T: Element> Drop for Claimed<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.for_each(drop);
        // SAFETY: rule 1. AcqRel: all that was done with the slots before the block is retired.
        let before = unsafe { &(*self.block).done }.fetch_add(self.count, AcqRel);
        if before + self.count == CAPACITY {
            // SAFETY: rule 4.
            let block = unsafe { Box::from_raw(self.block) };
            // Relaxed: nobody else has the block, and `leave` publishes it.
            block.next.store(ptr::null_mut(), Relaxed);
            block.done.store(0, Relaxed);
            self.queue.leave(block);
        }
    }
}

impl<T: Element> Drop for Injector<T> {
    fn drop(&mut self) {
        while let Some(element) = self.pop() {
            drop(element);
        }
        // Of an empty queue both ends are in the same block. Relaxed: no other thread has the queue.
        for block in [self.head.end.block.load(Relaxed), self.spare.load(Relaxed)] {
            if !block.is_null() {
                // SAFETY: nobody else has the queue, so nobody has claimed a slot, or ever will.
                drop(unsafe { Box::from_raw(block) });
            }
        }
    }
}

/// Waits for another thread that is in the middle of something short.
#[cfg(not(loom))]
struct Pause(crossbeam::utils::Backoff);

#[cfg(not(loom))]
impl Pause {
    fn new() -> Self {
        Self(crossbeam::utils::Backoff::new())
    }

    #[cold]
    fn wait(&self) {
        self.0.snooze();
    }

    /// Another thread was faster.
    #[cold]
    fn lost(&self) {
        self.0.spin();
    }
}

/// As above. loom would go on for ever to try how often two threads can wait in turn before a third one goes on.
#[cfg(loom)]
struct Pause(std::cell::Cell<usize>);

#[cfg(loom)]
impl Pause {
    fn new() -> Self {
        Self(std::cell::Cell::new(0))
    }

    fn wait(&self) {
        self.0.set(self.0.get() + 1);
        if self.0.get() > 2 {
            loom::skip_branch();
        }
        loom::thread::yield_now();
    }

    fn lost(&self) {}
}

impl Pause {
    #[inline]
    fn until<R>(&self, found: impl Fn() -> Option<R>) -> R {
        loop {
            if let Some(found) = found() {
                return found;
            }
            self.wait();
        }
    }
}

/// Elements of tests.
#[cfg(test)]
impl<T: Send> Element for Box<T> {
    fn into_raw(self) -> NonNull<()> {
        NonNull::from(Self::leak(self)).cast()
    }

    unsafe fn from_raw(raw: NonNull<()>) -> Self {
        // SAFETY: it was leaked above, and is taken once.
        unsafe { Self::from_raw(raw.as_ptr().cast()) }
    }
}
