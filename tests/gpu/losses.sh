#!/usr/bin/env bash
# losses.sh MHCPIPE: a small mHC model learns real text on the card in bf16; its first 200 losses stay beside those of the CPU in F32,
# and the card gives the same losses twice, bit for bit.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
"$mhcpipe" doctor --device cuda >/dev/null 2>&1 || exit 77
"$mhcpipe" data tokenize /usr/include --suffix .h -o data/headers >/dev/null

# train NAME [--set KEY=VALUE ...]: one rank; losses of its steps, one a line, in NAME.losses.
train() {
    local name=$1
    shift
    launch 1 train "$here/../launch/examples/quickstart.yaml" --set data.path=data/headers --set parallel.pipeline=1 \
        --set schedule.kind=1f1b --set train.steps=200 --set optimizer.decay=constant --set eval.every=0 --set checkpoint.every=0 \
        --set log.every=1 --set log.dir="$name" "$@" >"$name.out" 2>&1 || fail "$name: $(tail -5 "$name.out")"
    grep -o '"loss": *[0-9.e+-]*' "$name/metrics.jsonl" | sed 's/.*: *//' >"$name.losses"
    [ "$(wc -l <"$name.losses")" -eq 200 ] || fail "$name has $(wc -l <"$name.losses") losses, expected 200"
}

train cpu --set parallel.device=cpu --set model.dtype=f32 --set parallel.threads="$(nproc)"
train f32 --set parallel.device=cuda --set model.dtype=f32
train bf16 --set parallel.device=cuda --set model.dtype=bf16
train again --set parallel.device=cuda --set model.dtype=bf16

# distance NAME LIMIT: the largest relative difference to the CPU's losses, the mean one, and the last losses.
distance() {
    paste cpu.losses "$1.losses" | awk -v name="$1" -v limit="$2" '{
        d = ($2 - $1) / $1
        if (d < 0) d = -d
        sum += d
        if (d > most) { most = d; where = NR }
    } END {
        printf "%s: largest distance %.2e (step %d), mean %.2e; loss of step %d: %s, on the CPU %s\n", name, most, where, sum / NR, NR, $2, $1
        exit most > limit
    }' || fail "$1 is further than $2 from the CPU's losses"
}
distance f32 2e-2
distance bf16 3e-2
cmp -s bf16.losses again.losses || fail "two runs differ: $(diff bf16.losses again.losses | head -4)"
echo "two runs have the same bits"
[ "$(tail -1 bf16.losses | cut -c1)" -lt 3 ] || fail "it did not learn: $(tail -1 bf16.losses)"
