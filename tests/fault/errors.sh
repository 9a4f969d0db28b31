#!/usr/bin/env bash
# errors.sh MHCPIPE: everything that can be wrong gives one message, ends every rank within seconds, with an exit status other than 0.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
make_data
write_config
export MHP_TEST_TIMEOUT=20

# expect PATTERN COMMAND ...: the command must fail with one error that matches, before the time-out of 20 s.
expect() {
    local pattern=$1 status=0
    shift
    "$@" >out 2>err || status=$?
    [ "$status" -ne 0 ] || fail "no error from: $*"
    [ "$status" -ne 124 ] && [ "$status" -ne 137 ] || fail "still running after $MHP_TEST_TIMEOUT s: $*: $(cat err)"
    [ "$(grep -c 'mhcpipe: error:' err)" -eq 1 ] || fail "not one error from: $*: $(cat out err)"
    grep -q -- "$pattern" err || fail "expected \"$pattern\" from: $*: $(cat err)"
    echo "$(grep 'mhcpipe: error:' err)"
}

echo "== schedules and ranks"
expect 'micro-batches: expected at least' launch 2 train config.yaml --set schedule.microbatches=2
expect 'expected an even number of micro-batches\|even' launch 2 train config.yaml --set schedule.microbatches=5
expect 'even' launch 3 train config.yaml --set parallel.pipeline=3 --set schedule.microbatches=8
expect 'layers' launch 4 train config.yaml --set parallel.pipeline=4 --set schedule.kind=dualpipev --set schedule.microbatches=8
expect 'started with 3 ranks: expected parallel.pipeline x parallel.data = 2 x 1 = 2' launch 3 train config.yaml
expect 'nearest\|dualpipe' launch 2 train config.yaml --set schedule.kind=dualpip

echo "== schedules from files"
custom=(launch 2 train config.yaml --set schedule.kind=custom --set schedule.microbatches=2)
expect 'schedule.kind is custom: expected schedule.file' "${custom[@]}"
expect 'no-such.yaml' "${custom[@]}" --set schedule.file=no-such.yaml
printf 'actions:\n  - [0F0, 0F1, 0B0, 0X1]\n  - 1F0 1F1 1B0 1B1\n' >words.yaml
expect 'words.yaml:2:21: rank 0, item 4: action "0X1": expected one of' "${custom[@]}" --set schedule.file=words.yaml
printf 'actions:\n  - [1F0, 0F1, 0B1, 1B0]\n  - [1F1, 0F0, 0B0, 1B1]\n' >circle.yaml
expect 'rank 0, position 0, 1F0: can never run: it waits for 0F0 of rank 1' "${custom[@]}" --set schedule.file=circle.yaml
printf '0F0,0F1,0I0,0B1\n1F0,1F1,1B0,1B1\n' >without.csv
expect 'rank 0, position 4, end: 0W or B0 is missing' "${custom[@]}" --set schedule.file=without.csv
printf '0F0,0F1,0B0,0B1\n1F0,1F1,(1F1;1F0)OVERLAP_F_B\n' >pair.csv
expect 'pair.csv:2: cell 3: .*one forward and one full backward' "${custom[@]}" --set schedule.file=pair.csv
printf '0F0,0F1,0B0,0B1\n0F0,1F0,1F1,1B0,1B1\n' >twice.csv
expect 'rank 1, position 0, 0F0: .*reverse direction' "${custom[@]}" --set schedule.file=twice.csv
printf '0F0,0F1,0B0,0B-1\n' >negative.csv
expect 'negative.csv:1: cell 4: .*a micro-batch from 0 to 65535' "${custom[@]}" --set schedule.file=negative.csv
printf '0F0,0F1,0B0,99999999999999999999B1\n' >huge.csv
expect 'huge.csv:1: cell 4: .*a stage from 0 to 4095' "${custom[@]}" --set schedule.file=huge.csv
head -c 100000000 /dev/zero | tr '\0' ',' >large.csv
expect 'large.csv.*67108864' "${custom[@]}" --set schedule.file=large.csv
rm large.csv
printf '0F0,0F1,0R0,0B0,0B1\n1F0,1F1,1B0,1B1\n' >some.csv
expect 'some.csv: stage 0 has 1 R for 2 micro-batches' "${custom[@]}" --set schedule.file=some.csv --set schedule.recompute.what=full
printf '0F0,0F1,0R0,0B0,0R1,0B1\n1F0,1F1,1B0,1B1\n' >one_stage.csv
"${custom[@]}" --set schedule.file=one_stage.csv --set schedule.recompute.what=full --set train.steps=1 --set log.dir=rebuilt >out 2>err ||
    fail "a schedule that rebuilds one stage did not train: $(cat err)"
