#!/usr/bin/env bash
# train.sh MHCPIPE: whole runs of the program - the same bits again, on other ranks the same losses, resuming, evaluating, generating.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
make_data
write_config

# Of each step: number, loss and gradient norm.
losses() {
    grep -o '"step":[0-9]*,"loss":[0-9.e+-]*\|"grad_norm":[0-9.e+-]*' "$1/metrics.jsonl"
}

# Checkpoints of the same layout of ranks: parameters and moments, bit by bit.
same_model() {
    cmp <("$mhcpipe" checkpoint --tensors "$1") <("$mhcpipe" checkpoint --tensors "$2") || fail "$1 and $2 hold different models"
}

echo "== a run, and again: the same bits"
launch 2 train config.yaml >out
grep -q 'trained 12 steps; held-out loss' out || fail "no last line: $(cat out)"
[ "$(wc -l <run/metrics.jsonl)" -eq 12 ] || fail "metrics.jsonl has not one line a step"
grep -q '"held_out_loss"' run/metrics.jsonl || fail "no held-out loss in metrics.jsonl"
for key in gain_forward gain_backward peak_bytes flops_per_s tokens_per_s bubble lr; do
    [ "$(grep -c "\"$key\":" run/metrics.jsonl)" -eq 12 ] || fail "metrics.jsonl lacks $key"
done
[ "$(cut -d" " -f1 run/checkpoints/latest)" = step-00000012 ] || fail "latest names $(cat run/checkpoints/latest)"
"$mhcpipe" config run/config.resolved.yaml --print | cmp - run/config.resolved.yaml || fail "the resolved configuration does not read back"
launch 2 train config.yaml --set log.dir=again >/dev/null
same_model run/checkpoints/step-00000012 again/checkpoints/step-00000012
cmp <(losses run) <(losses again) || fail "two runs differ in losses"

echo "== resuming: the same bits as without a stop"
launch 2 train config.yaml --set log.dir=half --set train.steps=12 --set checkpoint.every=5 >/dev/null
same_model run/checkpoints/step-00000012 half/checkpoints/step-00000012
rm -r half/checkpoints/step-00000012
launch 2 train config.yaml --set log.dir=half --resume half/checkpoints/step-00000005 >/dev/null
same_model run/checkpoints/step-00000012 half/checkpoints/step-00000012
cmp <(losses run) <(losses half) || fail "metrics.jsonl of a resumed run has not each step once"
launch 2 train config.yaml --set log.dir=half --set train.steps=14 --resume half >/dev/null
[ "$(wc -l <half/metrics.jsonl)" -eq 14 ] || fail "resuming from a run's folder did not go on at its end"

echo "== other ranks, schedules, splits and devices: the same samples"
first_loss=$(losses run | head -1)
for layout in "1 gpipe 1 1 4 2" "2 1f1b 2 1 8 1" "4 dualpipev 2 2 4 1" "4 gpipe 4 1 2 4"; do
    read -r ranks kind pipeline data microbatches size <<<"$layout"
    launch "$ranks" train config.yaml --set log.dir="other-$kind-$ranks" --set schedule.kind="$kind" \
        --set parallel.pipeline="$pipeline" --set parallel.data="$data" --set schedule.microbatches="$microbatches" \
        --set train.micro_batch_size="$size" --set parallel.device=test >/dev/null
    awk -v a="${first_loss##*:}" -v b="$(losses "other-$kind-$ranks" | head -1 | grep -o '[^:]*$')" \
        'BEGIN { d = a - b; exit !(d * d < 1e-8) }' || fail "$layout: first loss unlike $first_loss"
done

echo "== evaluate and generate"
held_out=$(tail -1 run/metrics.jsonl | grep -o '"held_out_loss":[0-9.]*' | grep -o '[0-9.]*$')
launch 2 eval config.yaml --model run/checkpoints/step-00000012 >out
awk -v a="$held_out" -v b="$(grep -o 'loss [0-9.]*' out | cut -d' ' -f2)" 'BEGIN { d = a - b; exit !(d * d < 1e-10) }' ||
    fail "eval says $(cat out), training said $held_out"
"$mhcpipe" generate --model run/best --prompt 'int ' --bytes 20 --temperature 0 >out
grep -q '^int ' out || fail "generate printed $(cat out)"
[ "$(wc -c <out)" -le 25 ] || fail "generate printed more than it was asked for"

echo "== dry run"
"$mhcpipe" train config.yaml --dry-run >out
grep -q 'memory of a rank' out && grep -q 'tokens in' out || fail "dry run printed $(cat out)"
