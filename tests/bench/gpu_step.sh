#!/usr/bin/env bash
# The reference step (tests/bench/reference.yaml) on one card: residual, hc and mhc, forward and backward, and mhc with recompute; beside
# PyTorch compiled on the same card where PyTorch is. gpu_step.sh [BUILD]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=${1:-build}
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader

failed=0
step() {
    echo "== $*"
    "$build/mhcpipe" bench step tests/bench/reference.yaml --layers-alone --repetitions 20 "$@" 2>&1 || { echo "failed: $*"; failed=1; }
}
step --set model.connections.kind=residual
step --set model.connections.kind=mhc
step --set model.connections.kind=hc
step --set model.connections.kind=mhc --set schedule.recompute.what=connections
step --set model.connections.kind=mhc --set schedule.recompute.what=full
if python3 -c 'import torch' 2>/dev/null; then
    echo "== PyTorch, residual, sublayers compiled"
    python3 tests/bench/torch_step.py
else
    echo "== PyTorch is not installed: no peer in this run"
fi
exit $failed