printf '0F0,0F1,0F2,0B0,0B1,0B2\n1F0,1B0,1F1,1B1,1F2,1B2\n' >three.csv
expect 'three.csv is a plan for 2 ranks and 3 micro-batches' "${custom[@]}" --set schedule.file=three.csv

echo "== memory"
expect 'rank [01] needs .* MiB (.*): expected at most .*, parallel.memory_limit; --set .* would take' \
    launch 2 train config.yaml --memory-limit 1300000
advice=$(grep -o -- '--set .* would' err | sed 's/ would//')
read -ra settings <<<"$advice"
launch 2 train config.yaml --memory-limit 1300000 --set train.steps=1 --set log.dir=fits "${settings[@]}" >out
grep -q 'trained 1 steps' out || fail "$advice did not fit: $(cat out)"
expect 'neither recompute nor' launch 2 train config.yaml --memory-limit 4096
expect '--memory-limit\|parallel.memory_limit' "$mhcpipe" plan config.yaml --memory-table --memory-limit 4KiB
for wrong in '--memory-limit 4096' '--memory-table -o table.txt' '--memory-table --costs no-such.yaml' '--memory-table --memory-limit many'; do
    status=0
    # shellcheck disable=SC2086
    "$mhcpipe" plan config.yaml $wrong >out 2>err || status=$?
    [ "$status" -eq 2 ] && grep -q expected err || fail "plan config.yaml $wrong: status $status: $(cat out err)"
done

echo "== configuration"
expect 'no-such.yaml' launch 2 train no-such.yaml
sed 's/hidden_size/hiden_size/' config.yaml >typing.yaml
expect 'typing.yaml:2:3: .*hidden_size' launch 2 train typing.yaml
expect '--set train.steps=0: steps is "0": expected an integer' launch 2 train config.yaml --set train.steps=0

for command in "config config.yaml" "train config.yaml --dry-run" "plan config.yaml"; do
    # shellcheck disable=SC2086
    expect '^mhcpipe: error: config.yaml: optimizer.step_factor has 2 entries: expected as many as optimizer.step_at, 1' \
        "$mhcpipe" $command --set optimizer.decay=step --set 'optimizer.step_at=[0.9]'
done
expect '^mhcpipe: error: config.yaml: optimizer.step_factor has 2 entries' \
    launch 2 train config.yaml --set optimizer.decay=step --set 'optimizer.step_at=[0.9]'
expect 'config.yaml: log.dir is "": expected the path of a folder' "$mhcpipe" train config.yaml --set 'log.dir=""'

echo "== devices"
expect 'model.dtype is bf16 and parallel.device a CPU' launch 2 train config.yaml --set model.dtype=bf16
expect 'model.dtype is f64 and parallel.device is cuda' launch 2 train config.yaml --set model.dtype=f64 --set parallel.device=cuda
expect 'model.hidden_size is 20 .* multiple of 8' launch 2 train config.yaml --set model.hidden_size=20 --set parallel.device=cuda
expect 'model.head_dim is 320 .* at most 256' launch 2 train config.yaml --set model.head_dim=320 --set parallel.device=cuda
expect '16777216 tokens: expected at most 8388608' launch 2 train config.yaml --set train.micro_batch_size=64 \
    --set train.sequence_length=262144
