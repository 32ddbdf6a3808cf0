#!/usr/bin/env bash
# Everything that must hold before a change lands: formatting, clippy, documentation, and every test, those against real
# broker processes and a real ZooKeeper ensemble included. Seeds are fixed, so that a failure is one again; ./soak.sh
# looks for new ones.
#
# It needs Rust and, to install the rest, apt-get (as root or with sudo); integration-tests/install.sh says what it
# installs. Without ZooKeeper it fails: those tests are never left out.
#
#   ./test.sh              all of it
#   ./test.sh PATTERN      only the tests whose names contain PATTERN
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

if ! command -v cargo >/dev/null; then
    echo "test.sh: there is no cargo on the PATH. Install Rust first (rustup, stable), with the components rustfmt and clippy." >&2
    exit 1
fi

durations=()
step() {
    local what="$1" began=$SECONDS
    shift
    echo
    echo "==> $what"
    if ! "$@"; then
        echo "==> FAILED: $what (after $((SECONDS - began)) s)" >&2
        exit 1
    fi
    durations+=("$(printf '%6d s  %s' "$((SECONDS - began))" "$what")")
}

summary() {
    echo
    echo "==> How long it took"
    printf '%s\n' "${durations[@]}"
    printf '%6d s  in all\n' "$SECONDS"
}

zookeeper_is_there() {
    if [ ! -e /usr/share/java/zookeeper.jar ] || ! command -v java >/dev/null; then
        echo "ZooKeeper or Java is not there, and the tests against it are never skipped." >&2
        return 1
    fi
    java -version 2>&1 | head -1
    ls -l /usr/share/java/zookeeper.jar
}

# Tests start the release build: what is measured and killed is what is shipped.
export BELLWETHER_BIN="${CARGO_TARGET_DIR:-$PWD/target}/release/bellwether"
# Settings of a broker of yours are none of the tests'.
for name in $(compgen -e | grep '^BELLWETHER_' || true); do
    [ "$name" = BELLWETHER_BIN ] || unset "$name"
done

step "Install what the tests need" integration-tests/install.sh
step "ZooKeeper is there" zookeeper_is_there
if [ $# -eq 0 ]; then
    step "Formatting" cargo fmt --all --check
    step "Clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
    step "Documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet
fi
step "Release build" cargo build --release --locked -p bellwether-cli
step "Tests" cargo test --workspace --locked -- "$@"
if [ $# -eq 0 ]; then
    step "The demonstration" "$BELLWETHER_BIN" demo --json
fi
summary
