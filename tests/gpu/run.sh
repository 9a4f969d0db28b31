#!/usr/bin/env bash
# Builds with CUDA and runs every `gpu` test, on any machine with a card. Fails if there is none: then nothing was tested.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1

cmake --preset release -DMHP_CUDA=on >/dev/null
cmake --build --preset release
build/mhcpipe doctor --device cuda
ctest --preset release -L gpu "$@"
