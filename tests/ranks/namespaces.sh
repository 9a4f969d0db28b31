#!/usr/bin/env bash
# shellcheck disable=SC2154     # mhcpipe and here are those of lib.sh
# namespaces.sh MHCPIPE: ranks that do not see each other's processes, as in a container each: ipc says so, auto takes another way.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
apart=(unshare --pid --fork --mount-proc)
"${apart[@]}" true 2>/dev/null || { echo "skipped: not allowed to make namespaces of processes"; exit 77; }
make_data
write_config
export OMPI_MCA_btl=self,tcp            # Open MPI's own shared memory looks for processes too

train() {
    "$here/mpirun.sh" 2 "${apart[@]}" "$mhcpipe" train config.yaml --set parallel.device=test --set train.steps=2 --set log.dir="$1" \
        --set parallel.transport="$1" >log 2>&1
}

! train ipc || fail "ipc between ranks that do not see each other"
[ "$(grep -c 'mhcpipe: error:' log)" -eq 1 ] || fail "not one error: $(cat log)"
grep -q 'parallel.transport is ipc.*expected auto, nccl or mpi' log || fail "$(cat log)"
train auto || fail "auto: $(cat log)"
train mpi || fail "mpi: $(cat log)"
cmp -s <(grep -o '"loss": *[0-9.e+-]*' auto/metrics.jsonl) <(grep -o '"loss": *[0-9.e+-]*' mpi/metrics.jsonl) || fail "losses differ"
