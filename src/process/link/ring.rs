//! Calls and replies through shared memory: two single-producer single-consumer byte rings and the futex words for sleeping.
//!
//! ```text
//! file:  │ control page │ ring of calls (mapped twice in a row) │ ring of replies (mapped twice in a row) │
//! ```
//!
//! This module is an unsafe island. Its rules:
//! 1. A ring has one producer, which alone writes `tail`, and one consumer, which alone writes `head`. Bytes from `head` to
//!    `tail` belong to the consumer, all others to the producer. Positions only grow; the place of a position is its remainder
//!    modulo the capacity.
//! 2. A side trusts only its own position. The other side's is read, checked against its own ([`ProtocolError`] if it is
//!    impossible), and used only to compute how much is available. So no access leaves the mapping, whatever the other side
//!    does.
//! 3. Publishing a position is a Release store, reading the other's an Acquire load: the bytes between them are fully written.
//!    This, and sleeping and waking, is in `wait_flags`.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*, fence};
use std::time::Instant;

use super::super::body::Body;
use super::super::wire::{self, CALL_HEAD, Call, ProtocolError, REPLY_HEAD, Reply, padded};
use super::wait_flags;
use crate::os::fault::Note;
use crate::os::{cpu, futex, shm};
use crate::spin::{ONE_WAKE_UP, SpinBudget};

/// The length of each of the two rings, in bytes.
pub(in crate::process) const RING: usize = 256 * 1024;

/// A body up to this length is written to the ring as a whole, with its head; a longer one is streamed.
pub(in crate::process) const INLINE: usize = 64 * 1024;

/// The length of the control page without the entries of the serving threads.
const CONTROL: usize = 4096;

#[repr(C, align(64))]
struct Line<T>(T);

/// The positions of one ring, each written by one side, on cache lines of their own.
#[repr(C)]
struct Positions {
    tail: Line<AtomicU64>,
    head: Line<AtomicU64>,
    /// Not 0: the consumer sleeps, or wants to be notified of what is published. The two sides define the bits.
    consumer_waits: Line<AtomicU32>,
    /// Not 0: the producer sleeps, or wants to be notified of room.
    producer_waits: Line<AtomicU32>,
}

#[repr(C)]
struct Control {
    calls: Positions,
    replies: Positions,
    note: Note,
    cpus: Cpus,
}

/// The CPU on which each side spins for the other, plus 1; 0 if it does not spin. Only a hint, hence Relaxed.
#[repr(C)]
struct Cpus {
    parent: Line<AtomicU32>,
    worker: Line<AtomicU32>,
}

/// Stores the CPU of the calling thread; returns whether the other side is on the same one.
fn meet(own: &AtomicU32, other: &AtomicU32) -> bool {
    let here = cpu::current().map_or(0, |cpu| cpu.wrapping_add(1));
    if own.load(Relaxed) != here {
        own.store(here, Relaxed);
    }
    here != 0 && other.load(Relaxed) == here
}

const _: () = assert!(size_of::<Control>() <= CONTROL);

/// In `consumer_waits` of the replies: the parent's manager wants a message on the socket.
const BELL: u32 = 1;
/// In `consumer_waits` of the replies: threads of the parent sleep on the word.
const SLEEPERS: u32 = 2;

/// The call that a serving thread has begun last.
#[repr(C, align(64))]
struct Running {
    /// The position of the head of that call, plus 1; 0 means none.
    call: AtomicU64,
    /// When it began, in nanoseconds of the monotonic clock.
    begun_at: AtomicU64,
    /// The index of the current item, if the argument is a list.
    item: AtomicU64,
}

/// The memory that a parent and a worker share.
pub(in crate::process) struct Shared {
    control: shm::Mapping,
    calls: shm::Mapping,
    replies: shm::Mapping,
    capacity: usize,
    /// The number of serving threads.
    threads: usize,
}

