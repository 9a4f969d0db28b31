#!/usr/bin/env bash
# survive.sh MHCPIPE: ranks that are stopped, hang, are slow or die at a chosen place, disks that fail, and signals. Every end has one
# cause that names the rank, and what is resumed ends as if nothing had happened.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
make_data
write_config
export MHP_TEST_TIMEOUT=60
steps=12

# train RANKS FOLDER SETTINGS...: in the foreground; the exit status in `status`, files out and err.
train() {
    local ranks=$1 folder=$2
    shift 2
    status=0
    launch "$ranks" train config.yaml --resume auto --set log.dir="$folder" --set parallel.pipeline="$ranks" --set schedule.kind=1f1b \
        --set checkpoint.every=3 "$@" >out 2>err || status=$?
}

# one_error PATTERN: the launch failed with exactly one error line, which matches.
one_error() {
    [ "$status" -ne 0 ] && [ "$status" -ne 124 ] || fail "expected an error, not status $status: $(cat out err)"
    [ "$(grep -c 'mhcpipe: error:' err)" -eq 1 ] || fail "not one error: $(cat err)"
    grep -q -- "$1" err || fail "expected \"$1\": $(cat err)"
    grep 'mhcpipe: error:' err
}

# A run that is resumed ends with the parameters of the undisturbed one.
same_end() {
    local ranks=$1 folder=$2 file step
    step=$(printf 'checkpoints/step-%08d' $steps)
    train "$ranks" "$folder"
    [ "$status" -eq 0 ] || fail "$folder cannot be resumed: $(cat out err)"
    for file in "whole-$ranks/$step"/*.safetensors; do
        cmp "$file" "$folder/$step/${file##*/}" || fail "$folder differs from an undisturbed run"
    done
}

for ranks in 2 4; do
    train $ranks whole-$ranks
    [ "$status" -eq 0 ] || fail "the undisturbed run: $(cat out err)"
done

echo "== killed at an action"
for place in 1F2 1SEND_B0 1B1; do
    train 2 "killed-$place" --set "fault=[{kind: kill, rank: 1, step: 8, action: $place}]"
    one_error 'rank 1 (host .*, pid [0-9]*) died during .*: its process ended'
    same_end 2 "killed-$place"
done

echo "== killed during a save: in a shard, between shards and manifest, between rename and latest"
for file in step-00000006.tmp/optimizer-00002 step-00000006.tmp/manifest.json checkpoints/latest; do
    rank=$([[ "$file" == *optimizer-00002 ]] && echo 1 || echo 0)
    train 4 "save-${file##*/}" --set "fault=[{kind: kill, rank: $rank, step: 6, file: $file}]"
    one_error "rank $rank (host .*, pid [0-9]*) died during"
    same_end 4 "save-${file##*/}"
    grep -q 'resumes from .*step-0000000[36]' out || fail "nothing was saved before the kill: $(cat out)"
done

echo "== disks that fail"
train 4 disk-full --set 'fault=[{kind: disk_full, rank: 2, step: 6, file: model-00003}]'
one_error 'rank 2: .*model-00003.*No space left on device'
"$mhcpipe" diagnose disk-full >found
head -1 found | grep -q 'model-00003.*No space left on device' || fail "diagnose: $(cat found)"
same_end 4 disk-full
train 2 sync --set 'fault=[{kind: sync_fails, rank: 0, step: 6, file: manifest.json}]'
one_error 'manifest.json.*Input/output error'
same_end 2 sync
train 2 short --set 'fault=[{kind: short_write, rank: 1, step: 6, file: model-}]'
[ "$status" -eq 0 ] || fail "a short write ended the run: $(cat err)"
same_end 2 short

echo "== a message that changes on its way, a value that is no number"
train 2 corrupt --set 'fault=[{kind: corrupt, rank: 0, step: 5, action: 0SEND_F1}]'
if cmp -s whole-2/checkpoints/step-00000012/model-00001-of-00002.safetensors \
    corrupt/checkpoints/step-00000012/model-00001-of-00002.safetensors; then
    fail "the corrupt message changed nothing: $(cat out err)"
fi
train 2 nan --set 'fault=[{kind: nan, rank: 0, step: 5, action: 0F1}]'
grep -q 'nan' out err || fail "nobody noticed a state that is no number: $(cat out err)"
train 2 refused --set 'fault=[{kind: disk_full}]'
one_error 'fault, item 1: disk_full happens at files: expected a file'

