#!/usr/bin/env bash
# A rolling upgrade from an earlier version to this one, broker by broker, and back again: under load, with TLS on every port, with logins. Try:
#
#   integration-tests/upgrade.sh --from v0.1.0
#   integration-tests/upgrade.sh --binary /usr/bin/bellwether
#
# --from REV     builds the earlier version from this revision, in a work tree and a target folder of its own that are removed at the end
# --binary FILE  an earlier version that is built already
# --runs N       so many times (1)
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$here/.."

from="" binary="" runs=1
usage() {
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}
while [ $# -gt 0 ]; do
    case "$1" in
    --from | --binary | --runs)
        [ $# -ge 2 ] || { echo "upgrade.sh: $1 needs a value" >&2; exit 2; }
        case "$1" in
        --from) from="$2" ;;
        --binary) binary="$2" ;;
        --runs) runs="$2" ;;
        esac
        shift 2
        ;;
    --help) usage; exit 0 ;;
    *) echo "upgrade.sh: unknown argument $1" >&2; usage >&2; exit 2 ;;
    esac
done
if [ -n "$from" ] && [ -n "$binary" ] || [ -z "$from$binary" ]; then
    echo "upgrade.sh: give either --from REV or --binary FILE" >&2
    exit 2
fi
case "$runs" in
'' | *[!0-9]* | 0) echo "upgrade.sh: --runs $runs: give a number from 1" >&2; exit 2 ;;
esac

"$here/install.sh"
command -v cargo >/dev/null || { echo "There is no cargo: install Rust from https://rustup.rs first." >&2; exit 1; }

if [ -n "$from" ]; then
    folder="$(mktemp -d)"
    trap 'git -C "$root" worktree remove --force "$folder/tree" >/dev/null 2>&1; rm -rf "$folder"' EXIT
    git -C "$root" worktree add --quiet --detach "$folder/tree" "$from"
    echo "Building $(git -C "$folder/tree" describe --always --tags)"
    CARGO_TARGET_DIR="$folder/target" cargo build --quiet --release --locked --manifest-path "$folder/tree/Cargo.toml" -p bellwether-cli
    binary="$folder/target/release/bellwether"
fi
[ -x "$binary" ] || { echo "upgrade.sh: $binary is not a program" >&2; exit 2; }

echo "Building this version"
cargo build --quiet --release --manifest-path "$root/Cargo.toml" -p bellwether-cli
export BELLWETHER_OLD_BIN="$binary" BELLWETHER_BIN="${CARGO_TARGET_DIR:-$root/target}/release/bellwether"
echo "From $("$binary" --version) to $("$BELLWETHER_BIN" --version), and back"
for ((run = 1; run <= runs; run++)); do
    cargo test --quiet --manifest-path "$root/Cargo.toml" -p bellwether-integration-tests --test promises upgrade::
done
