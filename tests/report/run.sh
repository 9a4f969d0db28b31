#!/usr/bin/env bash
# run.sh MHCPIPE CHECK_REPORT SIMULATED_RUN: profiled runs whose reports add up, whose costs plan and tune read, and what is refused.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
check=$(realpath "$2")
simulated_run=$(realpath "$3")
make_data
write_config

# refused WORDS COMMAND...: one message with these words, and no success.
refused() {
    local words=$1
    shift
    if "$mhcpipe" "$@" >out 2>err; then
        fail "$* succeeded"
    fi
    grep -qF -- "$words" err || fail "$*: expected \"$words\", got $(cat err)"
    [ "$(wc -l <err)" -eq 1 ] || fail "$*: more than one line: $(cat err)"
}

echo "== a run without and with --profile: the same bits"
launch 4 train config.yaml --set parallel.pipeline=4 --set schedule.microbatches=8 --set log.dir=plain >/dev/null
launch 4 train config.yaml --set parallel.pipeline=4 --set schedule.microbatches=8 --set log.dir=run --profile 3 >/dev/null
cmp <("$mhcpipe" checkpoint --tensors plain/checkpoints/step-00000012) <("$mhcpipe" checkpoint --tensors run/checkpoints/step-00000012) ||
    fail "recording changes what is trained"
[ ! -e plain/profile ] || fail "a run without --profile left a trace"
[ "$(ls run/profile)" = "$(printf 'rank-000%d.trace\n' 0 1 2 3)" ] || fail "the traces are $(ls run/profile)"

echo "== the report"
"$mhcpipe" report run --costs costs.yaml >out
grep -q '^dualpipe on 4 ranks, 4 stages, 8 micro-batches; steps 4 to 6' out || fail "the table begins with $(head -1 out)"
grep -q 'report        run/report.html' out || fail "the table does not say where the report is"
"$check" figures run/report.json
"$check" trace run/profile/trace.json

echo "== other schedules, replicas, recompute, the test device, and runs that are short or go on"
for case in "1f1b 2 1 4" "gpipe 1 2 4" "zb-v 2 1 4 --set=schedule.recompute.what=full" "dualpipev 2 2 4" "interleaved 2 1 4 --set=parallel.device=test"; do
    read -r kind pipeline data microbatches more <<<"$case"
    # shellcheck disable=SC2086
    launch $((pipeline * data)) train config.yaml --set schedule.kind="$kind" --set parallel.pipeline="$pipeline" --set parallel.data="$data" \
        --set schedule.microbatches="$microbatches" --set train.steps=3 --set log.dir="$kind" --profile 9 $more >/dev/null
    "$mhcpipe" report "$kind" >out || fail "$case: $(cat out)"
    grep -q 'steps 1 to 3' out || fail "$case: $(head -1 out)"
    "$check" figures "$kind/report.json"
    [ "$kind" = gpipe ] || "$check" trace "$kind/profile/trace.json"
done
launch 2 train config.yaml --set schedule.kind=1f1b --set schedule.microbatches=4 --set train.steps=8 --set log.dir=1f1b --resume 1f1b \
    --profile 2 --set profile.start=1 >/dev/null
"$mhcpipe" report 1f1b | grep -q 'steps 5 to 6' || fail "a resumed run records other steps"

echo "== pairs on lanes of their own: no group has the time for which its lane waited, nor has compute"
cp config.yaml late.yaml
printf 'fault:\n  - {kind: slow, rank: 0, step: 3, action: "(3F3;0B1)OVERLAP_F_B", seconds: 0.3}\n' >>late.yaml
for case in "dualpipe streams config.yaml" "dualpipev parts config.yaml" "dualpipev streams late.yaml" "dualpipev parts late.yaml"; do
    read -r kind pair config <<<"$case"
    launch 2 train "$config" --set schedule.kind="$kind" --set schedule.microbatches=8 --set train.steps=3 --set log.dir=lanes \
        --set schedule.overlap.pair="$pair" --set schedule.overlap.slices=2 --profile 2 >/dev/null
    "$mhcpipe" report lanes >out || fail "$case: $(cat out)"
    "$check" figures lanes/report.json
    "$check" trace lanes/profile/trace.json
    "$check" lanes lanes/profile
    [ "$config" = config.yaml ] ||
        awk '$1 == 1 && $2 > 100 { found = $3 < 40 && $7 > 40 } END { exit !found }' out || fail "$case: rank 1 does not wait: $(cat out)"
done

