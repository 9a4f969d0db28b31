#!/usr/bin/env bash
# profile.sh MHCPIPE CHECK_REPORT TRANSPORT RANKS: trains a small bf16 model on a card a rank and records some steps of it with kernels.
# Compute by events and by the card's own records must not be more than 2 % apart on any rank; messages neither, by events and by
# records of copies (ipc) or of NCCL's kernels (nccl); no record may be lost; message kinds and energy must be there, spans must nest.
# On several cards likewise compute with pairs on two streams. Prints the numbers that it compares.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
check=$(realpath "$2")
transport=$3
ranks=$4
"$mhcpipe" doctor --device cuda >/dev/null 2>&1 || { echo "skipped: no card"; exit 77; }
make_data
write_config

# Its kernels are long enough that a launch does not count: 32768 tokens a micro-batch, 4 streams of 2048 channels. Messages of
# 537 MB go in one piece, of which all is transfer by events, and a copy or a pair of kernels by records; their starts and ends do not count.
settings=(
    model.hidden_size=2048 model.num_hidden_layers=4 model.num_attention_heads=16 model.num_key_value_heads=8 model.intermediate_size=5632
    model.dtype=bf16 train.sequence_length=1024 train.micro_batch_size=32 train.steps=16
    parallel.device=cuda "parallel.pipeline=$ranks" schedule.kind=1f1b schedule.microbatches=4 schedule.overlap.slices=1 optimizer.lr=1e-4
    data.split.held_out=0.2 eval.every=0 eval.sequences=2 checkpoint.every=0 log.every=10
    profile.start=8 profile.kernels=true
)
if [ "$ranks" -gt 1 ]; then
    settings+=("parallel.transport=$transport")
fi
export MHP_TEST_TIMEOUT=250
launch "$ranks" train config.yaml "${settings[@]/#/--set=}" --set log.dir=run --profile 6 >out 2>&1 || fail "training: $(tail -5 out)"
grep 'profile.kernels' out || true

"$mhcpipe" report run >table || fail "no report: $(tail -3 table)"
cat table
"$check" figures run/report.json
"$check" nested run/profile/trace.json
limits=(2)
case $transport in
ipc | nccl) limits+=(2) ;;
esac
"$check" records run/report.json "${limits[@]}"
"$check" power run/metrics.jsonl "$ranks"
grep -q '^  GPU  *[0-9.]* J a step, idle in bubbles [0-9.]* J, exposed [0-9.]* J$' table || fail "idle energy of the cards is not known: $(grep '^  GPU' table)"

# Pairs on two streams: what a card's own records call compute is the same still, and no group begins before its lane could.
if [ "$ranks" -gt 1 ]; then
    launch "$ranks" train config.yaml "${settings[@]/#/--set=}" --set schedule.kind=dualpipev --set schedule.overlap.pair=streams \
        --set log.dir=pairs --profile 6 >out 2>&1 || fail "training with pairs: $(tail -5 out)"
    "$mhcpipe" report pairs >table || fail "no report: $(tail -3 table)"
    cat table
    "$check" figures pairs/report.json
    "$check" nested pairs/profile/trace.json
    "$check" lanes pairs/profile
    "$check" records pairs/report.json 2
fi
