#!/usr/bin/env bash
# in_folder.sh RANKS PROGRAM [ARGUMENTS]: the program on so many ranks, with a folder of its own as its first argument.
set -euo pipefail
ranks=$1 program=$2
shift 2
folder=$(mktemp -d "${TMPDIR:-/tmp}/mhcpipe-test.XXXXXX")
trap 'rm -rf "$folder"' EXIT
"$(dirname "${BASH_SOURCE[0]}")/../mpirun.sh" "$ranks" "$program" "$folder/run" "$@"