echo "== whose traces these are"
# train_own [OPTION ...]: the same run of two ranks again; a report of it if it is recorded.
train_own() {
    launch 2 train config.yaml --set schedule.kind=1f1b --set train.steps=8 --set checkpoint.every=4 --set log.dir=own "$@" >/dev/null
}
train_own --profile 2 --set profile.start=5
"$mhcpipe" report own >out || fail "$(cat out)"
grep -q 'steps 6 to 7' out || fail "recorded: $(head -1 out)"
train_own --resume own --set train.steps=10
"$mhcpipe" report own >out || fail "a run that goes on loses what it recorded: $(cat out)"
grep -q 'steps 6 to 7' out || fail "a run that goes on records other steps: $(head -1 out)"
cp -r own went_on
train_own --resume own/checkpoints/step-00000004
for file in profile report.json report.html; do
    [ ! -e "own/$file" ] || fail "steps that are done again leave own/$file"
done
rm -r own
cp -r went_on own
train_own --resume own --set train.steps=12 --set schedule.kind=gpipe
[ ! -e own/profile ] && [ ! -e own/report.json ] || fail "a run that goes on with another schedule keeps the traces of the one before"
rm -r own
cp -r went_on own
train_own --set model.hidden_size=32 --set train.steps=3
for file in profile report.json report.html; do
    [ ! -e "own/$file" ] || fail "a run from the start keeps own/$file of an earlier one"
done
refused "there is no own/profile/rank-0000.trace" report own

echo "== a schedule of one's own: kept with the run"
"$mhcpipe" plan -k 1f1b --ranks 2 --microbatches 4 --compute-only --format yaml -o mine.yaml >/dev/null
launch 2 train config.yaml --set schedule.kind=custom --set schedule.file=mine.yaml --set train.steps=6 --set log.dir=custom --profile 2 >/dev/null
"$mhcpipe" report custom >expected || fail "$(cat expected)"
(cd / && "$mhcpipe" report "$work/custom") >out 2>err || fail "report from another folder: $(cat err)"
cmp <(grep -v custom/ out) <(grep -v custom/ expected) || fail "report from another folder: another table"
"$mhcpipe" plan -k gpipe --ranks 2 --microbatches 4 --compute-only --format yaml -o mine.yaml >/dev/null
"$mhcpipe" report custom 2>err | cmp - expected || fail "report goes by a schedule that was changed since: $(cat err)"
rm mine.yaml
launch 2 train custom/config.resolved.yaml --set schedule.file=custom/schedule.resolved/mine.yaml --set profile.steps=1 >/dev/null
"$mhcpipe" report custom >out || fail "a run from its own copy of the schedule: $(cat out)"
launch 2 train config.yaml --set train.steps=2 --set log.dir=custom >/dev/null
[ ! -e custom/schedule.resolved ] || fail "a run without schedule.file keeps the copy of an earlier one's"

echo "== measured costs"
"$mhcpipe" plan run/config.resolved.yaml --costs costs.yaml >out
simulated=$(grep -o '"simulated_plan_us":[^,]*' <(tr -d ' ' <run/report.json) | cut -d: -f2)
makespan=$(awk '/^makespan  / { print $2 }' out)
awk -v a="$simulated" -v b="$makespan" 'BEGIN { exit !(a > 0 && (a - b) ^ 2 < 1e-8 * a * a) }' || fail "plan says $makespan us, the report $simulated"
ends=$(sed -n 's/.*ends: {forward_us: \([^,]*\),.*/\1/p' costs.yaml | awk '$1 > 0 { printf "%d ", NR }')
[ "$ends" = "1 4 " ] || fail "stages $ends have embedding or head by the costs, expected the first and the last of 4"
nice "$mhcpipe" tune run/config.resolved.yaml --costs costs.yaml --iterations 200 -o best.yaml >out || fail "tune refuses the costs: $(cat out)"

