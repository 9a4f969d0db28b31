#!/usr/bin/env bash
# energy.sh TEST_ENERGY RANKS: the program on so many ranks in a folder of its own.
set -euo pipefail
folder=$(mktemp -d "${TMPDIR:-/tmp}/mhcpipe-test.XXXXXX")
trap 'rm -rf "$folder"' EXIT
"$(dirname "${BASH_SOURCE[0]}")/../mpirun.sh" "$2" "$1" "$folder"
