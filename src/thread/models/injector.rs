//! Models of the queue that all threads submit to. A block has two slots here, so a few elements fill several blocks.
//!
//! The first thread is a producer, so that consumers run last in the first execution of each model: loom explores moving a load
//! before an exchange that it followed, but not always moving an exchange before a load, if the exchanging thread has also loaded
//! the value before.

use crossbeam::deque::Worker as Deque;
use loom::alloc::Track;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering::*, fence};
use loom::thread;

use crate::thread::injector::Injector;

/// An element: a number that is visible only to a thread that has synchronized with the producer. loom reports elements that are
/// not dropped.
struct Item(Track<AtomicUsize>);

type Queue = Injector<Box<Item>>;

fn push(queue: &Queue, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        let item = Box::new(Item(Track::new(AtomicUsize::new(0))));
        item.0.get_ref().store(number, Relaxed);
        queue.push(item);
    }
}

/// A taken element, and its number. It is kept to the end, so that no later element has the same address.
struct Taken(usize, #[allow(dead_code)] Box<Item>);

impl Taken {
    fn new(item: Box<Item>) -> Self {
        Self(item.0.get_ref().load(Relaxed), item)
    }
}

fn take(queue: &Queue, times: usize) -> Vec<Taken> {
    (0..times).filter_map(|_| queue.pop()).map(Taken::new).collect()
}

fn pop_batch(queue: &Queue, most: usize) -> Vec<Taken> {
    let own = Deque::new_fifo();
    let first = queue.pop_batch(&own, most);
    first.into_iter().chain(std::iter::from_fn(|| own.pop())).map(Taken::new).collect()
}

fn rest(queue: &Queue) -> Vec<Taken> {
    std::iter::from_fn(|| queue.pop()).map(Taken::new).collect()
}

fn numbers(taken: &[Taken]) -> Vec<usize> {
    taken.iter().map(|taken| taken.0).collect()
}

/// Asserts that each number was taken once.
#[track_caller]
fn assert_all(taken: &[Taken], expected: impl IntoIterator<Item = usize>) {
    let mut found = numbers(taken);
    found.sort_unstable();
    assert_eq!(found, Vec::from_iter(expected));
}

fn spawn<R: 'static>(queue: &Arc<Queue>, f: impl FnOnce(&Queue) -> R + 'static) -> thread::JoinHandle<R> {
    let queue = Arc::clone(queue);
    thread::spawn(move || f(&queue))
}

fn joined<const N: usize>(consumers: [thread::JoinHandle<Vec<Taken>>; N]) -> Vec<Taken> {
    consumers.into_iter().flat_map(|consumer| consumer.join().unwrap()).collect()
}

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.map(|bound| bound.min(preemptions));
    builder.check(model);
}

/// The first element is in the initial block, the push of the second links the next block, and the third is in that block.
#[test]
fn one_producer_and_one_consumer() {
    check(usize::MAX, || {
        let queue = Arc::new(Queue::new());
        let consumer = spawn(&queue, |queue| take(queue, 3));
        push(&queue, 1..=3);
        let mut found = consumer.join().unwrap();
        found.extend(rest(&queue));
        assert_eq!(numbers(&found), [1, 2, 3]);
    });
}

/// Both may find that the next push needs a block.
#[test]
fn two_producers_at_the_end_of_a_block() {
    check(usize::MAX, || {
        let queue = Arc::new(Queue::new());
        push(&queue, [1]);
        let other = spawn(&queue, |queue| push(queue, [2]));
        push(&queue, [3]);
        other.join().unwrap();
        let found = rest(&queue);
        assert_eq!(found[0].0, 1);
        assert_all(&found[1..], 2..=3);
    });
}

/// One block is full. Each consumer takes one of its slots, and one of them retires it, while the producer fills the second
/// block, and needs a third.
#[test]
fn a_block_is_used_again() {
    check(usize::MAX, || {
        let queue = Arc::new(Queue::new());
        push(&queue, 1..=2);
        let consumers = [(); 2].map(|()| spawn(&queue, |queue| take(queue, 1)));
        push(&queue, 3..=5);
        let found = joined(consumers);
        assert_all(&found, 1..=2);
        let rest = rest(&queue);
        assert_eq!(numbers(&rest), [3, 4, 5]);
    });
}

/// The producer reuses a spare block, and the consumer takes from it. It finds none of the block's former elements.
#[test]
fn a_block_that_is_used_again_is_empty() {
    check(usize::MAX, || {
        let queue = Arc::new(Queue::new());
        push(&queue, 1..=3);
        let mut found = take(&queue, 3);
        let consumer = spawn(&queue, |queue| take(queue, 3));
        push(&queue, 4..=6);
        found.extend(consumer.join().unwrap());
        push(&queue, [7]);
        found.extend(rest(&queue));
        assert_eq!(numbers(&found), (1..=7).collect::<Vec<_>>());
    });
}

