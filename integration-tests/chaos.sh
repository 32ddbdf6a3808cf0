#!/usr/bin/env bash
# Chaos: three brokers on a ZooKeeper ensemble of three, under load and under faults drawn from a seed; then everything
# is healed and drained, and a checker says whether a promise was broken. Try:
#
#   integration-tests/chaos.sh --minutes 10
#   integration-tests/chaos.sh --minutes 2 --faults kill,pause --seed 7
#   integration-tests/chaos.sh --minutes 5 --faults partition,combo --report chaos.html
#   integration-tests/chaos.sh --attach broker-1:7400 --faults drain
#   integration-tests/chaos.sh --help
#
# Everything runs on loopback, in a folder that is removed when nothing was violated, and ends with this script.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

"$here/install.sh"
command -v cargo >/dev/null || { echo "There is no cargo: install Rust from https://rustup.rs first." >&2; exit 1; }
echo "Building the release binary and the chaos driver (the first time takes a few minutes)"
cargo build --quiet --release --manifest-path "$here/../Cargo.toml" -p bellwether-cli -p bellwether-integration-tests --bin bellwether --bin chaos

target="${CARGO_TARGET_DIR:-$here/../target}/release"
export BELLWETHER_BIN="${BELLWETHER_BIN:-$target/bellwether}"
exec "$target/chaos" "$@"
