#!/usr/bin/env bash
# run.sh: Spin's proof of channel.pml for 2 and 3 ranks; and the mutations in which it must find an error. 77 without Spin.
set -euo pipefail
model=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/channel.pml
command -v spin >/dev/null || { echo "skipped: no spin" >&2; exit 77; }
work=$(mktemp -d "${TMPDIR:-/tmp}/mhcpipe-test.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"

# check DEFINITIONS: prints Spin's count of errors and states.
check() {
    spin -a "$@" "$model" >spin.log || { cat spin.log >&2; exit 1; }
    "${CC:-cc}" -O1 -w -DSAFETY -DNOCLAIM -DCOLLAPSE -o pan pan.c
    ./pan -m100000 >pan.log
    if ! grep -q 'errors: [01]' pan.log || { grep -q 'Search not completed' pan.log && grep -q 'errors: 0' pan.log; }; then
        cat pan.log >&2
        exit 1
    fi
    sed -n 's/.*errors: \([0-9]*\).*/\1/p; s/ *\([0-9.e+]*\) states, stored.*/\1/p' pan.log | tr '\n' ' '
}

# expect ERRORS WHAT DEFINITIONS
expect() {
    local errors=$1 what=$2 found
    shift 2
    found=$(check "$@")
    echo "$what: errors, states: $found"
    if [ "${found%% *}" -ne "$errors" ]; then
        echo "FAILED: $what: expected $errors errors" >&2
        grep -E 'pan:|depth' pan.log >&2
        exit 1
    fi
}

expect 0 "2 ranks, rendezvous" -DRANKS=2 -DFAILURES=0
expect 0 "2 ranks, eager" -DRANKS=2 -DWIRE=3 -DFAILURES=0
expect 0 "3 ranks, rendezvous" -DRANKS=3 -DFAILURES=0
expect 0 "3 ranks, eager" -DRANKS=3 -DWIRE=3 -DFAILURES=0
expect 0 "2 ranks, one of which fails" -DRANKS=2 -DMICROBATCHES=2 -DFAILURES=1
expect 0 "2 ranks, both of which may fail" -DRANKS=2 -DMICROBATCHES=1 -DFAILURES=2
expect 0 "the end of 3 ranks, two of which may fail" -DRANKS=3 -DMICROBATCHES=1 -DFAILURES=2 -DSHUTDOWN_ONLY
expect 1 "receives posted into slots that are not free" -DRANKS=2 -DWIRE=3 -DFAILURES=0 -DMUTATE_EARLY
expect 1 "waits that a notice does not end" -DRANKS=2 -DMUTATE_DEAF
expect 1 "ranks that end before the one that reports" -DRANKS=3 -DMICROBATCHES=1 -DFAILURES=2 -DSHUTDOWN_ONLY -DMUTATE_HASTE
