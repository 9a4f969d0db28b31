#!/usr/bin/env bash
# refusals.sh MHCPIPE: what ranks of one card cannot do is said at once, by one message.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
"$mhcpipe" doctor --device cuda >/dev/null || { echo "skipped: no card"; exit 77; }
make_data
write_config
export MHP_TEST_TIMEOUT=60

expect() {
    local pattern=$1 status=0
    shift
    launch "$@" >out 2>err || status=$?
    [ "$status" -ne 0 ] && [ "$status" -ne 124 ] && [ "$status" -ne 137 ] || fail "exit status $status: $*: $(cat err)"
    [ "$(grep -c 'mhcpipe: error:' err)" -eq 1 ] || fail "not one error: $*: $(cat err)"
    grep -q -- "$pattern" err || fail "expected \"$pattern\": $*: $(cat err)"
    grep 'mhcpipe: error:' err
}

one_card=(--set parallel.device=cuda --set parallel.gpu=0)
expect 'ranks 0 and 1 share a card .*ipc can carry\|without NCCL' 2 train config.yaml "${one_card[@]}" --set parallel.transport=nccl

# Each of the two fits alone: the larger one takes 0.7 of what is free.
large=(train.sequence_length=256 schedule.microbatches=2 schedule.kind=1f1b)
mib=$("$mhcpipe" plan config.yaml --memory-table "${large[@]/#/--set=}" --set=train.micro_batch_size=1000 "${one_card[@]}" |
    awk '$1 == "0" { print $14; exit }')
free=$("$mhcpipe" doctor | sed -n 's/.*(\([0-9.]*\) free).*/\1/p' | head -1)
sequences=$(awk -v gib="$free" -v mib="$mib" 'BEGIN { printf "%d", gib * 1024 * 0.7 / (mib / 1000) }')
expect 'for the 2 ranks that share it' 2 train config.yaml "${one_card[@]}" "${large[@]/#/--set=}" \
    --set train.micro_batch_size="$sequences"
