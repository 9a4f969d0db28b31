#!/usr/bin/env bash
# commands.sh MHCPIPE: what plan and check print, and what they refuse.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# refused WORDS COMMAND...: the command fails with these words on stderr.
refused() {
    local words=$1
    shift
    if "$mhcpipe" "$@" >out 2>err; then
        fail "$* succeeded"
    fi
    grep -qF -- "$words" err || fail "$*: expected \"$words\", got $(cat err)"
}

# prints WORDS COMMAND...
prints() {
    local words=$1
    shift
    "$mhcpipe" "$@" >out 2>err || fail "$* failed: $(cat err)"
    grep -qF -- "$words" out || fail "$*: expected \"$words\", got $(cat out)"
}

dualpipe=(--kind dualpipe --ranks 8 --microbatches 20)

echo "== formats"
"$mhcpipe" plan "${dualpipe[@]}" --format csv --compute-only | cmp - "$here/golden/schedules/dualpipe_p8_m20.csv" ||
    fail "the compute order of dualpipe is not the golden one"
prints "makespan        66 units, the work of 22.00 micro-batches" plan "${dualpipe[@]}"
prints "rank 0   0F0" plan "${dualpipe[@]}" --format ascii
prints "0SEND_F0" plan "${dualpipe[@]}" --format csv
prints '"makespan_us":66.0' plan "${dualpipe[@]}" --format json
prints '</svg>' plan "${dualpipe[@]}" --format svg --arrows
prints '</html>' plan "${dualpipe[@]}" --format html
"$mhcpipe" plan "${dualpipe[@]}" --format svg >first.svg
"$mhcpipe" plan "${dualpipe[@]}" -o second.svg
cmp first.svg second.svg || fail "the end of -o FILE does not choose the format"
prints "bubble          worst 30.4 %" plan --kind 1f1b --ranks 8 --microbatches 16
prints "bubble          worst 22.6 %" plan --kind 1f1b --ranks 8 --microbatches 16 --gradients early

echo "== costs"
cat >costs.yaml <<'YAML'
stages: [{forward_us: 100, input_gradient_us: 110, weight_gradient_us: 90, bytes: {activation: 1048576}}]
links: [{default: true, bandwidth_gb_s: 50, latency_us: 5}]
message_bytes: 2000000
YAML
prints "free ones would save" plan "${dualpipe[@]}" --costs costs.yaml
prints "peak MiB" plan "${dualpipe[@]}" --costs costs.yaml
prints "leaves when its I is done" plan "${dualpipe[@]}" --costs costs.yaml
sed 's/forward_us: 100/forward_us: -1/' costs.yaml >bad.yaml
refused 'bad.yaml:1:23: stages[0].forward_us is "-1"' plan "${dualpipe[@]}" --costs bad.yaml
sed 's/^stages: .*/stages: [{forward_us: 1, input_gradient_us: 1, weight_gradient_us: 1}, {forward_us: 1, input_gradient_us: 1, weight_gradient_us: 1}]/' \
    costs.yaml >bad.yaml
refused "bad.yaml:1:9: stages has 2 entries: expected one, or one for each of the plan's 8 stages" plan "${dualpipe[@]}" --costs bad.yaml
refused "none.yaml" plan "${dualpipe[@]}" --costs none.yaml

echo "== comparison"
prints "dualpipev" plan --ranks 4 --microbatches 8 --compare 1f1b,dualpipev
[ "$(wc -l <out)" -eq 3 ] || fail "a comparison of two has not three lines"
prints "the nearest are 4 and 6" plan --ranks 5 --microbatches 10 --compare 1f1b,dualpipe
refused "no schedule of this name" plan --ranks 4 --microbatches 8 --compare 1f1b,none

echo "== configurations"
make_data
write_config
prints "dualpipe: 2 ranks, 2 stages, 4 micro-batches" plan config.yaml
prints "peak MiB" plan config.yaml
prints "1f1b: 2 ranks" plan config.yaml --set schedule.kind=1f1b
prints "gpipe" plan config.yaml --compare gpipe,dualpipev
# 4 messages of n x (C + n) floats for each of 2 x 32 tokens, C = 16 and n = 4
"$mhcpipe" plan config.yaml >out
awk '$1 == 0 && /%/ { exit !($8 == 4 && $9 == sprintf("%.2f", 4 * 4 * 20 * 4 * 64 / 1048576)) }' out || fail "rank 0 sends another size: $(cat out)"
refused '--ranks is for --kind: expected none with config.yaml; a configuration'"'"'s is changed by --set parallel.pipeline=P' \
    plan config.yaml --ranks 4
refused '--set schedule.microbatches=M' plan config.yaml --microbatches 8
refused '--set schedule.chunks=V' plan config.yaml --chunks 2
refused "expected a configuration to change" plan --kind 1f1b --ranks 2 --microbatches 2 --set model.hidden_size=3

echo "== check"
"$mhcpipe" plan "${dualpipe[@]}" --format csv --compute-only >order.csv
"$mhcpipe" plan "${dualpipe[@]}" --format csv >full.csv
prints "order.csv is a valid schedule: 8 ranks, 8 stages, 20 micro-batches, stages on several ranks" check order.csv
prints "full.csv is a valid schedule" check full.csv
prints "worst bubble 9.1 %" check full.csv
printf '0F0,0B0,0F1,0B1\n1F1,1B1,1F0,1B0\n' >deadlock.csv
refused "deadlock" check deadlock.csv
printf '0F0,0F0,0B0\n' >twice.csv
refused "rank 0, position 1, 0F0: done already at position 0" check twice.csv
printf '0F0,0X0\n' >unknown.csv
refused 'unknown.csv:1: cell 2: action "0X0"' check unknown.csv
printf '0F0,0I0\n' >missing.csv
refused "is missing" check missing.csv
refused "none.csv" check none.csv

echo "== output"
if [ -w /dev/full ]; then
    "$mhcpipe" plan "${dualpipe[@]}" >/dev/full 2>err && fail "a full disk is no error"
    grep -q "cannot write to standard output: No space left on device" err || fail "a full disk: $(cat err)"
fi
refused "no-such-folder" plan "${dualpipe[@]}" -o no-such-folder/p.svg
