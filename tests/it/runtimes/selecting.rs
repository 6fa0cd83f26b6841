//! Awaited beside something else, in all the ways that the ecosystem has: what loses is still good.

use std::future::{self, Future};
use std::time::Duration;

use futures::FutureExt;
use smol::future::FutureExt as _;

use super::support::*;
use crate::support::guarded;

/// Which of two things came first.
#[derive(Debug)]
enum First<A, B> {
    One(A),
    Other(B),
}

/// How one waits for the first of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    TokioSelect,
    FuturesSelect,
    FuturesSelectMacro,
    Or,
    Race,
}

const WAYS: [Way; 5] = [Way::TokioSelect, Way::FuturesSelect, Way::FuturesSelectMacro, Way::Or, Way::Race];

impl Way {
    async fn first<A, B>(
        self,
        mut one: impl Future<Output = A> + Unpin,
        mut other: impl Future<Output = B> + Unpin,
    ) -> First<A, B> {
        match self {
            Self::TokioSelect => tokio::select! {
                value = &mut one => First::One(value),
                value = &mut other => First::Other(value),
            },
            Self::FuturesSelect => match futures::future::select(one, other).await {
                futures::future::Either::Left((value, _)) => First::One(value),
                futures::future::Either::Right((value, _)) => First::Other(value),
            },
            Self::FuturesSelectMacro => {
                let (mut one, mut other) = ((&mut one).fuse(), (&mut other).fuse());
                futures::select! {
                    value = one => First::One(value),
                    value = other => First::Other(value),
                }
            }
            Self::Or => one.map(First::One).or(other.map(First::Other)).await,
            Self::Race => one.map(First::One).race(other.map(First::Other)).await,
        }
    }
}

#[test]
fn the_first_of_two_tasks() {
    guarded(|| {
        for pool in Pool::both(2) {
            for runtime in RUNTIMES {
                for way in WAYS {
                    for kind in KINDS {
                        let (first, one) = Gate::guards(&pool, 1);
                        let (second, two) = Gate::guards(&pool, 2);
                        let (mut one, mut two) = (kind.of(one), kind.of(two));
                        let values = runtime.run(|spawner| {
                            spawner.spawn(async move {
                                // Both have lost once, each with a waker of this race.
                                for handle in [&mut one, &mut two] {
                                    assert!(matches!(way.first(handle, future::ready(0)).await, First::Other(0)));
                                }
                                second.open();
                                let First::Other(two) = way.first(&mut one, two).await else { panic!("not this one") };
                                first.open();
                                (one.await.unwrap(), two.unwrap())
                            })
                        });
                        assert_eq!(values, (1, 2), "{runtime:?}, {way:?}, {kind:?}");
                    }
                }
            }
        }
    });
}

/// How a task is awaited for at most so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Tokio,
    Smol(Way),
}

impl Limit {
    fn all() -> impl Iterator<Item = Self> {
        WAYS.into_iter().map(Self::Smol).chain([Self::Tokio])
    }

    /// tokio's clock needs tokio.
    fn works_in(self, runtime: Runtime) -> bool {
        self != Self::Tokio || matches!(runtime, Runtime::TokioCurrentThread | Runtime::TokioMultiThread)
    }

    async fn apply<F: Future + Unpin>(self, future: &mut F, limit: Duration) -> Option<F::Output> {
        match self {
            Self::Tokio => tokio::time::timeout(limit, future).await.ok(),
            Self::Smol(way) => match way.first(future, smol::Timer::after(limit)).await {
                First::One(value) => Some(value),
                First::Other(_) => None,
            },
        }
    }
}

#[test]
fn under_a_time_out() {
    guarded(|| {
        for pool in Pool::both(1) {
            for runtime in RUNTIMES {
                for limit in Limit::all().filter(|limit| limit.works_in(runtime)) {
                    for kind in KINDS {
                        let (gate, future) = Gate::guards(&pool, 1);
                        let mut handle = kind.of(future);
                        let value = runtime.run(|spawner| {
                            spawner.spawn(async move {
                                for _ in 0..2 {
                                    assert!(limit.apply(&mut handle, Duration::from_millis(1)).await.is_none());
                                }
                                gate.open();
                                limit.apply(&mut handle, crate::support::LIMIT).await
                            })
                        });
                        assert_eq!(value.unwrap().unwrap(), 1, "{runtime:?}, {limit:?}, {kind:?}");
                    }
                }
            }
        }
    });
}
