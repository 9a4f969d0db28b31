#!/usr/bin/env bash
# resume.sh MHCPIPE: checkpoints of a card and of a CPU go on where they were made, to the bit, and on the other device and with other
# ranks and schedules, within rounding.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
"$mhcpipe" doctor --device cuda >/dev/null 2>&1 || { echo "skipped: no card"; exit 77; }
make_data
write_config

# run FOLDER RANKS DEVICE KIND MICROBATCHES [OPTION ...]: 12 steps of 8 samples, a checkpoint every 6.
run() {
    local folder=$1 ranks=$2 device=$3 kind=$4 microbatches=$5
    shift 5
    launch "$ranks" train config.yaml --set log.dir="$folder" --set parallel.device="$device" --set parallel.pipeline="$ranks" \
        --set schedule.kind="$kind" --set schedule.microbatches="$microbatches" --set train.micro_batch_size=$((8 / microbatches)) \
        --set checkpoint.every=6 "$@" >"$folder.out" 2>"$folder.err" || fail "$folder: $(cat "$folder.err")"
}

# The losses of steps 7 to 12.
tail_losses() {
    tail -6 "$1/metrics.jsonl" | grep -o '"step":[0-9]*,"loss":[0-9.e+-]*' | sed 's/"step"://; s/,"loss":/ /'
}

same_losses() {
    paste -d' ' <(tail_losses "$1") <(tail_losses "$2") | awk '
        { d = ($2 - $4) / $4; if ($1 != $3 || d * d > 1e-8) bad = 1; n++ }
        END { exit bad || n != 6 }' || fail "$1: $(tail_losses "$1" | tr '\n' ' ') unlike $(tail_losses "$2" | tr '\n' ' ')"
}

run card 2 cuda dualpipe 4
run cpu 2 cpu 1f1b 4
same_losses card cpu

echo "== the same ranks, schedule and card: the same bits"
"$mhcpipe" checkpoint --tensors card/checkpoints/step-00000012 >expected
run again 2 cuda dualpipe 4 --resume card/checkpoints/step-00000006
cmp expected <("$mhcpipe" checkpoint --tensors again/checkpoints/step-00000012) || fail "resuming on the card gave other bits"

echo "== other devices, ranks and schedules"
for layout in "1 cuda gpipe 8 cpu" "2 cuda dualpipev 8 cpu" "4 cuda 1f1b 4 cpu" "1 cpu gpipe 4 card" "2 cpu dualpipe 4 card" "4 cuda gpipe 8 card"; do
    read -r ranks device kind microbatches from <<<"$layout"
    run "other-$ranks-$device-$kind-$from" "$ranks" "$device" "$kind" "$microbatches" --resume "$from/checkpoints/step-00000006"
    grep -q '6 steps done' "other-$ranks-$device-$kind-$from.out" || fail "$layout: $(cat "other-$ranks-$device-$kind-$from.out")"
    same_losses "other-$ranks-$device-$kind-$from" "$from"
done