expect 'parallel.transport is ipc and rank 0 computes on a processor: .*; expected auto or mpi' \
    launch 2 train config.yaml --set parallel.transport=ipc
expect 'parallel.transport is nccl and rank 0 computes on a processor: .*; expected auto or mpi' \
    launch 2 train config.yaml --set parallel.transport=nccl
expect 'transport.*auto, ipc, nccl' launch 2 train config.yaml --set parallel.transport=sockets
CUDA_VISIBLE_DEVICES= expect 'no CUDA backend\|no NVIDIA' launch 2 train config.yaml --set parallel.device=cuda

echo "== data"
expect 'no data at data/nothing' launch 2 train config.yaml --set data.path=data/nothing
cp data/words.idx data/short.idx
head -c 1000 data/words.bin >data/short.bin
expect 'data/short' launch 2 train config.yaml --set data.path=data/short
cp data/words.bin data/corrupt.bin
head -c 200 data/words.idx | tr 'M' 'X' >data/corrupt.idx
expect 'data/corrupt.idx' launch 2 train config.yaml --set data.path=data/corrupt
expect 'data/words.bin, token .*: expected 0 .. 99, a vocabulary of 100' launch 2 train config.yaml --set model.vocab_size=100
expect 'no-such-folder' "$mhcpipe" data tokenize no-such-folder -o data/x
expect 'no text' "$mhcpipe" data tokenize data/words.bin -o data/x
for prefix in '' data/; do
    status=0
    "$mhcpipe" data tokenize text -o "$prefix" 2>err || status=$?
    [ "$status" -eq 2 ] && grep -qF -- "-o \"$prefix\": expected the name of files" err || fail "tokenize -o \"$prefix\": status $status: $(cat err)"
    [ ! -e "$prefix.bin" ] || fail "tokenize -o \"$prefix\" left a hidden file"
done
[ ! -e data/x.bin ] && [ ! -e data/x.bin.tmp ] || fail "tokenize left files behind"

echo "== the run's files"
expect '/proc/no' launch 2 train config.yaml --set log.dir=/proc/no
launch 2 train config.yaml >/dev/null
step=run/checkpoints/step-00000012
cp -r "$step" cut
truncate -s -100 cut/model-00001-of-00002.safetensors
expect 'cut/model-00001-of-00002.safetensors' launch 2 train config.yaml --set train.steps=20 --set log.dir=other --resume cut
cp -r "$step" header
printf '\377\377\377\377' | dd of=header/model-00002-of-00002.safetensors bs=1 conv=notrunc status=none
expect 'header/model-00002-of-00002.safetensors' launch 2 eval config.yaml --model header
expect 'nothing-here' launch 2 train config.yaml --resume nothing-here
expect 'width\|shape\|hidden' launch 2 train config.yaml --set log.dir=other --set model.hidden_size=32 --resume "$step" --set train.steps=20

echo "== a loss that is not finite"
cp -r "$step" nan
shard=nan/model-00001-of-00002.safetensors
size=$(stat -c %s "$shard")
head -c 4096 /dev/zero | tr '\0' '\377' | dd of="$shard" bs=1 seek=$((size - 4096)) conv=notrunc status=none
expect 'evaluation, rank [01], micro-batch [0-9]*: the loss is -\?nan' launch 2 eval config.yaml --model nan
expect "$shard: tensor \"[a-z0-9._]*\" is corrupt" launch 2 train config.yaml --set train.steps=20 --set log.dir=other --resume nan

echo "== a full disk"
mkdir full
if mount -t tmpfs -o size=64k none full 2>/dev/null; then
    expect 'full/.*No space left on device' launch 2 train config.yaml --set log.dir=full/run
    umount full
