#!/usr/bin/env bash
# mpirun.sh RANKS COMMAND ...: starts the ranks on this machine, more of them than cores if need be, and ends them after
# MHP_TEST_TIMEOUT seconds (150).
set -euo pipefail
ranks=$1
shift
options=(-q --oversubscribe --bind-to none)
if [ "$(id -u)" -eq 0 ]; then
    options+=(--allow-run-as-root)
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
# What MPI's modules still hold at exit cannot be told from leaks: they are unloaded by then.
export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
export TSAN_OPTIONS="suppressions=$here/tsan.supp:${TSAN_OPTIONS:-}"
exec timeout --kill-after=5 "${MHP_TEST_TIMEOUT:-150}" mpirun "${options[@]}" -n "$ranks" "$@"
