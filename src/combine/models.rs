//! Models of the combinators under loom. `ci/loom.sh` runs them.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use loom::sync::atomic::Ordering::SeqCst;
use loom::thread;

use super::set::CompletionSet;
use super::{ReturnWhen, as_completed, as_completed_timeout, wait, wait_async};
use crate::future::models::{Alarm, poll};
use crate::future::promise;

#[test]
fn as_completed_over_two_completions() {
    loom::model(|| {
        let (first, one) = promise::<u32>();
        let (second, two) = promise::<u32>();
        // The waiting thread is not the one that joins: a late wake-up, which is harmless, would break loom's `join`.
        let waiting = thread::spawn(move || {
            let sum: u32 = as_completed([one, two]).map(|future| future.result().unwrap()).sum();
            assert_eq!(sum, 3);
        });
        let producer = thread::spawn(move || first.set_result(1).unwrap());
        second.set_result(2).unwrap();
        waiting.join().unwrap();
        producer.join().unwrap();
    });
}

#[test]
fn wait_for_all() {
    loom::model(|| {
        let (first, one) = promise::<u32>();
        let (second, two) = promise::<u32>();
        let producer = thread::spawn(move || {
            first.set_result(1).unwrap();
            second.set_result(2).unwrap();
        });
        let waited = wait([one, two], None, ReturnWhen::AllCompleted);
        assert_eq!((waited.done.len(), waited.not_done.len()), (2, 0));
        producer.join().unwrap();
    });
}

#[test]
fn wait_for_the_first_failure() {
    loom::model(|| {
        let (first, one) = promise::<u32>();
        let (_second, two) = promise::<u32>();
        let producer = thread::spawn(move || drop(first));
        let waited = wait([one, two], None, ReturnWhen::FirstException);
        assert_eq!((waited.done.len(), waited.not_done.len()), (1, 1));
        producer.join().unwrap();
    });
}

#[test]
fn given_up_while_it_completes() {
    loom::model(|| {
        let (first, one) = promise::<u32>();
        let producer = thread::spawn(move || first.set_result(1).unwrap());
        let mut completed = as_completed_timeout([one], Duration::ZERO);
        let value = match completed.next().unwrap() {
            Ok(future) => future.result(),
            Err(_) => completed.into_unfinished().pop().unwrap().result(),
        };
        assert_eq!(value.unwrap(), 1);
        producer.join().unwrap();
    });
}

#[test]
fn dropped_while_it_completes() {
    loom::model(|| {
        let (first, one) = promise::<u32>();
        let producer = thread::spawn(move || first.set_result(1).unwrap());
        drop(as_completed([one]));
        producer.join().unwrap();
    });
}

#[test]
fn all_awaited() {
    loom::model(|| {
        let (first, one) = promise::<u32>();
        let (second, two) = promise::<u32>();
        let producer = thread::spawn(move || first.set_result(1).unwrap());
        let other = thread::spawn(move || second.set_result(2).unwrap());
        let alarm = Alarm::new();
        let mut waiting = wait_async([one, two], ReturnWhen::AllCompleted);
        let waited = loop {
            match poll(&mut waiting, &alarm) {
                Poll::Ready(waited) => break waited,
                Poll::Pending => alarm.notify.wait(),
            }
        };
        assert_eq!((waited.done.len(), waited.not_done.len()), (2, 0));
        producer.join().unwrap();
        other.join().unwrap();
        assert!(alarm.wakes.load(SeqCst) <= 1);
    });
}

#[test]
fn the_waker_changes_while_it_completes() {
    loom::model(|| {
        let (first, one) = promise::<u32>();
        let producer = thread::spawn(move || first.set_result(1).unwrap());
        let mut waiting = wait_async([one], ReturnWhen::AllCompleted);
        let (before, after) = (Alarm::new(), Alarm::new());
        if poll(&mut waiting, &before).is_pending() {
            while poll(&mut waiting, &after).is_pending() {
                after.notify.wait();
            }
        }
        producer.join().unwrap();
        assert!(before.wakes.load(SeqCst) + after.wakes.load(SeqCst) <= 1);
    });
}

#[test]
fn an_awaited_set_is_dropped_while_it_completes() {
    loom::model(|| {
        let (first, one) = promise::<u32>();
        let producer = thread::spawn(move || first.set_result(1).unwrap());
        let mut waiting = wait_async([one], ReturnWhen::AllCompleted);
        let alarm = Alarm::new();
        let _ = poll(&mut waiting, &alarm);
        drop(waiting);
        producer.join().unwrap();
        assert_eq!(Arc::strong_count(&alarm), 1);
    });
}

/// Polls for two completions one after the other: each is found, whatever polls happen in between.
#[test]
fn completions_one_by_one() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.check(|| {
        let (first, one) = promise::<u32>();
        let (second, two) = promise::<u32>();
        let producer = thread::spawn(move || first.set_result(1).unwrap());
        let other = thread::spawn(move || second.set_result(2).unwrap());
        let alarm = Alarm::new();
        let mut set = CompletionSet::new([one, two], false);
        let waker = Waker::from(Arc::clone(&alarm));
        let context = Context::from_waker(&waker);
        let mut found = Vec::new();
        for count in 1..=2 {
            while set.poll_for(count, &context).is_pending() {
                alarm.notify.wait();
            }
            set.drain(&mut found);
            assert!(found.len() >= count);
        }
        producer.join().unwrap();
        other.join().unwrap();
        assert!(alarm.wakes.load(SeqCst) <= 2);
    });
}

#[cfg(feature = "process")]
mod decoded {
    use super::*;
    use crate::error::TaskError;
    use crate::future::models::Strict;
    use crate::future::{Decode, RemoteTask};

    /// A value that may fail when it is looked at, and does if it is odd.
    struct Even;

    impl Decode<u32> for Even {
        type Value = u32;

        fn is_plain() -> bool {
            false
        }

        fn check(raw: u32) -> Result<u32, TaskError> {
            Ok(raw)
        }

        fn decode(raw: u32) -> Result<u32, TaskError> {
            if raw % 2 == 0 { Ok(raw) } else { Err(TaskError::Abandoned) }
        }
    }

    // One completes while another is looked at; neither has failed, so the wait goes on.
    #[test]
    fn wait_for_the_first_failure_of_values_that_are_looked_at() {
        loom::model(|| {
            let [(first, one), (second, two), (third, three)] = [(); 3].map(|()| RemoteTask::new::<Even, _>(Strict));
            let producer = thread::spawn(move || {
                for (task, raw) in [(first, 2), (second, 4), (third, 5)] {
                    assert!(task.settle(raw).is_none());
                }
            });
            let waited = wait([one, two, three], None, ReturnWhen::FirstException);
            assert!(waited.done.into_iter().any(|future| future.result().is_err()));
            producer.join().unwrap();
        });
    }
}
