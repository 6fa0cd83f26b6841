//! The table: which promise holds for which verb, and why a cell cannot be.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Threads,
    Processes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WayIn {
    Submit,
    TrySubmit,
    Task,
    SubmitAll,
    SubmitCall,
    Map,
    MapWith,
    Spawn,
    Scope,
    Join,
    Promise,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WayOut {
    Result,
    ResultTimeout,
    Await,
    BlockOn,
    Wait,
    AsCompleted,
    WaitAsync,
    Stream,
    Callback,
    Shared,
    Drop,
}

/// What is promised of a task, whatever verb started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PromiseIn {
    Resolves,
    PanicNamed,
    DeathNamed,
    CancelledNeverRuns,
    TimeLimit,
    Retries,
    QueueLimit,
    InOrder,
    RefusedAfterShutdown,
    WaitRuns,
    NoWaitRuns,
    CancelPendingCancels,
    WithinEnds,
}

/// What is promised to whoever waits for a task, whatever verb does so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PromiseOut {
    Value,
    QueuedTask,
    Panic,
    Death,
    Cancelled,
    ShutDown,
    Deadline,
}

pub(super) enum Cell {
    Holds,
    /// There is nothing to promise: why.
    Not(&'static str),
}

impl WayIn {
    pub(super) const ALL: [Self; 11] = [
        Self::Submit,
        Self::TrySubmit,
        Self::Task,
        Self::SubmitAll,
        Self::SubmitCall,
        Self::Map,
        Self::MapWith,
        Self::Spawn,
        Self::Scope,
        Self::Join,
        Self::Promise,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Submit => "`submit`",
            Self::TrySubmit => "`try_submit`",
            Self::Task => "`task`",
            Self::SubmitAll => "`submit_all`",
            Self::SubmitCall => "`submit_call`",
            Self::Map => "`map`",
            Self::MapWith => "`map_with`",
            Self::Spawn => "`spawn`",
            Self::Scope => "`scope`",
            Self::Join => "`join`",
            Self::Promise => "`promise`",
        }
    }
}

impl WayOut {
    pub(super) const ALL: [Self; 11] = [
        Self::Result,
        Self::ResultTimeout,
        Self::Await,
        Self::BlockOn,
        Self::Wait,
        Self::AsCompleted,
        Self::WaitAsync,
        Self::Stream,
        Self::Callback,
        Self::Shared,
        Self::Drop,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Result => "`result`",
            Self::ResultTimeout => "`result_timeout`",
            Self::Await => "`.await`",
            Self::BlockOn => "`block_on`",
            Self::Wait => "`wait`",
            Self::AsCompleted => "`as_completed`",
            Self::WaitAsync => "`wait_async`",
            Self::Stream => "`into_stream`",
            Self::Callback => "callback",
            Self::Shared => "`shared`",
            Self::Drop => "drop",
        }
    }
}

impl PromiseIn {
    pub(super) const ALL: [Self; 13] = [
        Self::Resolves,
        Self::PanicNamed,
        Self::DeathNamed,
        Self::CancelledNeverRuns,
        Self::TimeLimit,
        Self::Retries,
        Self::QueueLimit,
        Self::InOrder,
        Self::RefusedAfterShutdown,
        Self::WaitRuns,
        Self::NoWaitRuns,
        Self::CancelPendingCancels,
        Self::WithinEnds,
    ];

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Resolves => "The task runs and its result arrives.",
            Self::PanicNamed => "A panic arrives, with its message.",
            Self::DeathNamed => "The death of the worker process arrives, with its signal.",
            Self::CancelledNeverRuns => "Once cancelled, a task that has not started never runs.",
            Self::TimeLimit => "The pool's time limit (`task_timeout`) ends the task.",
            Self::Retries => "The pool's `retries` begin the task again after its worker died.",
            Self::QueueLimit => "A full bounded queue (`QueuePolicy::Fail`) refuses the task.",
            Self::InOrder => "Queued tasks start first in, first out.",
            Self::RefusedAfterShutdown => "After a shutdown the task is refused and never runs.",
            Self::WaitRuns => "`Shutdown::Wait` runs what is queued.",
            Self::NoWaitRuns => "`Shutdown::NoWait` runs what is queued; neither it nor the drop of the pool waits.",
            Self::CancelPendingCancels => "`Shutdown::CancelPending` and `CancelPendingNoWait` cancel what is queued.",
            Self::WithinEnds => "`Shutdown::Within` cancels what is queued when the time is over.",
        }
    }
}