train 2 first --set 'fault=[{kind: nan, rank: 1, step: 5}]'
grep -q 'nan' out err || fail "the first action that computes was not spoiled: $(cat out err)"
train 2 refused --set 'fault=[{kind: kill, rank: 1, step: 5, action: 0F1}]'
one_error 'error: fault, item 1: action is "0F1" and rank 1: expected rank 0, which has it in 1f1b'
[ -z "$(find refused -type f ! -name .lock ! -path 'refused/flight/*')" ] || fail "a run that was refused left $(find refused)"
"$mhcpipe" train config.yaml --dry-run --set 'fault=[{kind: kill, rank: 7}]' >out 2>err && fail "a dry run takes a fault of rank 7 of 2"
grep -q 'fault, item 1: rank is 7: expected 0 to 1' err || fail "a dry run: $(cat err)"

echo "== a rank that hangs"
train 4 hangs --set 'fault=[{kind: hang, rank: 2, step: 8, action: 2F1}]' --set watch.step_seconds=3
one_error 'step 8 made no end within watch.step_seconds, 3 s: .* rank 2 (host .*, which has been in step 8 in F of stage 2, micro-batch'
grep -q 'warning: step 8 has lasted .* rank 2' err || fail "no warning before the end: $(cat err)"
"$mhcpipe" diagnose hangs >found
head -1 found | grep -q 'rank 2 (host .*, which has been in step 8 in F of stage 2' || fail "diagnose: $(cat found)"
grep -q '^4 of 4 ranks wrote a dump' found || fail "not every rank wrote its flight recorder: $(cat found)"
same_end 4 hangs

echo "== a rank that is slow is named, and waited for"
train 4 slow --set 'fault=[{kind: slow, rank: 1, step: 8, action: 1F0, seconds: 4}]' --set watch.step_seconds=6
[ "$status" -eq 0 ] || fail "a slow rank ended the run: $(cat err)"
grep -q 'warning: step 8 has lasted .* rank 1 (host .*, which has been in step 8 in F of stage 1, micro-batch 0' err ||
    fail "the slow rank was not named: $(cat err)"
same_end 4 slow

# background RANKS FOLDER SETTINGS...: a long run, when it has done a step; `mpirun` is its process, `pids` those of its ranks.
background() {
    local ranks=$1 folder=$2
    shift 2
    "$here/mpirun.sh" "$ranks" "$mhcpipe" train config.yaml --set log.dir="$folder" --set parallel.pipeline="$ranks" \
        --set schedule.kind=1f1b --set train.steps=1000000 "$@" >out 2>err &
    launcher=$!
    await_steps "$folder" 1 30
    mpirun=$(pgrep -P $launcher -x mpirun)
    mapfile -t pids < <(pgrep -P "$mpirun" -x mhcpipe)
}

end_background() {
    status=0
    wait $launcher || status=$?
}

echo "== a rank that is stopped"
background 4 stopped --set watch.silence_seconds=4
kill -STOP "${pids[1]}"
end_background
"$mhcpipe" diagnose stopped >found
head -1 found | grep -q "pid ${pids[1]}) was lost during .*: no sign of life within watch.silence_seconds" || fail "diagnose: $(cat found)"
one_error "rank [0-9] (host .*, pid ${pids[1]}) was lost during .*: no sign of life within watch.silence_seconds, 4 s"
grep -q "warning: rank [0-9] (host .*, pid ${pids[1]}) has given no sign of life for" err || fail "no warning before the end: $(cat err)"

echo "== SIGUSR1"
background 2 asked
kill -USR1 "$mpirun"
for _ in $(seq 100); do
    [ -s asked/flight/rank-00000.json ] && [ -s asked/flight/rank-00001.json ] && break
    sleep 0.1
done
"$mhcpipe" diagnose asked >found || fail "diagnose: $(cat found err)"
grep -q 'in a circle\|none is behind' found && fail "a run that moves is said to stand still: $(cat found)"
grep -q '^2 of 2 ranks wrote a dump' found || fail "not every rank wrote its flight recorder: $(cat found)"

