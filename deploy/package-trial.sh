#!/usr/bin/env bash
# Boots a Debian with systemd in a temporary folder, without a network but loopback, and has deploy/package-trial-inside.sh install,
# run, upgrade and remove the package there beside a ZooKeeper. As root; deploy/package.sh --try installs what it needs.
#
#   deploy/package-trial.sh PACKAGE
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
package="$(readlink -f "${1:?package-trial.sh: which package?}")"
# Booting, and the watchdog's 20 s, are most of it.
seconds_max=300

folder="$(mktemp -d)"
trap 'rm -rf --one-file-system "$folder"' EXIT
echo "Installing a Debian"
debootstrap --variant=minbase --include=systemd,systemd-sysv,adduser,curl "$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")" "$folder/debian" >"$folder/log" 2>&1 ||
    { tail -n 20 "$folder/log" >&2; exit 1; }

install -D -m 755 "$here/package-trial-inside.sh" "$folder/debian/trial/trial.sh"
cp "$package" "$folder/debian/trial/bellwether.deb"
cat >"$folder/debian/etc/systemd/system/trial.service" <<'END'
[Unit]
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/trial/trial.sh
StandardOutput=append:/trial/log
StandardError=inherit
[Install]
WantedBy=multi-user.target
END
ln -s /etc/systemd/system/trial.service "$folder/debian/etc/systemd/system/multi-user.target.wants/trial.service"

echo "Booting it"
# Java and ZooKeeper are this machine's.
binds=()
for from in /usr/lib/jvm /etc/java-* /usr/share/java; do
    [ ! -e "$from" ] || binds+=("--bind-ro=$from")
done
timeout "$seconds_max" systemd-nspawn --quiet --directory="$folder/debian" --register=no --keep-unit --private-network \
    --setenv=JAVA="$(readlink -f "$(command -v java)")" "${binds[@]}" --console=pipe --boot >"$folder/console" 2>&1 </dev/null || true

cat "$folder/debian/trial/log" 2>/dev/null || { tail -n 30 "$folder/console" >&2; echo "package-trial.sh: it did not boot" >&2; exit 1; }
[ -e "$folder/debian/trial/passed" ] || { echo "package-trial.sh: FAILED (the last line above says at what)" >&2; exit 1; }
