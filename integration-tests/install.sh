#!/usr/bin/env bash
# Installs what the tests need beside Rust, and says so: a C compiler, ZooKeeper with a Java to run it, Python 3
# (for the client that proves docs/protocol.md), and promtool, Prometheus' own judge of metrics and alert rules. Does nothing
# where it is all there.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(gcc libc6-dev)
command -v python3 >/dev/null || missing+=(python3-minimal)
command -v setpriv >/dev/null || missing+=(util-linux)
command -v java >/dev/null || missing+=(default-jre-headless)
[ -e /usr/share/java/zookeeper.jar ] || missing+=(zookeeper)
# Without these a ZooKeeper server speaks no TLS.
[ -e /usr/share/java/netty-codec.jar ] || missing+=(libnetty-java)
# Of the package prometheus only this one file: installed as a whole it would start a server.
promtool=no
command -v promtool >/dev/null && promtool=yes
[ ${#missing[@]} -eq 0 ] && [ "$promtool" = yes ] && exit 0

if ! command -v apt-get >/dev/null; then
    echo "The tests need ${missing[*]} (Debian's names) and promtool (of Debian's prometheus), and there is no apt-get here to install them." >&2
    exit 1
fi
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "Installing ${missing[*]} needs root, and there is no sudo." >&2; exit 1; }
    as_root=(sudo)
fi
install_packages() {
    [ ${#missing[@]} -eq 0 ] && return
    echo "Installing with apt-get: ${missing[*]}"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}
# The package lists may be missing or old.
install_packages || { "${as_root[@]}" apt-get update -qq && install_packages; }
[ -e /usr/share/java/zookeeper.jar ] || { echo "ZooKeeper is still missing: /usr/share/java/zookeeper.jar" >&2; exit 1; }

fetch_promtool() {
    (cd "$1" && apt-get -o APT::Sandbox::User=root download -qq prometheus && dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x ./usr/bin/promtool)
}
if [ "$promtool" = no ]; then
    echo "Taking promtool out of Debian's prometheus"
    folder="$(mktemp -d)"
    trap 'rm -rf "$folder"' EXIT
    fetch_promtool "$folder" || { "${as_root[@]}" apt-get update -qq && fetch_promtool "$folder"; }
    "${as_root[@]}" install -m 755 "$folder/usr/bin/promtool" /usr/local/bin/promtool
fi
command -v promtool >/dev/null || { echo "promtool is still missing" >&2; exit 1; }