echo "== kernel records: of cards as they would be, and of a run without a card, which goes on and says why not"
mkdir cards
"$mhcpipe" config config.yaml --print --set parallel.pipeline=4 --set schedule.microbatches=8 >cards/config.resolved.yaml
"$simulated_run" cards dualpipe 4 8 copies >/dev/null
"$mhcpipe" report cards >out || fail "$(cat out)"
grep -q '^kernels  *the card.s records; on the host their clock is read within 0.5 us; 0 lost' out || fail "no records in the table: $(cat out)"
"$check" figures cards/report.json
"$check" trace cards/profile/trace.json
"$check" nested cards/profile/trace.json
"$check" records cards/report.json 0.001 29 | grep 'messages: .*+28.91 % apart'     # their copies are made shorter
"$check" records cards/report.json 0.001 28 >/dev/null 2>err && fail "messages may be as far apart as they like"
grep -q 'messages: 28.9.* apart, expected at most 28' err || fail "$(cat err)"
mkdir nccl
cp cards/config.resolved.yaml nccl
"$simulated_run" nccl dualpipe 4 8 nccl >/dev/null      # the same messages, as kernels; ranks send and receive at the same time
"$mhcpipe" report nccl >out || fail "$(cat out)"
grep -q '^messages .* ms by records of NCCL kernels (+28.91 %)' out || fail "no messages by NCCL in the table: $(cat out)"
"$check" records nccl/report.json 0.001 29 | grep 'messages: .* by records of NCCL kernels, +28.91 % apart'
cp cards/profile/rank-0003.trace nccl/profile
"$mhcpipe" report nccl >out || fail "$(cat out)"
grep -q '^messages .* not known by records: the messages have not two kernels of NCCL each' out || fail "one rank's kernels are missing: $(cat out)"
"$check" records nccl/report.json 0.001 | grep 'messages: not known by records: the messages have not two kernels'
"$check" records nccl/report.json 0.001 29 >/dev/null 2>err && fail "messages that are not known are judged"
grep -q 'messages are not known by records: the messages have not' err || fail "$(cat err)"
launch 2 train config.yaml --set schedule.kind=1f1b --set train.steps=6 --set log.dir=cardless --profile 2 --profile-kernels >/dev/null 2>err
grep -q 'rank 0 records no kernels: no card computes' err || fail "no reason in the log: $(cat err)"
"$mhcpipe" report cardless | grep -q 'no records of 2 of 2 ranks: no card computes' || fail "no reason in the report"
"$check" figures cardless/report.json
"$check" records cardless/report.json 2 2>err && fail "records are found without a card"
grep -q 'rank 0 has no kernel records: no card computes' err || fail "$(cat err)"

echo "== energy: null with the reason where nothing is readable; known joules of a card each and of packages that two ranks share"
if [ ! -r /sys/class/powercap/intel-rapl:0/energy_uj ]; then
    grep -q '^  CPU  *- J a step, idle in bubbles - J, exposed - J (.*powercap' <("$mhcpipe" report run) || fail "no reason for the energy"
fi
"$mhcpipe" report cards >out
grep -q '^energy  *- J a step.* - J a token$' out || fail "energy of a run without metrics: $(cat out)"
grep -q '^  GPU  *- J.*(there is no cards/metrics.jsonl)$' out || fail "no reason without metrics: $(cat out)"
grep -q '^  whole run .* - kWh, - g CO2e (there is no cards/summary.json' out || fail "no reason without a summary: $(cat out)"
meters='{"kind":"gpu","ranks":[0],"j":40},{"kind":"gpu","ranks":[1],"j":30},{"kind":"gpu","ranks":[2],"j":20},{"kind":"gpu","ranks":[3],"j":10},'
meters+='{"kind":"cpu","ranks":[0,1],"j":6},{"kind":"cpu","ranks":[2,3],"j":2}'
echo '{"step":1,"tokens":1000,"loss":4,"energy_gpu_j":100,"energy_cpu_j":8,"energy_j":108,"energy_meters":['"$meters"']}' >cards/metrics.jsonl
echo '{"step":2,"tokens":1000,"loss":3,"energy_gpu_j":200,"energy_cpu_j":9,"energy_j":209}' >>cards/metrics.jsonl
echo '{"steps":2,"first_step":0,"energy":{"gpu_j":300,"cpu_j":17,"j_per_step":158.5,"j_per_token":0.1585,"kwh":0.25,"co2e_g":95,' \
    '"grams_per_kwh":380,"pue":1}}' >cards/summary.json
"$mhcpipe" report cards >out
grep -q '^energy  *108 J a step, idle in bubbles [0-9.]* J, exposed [0-9.]* J, 0.108 J a token$' out || fail "energy: $(cat out)"
grep -q '^  whole run  *158.5 J a step, 0.1585 J a token, 0.25 kWh, 95 g CO2e$' out || fail "the run's energy: $(cat out)"
"$check" figures cards/report.json
[ "$(grep -c '"kind": "[gc]pu"' cards/report.json)" -eq 6 ] || fail "meters are missing in cards/report.json"

