//! The queue behind each lane: unbounded, first in, first out, for any number of producers and consumers, and without a lock.
//!
//! # Layout
//!
//! The queue is a list of blocks with [`CAPACITY`] slots each. A slot holds an element, as a pointer, or null. `tail` and `head`
//! each consist of an index and the block that contains it. Index `i` refers to slot `i % LAP` in block number `i / LAP`. The
//! last index of each lap has no slot: while an end is at that index, the thread that claimed the last slot of the block moves
//! the end to the next block, and all others wait. So indexes only grow, and, being 64 bits wide, never wrap around.
//!
//! A producer claims a slot by a compare-exchange on the index of `tail`, and then stores the element in it. A consumer claims
//! one or more slots of a block by a compare-exchange on the index of `head`. From each slot it takes the element, and stores
//! null; if the producer that claimed the slot has not stored the element yet, the consumer waits for it. Then it adds the number
//! of these slots to the block's count of done slots.
//!
//! The consumer whose addition makes that count `CAPACITY` retires the block: the block becomes the queue's *spare*, or is freed
//! if there is one. A producer that needs a block takes the spare before it allocates. So no block is freed unless more blocks
//! are retired than producers need. (The purpose is not to save memory: a block would be freed by a thread other than the one
//! that allocated it, and in allocators these two threads contend.)
//!
//! # Rules
//!
//! 1. A thread dereferences a pointer to a block only for a slot there that it has claimed and is not done with. A producer is
//!    done with a slot when it stores the element; a consumer, when it adds the slot to the block's count.
//! 2. The thread that has claimed the last slot of a block links the next block (a producer), or reads the link (a consumer),
//!    before it is done with that slot.
//! 3. A non-null pointer in a slot is an element that belongs to the queue, until a consumer that has claimed the slot takes it
//!    and stores null.
//! 4. A block that is not linked has one owner, which may change and free it: the consumer that retires it, until it has stored
//!    it in `spare`; the producer that allocated it, or took it from `spare`, until it links it.
//!
//! # Why no thread touches a block that another one has retired
//!
//! *A claimed slot is in the block that was read for it.* A thread reads an index, then the block, and then claims by a
//! compare-exchange from the index that it has read. The block is not one of an earlier lap, because each block is stored before
//! the first index of its lap (Release; the index is read with Acquire). Nor is it one of a later lap: such a block is stored
//! after the index has left the lap that the thread has read, and a thread that reads that block (Acquire) finds the index
//! changed. Then the compare-exchange fails, and the thread does not dereference the pointer: that block may be retired, freed,
//! or in use again.
//!
//! *A claimed slot keeps its block.* A block is retired when consumers are done with all of its slots. A consumer is done with a
//! slot after it has found the element there, that is, after the producer of that slot was done with it (Release; Acquire). So at
//! that time no thread has claimed a slot there that it is not done with; and as all slots are claimed, no thread claims another
//! until the block is linked again. The additions to the count are AcqRel, so everything done to these slots happens before the
//! block is retired.
//!
//! *A block that is linked again is in its initial state.* Its slots are null, because each consumer has stored null before it
//! added to the count. The consumer that retires the block resets its link and its count. This happens before the block is stored
//! in `spare` (Release), hence before it is taken from there (Acquire), and before it is linked and stored in `tail` (Release): a
//! thread that claims a slot there has read its address from one of these (Acquire). So no consumer finds an element of an
//! earlier lap.

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

/// How many slots a block has. With the link they fill eight cache lines. (Two under loom, to keep the models small.)
const CAPACITY: usize = if cfg!(loom) { 2 } else { 63 };

/// The number of indexes per block.
const LAP: u64 = CAPACITY as u64 + 1;

/// The number of slots before an index.
fn slots_before(index: u64) -> u64 {
    index - index / LAP
}

/// A value that can be converted to and from one pointer.
pub(super) trait Element: Send {
    fn into_raw(self) -> NonNull<()>;

    /// # Safety
    /// `raw` must come from [`into_raw`](Self::into_raw), and may be passed to this function once.
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

    /// Returns the index, and a block that contains it if the index is unchanged when a slot is claimed.
    fn read(&self) -> (u64, *mut Block) {
        // The index first. Acquire pairs with the stores in `advance`.
        let index = self.index.load(Acquire);
        (index, self.block.load(Acquire))
    }

    /// Claims `count` slots from `index` on, if the end is still at that index. SeqCst: a push is ordered before the check for
    /// sleepers that follows it, and a thread that finds an element gone from here finds it where it was moved (see `sleep` and
    /// `Lane`).
    fn claim(&self, index: u64, count: usize) -> bool {
        self.index.compare_exchange_weak(index, index + count as u64, SeqCst, Relaxed).is_ok()
    }

    /// Moves the end from the last index of a lap to the first index of the next. The block is stored first, both with Release:
    /// see the module documentation.
    fn advance(&self, next: *mut Block, index: u64) {
        self.block.store(next, Release);
        self.index.store(index, Release);
    }
}

