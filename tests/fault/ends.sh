#!/usr/bin/env bash
# ends.sh MHCPIPE PRELOAD: how a run ends whose rank finds an error of its own while messages are under way, or hangs or dies where the
# watchdog does not look yet or no more. Every end has one line that says why, and comes within its limit.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
preload=$(realpath "$2")
make_data
write_config
export MHP_TEST_TIMEOUT=20
export ASAN_OPTIONS="verify_asan_link_order=0:${ASAN_OPTIONS:-}"

# train RANKS SETTINGS...: the exit status in `status`, files out and err, the seconds in `took`.
train() {
    local ranks=$1
    shift
    status=0
    SECONDS=0
    rm -rf run comes.* finalized.*
    "$here/mpirun.sh" "$ranks" env LD_PRELOAD="$preload" "$mhcpipe" train config.yaml --set parallel.pipeline="$ranks" \
        --set train.steps=3 --set eval.every=0 "$@" >out 2>err || status=$?
    took=$SECONDS
}

# one_error STATUS PATTERN
one_error() {
    [ "$status" -eq "$1" ] || fail "expected status $1, not $status, after $took s: $(cat out err)"
    [ "$(grep -c 'mhcpipe: error:' err)" -eq 1 ] || fail "not one error: $(cat out err)"
    grep -q -- "mhcpipe: error: $2" err || fail "expected \"$2\": $(cat err)"
    grep 'mhcpipe: error:' err
}

echo "== a message that is corrupt: the checksum is the one cause"
corrupt() {
    local kind=$1 ranks=$2 source=$3 microbatches=$4 last=$(($4 - 1))
    [[ "$kind" != dualpipe* ]] || last=1        # the others of a pipeline of both directions go the other way
    train "$ranks" --set schedule.kind="$kind" --set schedule.microbatches="$microbatches" --set parallel.verify=messages \
        --set "fault=[{kind: corrupt, rank: $source, step: 2, action: ${source}SEND_F$last}]"
    # It may come up when an action is submitted, or at the end of the step.
    one_error 1 "rank $((source + 1)): .*state of stage $source, rank $source to $((source + 1)): the message of step 2, micro-batch $last is corrupt"
}
for _ in 1 2; do
    corrupt gpipe 4 1 4
    corrupt 1f1b 4 1 4
    corrupt dualpipe 2 0 4
    corrupt dualpipev 2 0 4
done

echo "== a rank that hangs before the watchdog looks"
export MHP_TEST_RANK=1 MHP_TEST_CALL=allgather-2 MHP_TEST_END=hang
train 2 --set watch.start_seconds=2
one_error 1 'the launcher and MPI did not bring the ranks together within watch.start_seconds'
[ "$took" -le 8 ] || fail "ended only after $took s"

echo "== a rank that hangs when the watchdog looks no more"
export MHP_TEST_CALL=finalize
train 2 --set watch.silence_seconds=3
grep -q '^trained 3 steps' out || fail "the run did not come to its end: $(cat out err)"
one_error 1 'rank 0: the ranks did not leave within 3 s'
[ "$took" -le 8 ] || fail "ended only after $took s"

echo "== a rank that dies there"
export MHP_TEST_END=kill
train 2
grep -q '^trained 3 steps' out || fail "the run did not come to its end: $(cat out err)"
if [ -e finalized.0 ]; then             # late: MPI no longer waits for one that is dead, and nobody but the launcher sees that it died
    [ "$status" -eq 137 ] || fail "expected status 137, not $status: $(cat out err)"
    ! grep 'mhcpipe: error:' err || fail "an error of a run whose first rank has left in order: $(cat out err)"
else
    one_error 137 'terminated while the ranks left: one of them may have died'
fi
[ "$took" -le 8 ] || fail "ended only after $took s"
