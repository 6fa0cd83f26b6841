#!/usr/bin/env bash
# Runs every example without arguments, as a new user would, and with `--help`. None needs a network.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --examples
for source in examples/*.rs; do
    name=$(basename "$source" .rs)
    echo "-- $name"
    timeout 120 cargo run --quiet --release --example "$name"
    timeout 20 cargo run --quiet --release --example "$name" -- --help >/dev/null
done
# Where the runtime is a choice: each.
for name in async_mix run_in_executor; do
    for runtime in --smol --tokio; do
        echo "-- $name $runtime"
        timeout 120 cargo run --quiet --release --example "$name" -- "$runtime"
    done
done
