#!/usr/bin/env bash
# doctor.sh MHCPIPE: mhcpipe doctor works on any machine, and its exit status says whether what has to work does.
set -euo pipefail
mhcpipe=$1
report=$("$mhcpipe" doctor)
for line in '^machine$' '^  hwloc .* cores' '^  MPI ' '^  BLAS .*OpenBLAS' '^  kernels .*cpu f32' '^environment$' '^CUDA$' '^  backend ' \
    '^  driver ' '^missing$'; do
    grep -q -- "$line" <<<"$report" || { echo "no line \"$line\" in: $report" >&2; exit 1; }
done
CUDA_LAUNCH_BLOCKING=1 "$mhcpipe" doctor | grep -q '^  CUDA_LAUNCH_BLOCKING is 1: '
if grep -q '^  CUDA_DEVICE_MAX_CONNECTIONS ' <<<"$report"; then        # a build with CUDA
    grep -q '^  CUDA_DEVICE_MAX_CONNECTIONS not set: mhcpipe sets 32$' <<<"$(env -u CUDA_DEVICE_MAX_CONNECTIONS "$mhcpipe" doctor)"
    CUDA_DEVICE_MAX_CONNECTIONS=1 "$mhcpipe" doctor | grep -q '^  CUDA_DEVICE_MAX_CONNECTIONS 1: mhcpipe sets 32, '
fi

# Without a card that works, --device cuda fails and says what would help; with one it does not.
if card=$("$mhcpipe" doctor --device cuda); then
    grep -q '^  usable .*[1-9] of ' <<<"$card"
else
    grep -q '^  the CUDA backend: \|^  a card: ' <<<"$card"
fi
! "$mhcpipe" doctor --device abacus 2>/dev/null
