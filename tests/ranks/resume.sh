#!/usr/bin/env bash
# resume.sh MHCPIPE: a checkpoint of four ranks goes on with other ranks, schedules, splits and devices; damaged ones are noticed.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
make_data
write_config
sed -i 's/num_hidden_layers: 4/num_hidden_layers: 8/; s/every: 4$/every: 1000/' config.yaml
base=(--set schedule.kind=dualpipe --set parallel.pipeline=4 --set schedule.microbatches=8 --set train.micro_batch_size=1)

# The losses of steps 7 to 12.
tail_losses() {
    [ "$(wc -l <"$1/metrics.jsonl")" -eq "$2" ] || fail "$1: expected $2 lines in metrics.jsonl"
    tail -6 "$1/metrics.jsonl" | grep -o '"step":[0-9]*,"loss":[0-9.e+-]*' | sed 's/"step"://; s/,"loss":/ /'
}

# Both columns of steps agree, and losses within rounding.
same_losses() {
    paste -d' ' <(tail_losses "$1" "$2") <(tail_losses whole 12) | awk '
        { d = $2 - $4; if ($1 != $3 || d * d > 1e-8) bad = 1; n++ }
        END { exit bad || n != 6 }' || fail "$1: $(tail_losses "$1" "$2" | tr '\n' ' ') unlike $(tail_losses whole 12 | tr '\n' ' ')"
}

tensors() {
    "$mhcpipe" checkpoint --tensors "$1"
}

echo "== four ranks, with a checkpoint in the middle"
launch 4 train config.yaml "${base[@]}" --set log.dir=whole --set checkpoint.every=6 >/dev/null
"$mhcpipe" checkpoint whole/checkpoints/step-00000006 >out
grep -q 'is intact: 6 steps done, next sample 48, seed 1, written by 4 ranks' out || fail "$(cat out)"

echo "== the same ranks and schedules: the same bits"
for kind in gpipe 1f1b dualpipe dualpipev; do
    layout=("${base[@]}" --set schedule.kind=$kind --set checkpoint.every=6 --set log.dir="bits-$kind")
    launch 4 train config.yaml "${layout[@]}" >/dev/null
    tensors "bits-$kind" >expected
    rm -r "bits-$kind/checkpoints/step-00000012"
    launch 4 train config.yaml "${layout[@]}" --resume "bits-$kind/checkpoints/step-00000006" >/dev/null
    cmp expected <(tensors "bits-$kind") || fail "$kind: resuming gave other bits"
done

echo "== other ranks, schedules, splits, replicas and devices"
for layout in "1 gpipe 1 1 8 1 cpu" "2 1f1b 2 1 4 2 cpu" "2 dualpipe 2 1 4 2 test" "2 dualpipev 2 1 8 1 cpu" "2 gpipe 1 2 2 2 cpu" \
    "4 1f1b 2 2 4 1 test" "4 dualpipe 2 2 4 1 cpu 3.5,4.5" "8 1f1b 8 1 8 1 cpu" "8 gpipe 4 2 4 1 cpu 0.5,3.5,1.5,2.5" "8 1f1b 8 1 2 4 cpu"; do
    read -r ranks kind pipeline data microbatches size device layers <<<"$layout"
    run="other-$ranks-$kind-$pipeline-$microbatches"
    launch "$ranks" train config.yaml --set log.dir="$run" --set schedule.kind="$kind" --set parallel.pipeline="$pipeline" \
        --set parallel.data="$data" --set schedule.microbatches="$microbatches" --set train.micro_batch_size="$size" \
        --set parallel.device="$device" --set schedule.layers_per_stage="[$layers]" --resume whole/checkpoints/step-00000006 >out
    grep -q '6 steps done; it was made with another configuration' out || fail "$layout: $(cat out)"
    same_losses "$run" 6
done

echo "== other seeds and batches are refused"
for change in train.seed=2 train.micro_batch_size=2; do
    ! launch 4 train config.yaml "${base[@]}" --set log.dir=no --set "$change" --resume whole/checkpoints/step-00000006 2>err >/dev/null ||
        fail "$change was taken"
    grep -q "whole/checkpoints/step-00000006 was made with" err || fail "$change: $(cat err)"
done

echo "== auto, latest, never, and a run's folder"
small=(--set parallel.pipeline=1 --set schedule.kind=gpipe --set schedule.microbatches=8 --set train.micro_batch_size=1)
small+=(--set checkpoint.every=2 --set eval.sequences=2)
launch 1 train config.yaml "${small[@]}" --set log.dir=small --set train.steps=6 --resume auto >out
! grep -q resumes out || fail "auto found something in an empty folder: $(cat out)"
launch 1 train config.yaml "${small[@]}" --set log.dir=small --set train.steps=8 --resume auto >out
grep -q 'resumes from small/checkpoints/step-00000006, 6 steps' out || fail "auto: $(cat out)"
launch 1 train config.yaml "${small[@]}" --set log.dir=small --set train.steps=10 --resume latest >out
grep -q 'resumes from small/checkpoints/step-00000008, 8 steps' out || fail "latest: $(cat out)"
cp -r small kept
launch 1 train config.yaml "${small[@]}" --set log.dir=kept --set train.steps=12 --set checkpoint.keep_last=2 \
    --set checkpoint.keep_every=4 --resume auto >out
