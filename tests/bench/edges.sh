#!/usr/bin/env bash
# edges.sh [cpu|test|cuda]: builds, and prints what a message of each size costs between two ranks, for every transport that the device has.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
device=${1:-cpu}
cmake --preset release >/dev/null
cmake --build --preset release --target edges >/dev/null
for transport in mpi ipc nccl; do
    tests/mpirun.sh 2 build/tests/bench/edges "$device" "$transport" || echo "$device has no $transport here"
done