else
    echo "no right to mount a small file system: files limited to 16 KiB instead"
    limited() (
        trap '' XFSZ
        ulimit -f 16
        launch 2 train config.yaml --set log.dir=full/run
    )
    expect 'full/.*File too large' limited
fi

echo "== a standard output that is full"
alone=(--set parallel.pipeline=1 --set schedule.kind=gpipe)
"$mhcpipe" plan config.yaml --format csv >plan.csv
printf 'stages: [{forward_us: 1, input_gradient_us: 1, weight_gradient_us: 1}]\n' >costs.yaml
mkdir -p asked/flight
cat >asked/flight/rank-00000.json <<'JSON'
{"run": 1, "rank": 0, "size": 1, "pid": 2, "host": "h", "time": 3, "why": "asked for", "section": "step", "number": 1, "section_s": 9,
 "mark": {"kind": "run", "work": "F", "stage": 0, "microbatch": 0, "peer": -1, "for_s": 9}, "marks": [], "messages": []}
JSON
full() {
    local status=0
    "$mhcpipe" "$@" >/dev/full 2>err || status=$?
    [ "$status" -eq 1 ] || fail "$*: status $status on a full standard output: $(cat err)"
}
if [ -w /dev/full ]; then
    for command in "train config.yaml --dry-run" "train config.yaml ${alone[*]} --set train.steps=2 --set log.dir=unseen --profile 1" \
        "eval config.yaml ${alone[*]} --model unseen/best" "generate --model run/best --prompt x --bytes 2" "report unseen" \
        "checkpoint $step" "diagnose asked" "data info data/words" "data tokenize text -o data/unseen" doctor "plan config.yaml --memory-table" \
        "check plan.csv" "tune config.yaml --costs costs.yaml --iterations 10" "config config.yaml --print" "config --list" --version --help "plan --help"; do
        # shellcheck disable=SC2086
        full $command
        grep -q 'mhcpipe: error: cannot write' err || fail "$command: $(cat err)"
    done
    full top unseen --once
    "$mhcpipe" report unseen >out || fail "a run whose output was lost left no profile: $(cat out)"
    status=0
    launch 2 train config.yaml --set train.steps=1 --set log.dir=unseen >/dev/full 2>err || status=$?
    [ "$status" -ne 124 ] || fail "ranks hang on a full standard output: $(cat err)"
fi

echo "== a vocabulary that is not bytes"
launch 1 train config.yaml --set parallel.pipeline=1 --set schedule.kind=gpipe --set model.vocab_size=300 --set train.steps=1 \
    --set log.dir=wide >/dev/null
expect 'vocabulary of 300' "$mhcpipe" generate --model wide/best --prompt x

echo "== a rank that dies"
"$here/mpirun.sh" 2 "$mhcpipe" train config.yaml --set train.steps=1000000 --set log.dir=dies >out 2>err &
launcher=$!
await_steps dies 1 30
ranks=$(grep -lz "^log.dir=dies" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | while read -r pid; do
    if [ "$(readlink "/proc/$pid/exe")" = "$mhcpipe" ]; then    # the launcher's command line has it too, and may come last
        echo "$pid"
    fi
done)
[ "$(wc -w <<<"$ranks")" -eq 2 ] || fail "expected two ranks, found: $ranks"
kill -KILL "$(head -1 <<<"$ranks")"
SECONDS=0
status=0
wait "$launcher" || status=$?
[ "$status" -ne 0 ] || fail "the launch ended with 0 though a rank was killed"
[ "$SECONDS" -le 5 ] || fail "the launch ended only $SECONDS s after a rank was killed"
for pid in $ranks; do      # one that is dead but that nobody has waited for is dead
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$pid/status" 2>/dev/null || echo X)
    [[ "$state" == [ZX] || -z "$state" ]] || fail "rank $pid outlived the launch (state $state)"
done
