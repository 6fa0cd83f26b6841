#!/usr/bin/env bash
# Checks the library with a compiler of the minimum Rust version, with the locked dependencies and in each combination of features that has other
# dependencies. Tests, examples and benches are left out: their dependencies may need a newer compiler.
# Usage: ci/msrv.sh [path of a rustc 1.85] (without it: that of Debian 12, which is installed if it is not there; needs root)
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(grep -m1 '^rust-version' Cargo.toml | cut -d'"' -f2)
rustc="${1:-/usr/bin/rustc}"
if [ $# -eq 0 ] && ! "$rustc" --version 2>/dev/null | grep -qF " $version."; then
    apt-get update -qq
    apt-get install -y -qq --allow-downgrades {rustc-web,libstd-rust-web-dev}=1.85.0+dfsg3-1~deb12u3 >/dev/null
fi
"$rustc" --version | grep -F " $version." || { echo "$rustc is not Rust $version"; exit 1; }

for features in "--all-features" "" "--no-default-features" "--no-default-features --features process"; do
    echo "== ${features:-default features}"
    # shellcheck disable=SC2086
    RUSTC="$rustc" cargo check --locked --target-dir target/msrv $features
done
echo "the library builds with Rust $version"