# stopped_and_saved FOLDER: the run ended on request, with a checkpoint of its last step, which is in `done_steps`.
stopped_and_saved() {
    [ "$status" -eq 75 ] || fail "expected status 75, not $status: $(cat out err)"
    done_steps=$(sed -n 's/^stopped on request after \([0-9]*\) steps.*/\1/p' out)
    [ -f "$(printf '%s/checkpoints/step-%08d/manifest.json' "$1" "$done_steps")" ] || fail "no checkpoint of step $done_steps: $(cat out err)"
}

echo "== SIGUSR2: a checkpoint, then status 75"
kill -USR2 "$mpirun"
end_background
stopped_and_saved asked
train 2 asked --set train.steps=$((done_steps + 1))
[ "$status" -eq 0 ] || fail "cannot be resumed: $(cat out err)"
grep -q "$done_steps steps done" out || fail "not resumed where it stopped: $(cat out)"

echo "== SIGUSR2 twice: at once"
background 2 twice --set 'fault=[{kind: slow, rank: 1, step: 10, seconds: 40}]'
await_steps twice 9 30
sleep 2
kill -USR2 "${pids[0]}"
sleep 1.5
kill -USR2 "${pids[0]}"
SECONDS=0
end_background
[ "$status" -eq 75 ] || fail "expected status 75, not $status: $(cat out err)"
[ "$SECONDS" -le 10 ] || fail "the second SIGUSR2 took $SECONDS s: $(cat err)"
grep -q 'asked to stop a second time' err || fail "the second SIGUSR2 was not taken: $(cat err)"

# alone FOLDER SETTINGS...: a run of one rank without a launcher, as from a terminal, when it has done a step; its process in `launcher`.
alone() {
    local folder=$1
    shift
    env --default-signal=INT OPENBLAS_NUM_THREADS=1 "$mhcpipe" train config.yaml --set log.dir="$folder" --set parallel.pipeline=1 \
        --set schedule.kind=gpipe --set train.steps=1000000 "$@" >out 2>err &
    launcher=$!
    await_steps "$folder" 1 30
}

echo "== SIGINT: as SIGTERM; a second one: at once"
alone interrupted --set watch.term_seconds=30
kill -INT $launcher
end_background
[ "$status" -eq 75 ] || fail "expected status 75, not $status: $(cat out err)"
grep -q 'warning: terminated: saves a checkpoint' err || fail "SIGINT was not taken: $(cat out err)"
ls interrupted/checkpoints/step-*/manifest.json >/dev/null || fail "no checkpoint: $(cat out err)"
alone impatient --set watch.term_seconds=1000 --set 'fault=[{kind: slow, rank: 0, step: 10, seconds: 40}]'
await_steps impatient 9 30
sleep 2
kill -INT $launcher
sleep 1.3
kill -INT $launcher
SECONDS=0
end_background
[ "$status" -eq 75 ] || fail "expected status 75, not $status: $(cat out err)"
[ "$SECONDS" -le 5 ] || fail "the second SIGINT took $SECONDS s: $(cat err)"
grep -q 'terminated a second time: stops at once' err || fail "the second SIGINT was not taken: $(cat err)"

echo "== SIGTERM of every rank, as Slurm sends it: saves"
background 2 slurm --set watch.term_seconds=30
kill -TERM "${pids[@]}"
end_background
stopped_and_saved slurm
[ "$(grep -c 'warning: terminated: saves a checkpoint' err)" -eq 1 ] || fail "SIGTERM was not taken: $(cat out err)"

# Open MPI kills two seconds later, which a disk that stalls can outlast: then the save is lost, and nothing else.
echo "== SIGTERM of the launcher: saves if that fits"
background 2 terminated
kill -TERM "$mpirun"
end_background
[ "$status" -ne 0 ] && [ "$status" -ne 124 ] || fail "status $status: $(cat out err)"
grep -q 'warning: terminated: ' err || fail "SIGTERM was not taken: $(cat out err)"
saved=$(compgen -G 'terminated/checkpoints/step-*/manifest.json' || true)
! grep -q '^stopped on request after' out || [ -n "$saved" ] || fail "stopped in order and saved nothing: $(cat out err)"
done_steps=$(sed -n 's,.*/step-0*\([0-9]*\)/manifest.json,\1,p' <<<"$saved")
train 2 terminated --set train.steps=$((${done_steps:-0} + 1))
[ "$status" -eq 0 ] || fail "cannot be resumed from ${saved:-its start}: $(cat out err)"
