#!/usr/bin/env bash
# top.sh MHCPIPE: what `top` says of runs that go on, are stopped, die, fail and finish, and of files that are none.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
make_data
write_config

# look NAME: one look at the run; its exit status is in $rc.
look() {
    rc=0
    "$mhcpipe" top --once --stale 1 "$1" >out 2>err || rc=$?
}

# expect RC TEXT: of the last look.
expect() {
    [ "$rc" -eq "$1" ] || fail "top ended with $rc, expected $1: $(cat out err)"
    cat out err | grep -q -- "$2" || fail "no \"$2\" in: $(cat out err)"
}

# look_until RUN RC TEXT: looks again until this is so.
look_until() {
    for _ in $(seq 200); do
        look "$1"
        if [ "$rc" -eq "$2" ] && cat out err | grep -q -- "$3"; then
            return
        fi
        sleep 0.1
    done
    fail "top never said \"$3\" and ended with $2: $(cat out err)"
}

# The numbers of processes in the last look.
process_of() {
    awk -v rank="$1" '$1 == rank { split($NF, part, ":"); print part[2] }' out
}

# The step in the last look.
step_shown() {
    grep -o 'step [0-9]*' out | head -1 | tr -dc 0-9
}

echo "== a run that goes on"
"$here/mpirun.sh" 2 "$mhcpipe" train config.yaml --set train.steps=1000000 --set eval.every=0 >train.out 2>&1 &
launcher=$!         # the script makes way for the launcher
trap 'kill "$launcher" 2>/dev/null || true; chmod -R u+w "$work"; rm -rf "$work"' EXIT
look_until run 0 'run: running, dualpipe on 2 ranks'
look_until run 0 '^   1  alive       [(0-9].*MiB'
look_until run 0 'step [0-9]* of 1000000  loss [0-9.]*  [0-9.k]* tok/s  power '
before=$(step_shown)
for _ in $(seq 100); do
    sleep 0.1
    look run
    [ "$(step_shown)" -le "$before" ] || break
done
expect 0 'on 2 ranks'
[ "$(step_shown)" -gt "$before" ] || fail "the step does not move: $before, $(cat out)"

echo "== as wide as there is room"
for width in 40 60 80 100; do
    COLUMNS=$width look run
    [ "$(awk '{ if (length > most) most = length } END { print most }' out)" -le "$width" ] || fail "wider than $width: $(cat out)"
    grep -q '^rank  state' out || fail "no table in $width columns: $(cat out)"
done
COLUMNS=60 look run
grep -q 'process' out && fail "60 columns hold the process: $(cat out)"

echo "== a terminal: over and over, with the screen's own width"
if command -v script >/dev/null; then
    timeout 3 script -qfec "stty cols 70 rows 5; '$mhcpipe' top --interval 0.2 run" typescript >/dev/null </dev/null || true
    [ "$(grep -c $'\033\[H' typescript)" -ge 3 ] || fail "not shown again and again: $(cat -v typescript)"
    grep -q 'and 2 ranks more' typescript || fail "five lines hold everything: $(cat -v typescript)"
else
    echo "skipped: no script(1)"
fi

echo "== a rank that is stopped, and one that dies"
look run
second=$(process_of 1)
kill -STOP "$second"
look_until run 1 'run: silent'
expect 1 '^   1  stale [0-9]*s'
expect 1 'rank 1 has given no sign of life for [0-9]* s'
kill -CONT "$second"
look_until run 0 'run: running'
look run
kill -KILL "$(process_of 0)" "$second"
wait "$launcher" && fail "the launcher did not notice"
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
look_until run 1 '^   0  dead'
expect 1 'run: dead'
expect 1 'rank 0 ended without a word: process [0-9]* is not there any more'
timeout 20 "$mhcpipe" top run >out || rc=$?
expect 1 'run: dead'

echo "== a process that is gone, though it gave a sign of life a moment ago"
"$mhcpipe" train config.yaml --set parallel.pipeline=1 --set schedule.kind=gpipe --set train.steps=1000000 --set log.dir=gone >train.out 2>&1 &
launcher=$!
trap 'kill "$launcher" 2>/dev/null || true; chmod -R u+w "$work"; rm -rf "$work"' EXIT
look_until gone 0 'gone: running, gpipe on 1 ranks'
kill -KILL "$launcher"
{ wait "$launcher" || true; } 2>/dev/null
look gone
expect 1 'gone: dead'
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

echo "== a run that finishes"
launch 2 train config.yaml --set train.steps=3 >/dev/null
look run
expect 0 'run: finished, dualpipe on 2 ranks'
expect 0 'step 3 of 3'
timeout 20 "$mhcpipe" top run >out || fail "top of a finished run ended with $?"
launch 1 train config.yaml --set train.steps=3 --set parallel.pipeline=1 --set schedule.kind=gpipe >/dev/null
look run
expect 0 'run: finished, gpipe on 1 ranks'
[ "$(ls run/live)" = rank-0 ] || fail "files of the run before stay: $(ls run/live)"

echo "== the hidden share: of this start's recorded steps, as the report says it"
launch 2 train config.yaml --set train.steps=4 --set log.dir=profiled --profile 2 >/dev/null
look profiled
expect 0 'bubble  hidden'
"$mhcpipe" report profiled >/dev/null
for rank in 0 1; do
    shown=$(awk -v rank="$rank" '$1 == rank' out | grep -o '[0-9]* %' | sed -n '2s/ %//p')
    known=$(awk '/"hidden_share"/ { gsub(/[^0-9.e-]/, "", $2); print $2 }' profiled/report.json | sed -n "$((rank + 1))p")
    [ "$shown" = "$(awk -v share="$known" 'BEGIN { printf "%.0f", 100 * share }')" ] ||
        fail "rank $rank: top shows a hidden share of $shown %, the report has $known: $(cat out)"
done
launch 2 train config.yaml --set train.steps=6 --set log.dir=profiled >/dev/null
look profiled
grep -q '^   0  finished .* %       -  ' out || fail "traces of the run before are shown: $(cat out)"

echo "== a run that fails: its best model cannot be written"
mkdir broken
touch broken/best
launch 2 train config.yaml --set log.dir=broken >train.out 2>&1 && fail "the run did not fail: $(cat train.out)"
look broken
expect 1 'broken: failed, dualpipe on 2 ranks'
expect 1 'rank [01] ended with an error, which the run.s output tells'
launch 2 train config.yaml --set log.dir=other >/dev/null

echo "== files that are none"
look nowhere
expect 1 'nowhere/live has no rank.s file: expected the folder of a run of mhcpipe train'
look text
expect 1 'text/live has no rank.s file'
cp -r other foreign
cp run/live/rank-0 foreign/live/rank-1
look foreign
expect 1 'foreign: incomplete'
expect 1 'foreign/live/rank-1 is of another run: rank 0 of 1, expected 1 of 2'
rm foreign/live/rank-1
look foreign
expect 1 'rank 1: cannot read foreign/live/rank-1: No such file or directory'
head -c 100 other/live/rank-1 >foreign/live/rank-1
look foreign
expect 1 'foreign/live/rank-1 has 100 bytes: expected 512'
for file in 0 1; do
    printf '\7' | dd of="foreign/live/rank-$file" bs=1 seek=8 conv=notrunc status=none
done
look foreign
expect 1 'foreign/live/rank-0 is of version 7: expected 2'