impl PromiseOut {
    pub(super) const ALL: [Self; 7] =
        [Self::Value, Self::QueuedTask, Self::Panic, Self::Death, Self::Cancelled, Self::ShutDown, Self::Deadline];

    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Value => "The value arrives.",
            Self::QueuedTask => {
                "Inside a task, the wait for a queued task of the same pool ends even when every other worker is busy."
            }
            Self::Panic => "A panic arrives, with its message.",
            Self::Death => "The death of the worker process arrives, with its signal.",
            Self::Cancelled => "A cancelled task ends the wait.",
            Self::ShutDown => "`Shutdown::CancelPending` ends the wait for a queued task.",
            Self::Deadline => "The wait ends at its deadline, also inside a task, whatever the awaited task does.",
        }
    }
}

/// Does the promise hold for that verb on that kind of pool?
pub(super) fn way_in(promise: PromiseIn, way: WayIn, kind: Kind) -> Cell {
    use Cell::{Holds, Not};
    match (kind, way) {
        (Kind::Processes, WayIn::SubmitAll) => {
            return Not("process pools have no `submit_all`; `map` sends many items at once");
        }
        (Kind::Processes, WayIn::Spawn) => return Not("futures cannot be sent to another process"),
        (Kind::Processes, WayIn::Scope | WayIn::Join) => return Not("borrowed data cannot be sent to another process"),
        (Kind::Processes, WayIn::Promise) => return Not("a promise belongs to no pool; see the table for threads"),
        _ => {}
    }
    let is_map = matches!(way, WayIn::Map | WayIn::MapWith);
    match promise {
        PromiseIn::Resolves => Holds,
        PromiseIn::PanicNamed if way == WayIn::Promise => {
            Not("the producer's panic is its own; it drops the promise, and the future resolves to `Abandoned`")
        }
        PromiseIn::PanicNamed => Holds,
        _ if way == WayIn::Promise => Not("nothing is queued: the producer runs where it wants"),
        PromiseIn::DeathNamed | PromiseIn::TimeLimit | PromiseIn::Retries if kind == Kind::Threads => {
            Not("a thread cannot be ended from outside, and a closure runs once")
        }
        PromiseIn::CancelledNeverRuns if way == WayIn::Join => Not("`join` has no handle to cancel"),
        PromiseIn::QueueLimit if matches!(way, WayIn::Scope | WayIn::Join) || is_map => {
            Not("tasks of maps, scopes and joins do not count against `queue_capacity`")
        }
        PromiseIn::DeathNamed
        | PromiseIn::CancelledNeverRuns
        | PromiseIn::TimeLimit
        | PromiseIn::Retries
        | PromiseIn::QueueLimit
        | PromiseIn::InOrder
        | PromiseIn::RefusedAfterShutdown
        | PromiseIn::WaitRuns
        | PromiseIn::NoWaitRuns
        | PromiseIn::CancelPendingCancels
        | PromiseIn::WithinEnds => Holds,
    }
}

/// Does the promise hold for whoever waits by that verb?
pub(super) fn way_out(promise: PromiseOut, way: WayOut, kind: Kind) -> Cell {
    use Cell::{Holds, Not};
    match promise {
        PromiseOut::Death if kind == Kind::Threads => Not("a thread does not die alone"),
        PromiseOut::QueuedTask if kind == Kind::Processes => {
            Not("a task in a worker process has no handle of the pool")
        }
        PromiseOut::QueuedTask if matches!(way, WayOut::Callback | WayOut::Drop) => Not("it does not wait"),
        PromiseOut::Deadline
            if !matches!(way, WayOut::ResultTimeout | WayOut::Wait | WayOut::AsCompleted | WayOut::Shared) =>
        {
            Not("it takes no deadline; in asynchronous code timers are the runtime's")
        }
        _ if way == WayOut::Drop && promise != PromiseOut::Value => {
            Not("nobody sees the end; the task runs (first row)")
        }
        _ => Holds,
    }
}

/// The verbs for which the promise holds on that kind of pool.
pub(super) fn ways_in(promise: PromiseIn, kind: Kind) -> Vec<WayIn> {
    let holds = |way: &WayIn| matches!(way_in(promise, *way, kind), Cell::Holds);
    WayIn::ALL.into_iter().filter(holds).collect()
}

/// The same for those that wait.
pub(super) fn ways_out(promise: PromiseOut, kind: Kind) -> Vec<WayOut> {
    let holds = |way: &WayOut| matches!(way_out(promise, *way, kind), Cell::Holds);
    WayOut::ALL.into_iter().filter(holds).collect()
}
