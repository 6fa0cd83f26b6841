//! Models of the combinators under loom. `ci/loom.sh` runs them.

use std::time::Duration;

use loom::thread;

use super::{ReturnWhen, as_completed, as_completed_timeout, wait};
use crate::future::promise;

#[test]
fn as_completed_over_two_completions() {
    loom::model(|| {
        let (first, one) = promise::<u32>();
        let (second, two) = promise::<u32>();
        // The waiting thread is not the one that joins: a wake-up that comes late, which is harmless, would be one too
        // many for loom's `join`.
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
