//! Where the output of workers goes.

/// Where standard output and error of the workers go. Standard input is always empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Stdio {
    /// Where those of this program go.
    #[default]
    Inherit,
    /// To `/dev/null`.
    Null,
    /// Into the executor, which keeps the last 8 KiB of each worker for the error of a task during which that worker dies
    /// ([`WorkerExit::stderr`](crate::WorkerExit::stderr)). So that the captured output belongs to one task only, a worker is
    /// handed a task only after it has finished the previous one, which makes short tasks slower.
    Capture,
}
