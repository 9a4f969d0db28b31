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

echo "== configuration"
expect 'no-such.yaml' launch 2 train no-such.yaml
sed 's/hidden_size/hiden_size/' config.yaml >typing.yaml
expect 'typing.yaml:2:3: .*hidden_size' launch 2 train typing.yaml
expect '--set train.steps=0: steps is "0": expected an integer' launch 2 train config.yaml --set train.steps=0

echo "== devices"
expect 'model.dtype is bf16 and parallel.device a CPU' launch 2 train config.yaml --set model.dtype=bf16
expect 'model.dtype is f64 and parallel.device is cuda' launch 2 train config.yaml --set model.dtype=f64 --set parallel.device=cuda
expect 'model.hidden_size is 20 .* multiple of 8' launch 2 train config.yaml --set model.hidden_size=20 --set parallel.device=cuda
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

echo "== a vocabulary that is not bytes"
launch 1 train config.yaml --set parallel.pipeline=1 --set schedule.kind=gpipe --set model.vocab_size=300 --set train.steps=1 \
    --set log.dir=wide >/dev/null
expect 'vocabulary of 300' "$mhcpipe" generate --model wide/best --prompt x

echo "== a rank that dies"
"$here/mpirun.sh" 2 "$mhcpipe" train config.yaml --set train.steps=1000000 --set log.dir=dies >out 2>err &
launcher=$!
for _ in $(seq 100); do
    [ -s dies/metrics.jsonl ] && break
    sleep 0.1
done
[ -s dies/metrics.jsonl ] || fail "no step within 10 s: $(cat err)"
ranks=$(grep -lz "^log.dir=dies" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | while read -r pid; do
    [ "$(readlink "/proc/$pid/exe")" = "$mhcpipe" ] && echo "$pid"
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