echo "== a long run, with bad steps: a small page"
# long_metrics FILE: 150,000 steps, each hundredth bad.
long_metrics() {
    awk 'BEGIN {
        for (s = 1; s <= 150000; s++) {
            printf "{\"step\":%d,\"loss\":%.6f,\"lr\":0.001,\"grad_norm\":1.5,\"tokens\":512,\"tokens_per_s\":52789.5,\"ms_per_step\":9.7,", s, 5 - s / 1e5
            printf "\"gain_forward\":%.6f,\"gain_backward\":1.5,\"worst_gain_forward\":1.1,\"worst_gain_backward\":1.2}\n", 1 + s % 7 / 10
            if (s % 100 == 0) printf "{\"event\":\"skip\",\"step\":%d,\"loss\":1e30,\"gain_forward\":1e30}\n", s
        }
    }' >"$1"
}
cp -r cards long
long_metrics long/metrics.jsonl
"$mhcpipe" report long >out || fail "$(cat out)"
"$check" drawn long/report.html 1000000
grep -q '1e+\?30' long/report.html && fail "bad steps are in the curves"
truncate -s 2G long/metrics.jsonl
"$mhcpipe" report long >out || fail "a metrics.jsonl of 2 GiB ends the report: $(cat out)"
"$check" drawn long/report.html 1000000
grep -q '"reason":"long/metrics.jsonl has 2147483648 bytes, more than 1073741824"' long/report.html || fail "the page does not say why it has no curves"

echo "== a plan that is slower than what was measured: all of it is drawn"
mkdir slow
cp cards/config.resolved.yaml slow
"$simulated_run" slow dualpipe 4 8 slow >/dev/null
"$mhcpipe" report slow >out || fail "$(cat out)"
"$check" figures slow/report.json
"$check" drawn slow/report.html 1000000
awk '/"simulated_plan_us"/ { gsub(/[^0-9.e+-]/, "", $2); plan = $2 } /"step_us"/ && steps { gsub(/[^0-9.e+-]/, "", $2); if (!n++) first = $2 }
     /"steps": \[/ { steps = 1 } END { exit !(plan > 1.5 * first) }' slow/report.json || fail "the plan is not slower: $(grep simulated_plan slow/report.json)"

echo "== recording takes at most 1 % of steps like the quickstart's"
launch 4 train "$here/../launch/examples/quickstart.yaml" --set data.path=data/words --set train.steps=3 --set eval.every=0 --set checkpoint.every=0 \
    --set log.dir=quick --profile 2 >/dev/null
"$mhcpipe" report quick >out || fail "$(cat out)"
"$check" figures quick/report.json 1

echo "== refused"
refused "there is no plain/profile/rank-0000.trace" report plain
refused "there is no nowhere/config.resolved.yaml" report nowhere
copy() {
    rm -rf bad
    mkdir bad
    cp -r run/config.resolved.yaml run/profile bad
}
copy
truncate -s -100 bad/profile/rank-0002.trace
refused "rank-0002.trace has" report bad
copy
truncate -s 5G bad/profile/rank-0002.trace
refused "rank-0002.trace has 5368709120 bytes" report bad
copy
cp config.yaml bad/profile/rank-0001.trace
refused "rank-0001.trace is no trace" report bad
copy
cp bad/profile/rank-0000.trace bad/profile/rank-0001.trace
refused "is of another run" report bad
copy
rm bad/profile/rank-0003.trace
refused "rank-0003.trace" report bad
copy
sed -i 's/kind: dualpipe/kind: 1f1b/' bad/config.resolved.yaml
refused "the traces in bad/profile are of another model, layout, schedule or batch than bad/config.resolved.yaml" report bad
copy
sed -i 's/sequence_length: 32/sequence_length: 16/' bad/config.resolved.yaml
refused "the traces in bad/profile are of another model" report bad
"$simulated_run" cards 1f1b 4 8 >/dev/null
refused "belongs to no action of it" report cards
"$simulated_run" cards dualpipe 4 16 >/dev/null
refused "belongs to no action of it" report cards
rm run/report.html
refused "nowhere/costs.yaml" report run --costs nowhere/costs.yaml
[ ! -s out ] && [ ! -e run/report.html ] || fail "a report whose costs cannot be written is made all the same: $(cat out)"
launch 2 train config.yaml --set profile.steps=10001 >/dev/null 2>err && fail "too many steps are accepted"
grep -q "10000" err || fail "too many steps: $(cat err)"
