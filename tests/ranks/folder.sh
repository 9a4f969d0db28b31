#!/usr/bin/env bash
# folder.sh MHCPIPE: a run's folder is one run's, and what a start does not go on with is put aside, never lost, never without a word.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
make_data
write_config
export MHP_TEST_TIMEOUT=60
first='' second=''      # launchers that run
trap 'kill $first $second 2>/dev/null || true; wait; chmod -R u+w "$work"; rm -rf "$work"' EXIT
long=(train config.yaml --set log.dir=run --set train.steps=1000000 --set eval.every=100 --set checkpoint.every=100)

# await FILE PATTERN: until a line of the file matches.
await() {
    for _ in $(seq 200); do
        ! grep -qs -- "$2" "$1" || return 0
        sleep 0.1
    done
    fail "no \"$2\" in $1: $(cat "$1" ./*.err)"
}

# await_preempted LAUNCHER: the end behind a SIGUSR2, with status 75.
await_preempted() {
    local status=0
    wait "$1" || status=$?
    [ "$status" -eq 75 ] || fail "expected status 75, not $status: $(cat ./*.out ./*.err)"
}

echo "== a second start: one error that names the first, and nothing touched"
"$here/mpirun.sh" 2 "$mhcpipe" "${long[@]}" --set checkpoint.keep_last=2 >first.out 2>first.err &
first=$!
await run/checkpoints/latest 'step-'
for file in run/config.resolved.yaml run/live/rank-0 run/checkpoints; do
    stat -c '%n %i %W' "$file"
done >before
"$here/mpirun.sh" 2 "$mhcpipe" "${long[@]}" >second.out 2>second.err &
second=$!
third=0
launch 2 "${long[@]}" --resume auto >third.out 2>third.err || third=$?
! wait $second || fail "a second run was started in the folder"
[ $third -ne 0 ] && [ $third -ne 124 ] || fail "a second run that resumes: status $third: $(cat third.out third.err)"
holder=$("$mhcpipe" top --once run | awk '$1 == 0 { split($NF, part, ":"); print "host " part[1] ", pid " part[2] }') ||
    fail "top: $("$mhcpipe" top --once run)"
for name in second third; do
    [ "$(grep -c 'mhcpipe: error:' $name.err)" -eq 1 ] || fail "not one error: $(cat $name.err)"
    grep -q "error: .*run is held by another run ($holder, since " $name.err || fail "expected $holder: $(cat $name.err)"
done
cmp before <(for file in run/config.resolved.yaml run/live/rank-0 run/checkpoints; do stat -c '%n %i %W' "$file"; done) ||
    fail "a file was written anew"
! ls -d run/flight run/abandoned-* run/checkpoints/abandoned-* 2>/dev/null || fail "what was refused left files"
launch 2 "${long[@]}" --dry-run >/dev/null || fail "a dry run was refused"

echo "== a start while the run before it ends waits"
kill -USR2 "$(pgrep -P "$first" -x mpirun)"
"$here/mpirun.sh" 2 "$mhcpipe" "${long[@]}" --resume auto >second.out 2>second.err &
second=$!
await_preempted $first
steps=$(sed -n 's/^stopped on request after \([0-9]*\) steps.*/\1/p' first.out)
await second.out "resumes from run/checkpoints/step-0*$steps, $steps steps done"
"$mhcpipe" top --once run | grep -q 'run: running' || fail "$("$mhcpipe" top --once run)"
awk -F'[:,]' '$2 != NR { exit 1 }' run/metrics.jsonl || fail "steps are missing or there twice"
kill -USR2 "$(pgrep -P "$second" -x mpirun)"
await_preempted $second
first='' second=''
"$mhcpipe" top --once run >out || fail "top of a stopped run ended with $?: $(cat out)"
grep -q 'run: stopped, dualpipe on 2 ranks' out && grep -q '^   1  stopped' out || fail "a run that was stopped is: $(cat out)"

echo "== --resume forgotten, twice: said, and put aside"
small=(train config.yaml --set log.dir=small --set checkpoint.every=4)
launch 2 "${small[@]}" >/dev/null
cp -r small first
for try in "" .2; do
    launch 2 "${small[@]}" --set "train.steps=8" >/dev/null 2>err
    newest=$([ -z "$try" ] && echo 12 || echo 8)
    grep -q "warning: small: $((newest / 4)) checkpoints of an earlier run put aside as abandoned-\*$try, with its metrics and best model; \
--resume auto would have continued it, and --resume small/checkpoints/abandoned-step-$(printf %08d "$newest")$try continues it" err ||
        fail "no warning of what is put aside: $(cat err)"
    [ "$(grep -c warning err)" -eq 1 ] || fail "not one warning: $(cat err)"
done
for name in metrics.jsonl best summary.json config.resolved.yaml; do
    diff -r first/$name small/abandoned-$name || fail "$name of the first run is not what it was"
    [ -e small/abandoned-$name.2 ] || fail "$name of the second run is gone"
done
for step in 00000004 00000008 00000012; do
    diff -r first/checkpoints/step-$step small/checkpoints/abandoned-step-$step || fail "the first run's checkpoint $step is not what it was"
done
[ "$(wc -l <small/metrics.jsonl)" -eq 8 ] || fail "the last run's metrics: $(cat small/metrics.jsonl)"
launch 2 "${small[@]}" --resume small/checkpoints/abandoned-step-00000008.2 >out 2>err
grep -q 'resumes from small/checkpoints/abandoned-step-00000008.2, 8 steps' out || fail "$(cat out err)"
grep -q 'put aside as abandoned-\*.3' err || fail "$(cat err)"

echo "== a start that is refused puts nothing aside"
! launch 2 "${small[@]}" --set train.seed=2 --resume first/checkpoints/step-00000008 >out 2>err || fail "another seed was taken"
[ ! -e small/abandoned-best.4 ] || fail "a start with another seed put the run aside: $(cat err)"

echo "== auto with nothing intact, or of another model"
! launch 2 train config.yaml --set log.dir=first --set model.hidden_size=32 --resume auto >out 2>err || fail "another model was taken"
grep -q 'error: .*another shape' err && ! grep -q 'trying\|remove' err || fail "$(cat err)"
for file in first/checkpoints/step-*/optimizer-00001-of-00002.safetensors; do
    printf 'xx' | dd of="$file" bs=1 seek=$(($(stat -c %s "$file") - 3)) conv=notrunc status=none
done
! launch 2 train config.yaml --set log.dir=first --resume auto >out 2>err || fail "damaged checkpoints were taken: $(cat out)"
[ "$(grep -c 'mhcpipe: error:' err)" -eq 1 ] || fail "not one error: $(cat err)"
grep -q 'error: none of the 3 checkpoints in first/checkpoints is intact: remove them, or start without --resume' err || fail "$(cat err)"
[ "$(ls first/checkpoints)" = "$(printf 'latest\nstep-%s\nstep-%s\nstep-%s' 00000004 00000008 00000012)" ] || fail "$(ls first/checkpoints)"
