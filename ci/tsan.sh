#!/usr/bin/env bash
# The integration tests under ThreadSanitizer. std itself is not instrumented, so what happens inside its Arc, Mutex and thread
# hand-over is reported wrongly and suppressed here; loom is the proof of the orderings, this looks for the rest.
set -euo pipefail
cd "$(dirname "$0")/.."
suppressions=$(mktemp)
trap 'rm -f "$suppressions"' EXIT
cat >"$suppressions" <<END
race:alloc::sync::Arc
race:std::sync
race:std::thread
race:crossbeam_epoch
race:crossbeam_deque
END
# Instrumented frames are several times as large.
export RUST_MIN_STACK=67108864
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer"
export TSAN_OPTIONS="suppressions=$suppressions halt_on_error=0"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/tsan"
cargo test --target x86_64-unknown-linux-gnu --test it "$@"
