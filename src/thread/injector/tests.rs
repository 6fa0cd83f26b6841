//! The queue by itself. Models of it, with short blocks, are in `thread::models::injector`.

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier};
use std::thread;

use super::*;

/// The numbers of a queue's blocks allocated and freed, without the first one.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) allocated: AtomicUsize,
    pub(super) freed: AtomicUsize,
}

/// Miri, which detects uses of freed memory, is slow.
const BLOCKS: usize = if cfg!(miri) { 5 } else { 100 };

type Queue = Injector<Box<usize>>;

/// The numbers of blocks allocated and freed.
fn blocks(queue: &Queue) -> (usize, usize) {
    (queue.counts.allocated.load(Relaxed), queue.counts.freed.load(Relaxed))
}

fn push(queue: &Queue, numbers: impl IntoIterator<Item = usize>) {
    numbers.into_iter().for_each(|number| queue.push(Box::new(number)));
}

fn pop(queue: &Queue) -> Option<usize> {
    queue.pop().map(|number| *number)
}

fn pop_batch(queue: &Queue, most: usize) -> Vec<usize> {
    let own = Deque::new_fifo();
    let first = queue.pop_batch(&own, most);
    first.into_iter().chain(std::iter::from_fn(|| own.pop())).map(|number| *number).collect()
}

#[test]
fn first_in_first_out() {
    let queue = Queue::new();
    assert_eq!(pop(&queue), None);
    push(&queue, 0..1000);
    assert!((0..1000).all(|number| pop(&queue) == Some(number)));
    assert_eq!(pop(&queue), None);
    push(&queue, 1000..1001);
    assert_eq!(pop(&queue), Some(1000));
}

/// Compares the queue with a model, at every position in a block.
#[test]
fn pushes_pops_and_batches_in_turn() {
    let (queue, mut model) = (Queue::new(), VecDeque::new());
    let mut next = 0..;
    for round in 0..20 * BLOCKS {
        let pushed = next.by_ref().take(round % 7);
        pushed.for_each(|number| {
            push(&queue, [number]);
            model.push_back(number);
        });
        assert_eq!(queue.len(), model.len());
        assert_eq!(queue.is_empty(), model.is_empty());
        for enough in [0, 1, 5, 64, 1000] {
            assert_eq!(queue.len_up_to(enough), model.len().min(enough));
        }
        assert_eq!(pop(&queue), model.pop_front());
        let most = 1 + round % 3;
        let batch = pop_batch(&queue, most);
        assert!(batch.len() <= most && batch.is_empty() == model.is_empty());
        batch.into_iter().for_each(|number| assert_eq!(Some(number), model.pop_front()));
    }
}

#[test]
fn a_batch_is_as_long_as_was_asked_for_if_its_block_has_so_many() {
    let queue = Queue::new();
    push(&queue, 0..100);
    assert_eq!(pop_batch(&queue, 8), (0..8).collect::<Vec<_>>());
    assert_eq!(pop_batch(&queue, 1), [8]);
    assert_eq!(pop_batch(&queue, 1000), (9..CAPACITY).collect::<Vec<_>>());
    assert_eq!(pop_batch(&queue, 1000), (CAPACITY..100).collect::<Vec<_>>());
    assert!(pop_batch(&queue, 8).is_empty());
}

