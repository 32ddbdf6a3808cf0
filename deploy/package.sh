#!/usr/bin/env bash
# Builds the Debian package and looks at what came out: names, owners, modes, scripts, and lintian's verdict. With --try it also
# installs, runs, upgrades and removes it on a Debian of its own with systemd, that is booted in a folder and thrown away.
#
#   deploy/package.sh [--try] [--no-build] [--fast]
#
# --try       the trial (deploy/package-trial.sh): as root, and some 300 MB below $TMPDIR while it lasts
# --no-build  package the release binary that there is
# --fast      a larger package, sooner
#
# It needs Rust, and apt-get (as root or with sudo) for the rest. The package is left in target/debian, cargo-deb in target/tools.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/.." && pwd)"
target="${CARGO_TARGET_DIR:-$root/target}"
cargo_deb=3.8.0

usage() {
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"
}
try=no build=yes speed=()
while [ $# -gt 0 ]; do
    case "$1" in
    --try) try=yes ;;
    --no-build) build=no ;;
    --fast) speed=(--fast) ;;
    --help) usage; exit 0 ;;
    *) echo "package.sh: unknown argument $1" >&2; usage >&2; exit 2 ;;
    esac
    shift
done
command -v cargo >/dev/null || { echo "package.sh: there is no cargo: install Rust from https://rustup.rs first" >&2; exit 1; }

install_tools() {
    local missing=()
    command -v cc >/dev/null || missing+=(gcc libc6-dev)
    command -v dpkg-shlibdeps >/dev/null || missing+=(dpkg-dev)
    command -v objcopy >/dev/null || missing+=(binutils)
    command -v lintian >/dev/null || missing+=(lintian)
    if [ "$try" = yes ]; then
        [ "$(id -u)" -eq 0 ] || { echo "package.sh: --try boots a Debian in a folder, which needs root" >&2; exit 1; }
        command -v debootstrap >/dev/null || missing+=(debootstrap)
        command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
        command -v java >/dev/null || missing+=(default-jre-headless)
        [ -e /usr/share/java/zookeeper.jar ] || missing+=(zookeeper)
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        command -v apt-get >/dev/null || { echo "package.sh: ${missing[*]} (Debian's names) are missing, and there is no apt-get here" >&2; exit 1; }
        local as_root=()
        [ "$(id -u)" -eq 0 ] || as_root=(sudo)
        echo "Installing with apt-get: ${missing[*]}"
        local install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}")
        # The package lists may be missing or old.
        "${install[@]}" >/dev/null || { "${as_root[@]}" apt-get update -qq && "${install[@]}" >/dev/null; }
    fi
    if [ "$("$target/tools/bin/cargo-deb" --version 2>/dev/null)" != "$cargo_deb" ]; then
        cargo install --quiet --locked --root "$target/tools" --target-dir "$target/tools/build" --version "$cargo_deb" cargo-deb
        rm -rf "$target/tools/build"
    fi
}

# Owner, mode and name of everything that is not a folder; the name of the file with the symbols is a checksum.
contents() {
    dpkg-deb -c "$1" | awk '$1 !~ /^d/ { sub(/debug\/.build-id\/.*$/, "debug/.build-id/…", $6); print $1, $2, $6 }' | sort -k3
}

expected() {
    cat <<'END'
-rw-r----- 0/0 ./etc/bellwether/bellwether.toml
-rwxr-xr-x 0/0 ./usr/bin/bellwether
-rw-r--r-- 0/0 ./usr/lib/debug/.build-id/…
-rw-r--r-- 0/0 ./usr/lib/systemd/system/bellwether.service
-rw-r--r-- 0/0 ./usr/share/doc/bellwether/changelog.Debian.gz
-rw-r--r-- 0/0 ./usr/share/doc/bellwether/CHANGELOG.md
-rw-r--r-- 0/0 ./usr/share/doc/bellwether/configuration.md
-rw-r--r-- 0/0 ./usr/share/doc/bellwether/copyright
-rw-r--r-- 0/0 ./usr/share/doc/bellwether/examples/alerts.yml
-rw-r--r-- 0/0 ./usr/share/doc/bellwether/examples/grafana.json
-rw-r--r-- 0/0 ./usr/share/doc/bellwether/metrics.md
-rw-r--r-- 0/0 ./usr/share/doc/bellwether/operations.md
-rw-r--r-- 0/0 ./usr/share/doc/bellwether/security.md
END
}

check() {
    local control
    control="$(mktemp -d)"
    # shellcheck disable=SC2064
    trap "rm -rf '$control'" RETURN
    diff <(expected | sort -k3) <(contents "$1") || { echo "package.sh: the package does not hold what it should (< expected, > found)" >&2; return 1; }
    dpkg-deb -e "$1" "$control"
    [ "$(cat "$control/conffiles")" = /etc/bellwether/bellwether.toml ] || { echo "package.sh: its configuration is not marked as such" >&2; return 1; }
    for script in postinst prerm postrm; do
        sh -n "$control/$script"
        ! grep -q '#DEBHELPER#' "$control/$script" || { echo "package.sh: $script lacks what starts and stops the service" >&2; return 1; }
    done
    # An upgrade of the package on all machines at once must not restart, or end, all brokers at once.
    ! grep -qE 'try-restart|deb-systemd-invoke (re)?start' "$control/postinst" || { echo "package.sh: the package would restart the broker" >&2; return 1; }
    # Warnings are shown and let pass: there is no manual page, the symbols are in the same package, and the configuration is not for everybody.
    lintian --fail-on error --tag-display-limit 0 "$1"
}

install_tools
cd "$root"
[ "$build" = no ] || cargo build --release --locked -p bellwether-cli
package="$(PATH="$target/tools/bin:$PATH" cargo deb --quiet --no-build --locked "${speed[@]}" -p bellwether-cli | tail -n 1)"
[ -f "$package" ] || { echo "package.sh: cargo deb has left no package" >&2; exit 1; }
check "$package"
ls -l "$package"
if [ "$try" = yes ]; then
    "$here/package-trial.sh" "$package"
fi