#[derive(Debug)]
struct Head {
    end: End,
    /// An index of the tail that a consumer has read, not necessarily the newest. While the head is before it, consumers need not
    /// read the tail, which producers change all the time.
    seen: AtomicU64,
}

/// The queue; see the module documentation.
#[derive(Debug)]
pub(super) struct Injector<T: Element> {
    head: CachePadded<Head>,
    tail: CachePadded<End>,
    /// A retired block, or null.
    spare: CachePadded<AtomicPtr<Block>>,
    #[cfg(all(test, not(loom)))]
    counts: tests::Counts,
    /// Any thread may push and pop elements, since they are `Send`; the queue hands out no references to them.
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
                // Allocate before the slot is claimed: all other producers wait from then on.
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
                // Rule 2. Release publishes the contents of the new block.
                block.next.store(next, Release);
            }
            // Release publishes the element and the link.
            block.slots[slot].store(element.as_ptr(), Release);
            break;
        }
        // Another producer has claimed the last slot.
        if let Some(unused) = fresh {
            self.leave(unused);
        }
    }

    /// Takes the oldest element.
    pub(super) fn pop(&self) -> Option<T> {
        self.claim(1)?.next()
    }

    /// Takes the oldest element, and moves those that follow it to `to`: at most `most` in all.
    pub(super) fn pop_batch(&self, to: &Deque<T>, most: usize) -> Option<T> {
        let mut claimed = self.claim(most)?;
        let first = claimed.next();
        claimed.for_each(|element| to.push(element));
        first
    }

    /// Claims at least one and at most `most` slots for this thread; `None` if the queue is empty.
    fn claim(&self, most: usize) -> Option<Claimed<'_, T>> {
        let pause = Pause::new();
        loop {
            let (index, block) = self.head.end.read();
            let first = (index % LAP) as usize;
            // Acquire: a thread that reads the head moved below sees a tail at least as new as this one. So the tail is never
            // seen before the head.
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
                // Rule 2. Acquire: the contents of the next block are visible.
                let next = pause.until(|| NonNull::new(link.load(Acquire)));
                self.head.end.advance(next.as_ptr(), index + count as u64 + 1);
            }
            return Some(Claimed { queue: self, block, next: first, end, count });
        }
    }

    fn unused_block(&self) -> Box<Block> {
        // Acquire: everything done to the block is visible.
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

    /// Stores a block in its initial state for the next producer that needs one, or frees it if there is a spare.
    fn leave(&self, block: Box<Block>) {
        let block = Box::into_raw(block);
        // Release publishes everything done to the block.
        if self.spare.compare_exchange(ptr::null_mut(), block, Release, Relaxed).is_err() {
            #[cfg(all(test, not(loom)))]
            self.counts.freed.fetch_add(1, Relaxed);
            // SAFETY: rule 4.
            drop(unsafe { Box::from_raw(block) });
        }
    }

    /// Whether consumers have claimed all elements. SeqCst: a worker that is about to sleep calls this, see `sleep`.
    pub(super) fn is_empty(&self) -> bool {
        // The head first: if the two are equal, they were equal when the tail was read, since neither ever decreases.
        let head = self.head.end.index.load(SeqCst);
        slots_before(head) == slots_before(self.tail.index.load(SeqCst))
    }

    /// The number of elements that no consumer has claimed.
    pub(super) fn len(&self) -> usize {
        loop {
            let tail = self.tail.index.load(SeqCst);
            let head = self.head.end.index.load(SeqCst);
            // Then the tail had this value when the head was read.
            if self.tail.index.load(SeqCst) == tail {
                return (slots_before(tail) - slots_before(head)) as usize;
            }
        }
    }

    /// The smaller of [`len`](Self::len) and `enough`, if possible without reading the tail.
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

/// Slots of one block that this thread has claimed as a consumer and is not done with. Yields their elements.
struct Claimed<'a, T: Element> {
    queue: &'a Injector<T>,
    block: *mut Block,
    /// The first slot whose element has not been taken.
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
        // Acquire: the element, and what its producer did before, are visible.
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
        // SAFETY: rule 1. AcqRel: everything done to the slots happens before the block is retired.
        let before = unsafe { &(*self.block).done }.fetch_add(self.count, AcqRel);
        if before + self.count == CAPACITY {
            // SAFETY: rule 4.
            let block = unsafe { Box::from_raw(self.block) };
            // Relaxed: no other thread has the block, and `leave` publishes it.
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
        // In an empty queue both ends are in the same block. Relaxed: no other thread has the queue.
        for block in [self.head.end.block.load(Relaxed), self.spare.load(Relaxed)] {
            if !block.is_null() {
                // SAFETY: no other thread has the queue, so no slot is claimed, or can be.
                drop(unsafe { Box::from_raw(block) });
            }
        }
    }
}

/// Waits for another thread to complete a short operation.
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

    /// A compare-exchange of another thread succeeded first.
    #[cold]
    fn lost(&self) {
        self.0.spin();
    }
}

/// As above, but bounded: loom would otherwise explore endless alternating waits of two threads before a third proceeds.
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
