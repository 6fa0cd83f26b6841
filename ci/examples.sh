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