/// The length of the part of the file before the rings.
fn control_size(threads: usize) -> usize {
    (CONTROL + threads * size_of::<Running>()).next_multiple_of(rustix::param::page_size())
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// The length of the file for rings of length `capacity` and `threads` serving threads.
    pub(in crate::process) fn file_size(capacity: usize, threads: usize) -> usize {
        control_size(threads) + 2 * capacity
    }

    pub(in crate::process) fn map(file: impl AsFd, capacity: usize, threads: usize) -> io::Result<Arc<Self>> {
        if !capacity.is_power_of_two() || threads == 0 || threads > crate::executor::MAX_WORKERS {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let control = control_size(threads);
        Ok(Arc::new(Self {
            control: shm::Mapping::new(&file, 0, control)?,
            calls: shm::Mapping::mirrored(&file, control, capacity)?,
            replies: shm::Mapping::mirrored(&file, control + capacity, capacity)?,
            capacity,
            threads,
        }))
    }

    /// The entries of the serving threads.
    fn running(&self) -> &[Running] {
        // SAFETY: they follow the `CONTROL` bytes, at a multiple of 64, within the mapping (`control_size`), which lives as
        // long as `self`; any bytes are a `Running`, which consists of atomics.
        unsafe { NonNull::slice_from_raw_parts(self.control.base().add(CONTROL).cast(), self.threads).as_ref() }
    }

    fn control(&self) -> &Control {
        // SAFETY: the mapping is `CONTROL` bytes long, page-aligned, and lives as long as `self`; all-zero or any other
        // bytes are a `Control`, which consists of atomics.
        unsafe { self.control.base().cast::<Control>().as_ref() }
    }

    /// The crash note of the worker.
    pub(in crate::process) fn note(&self) -> &Note {
        &self.control().note
    }

    /// Has the worker published a reply that has not been consumed? Only a hint: the caller need not be the consumer.
    pub(in crate::process) fn has_replies(&self) -> bool {
        let replies = &self.control().replies;
        wait_flags::position(&replies.tail.0) != replies.head.0.load(Relaxed)
    }

    /// Asks for a message on the socket at the next reply; returns `false` if there is a reply already.
    pub(in crate::process) fn arm_bell(&self) -> bool {
        wait_flags::announce_bit(&self.control().replies.consumer_waits.0, BELL);
        !self.has_replies()
    }

    /// Cancels [`arm_bell`](Self::arm_bell): a thread is checking for replies.
    pub(in crate::process) fn disarm_bell(&self) {
        let word = &self.control().replies.consumer_waits.0;
        if word.load(Relaxed) & BELL != 0 {
            word.fetch_and(!BELL, Relaxed);
        }
    }

    /// Sleeps until the worker publishes a reply or a thread calls [`wake_sleepers`](Self::wake_sleepers), or until the
    /// deadline; may return spuriously. Does not sleep if `look`, called after the flag is set, returns `true`.
    pub(in crate::process) fn sleep(&self, look: impl FnOnce() -> bool, deadline: Option<Instant>) {
        let word = &self.control().replies.consumer_waits.0;
        let seen = wait_flags::announce_bit(word, SLEEPERS);
        if !self.has_replies() && !look() {
            futex::wait(word, seen, deadline);
        }
    }

    /// For a thread of the parent that spins for replies: does the worker spin for calls on the same CPU?
    pub(in crate::process) fn shares_cpu_with_worker(&self) -> bool {
        let cpus = &self.control().cpus;
        meet(&cpus.parent.0, &cpus.worker.0)
    }

    /// The same for the worker.
    pub(in crate::process) fn shares_cpu_with_parent(&self) -> bool {
        let cpus = &self.control().cpus;
        meet(&cpus.worker.0, &cpus.parent.0)
    }

    /// Called when the thread of the parent stops spinning.
    pub(in crate::process) fn leave_cpu_of_parent(&self) {
        self.control().cpus.parent.0.store(0, Relaxed);
    }

    /// Called when the worker is about to sleep.
    pub(in crate::process) fn leave_cpu_of_worker(&self) {
        self.control().cpus.worker.0.store(0, Relaxed);
    }

    /// Where serving thread `thread` stores the index of the item of its call that has begun last.
    pub(in crate::process) fn progress(&self, thread: usize) -> &AtomicU64 {
        &self.running()[thread].item
    }

    /// Like [`wake_sleepers`](Self::wake_sleepers), for a worker that has died and may have cleared the word without waking the
    /// sleepers.
    pub(in crate::process) fn release_sleepers(&self) {
        let word = &self.control().replies.consumer_waits.0;
        word.store(0, SeqCst);
        futex::wake_all(word);
    }

    /// Wakes the threads of this process that sleep in [`sleep`](Self::sleep).
    pub(in crate::process) fn wake_sleepers(&self) {
        let word = &self.control().replies.consumer_waits.0;
        if wait_flags::take_bit(word, SLEEPERS) {
            futex::wake_all(word);
        }
    }
}

/// The writing end of a ring.
struct Producer {
    shared: Arc<Shared>,
    positions: NonNull<Positions>,
    data: NonNull<u8>,
    capacity: usize,
    tail: u64,
    /// The consumer's position when it was last read.
    head: u64,
}

/// The reading end of a ring.
struct Consumer {
    /// The memory that the pointers point into.
    shared: Arc<Shared>,
    positions: NonNull<Positions>,
    data: NonNull<u8>,
    capacity: usize,
    head: u64,
    /// The producer's position when it was last read.
    tail: u64,
}

// SAFETY: the pointers are into `shared`, which is held; the ends are used by one thread at a time (`&mut`).
unsafe impl Send for Producer {}
// SAFETY: as above.
unsafe impl Send for Consumer {}
// SAFETY: through `&self` only atomics are accessed.
unsafe impl Sync for Producer {}
// SAFETY: as above.
unsafe impl Sync for Consumer {}

impl Producer {
    fn positions(&self) -> &Positions {
        // SAFETY: into `shared`, which `self` holds.
        unsafe { self.positions.as_ref() }
    }

    /// How many bytes can be written.
    fn room(&mut self) -> Result<usize, ProtocolError> {
        self.head = wait_flags::position(&self.positions().head.0);
        let used = self.tail.wrapping_sub(self.head);
        // Rule 2.
        match usize::try_from(used) {
            Ok(used) if used <= self.capacity => Ok(self.capacity - used),
            _ => Err(ProtocolError("a position that cannot be")),
        }
    }

    fn has_room(&mut self, wanted: usize) -> Result<bool, ProtocolError> {
        // The position that was read last may be enough.
        let used = self.tail.wrapping_sub(self.head);
        if used <= self.capacity as u64 && self.capacity - used as usize >= wanted {
            return Ok(true);
        }
        Ok(self.room()? >= wanted)
    }

    /// Writes bytes at offset `at` from the tail, without publishing them. The caller has checked that there is room.
    fn write(&mut self, at: usize, bytes: &[u8]) {
        debug_assert!(at + bytes.len() <= self.capacity);
        let place = (self.tail as usize).wrapping_add(at) & (self.capacity - 1);
        // SAFETY: `place` is within the ring, and the bytes fit into the ring, so they are within its two consecutive mappings.
        // They belong to the producer (rule 1), because there is room.
        unsafe { self.data.add(place).copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }

    fn publish(&mut self, length: usize) {
        self.tail = self.tail.wrapping_add(length as u64);
        wait_flags::publish(&self.positions().tail.0, self.tail);
    }

    /// The word of a frame's head that both sides may change.
    fn word(&self, position: u64) -> &AtomicU32 {
        let place = position as usize & (self.capacity - 1);
        // SAFETY: within the ring; frames start at multiples of 16. The caller knows that the frame's place has not been
        // reused: only this producer could do so.
        unsafe { self.data.add(place).cast::<AtomicU32>().as_ref() }
    }

    /// Has the consumer passed that position? If so, this side may have reused the place.
    fn is_passed(&self, position: u64) -> bool {
        wait_flags::position(&self.positions().head.0).wrapping_sub(position) as i64 > 0
    }
}

impl Consumer {
    fn positions(&self) -> &Positions {
        // SAFETY: into `shared`, which `self` holds.
        unsafe { self.positions.as_ref() }
    }

    /// How many bytes can be read.
    fn available(&mut self) -> Result<usize, ProtocolError> {
        self.tail = wait_flags::position(&self.positions().tail.0);
        let there = self.tail.wrapping_sub(self.head);
        // Rule 2.
        match usize::try_from(there) {
            Ok(there) if there <= self.capacity => Ok(there),
            _ => Err(ProtocolError("a position that cannot be")),
        }
    }

    fn at(&self, at: usize) -> NonNull<u8> {
        let place = (self.head as usize).wrapping_add(at) & (self.capacity - 1);
        // SAFETY: within the first of the two consecutive mappings.
        unsafe { self.data.add(place) }
    }

    /// Copies `N` bytes from the head without consuming them. The caller has checked that they are available.
    fn read<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        // SAFETY: `N` is less than the capacity, so the bytes are within the two consecutive mappings.
        unsafe { self.at(0).copy_to_nonoverlapping(NonNull::from(&mut bytes).cast(), N) };
        bytes
    }

    fn advance(&mut self, length: usize) {
        self.head = self.head.wrapping_add(length as u64);
        wait_flags::publish(&self.positions().head.0, self.head);
    }

    /// Copies what is available of a body of that length to `to`, and returns how much that was.
    fn read_body(&mut self, to: &mut Body, length: usize) -> Result<usize, ProtocolError> {
        let now = (length - to.len()).min(self.available()?);
        assert!(now <= to.room());
        // SAFETY: available, so within the ring; and there is room.
        unsafe {
            self.at(0).copy_to_nonoverlapping(to.end(), now);
            to.advance(now);
        }
        self.advance(now);
        Ok(now)
    }
}

fn producer(shared: &Arc<Shared>, positions: &Positions, ring: &shm::Mapping) -> Producer {
    let (positions, data) = (NonNull::from(positions), ring.base());
    Producer { shared: Arc::clone(shared), positions, data, capacity: shared.capacity, tail: 0, head: 0 }
}

fn consumer(shared: &Arc<Shared>, positions: &Positions, ring: &shm::Mapping) -> Consumer {
    let (positions, data) = (NonNull::from(positions), ring.base());
    Consumer { shared: Arc::clone(shared), positions, data, capacity: shared.capacity, head: 0, tail: 0 }
}

/// The parent's ends.
pub(in crate::process) struct ParentEnd {
    calls: Producer,
    replies: Consumer,
}

impl ParentEnd {
    pub(in crate::process) fn new(shared: &Arc<Shared>) -> Self {
        let control = shared.control();
        Self {
            calls: producer(shared, &control.calls, &shared.calls),
            replies: consumer(shared, &control.replies, &shared.replies),
        }
    }

    pub(in crate::process) fn shared(&self) -> &Arc<Shared> {
        &self.calls.shared
    }

    /// Writes a call with as much of the body as fits; returns the position of its head and how much of the body was written.
    /// `None`: not enough room even for the head. A short body is written as a whole or not at all. Does not wake the worker.
    pub(in crate::process) fn send(
        &mut self,
        call: Call,
        claim: u32,
        body: &[u8],
    ) -> Result<Option<(u64, usize)>, ProtocolError> {
        let whole = body.len() <= INLINE;
        let wanted = Self::with_head(body.len());
        if !self.calls.has_room(wanted)? {
            return Ok(None);
        }
        let position = self.calls.tail;
        self.calls.write(0, &call.to_bytes(claim));
        if !whole {
            self.calls.publish(CALL_HEAD);
            return Ok(Some((position, self.send_more(body, 0)?)));
        }
        self.calls.write(CALL_HEAD, body);
        self.calls.publish(wanted);
        Ok(Some((position, padded(body.len()))))
    }

    /// Is there room for the head of a call whose body has that length, and for the part of the body that is published with the
    /// head?
    pub(in crate::process) fn has_room_for(&mut self, length: usize) -> Result<bool, ProtocolError> {
        self.calls.has_room(Self::with_head(length))
    }

    /// The number of bytes published at once: the head, and the body if it is short.
    fn with_head(length: usize) -> usize {
        CALL_HEAD + if length <= INLINE { padded(length) } else { 0 }
    }

    /// Writes more of a long body, of which `sent` bytes have been written; returns the new total, padding included.
    pub(in crate::process) fn send_more(&mut self, body: &[u8], sent: usize) -> Result<usize, ProtocolError> {
        let rest = &body[sent..];
        let room = self.calls.room()?;
        if room >= padded(rest.len()) {
            self.calls.write(0, rest);
            self.calls.publish(padded(rest.len()));
            return Ok(padded(body.len()));
        }
        let now = room & !(wire::ALIGN - 1);
        self.calls.write(0, &rest[..now]);
        self.calls.publish(now);
        Ok(sent + now)
    }

    /// Asks the worker to send a message when it has made room.
    pub(in crate::process) fn want_room(&mut self) {
        wait_flags::announce(&self.calls.positions().producer_waits.0);
    }

    /// Wakes the worker if it sleeps for calls.
    pub(in crate::process) fn wake_worker(&self) {
        wake(&self.calls.positions().consumer_waits.0);
    }

    /// Takes back the call whose head is at `position`, if the worker has not begun it.
    pub(in crate::process) fn take_back(&self, position: u64) -> bool {
        !self.calls.is_passed(position) && wait_flags::take_back(self.calls.word(position))
    }

    pub(in crate::process) fn has_begun(&self, position: u64) -> bool {
        self.calls.is_passed(position) || self.calls.word(position).load(Acquire) != wait_flags::QUEUED
    }

    /// When the worker began that call, in nanoseconds of the monotonic clock; 0 if it has not.
    pub(in crate::process) fn begun_at(&self, position: u64) -> u64 {
        self.running(position).map_or(0, |running| running.begun_at.load(Relaxed))
    }

    /// How many items of that call the worker has begun.
    pub(in crate::process) fn progress(&self, position: u64) -> u64 {
        self.running(position).map_or(0, |running| running.item.load(Relaxed))
    }

    /// The entry of the thread that runs that call. Acquire pairs with the Release of `begin`.
    fn running(&self, position: u64) -> Option<&Running> {
        self.shared().running().iter().find(|running| running.call.load(Acquire) == position + 1)
    }

    /// The head of the next reply, if there is one.
    pub(in crate::process) fn receive(&mut self) -> Result<Option<Reply>, ProtocolError> {
        match self.replies.available()? {
            0 => return Ok(None),
            // Heads are published as a whole.
            1..REPLY_HEAD => return Err(ProtocolError("half a reply")),
            _ => {}
        }
        let reply = Reply::from_bytes(&self.replies.read())?;
        self.replies.advance(REPLY_HEAD);
        Ok(Some(reply))
    }

    /// Receives what is available of a body of that length; returns `true` when it is complete.
    pub(in crate::process) fn receive_body(&mut self, body: &mut Body, length: usize) -> Result<bool, ProtocolError> {
        if body.len() < length {
            self.replies.read_body(body, length)?;
        }
        let padding = padded(length) - length;
        let whole = body.len() == length && self.replies.available()? >= padding;
        if whole {
            self.replies.advance(padding);
        }
        wake(&self.replies.positions().producer_waits.0);
        Ok(whole)
    }

    /// See [`Shared::arm_bell`].
    pub(in crate::process) fn arm_bell(&self) -> bool {
        self.shared().arm_bell()
    }

    pub(in crate::process) fn has_replies(&self) -> bool {
        self.shared().has_replies()
    }
}

/// Wakes the threads that sleep on a word.
fn wake(word: &AtomicU32) {
    if wait_flags::take(word) {
        futex::wake_all(word);
    }
}

/// Overwrites the memory of the replies, as a faulty worker might.
#[cfg(fuzzing)]
pub(in crate::process) fn scribble(shared: &Shared, tail: u64, bytes: &[u8]) {
    let length = bytes.len().min(shared.capacity);
    // SAFETY: at most as many bytes as the ring has.
    unsafe { shared.replies.base().copy_from_nonoverlapping(NonNull::from(bytes).cast(), length) };
    shared.control().replies.tail.0.store(tail, SeqCst);
    shared.control().calls.head.0.store(tail.rotate_left(7), SeqCst);
}

/// The worker's end of the calls.
pub(in crate::process) struct Calls(Consumer, SpinBudget);

/// The worker's end of the replies.
pub(in crate::process) struct Replies(Producer, SpinBudget);

/// The worker's ends.
pub(in crate::process) fn worker_ends(shared: &Arc<Shared>) -> (Calls, Replies) {
    let control = shared.control();
    (
        Calls(consumer(shared, &control.calls, &shared.calls), SpinBudget::new(ONE_WAKE_UP)),
        Replies(producer(shared, &control.replies, &shared.replies), SpinBudget::new(ONE_WAKE_UP)),
    )
}

/// Spins until a worker in the middle of a long value can continue. Stops if the parent is on the same CPU: a worker that
/// sleeps instead is woken on another CPU, and then both sides copy at the same time.
fn look_out(
    budget: &SpinBudget,
    shared: &Shared,
    mut can_go_on: impl FnMut() -> Result<bool, ProtocolError>,
) -> Result<bool, ProtocolError> {
    let mut found = Ok(false);
    let stop = || {
        found = can_go_on();
        found != Ok(false) || shared.shares_cpu_with_parent()
    };
    budget.spin_until(stop, || false);
    found
}

impl Calls {
    /// Is there a call?
    pub(in crate::process) fn is_ready(&mut self) -> Result<bool, ProtocolError> {
        Ok(self.0.available()? >= CALL_HEAD)
    }

    /// Sleeps until there may be something to read.
    pub(in crate::process) fn sleep(&mut self) -> Result<(), ProtocolError> {
        self.sleep_unless(0)
    }

    fn sleep_unless(&mut self, had: usize) -> Result<(), ProtocolError> {
        wait_flags::announce(&self.0.positions().consumer_waits.0);
        if self.0.available()? <= had {
            futex::wait(&self.0.positions().consumer_waits.0, 1, None);
        }
        self.0.positions().consumer_waits.0.store(0, Relaxed);
        Ok(())
    }

    /// Serving thread `thread` begins the next call, which [`is_ready`](Self::is_ready) has announced. `None`: the parent has
    /// taken it back, and it has been skipped.
    pub(in crate::process) fn begin(&mut self, now: u64, thread: usize) -> Result<Option<Call>, ProtocolError> {
        // SAFETY: within the ring; heads are aligned to 16 bytes.
        let word = unsafe { self.0.at(0).cast::<AtomicU32>().as_ref() };
        // Stored first, so that a thread that sees that the call has begun also sees when.
        let running = &self.0.shared.running()[thread];
        running.begun_at.store(now, Relaxed);
        running.item.store(0, Relaxed);
        running.call.store(self.0.head + 1, Release);
        let taken = !wait_flags::begin(word);
        let call = Call::from_bytes(&self.0.read())?;
        self.0.advance(CALL_HEAD);
        if taken {
            self.0.advance(padded(call.len));
            return Ok(None);
        }
        Ok(Some(call))
    }

    /// Passes the body of the call that has just begun to `f`, in place. The body must be short.
    pub(in crate::process) fn with_body<R>(&mut self, length: usize, f: impl FnOnce(&[u8]) -> R) -> R {
        assert!(length <= INLINE);
        // SAFETY: a short body was published with its head, so it is available, and contiguous in the two consecutive mappings.
        // The parent, which a worker trusts, does not write there before `advance` has published that the body was read.
        let result = f(unsafe { NonNull::slice_from_raw_parts(self.0.at(0), length).as_ref() });
        self.0.advance(padded(length));
        result
    }

    /// Spins for more of a body; returns `true` if there is some.
    fn look(&mut self) -> Result<bool, ProtocolError> {
        let Self(ring, budget) = self;
        let shared = Arc::clone(&ring.shared);
        look_out(budget, &shared, || Ok(ring.available()? > 0))
    }

    /// Copies a long body to `to`, as it arrives. `bell` notifies the parent of room.
    pub(in crate::process) fn read_body(
        &mut self,
        to: &mut Body,
        length: usize,
        mut bell: impl FnMut(),
    ) -> Result<(), ProtocolError> {
        while to.len() < length {
            let read = self.0.read_body(to, length)?;
            if self.must_announce_room() {
                bell();
            }
            if read == 0 {
                self.0.positions().consumer_waits.0.store(0, Relaxed);
                if !self.look()? {
                    self.sleep()?;
                }
            }
        }
        let padding = padded(length) - length;
        while self.0.available()? < padding {
            self.sleep_unless(padding - 1)?;
        }
        self.0.advance(padding);
        Ok(())
    }

    /// Must the parent be notified of room? Only if it asked for it and at least half of the ring is free, so that the wake-up
    /// is worthwhile.
    pub(in crate::process) fn must_announce_room(&self) -> bool {
        let word = &self.0.positions().producer_waits.0;
        fence(SeqCst);
        if word.load(Relaxed) == 0 {
            return false;
        }
        let used = self.0.positions().tail.0.load(Acquire).wrapping_sub(self.0.head);
        used <= self.0.capacity as u64 / 2 && word.swap(0, SeqCst) != 0
    }
}

impl Replies {
    /// Writes a reply; sleeps when there is no room. `bell` sends a message on the socket.
    pub(in crate::process) fn send(
        &mut self,
        reply: Reply,
        body: &[u8],
        mut bell: impl FnMut(),
    ) -> Result<(), ProtocolError> {
        let whole = body.len() <= INLINE;
        let wanted = REPLY_HEAD + if whole { padded(body.len()) } else { 0 };
        self.wait_for(wanted, &mut bell)?;
        self.0.write(0, &reply.to_bytes());
        if whole {
            self.0.write(REPLY_HEAD, body);
            self.0.publish(wanted);
            return Ok(());
        }
        self.0.publish(REPLY_HEAD);
        let mut sent = 0;
        while sent < body.len() {
            self.wait_for(wire::ALIGN, &mut bell)?;
            let rest = &body[sent..];
            let room = self.0.room()?;
            if room >= padded(rest.len()) {
                self.0.write(0, rest);
                self.0.publish(padded(rest.len()));
                return Ok(());
            }
            let now = room & !(wire::ALIGN - 1);
            self.0.write(0, &rest[..now]);
            self.0.publish(now);
            sent += now;
            self.ring(&mut bell);
        }
        Ok(())
    }

    fn wait_for(&mut self, wanted: usize, bell: &mut impl FnMut()) -> Result<(), ProtocolError> {
        while !self.0.has_room(wanted)? {
            self.ring(bell);
            if self.look(wanted)? {
                return Ok(());
            }
            wait_flags::announce(&self.0.positions().producer_waits.0);
            if self.0.room()? < wanted {
                futex::wait(&self.0.positions().producer_waits.0, 1, None);
            }
            self.0.positions().producer_waits.0.store(0, Relaxed);
        }
        Ok(())
    }

    /// Spins for room; returns `true` if there is enough.
    fn look(&mut self, wanted: usize) -> Result<bool, ProtocolError> {
        let Self(ring, budget) = self;
        let shared = Arc::clone(&ring.shared);
        look_out(budget, &shared, || ring.has_room(wanted))
    }

    /// Notifies the parent that there are replies: wakes sleepers, and calls `bell` if the manager has asked for it.
    pub(in crate::process) fn ring(&self, bell: &mut impl FnMut()) {
        let word = &self.0.positions().consumer_waits.0;
        let wanted = wait_flags::take_bits(word);
        if wanted & SLEEPERS != 0 {
            futex::wake_all(word);
        }
        if wanted & BELL != 0 {
            bell();
        }
    }

    /// Wakes only the threads that sleep for a reply.
    pub(in crate::process) fn wake_sleepers(&self) {
        self.0.shared.wake_sleepers();
    }

    /// Has everything been consumed?
    pub(in crate::process) fn are_consumed(&self) -> bool {
        self.0.positions().head.0.load(Acquire) == self.0.tail
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::body::Element;
    use super::super::super::wire::CallKind;
    use super::*;

    const GARBLED: ProtocolError = ProtocolError("a position that cannot be");

    fn shared() -> Arc<Shared> {
        let page = rustix::param::page_size();
        Shared::map(shm::create(Shared::file_size(page, 1)).unwrap(), page, 1).unwrap()
    }

    /// Impossible positions of the other side of a ring, if this one is at `own`: behind it, or ahead by more than the length
    /// of the ring.
    fn impossible(own: u64, capacity: u64) -> impl Iterator<Item = u64> {
        let ahead = [capacity + 1, capacity + 16, 2 * capacity, 1 << 31, 1 << 32, 1 << 63, u64::MAX - 16, u64::MAX];
        ahead.into_iter().map(move |ahead| own.wrapping_add(ahead))
    }

    fn call(len: usize) -> Call {
        Call { kind: CallKind::Task, id: 1, function: 1, len, attachments: 0 }
    }

    #[test]
    fn a_consumer_believes_no_position_beyond_the_ring() {
        let shared = shared();
        let capacity = shared.capacity as u64;
        for own in [0, 16, capacity - 16, capacity, u64::MAX - 15] {
            for position in impossible(own, capacity) {
                let mut parent = ParentEnd::new(&shared);
                parent.replies.head = own;
                shared.control().replies.tail.0.store(position, SeqCst);
                assert_eq!(parent.replies.available(), Err(GARBLED), "{own}, {position}");
                assert_eq!(parent.receive().err(), Some(GARBLED));
                let mut body = Body::with_capacity(Element::BYTE, 100).unwrap();
                assert_eq!(parent.receive_body(&mut body, 100), Err(GARBLED));
                assert_eq!((body.len(), parent.replies.head), (0, own), "nothing has been read");

                let (mut calls, _) = worker_ends(&shared);
                calls.0.head = own;
                shared.control().calls.tail.0.store(position, SeqCst);
                assert_eq!(calls.is_ready(), Err(GARBLED));
            }
            // The farthest valid position.
            let mut parent = ParentEnd::new(&shared);
            parent.replies.head = own;
            shared.control().replies.tail.0.store(own.wrapping_add(capacity), SeqCst);
            assert_eq!(parent.replies.available(), Ok(shared.capacity));
        }
    }

    #[test]
    fn a_producer_believes_no_position_beyond_the_ring() {
        let shared = shared();
        let capacity = shared.capacity as u64;
        for own in [0, 16, capacity - 16, capacity, u64::MAX - 15] {
            // The consumer's positions, seen from the producer's, are behind it.
            for position in impossible(0, capacity).map(|behind| own.wrapping_sub(behind)) {
                let mut parent = ParentEnd::new(&shared);
                shared.control().calls.head.0.store(position, SeqCst);
                // The position that was read last, according to which there is room or none.
                for seen in [own, own.wrapping_sub(capacity), position] {
                    (parent.calls.tail, parent.calls.head) = (own, seen);
                    assert_eq!(parent.calls.room(), Err(GARBLED), "{own}, {position}");
                    if seen != own {
                        parent.calls.head = seen;
                        assert_eq!(parent.calls.has_room(16), Err(GARBLED), "{own}, {position}, {seen}");
                        parent.calls.head = seen;
                        assert_eq!(parent.send(call(100), 1, &[1; 100]), Err(GARBLED));
                        parent.calls.head = seen;
                        assert_eq!(parent.send_more(&[1; 100], 16), Err(GARBLED));
                    }
                    assert_eq!(parent.calls.tail, own, "nothing has been written");
                }
            }
            let mut parent = ParentEnd::new(&shared);
            (parent.calls.tail, parent.calls.head) = (own, own);
            shared.control().calls.head.0.store(own.wrapping_sub(capacity), SeqCst);
            assert_eq!(parent.calls.room(), Ok(0));
        }
    }
}
