#!/usr/bin/env bash
# Builds with CUDA and runs every `gpu` test, on any machine with a card. Fails if there is none: then nothing was tested.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/build.sh"
build/mhcpipe doctor --device cuda
ctest --preset release -L gpu "$@"