/// Each consumer takes the elements of each producer in the order in which they were pushed.
#[test]
fn several_producers_and_consumers() {
    const PRODUCERS: usize = 3;
    const EACH: usize = if cfg!(miri) { 200 } else { 50_000 };
    let (queue, ended) = (Queue::new(), AtomicBool::new(false));
    let start = Barrier::new(2 * PRODUCERS);
    let consume = |batches: bool| {
        start.wait();
        let mut taken = Vec::new();
        loop {
            // Read before the queue is: what was pushed by then is seen.
            let last = ended.load(SeqCst);
            let some = if batches { pop_batch(&queue, 8) } else { Vec::from_iter(pop(&queue)) };
            if !some.is_empty() {
                taken.extend(some);
            } else if last {
                return taken;
            } else {
                thread::yield_now();
            }
        }
    };
    let taken: Vec<Vec<usize>> = thread::scope(|scope| {
        let consumers: Vec<_> = (0..PRODUCERS).map(|n| scope.spawn(move || consume(n % 2 == 0))).collect();
        let produce = |n| {
            start.wait();
            push(&queue, (n * EACH)..((n + 1) * EACH));
        };
        let producers: Vec<_> = (0..PRODUCERS).map(|n| scope.spawn(move || produce(n))).collect();
        producers.into_iter().for_each(|producer| producer.join().unwrap());
        ended.store(true, SeqCst);
        consumers.into_iter().map(|consumer| consumer.join().unwrap()).collect()
    });
    for taken in &taken {
        for producer in 0..PRODUCERS {
            let of_one: Vec<_> = taken.iter().filter(|number| **number / EACH == producer).collect();
            assert!(of_one.is_sorted());
        }
    }
    let mut all: Vec<_> = taken.into_iter().flatten().collect();
    all.sort_unstable();
    assert!(all.into_iter().eq(0..PRODUCERS * EACH));
    assert!(queue.is_empty());
}

#[test]
fn what_is_left_is_dropped_with_the_queue() {
    let element = Arc::new(());
    for (pushed, popped) in [(0, 0), (1, 0), (CAPACITY, 0), (CAPACITY + 1, CAPACITY), (1000, 100), (1000, 1000)] {
        let queue = Injector::new();
        (0..pushed).for_each(|_| queue.push(Box::new(Arc::clone(&element))));
        (0..popped).for_each(|_| drop(queue.pop()));
        assert_eq!(Arc::strong_count(&element), 1 + pushed - popped);
        drop(queue);
        assert_eq!(Arc::strong_count(&element), 1);
    }
}

#[test]
fn a_queue_that_stays_short_needs_two_blocks() {
    for length in [1, 8, CAPACITY] {
        let queue = Queue::new();
        push(&queue, 0..length);
        for number in 0..BLOCKS * CAPACITY {
            assert_eq!(pop(&queue), Some(number));
            push(&queue, [number + length]);
        }
        assert_eq!(blocks(&queue), (1, 0), "{length}");
    }
}

/// As long as producers are ahead, each block that is retired is used again.
#[test]
fn a_queue_that_grows_frees_nothing() {
    let queue = Queue::new();
    for round in 0..BLOCKS * CAPACITY {
        push(&queue, [2 * round, 2 * round + 1]);
        assert_eq!(pop(&queue), Some(round));
    }
    let (allocated, freed) = blocks(&queue);
    assert_eq!(freed, 0);
    assert!((BLOCKS..=BLOCKS + 1).contains(&allocated), "{allocated}");
}

#[test]
fn of_a_long_queue_that_becomes_empty_one_block_is_kept() {
    let queue = Queue::new();
    push(&queue, 0..10 * CAPACITY);
    assert_eq!(blocks(&queue), (10, 0));
    while queue.pop().is_some() {}
    assert_eq!(blocks(&queue), (10, 9));
}

/// The consumer is another thread, and the producer never gets far ahead of it: blocks are reused as in a single thread.
#[test]
fn between_two_threads_blocks_go_round() {
    const ROUNDS: usize = 200 * BLOCKS;
    let (queue, taken) = (Queue::new(), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..ROUNDS {
                while number >= taken.load(Acquire) + CAPACITY / 2 {
                    thread::yield_now();
                }
                push(&queue, [number]);
            }
        });
        for number in 0..ROUNDS {
            let found = loop {
                match pop(&queue) {
                    Some(found) => break found,
                    None => thread::yield_now(),
                }
            };
            assert_eq!(found, number);
            taken.fetch_add(1, Release);
        }
    });
    assert_eq!(blocks(&queue), (1, 0));
}
