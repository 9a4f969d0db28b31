#!/usr/bin/env bash
# Installs those packages of launch/packages.txt that are missing. Needs root, or sudo, only if one is.
set -euo pipefail
list=$(dirname "${BASH_SOURCE[0]}")/packages.txt

missing=()
while read -r package; do
    if ! dpkg-query -W -f='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed; then
        missing+=("$package")
    fi
done < <(grep -v '^#' "$list")
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "install_packages.sh: run as root, or install: ${missing[*]}" >&2
        exit 1
    fi
    as_root=(sudo)
fi
echo "installing: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt_get() {
    if ! "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y "$@" >"$log" 2>&1; then
        cat "$log" >&2
        echo "install_packages.sh: apt-get $1 failed" >&2
        return 1
    fi
}
apt_get update
apt_get install --no-install-recommends "${missing[@]}"
