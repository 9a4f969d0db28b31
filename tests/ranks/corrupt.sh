#!/usr/bin/env bash
# corrupt.sh TEST_GUARDS: a message whose bit is flipped ends the run, with one error that names it.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")

# expect RANKS KIND TEXT
expect() {
    local err
    if err=$("$here/in_folder.sh" "$1" "$test_guards" corrupt "$2" 2>&1); then
        echo "FAILED: $1 ranks, $2: no error" >&2
        exit 1
    fi
    if [ "$(grep -c 'error: rank' <<<"$err")" -ne 1 ] || ! grep -q "error: rank [0-3]: .*$3" <<<"$err"; then
        printf 'FAILED: %s ranks, %s: %s\n' "$1" "$2" "$err" >&2
        exit 1
    fi
}

test_guards=$1
corrupt='the message of step 4, micro-batch 2 is corrupt: its bytes have the checksum [0-9a-f]\{32\}, it carries [0-9a-f]\{32\}$'
expect 2 state "state of stage 0, rank 0 to 1: $corrupt"
expect 2 gradient "gradient of stage 1, rank 1 to 0: $corrupt"
expect 4 state "state of stage [0-2], rank [0-2] to [1-3]: $corrupt"
