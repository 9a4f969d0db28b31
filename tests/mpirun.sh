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
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
# What MPI's modules still hold at exit cannot be told from leaks: they are unloaded by then.
export ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
# MPI and its libraries are built without ThreadSanitizer: what they do among themselves looks like races.
export TSAN_OPTIONS="ignore_noninstrumented_modules=1:${TSAN_OPTIONS:-}"
exec timeout --kill-after=5 "${MHP_TEST_TIMEOUT:-150}" mpirun "${options[@]}" -n "$ranks" "$@"