[ "$(cd kept/checkpoints && echo *)" = "latest step-00000004 step-00000008 step-00000010 step-00000012" ] ||
    fail "retention left $(ls kept/checkpoints)"
! launch 1 train config.yaml "${small[@]}" --set log.dir=nothing --resume latest 2>err >/dev/null || fail "latest of nothing"
grep -q 'nothing/checkpoints/latest' err || fail "latest of nothing: $(cat err)"
launch 1 train config.yaml "${small[@]}" --set log.dir=small --resume small/checkpoints/step-00000004 --set train.steps=5 >/dev/null
[ "$(cd small/checkpoints && echo step-*)" = "step-00000002 step-00000004 step-00000005" ] ||
    fail "going back left $(ls small/checkpoints)"
[ -e small/checkpoints/abandoned-step-00000010 ] || fail "the later checkpoints are gone"

echo "== a new run in an old one's folder"
cp -r kept reused
launch 1 train config.yaml "${small[@]}" --set log.dir=reused --set train.steps=3 --set checkpoint.every=1 --set checkpoint.keep_last=1 >/dev/null
[ "$(cd reused/checkpoints && echo latest step-*)" = "latest step-00000003" ] || fail "the new run left $(ls reused/checkpoints)"
[ -e reused/checkpoints/abandoned-step-00000012 ] || fail "the old run's checkpoints are gone"
launch 1 train config.yaml "${small[@]}" --set log.dir=reused --set train.steps=4 --resume auto >out
grep -q 'resumes from reused/checkpoints/step-00000003, 3 steps' out || fail "auto took the old run's: $(cat out)"

echo "== damage: refused by name, and the checkpoint before it taken"
# flip FILE BYTE: inverts one bit.
flip() {
    printf "\\x$(printf %02x $((0x$(xxd_byte "$1" "$2") ^ 16)))" | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}
xxd_byte() {
    od -An -tx1 -j "$2" -N 1 "$1" | tr -d ' \n'
}
newest=whole/checkpoints/step-00000012
for file in "$newest"/*; do
    size=$(stat -c %s "$file")
    rm -rf damaged
    cp -r whole damaged
    case $file in
    *.safetensors) places=(3 40 $((size - 5))) ;;
    *) places=($((size / 2))) ;;
    esac
    for place in "${places[@]}"; do
        copy=damaged/checkpoints/step-00000012/$(basename "$file")
        flip "$copy" "$place"
        ! "$mhcpipe" checkpoint damaged/checkpoints/step-00000012 >/dev/null 2>err || fail "a flip of $copy at $place was not noticed"
        grep -q "$(basename "$file")" err || fail "a flip of $copy at $place: $(cat err)"
        flip "$copy" "$place"
    done
done
"$mhcpipe" checkpoint damaged/checkpoints/step-00000012 >/dev/null || fail "the flips were not undone"
shard=$(basename "$(ls "$newest"/optimizer-00003*)")
flip "damaged/checkpoints/step-00000012/$shard" $(($(stat -c %s "$newest/$shard") - 3))
! launch 4 train config.yaml "${base[@]}" --set log.dir=damaged --set train.steps=14 --resume latest >/dev/null 2>err ||
    fail "a damaged checkpoint was taken"
grep -q "error: .*$shard: tensor \"exp_avg_sq\.[^\"]*\" is corrupt.*--resume auto" err || fail "$(cat err)"
[ "$(grep -c error: err)" -eq 1 ] || fail "not one error: $(cat err)"
launch 4 train config.yaml "${base[@]}" --set log.dir=damaged --resume auto >out 2>err
grep -q "warning: .*$shard: tensor .*; trying damaged/checkpoints/step-00000006" err || fail "no warning: $(cat err)"
grep -q 'resumes from damaged/checkpoints/step-00000006, 6 steps' out || fail "$(cat out)"
cmp <(tensors whole) <(tensors damaged) || fail "the run that went back ended with other bits"
cp -r whole lost
flip lost/checkpoints/latest 12
! launch 4 train config.yaml "${base[@]}" --set log.dir=lost --resume latest >/dev/null 2>err || fail "a damaged latest was taken"
grep -q 'lost/checkpoints/latest' err || fail "$(cat err)"
launch 4 train config.yaml "${base[@]}" --set log.dir=lost --set train.steps=13 --resume auto >out 2>err
grep -q 'resumes from lost/checkpoints/step-00000012' out || fail "$(cat out err)"