/// There is a spare block, and two consumers empty the next one, which is then freed or reused.
#[test]
fn a_block_is_retired_while_there_is_a_spare_one() {
    check(2, || {
        let queue = Arc::new(Queue::new());
        push(&queue, 1..=3);
        let mut found = take(&queue, 2);
        let consumers = [1, 3].map(|most| spawn(&queue, move |queue| take(queue, most)));
        push(&queue, 4..=6);
        found.extend(joined(consumers));
        push(&queue, [7]);
        found.extend(rest(&queue));
        assert_all(&found, 1..=7);
    });
}

#[test]
fn two_producers_and_two_consumers() {
    check(2, || {
        let queue = Arc::new(Queue::new());
        push(&queue, [1]);
        let other = spawn(&queue, |queue| push(queue, [2]));
        let consumers = [(); 2].map(|()| spawn(&queue, |queue| take(queue, 1)));
        push(&queue, [3]);
        other.join().unwrap();
        let mut found = joined(consumers);
        found.extend(rest(&queue));
        assert_all(&found, 1..=3);
    });
}

/// A batch ends where its block ends.
#[test]
fn a_batch_against_a_producer_and_a_consumer() {
    check(usize::MAX, || {
        let queue = Arc::new(Queue::new());
        push(&queue, [1]);
        let consumer = spawn(&queue, |queue| take(queue, 1));
        let batch = spawn(&queue, |queue| pop_batch(queue, 4));
        push(&queue, 2..=3);
        let mut found = batch.join().unwrap();
        assert!(matches!(numbers(&found)[..], [] | [_] | [1, 2]));
        found.extend(consumer.join().unwrap());
        found.extend(rest(&queue));
        assert_all(&found, 1..=3);
    });
}

/// Two consumers take batches of a queue that grows: what is taken earlier is older.
#[test]
fn batches_are_in_order() {
    check(2, || {
        let queue = Arc::new(Queue::new());
        push(&queue, 1..=2);
        let consumers = [(); 2].map(|()| spawn(&queue, |queue| pop_batch(queue, 2)));
        push(&queue, 3..=4);
        let batches = consumers.map(|consumer| consumer.join().unwrap());
        for batch in &batches {
            assert!(batch.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
        }
        let mut found: Vec<_> = batches.into_iter().flatten().collect();
        assert_all(&found, 1..=found.len());
        found.extend(rest(&queue));
        assert_all(&found, 1..=4);
    });
}

/// A thread that reads the length sees no more elements than there are, and no fewer than those that no thread takes.
#[test]
fn the_length_while_others_push_and_pop() {
    check(2, || {
        let queue = Arc::new(Queue::new());
        push(&queue, [1]);
        let consumer = spawn(&queue, |queue| take(queue, 1));
        let looks = spawn(&queue, |queue| {
            let len = queue.len();
            assert!(len <= 3, "{len}");
            assert!(queue.len_up_to(1) <= 1);
        });
        push(&queue, 2..=3);
        assert!(!queue.is_empty() && queue.len() >= 2 && queue.len_up_to(2) == 2);
        looks.join().unwrap();
        assert_eq!(numbers(&consumer.join().unwrap()), [1]);
        assert_eq!((queue.len(), queue.len_up_to(1)), (2, 1));
        assert_eq!(numbers(&rest(&queue)), [2, 3]);
        assert!(queue.is_empty() && queue.len() == 0);
    });
}

/// Rules 1 and 3 of `sleep`: a thread that pushes checks for sleepers, and a thread that is about to sleep checks the queue.
#[test]
fn who_is_about_to_sleep_sees_what_was_pushed() {
    check(usize::MAX, || {
        let (queue, asleep) = (Arc::new(Queue::new()), Arc::new(AtomicBool::new(false)));
        let worker = {
            let asleep = Arc::clone(&asleep);
            spawn(&queue, move |queue| {
                asleep.swap(true, SeqCst);
                fence(SeqCst);
                !queue.is_empty()
            })
        };
        push(&queue, [1]);
        fence(SeqCst);
        let wakes = asleep.load(SeqCst);
        assert!(worker.join().unwrap() || wakes);
    });
}

/// `Lane::is_empty` and `Lane::pop`: a thread that finds that an element has been taken sees what was written before it was
/// taken.
#[test]
fn what_was_taken_is_seen_where_it_went() {
    check(usize::MAX, || {
        let (queue, returned) = (Arc::new(Queue::new()), Arc::new(AtomicUsize::new(0)));
        push(&queue, [1]);
        let worker = {
            let returned = Arc::clone(&returned);
            spawn(&queue, move |queue| {
                assert!(!queue.is_empty() || returned.load(Acquire) == 1);
                let found = take(queue, 1);
                assert!(!found.is_empty() || returned.load(Acquire) == 1);
                found
            })
        };
        returned.store(1, SeqCst);
        let mut found = take(&queue, 1);
        found.extend(worker.join().unwrap());
        assert_all(&found, [1]);
    });
}

/// The remaining elements are dropped with the queue, whatever operations preceded.
#[test]
fn a_queue_is_dropped_with_what_is_in_it() {
    check(2, || {
        let queue = Arc::new(Queue::new());
        let consumer = spawn(&queue, |queue| take(queue, 1));
        push(&queue, 1..=3);
        drop(queue);
        consumer.join().unwrap();
    });
}
