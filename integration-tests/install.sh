#!/usr/bin/env bash
# Installs what the tests need beside Rust, and says so: a C compiler, ZooKeeper with a Java to run it, and Python 3
# (for the client that proves docs/protocol.md). Does nothing where it is all there.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v python3 >/dev/null || missing+=(python3-minimal)
command -v setpriv >/dev/null || missing+=(util-linux)
command -v java >/dev/null || missing+=(default-jre-headless)
[ -e /usr/share/java/zookeeper.jar ] || missing+=(zookeeper)
# Without these a ZooKeeper server speaks no TLS.
[ -e /usr/share/java/netty-codec.jar ] || missing+=(libnetty-java)
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "The tests need ${missing[*]} (Debian's names), and there is no apt-get here to install them." >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "Installing ${missing[*]} needs root, and there is no sudo." >&2; exit 1; }
    as_root=(sudo)
fi
echo "Installing with apt-get: ${missing[*]}"
install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
# The package lists may be missing or old.
install || { "${as_root[@]}" apt-get update -qq && install; }
[ -e /usr/share/java/zookeeper.jar ] || { echo "ZooKeeper is still missing: /usr/share/java/zookeeper.jar" >&2; exit 1; }
