//! Where the output of workers goes.

/// Where standard output and error of the workers go. Standard input is always empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// Where those of this program go.
    #[default]
    Inherit,
    /// Nowhere.
    Null,
    /// Into the executor, which keeps the last 8 KiB of each worker for the error of a task during which that worker dies
    /// ([`WorkerExit::stderr`](crate::WorkerExit::stderr)). So that this is what the task wrote, and not the one before, a
    /// worker gets the next task when it has done the last one, and none in advance: short tasks take longer than otherwise.
    Capture,
}
