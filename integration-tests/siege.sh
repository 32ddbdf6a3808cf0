#!/usr/bin/env bash
# Lays siege to a broker on this machine, in a control group of its own, and says whether it kept its bounds (exit code 0) or not (1):
# slow and half frames, bombs, clients that never read, thousands of idle connections, a thousand that come back at once. Try:
#
#   integration-tests/siege.sh --memory 256M
#   integration-tests/siege.sh --memory 256M --attackers 1000
#   integration-tests/siege.sh --attackers 0 --idle 10000
#   integration-tests/siege.sh --reconnect 1000
#   integration-tests/siege.sh --help
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

"$here/install.sh"
command -v cargo >/dev/null || { echo "There is no cargo: install Rust from https://rustup.rs first." >&2; exit 1; }
echo "Building the release binary and the siege (the first time takes a few minutes)"
cargo build --quiet --release --manifest-path "$here/../Cargo.toml" -p bellwether-cli -p bellwether-integration-tests --bin bellwether --bin siege

target="${CARGO_TARGET_DIR:-$here/../target}/release"
export BELLWETHER_BIN="${BELLWETHER_BIN:-$target/bellwether}"
exec "$target/siege" "$@"
