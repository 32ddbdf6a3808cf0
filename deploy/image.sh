#!/usr/bin/env bash
# Builds the image of deploy/Dockerfile without a daemon (buildah), and tries it: a broker beside a ZooKeeper, from its start by way of the
# health check to the hand-over at its end, and again on the same volume. As root.
#
#   deploy/image.sh [--offline]
#
# --offline  where no registry of images is in reach: Debian's base is made with debootstrap, and what the first stage would have
#            compiled is the release binary that there is. What is tried then is everything but the compiling.
#
# It installs what it needs with apt-get. The image stays with buildah as localhost/bellwether; with --offline nothing stays.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="$(cd "$here/.." && pwd)"
binary="${CARGO_TARGET_DIR:-$root/target}/release/bellwether"

offline=no
case "${1:-}" in
--offline) offline=yes ;;
--help) sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
'') ;;
*) echo "image.sh: unknown argument $1; there is --offline" >&2; exit 2 ;;
esac
[ "$(id -u)" -eq 0 ] || { echo "image.sh: buildah's chroot wants root" >&2; exit 1; }

missing=()
command -v buildah >/dev/null || missing+=(buildah)
command -v debootstrap >/dev/null || [ "$offline" = no ] || missing+=(debootstrap)
command -v ip >/dev/null || missing+=(iproute2)
command -v curl >/dev/null || missing+=(curl)
command -v java >/dev/null || missing+=(default-jre-headless)
[ -e /usr/share/java/zookeeper.jar ] || missing+=(zookeeper)
if [ ${#missing[@]} -gt 0 ]; then
    echo "Installing with apt-get: ${missing[*]}"
    install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}")
    # The package lists may be missing or old.
    "${install[@]}" >/dev/null || { apt-get update -qq && "${install[@]}" >/dev/null; }
fi

folder="$(mktemp -d)"
trap 'rm -rf --one-file-system "$folder"' EXIT
storage=()
if [ "$offline" = yes ]; then
    mkdir "$folder/images" "$folder/run"
    storage=(--root "$folder/images" --runroot "$folder/run" --storage-driver vfs)
fi
buildah() { command buildah "${storage[@]}" "$@"; }

# The images that the Dockerfile begins with, under the same names.
bases() {
    [ -x "$binary" ] || { echo "image.sh: --offline packs the release binary, and there is none: cargo build --release -p bellwether-cli" >&2; return 1; }
    mkdir "$folder/bases"
    debootstrap --variant=minbase bookworm "$folder/debian" >"$folder/log" 2>&1 || { tail -n 20 "$folder/log" >&2; return 1; }
    tar -C "$folder/debian" -cf "$folder/bases/debian.tar" .
    rm -rf "$folder/debian"
    printf 'FROM scratch\nADD debian.tar /\n' | buildah build --quiet -t docker.io/library/debian:bookworm-slim -f - "$folder/bases" >/dev/null
    cp "$binary" "$folder/bases/bellwether"
    # Its `cargo build` is a copy. objcopy is left to the Dockerfile.
    cat >"$folder/bases/cargo" <<'END'
#!/bin/sh
set -e
[ "$*" = "build --release --locked -p bellwether-cli" ]
[ -f Cargo.lock ] && [ -f cli/src/main.rs ] && [ ! -e target ] && [ ! -e .git ]
mkdir -p target/release
cp /bellwether target/release/bellwether
END
    chmod +x "$folder/bases/cargo"
    printf 'FROM debian:bookworm-slim\nRUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils >/dev/null\nCOPY bellwether /\nCOPY cargo /usr/local/bin/\n' |
        buildah build --quiet --isolation chroot --pull-never -t "docker.io/library/$(sed -n 's/^FROM \(rust:[^ ]*\) .*/\1/p' "$here/Dockerfile")" -f - "$folder/bases" >/dev/null
}

pull=()
if [ "$offline" = yes ]; then
    echo "Making the base images"
    bases
    pull=(--pull-never)
fi
echo "Building the image"
# As Docker writes it: the other format knows no health check.
buildah build --isolation chroot --format docker "${pull[@]}" -t localhost/bellwether -f "$here/Dockerfile" "$root" >"$folder/log" 2>&1 ||
    { tail -n 30 "$folder/log" >&2; exit 1; }
buildah images localhost/bellwether
echo "Trying it"
# On a loopback of its own, with processes of its own, which go when it ends.
unshare --net --pid --kill-child --fork --mount-proc "$here/image-trial.sh" "$folder" "${storage[@]}"
