//! The threads of a pool: who is there, under which number, and when they are all gone.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::*};
use std::thread::JoinHandle;
use std::time::Instant;

use crossbeam::deque::Stealer;
use parking_lot::{Condvar, Mutex};

use super::join::JobRef;
use super::stats::Tally;
use crate::future::Task;

/// What the workers of a pool see of each other.
pub(super) struct Peer {
    pub(super) number: usize,
    pub(super) tasks: Stealer<Task>,
    pub(super) jobs: Stealer<JobRef>,
    pub(super) tally: Arc<Tally>,
}

impl Peer {
    /// How much is in its own queues.
    pub(super) fn waiting(&self) -> usize {
        self.tasks.len() + self.jobs.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.jobs.is_empty()
    }
}

pub(super) type Peers = Arc<[Arc<Peer>]>;

pub(super) struct Roster {
    table: Mutex<Table>,
    /// Changes with every change of the table's peers, so that workers can keep a copy of the list.
    version: AtomicUsize,
    /// Signalled when the last thread ends.
    emptied: Condvar,
    /// Held by whoever joins threads, so that of several callers none returns before they are gone.
    joining: Mutex<()>,
}

struct Table {
    peers: Peers,
    /// The numbers in use, started or about to be.
    numbers: Vec<usize>,
    handles: Vec<JoinHandle<()>>,
    /// How many threads are being started, and have no handle yet.
    starting: usize,
    /// The workers that have signed off, and have only their last steps to go.
    leaving: Vec<Arc<Peer>>,
    /// What the workers that have ended did.
    past: Tally,
}

impl Table {
    fn is_empty(&self) -> bool {
        self.numbers.is_empty() && self.starting == 0
    }
}

impl Roster {
    pub(super) fn new() -> Self {
        let table = Table {
            peers: Arc::from([]),
            numbers: Vec::new(),
            handles: Vec::new(),
            starting: 0,
            leaving: Vec::new(),
            past: Tally::default(),
        };
        Self {
            table: Mutex::new(table),
            version: AtomicUsize::new(0),
            emptied: Condvar::new(),
            joining: Mutex::new(()),
        }
    }

    /// Starts a thread by `spawn`, under the lowest free number, if `wanted`. A pool that was closed before this call sees
    /// no new thread, and one that is closed later waits for it.
    pub(super) fn start(
        &self,
        wanted: impl FnOnce() -> bool,
        spawn: impl FnOnce(usize) -> io::Result<JoinHandle<()>>,
    ) -> io::Result<()> {
        let number = {
            let mut table = self.table.lock();
            if !wanted() {
                return Ok(());
            }
            // Threads that have ended need no joining; keeping their handles would keep their stacks.
            table.handles.retain(|handle| !handle.is_finished());
            let free = (0..).find(|number| !table.numbers.contains(number));
            let number = free.expect("there are more numbers than threads");
            table.numbers.push(number);
            table.starting += 1;
            number
        };
        // Not under the lock, which is the first thing that the new thread wants.
        let spawned = spawn(number);
        let mut table = self.table.lock();
        table.starting -= 1;
        let outcome = match spawned {
            Ok(handle) => {
                table.handles.push(handle);
                Ok(())
            }
            Err(error) => {
                table.numbers.retain(|other| *other != number);
                Err(error)
            }
        };
        self.tell_if_empty(&table);
        outcome
    }

    fn tell_if_empty(&self, table: &Table) {
        if table.is_empty() {
            self.emptied.notify_all();
        }
    }

    pub(super) fn enter(&self, peer: Arc<Peer>) {
        self.change(|_, peers| peers.push(peer));
    }

    pub(super) fn leave(&self, number: usize) {
        self.change(|table, peers| {
            if let Some(at) = peers.iter().position(|peer| peer.number == number) {
                table.leaving.push(peers.remove(at));
            }
        });
    }

    fn change(&self, change: impl FnOnce(&mut Table, &mut Vec<Arc<Peer>>)) {
        let mut table = self.table.lock();
        let mut peers = table.peers.to_vec();
        change(&mut table, &mut peers);
        table.peers = peers.into();
        // Release pairs with the Acquire of `version`: who sees the number finds the list.
        self.version.fetch_add(1, Release);
    }

    /// The thread with that number is about to return.
    pub(super) fn ended(&self, number: usize) {
        let mut table = self.table.lock();
        if let Some(at) = table.leaving.iter().position(|peer| peer.number == number) {
            let peer = table.leaving.swap_remove(at);
            table.past.add(&peer.tally);
        }
        table.numbers.retain(|other| *other != number);
        self.tell_if_empty(&table);
    }

    pub(super) fn version(&self) -> usize {
        self.version.load(Acquire)
    }

    pub(super) fn peers(&self) -> Peers {
        Arc::clone(&self.table.lock().peers)
    }

    /// What all workers, past and present, have done.
    pub(super) fn tally(&self) -> Tally {
        let table = self.table.lock();
        let sum = Tally::default();
        sum.add(&table.past);
        table.peers.iter().chain(&table.leaving).for_each(|peer| sum.add(&peer.tally));
        sum
    }

    /// Blocks until no thread is left, or the deadline; says whether none is left. All of them have been joined then.
    pub(super) fn wait_until_empty(&self, deadline: Option<Instant>) -> bool {
        let mut table = self.table.lock();
        while !table.is_empty() {
            match deadline {
                None => self.emptied.wait(&mut table),
                Some(deadline) => {
                    if self.emptied.wait_until(&mut table, deadline).timed_out() && !table.is_empty() {
                        return false;
                    }
                }
            }
        }
        drop(table);
        // The threads have only the destructors of their thread-locals left, which may ask for the table.
        let _joining = self.joining.lock();
        let handles = std::mem::take(&mut self.table.lock().handles);
        for handle in handles {
            let _ = handle.join();
        }
        true
    }
}
