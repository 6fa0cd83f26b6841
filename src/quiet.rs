//! User code whose panics must not propagate: destructors, wakers, callbacks.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Drops a value whose destructor may panic. The panic hook reports such a panic, and it does not propagate; a payload whose
/// own destructor panics again is leaked.
pub(crate) fn drop<T>(value: T) {
    call(move || std::mem::drop(value));
}

/// Runs code whose panic is only reported by the panic hook, such as a done-callback.
pub(crate) fn call(f: impl FnOnce()) {
    let Err(payload) = catch_unwind(AssertUnwindSafe(f)) else { return };
    let Err(second) = catch_unwind(AssertUnwindSafe(move || std::mem::drop(payload))) else { return };
    std::mem::forget(second);
}
