#!/usr/bin/env bash
# Measured trials on this machine, each ending with one line of JSON: how long a killed or frozen leader is felt, what an
# absent ensemble costs, how fast messages go through, how much memory and disk a backlog takes. Try:
#
#   integration-tests/trial.sh kill-leader
#   integration-tests/trial.sh throughput
#   integration-tests/trial.sh --help
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

"$here/install.sh"
command -v cargo >/dev/null || { echo "There is no cargo: install Rust from https://rustup.rs first." >&2; exit 1; }
echo "Building the release binary and the trials (the first time takes a few minutes)"
cargo build --quiet --release --manifest-path "$here/../Cargo.toml" -p bellwether-cli -p bellwether-integration-tests --bin bellwether --bin trial

target="${CARGO_TARGET_DIR:-$here/../target}/release"
export BELLWETHER_BIN="${BELLWETHER_BIN:-$target/bellwether}"
exec "$target/trial" "$@"
