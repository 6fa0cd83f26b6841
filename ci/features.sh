#!/usr/bin/env bash
# Every combination of features compiles, and without warnings.
set -euo pipefail
cd "$(dirname "$0")/.."
export RUSTFLAGS="-D warnings ${RUSTFLAGS:-}"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/features"
cargo check --no-default-features
cargo check
cargo check --no-default-features --features stream
cargo check --no-default-features --features deep-stacks
cargo check --no-default-features --features process
cargo check --all-features
