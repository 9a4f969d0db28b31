# shellcheck shell=bash
# shellcheck disable=SC2154     # here is that of lib.sh
# Shared by the tests of a card that learn real text: the data, runs of 200 steps, how far their losses lie apart. Ends with 77 where no
# card is.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
"$mhcpipe" doctor --device cuda >/dev/null 2>&1 || { echo "skipped: no card"; exit 77; }
"$mhcpipe" data tokenize /usr/include --suffix .h -o data/headers >/dev/null

# train RANKS NAME [--set KEY=VALUE ...]: losses of a run's steps, one a line, in NAME.losses.
train() {
    local ranks=$1 name=$2
    shift 2
    launch "$ranks" train "$here/../launch/examples/quickstart.yaml" --set data.path=data/headers --set parallel.pipeline="$ranks" \
        --set schedule.kind=1f1b --set train.steps=200 --set optimizer.decay=constant --set eval.every=0 --set checkpoint.every=0 \
        --set log.every=1 --set log.dir="$name" "$@" >"$name.out" 2>&1 || fail "$name: $(tail -5 "$name.out")"
    grep -o '"loss": *[0-9.e+-]*' "$name/metrics.jsonl" | sed 's/.*: *//' >"$name.losses"
    [ "$(wc -l <"$name.losses")" -eq 200 ] || fail "$name has $(wc -l <"$name.losses") losses, expected 200"
}

# distance FROM NAME MOST MEAN EARLY: relative differences of losses, the largest, the mean and the largest of the first 20 steps, which none
# may be above its limit. Rounding grows as training goes on, most where a step's loss is an odd one; a wrong gradient shows early.
distance() {
    paste "$1.losses" "$2.losses" | awk -v from="$1" -v name="$2" -v most_limit="$3" -v mean_limit="$4" -v early_limit="$5" '{
        d = ($2 - $1) / $1
        if (d < 0) d = -d
        sum += d
        if (d > most) { most = d; where = NR }
        if (NR <= 20 && d > early) early = d
    } END {
        printf "%s: largest distance to %s %.2e (step %d), of the first 20 steps %.2e, mean %.2e; loss of step %d: %s and %s\n", name, from,
            most, where, early, sum / NR, NR, $2, $1
        exit most > most_limit || sum / NR > mean_limit || early > early_limit
    }' || fail "the losses of $2 are further from those of $1 than $3, in the mean $4, at first $5"
}
