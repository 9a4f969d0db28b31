#!/usr/bin/env bash
# shellcheck disable=SC2154     # mhcpipe and work are those of lib.sh
# pipeline_rows.sh MHCPIPE: the pipeline's bench on two ranks of the CPU: every figure of every row, pictures, a tuned schedule, the
# prediction from what was measured; rows that are refused, and a row that takes too long.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
build=$(dirname "$mhcpipe")
bench=("$here/bench/pipeline.sh" "$build" --device cpu --connections residual,mhc --repetitions 1)

echo "== the tables"
"${bench[@]}" --layers 4 --microbatches 4 --schedules dualpipev,balanced,dualpipe,tuned --ablation no --output "$work/out" >log 2>&1 || fail "$(cat log)"
[ "$(grep -c '^[rm]' out/rows.tsv)" -eq 8 ] || fail "expected eight rows: $(cat out/rows.tsv log)"
# Name, times, rate (no utilisation without a card), shares, and bytes; a formula for all but what was tuned.
awk -F'\t' '
    NR == 1 { if (NF != 18) exit 1; next }
    NF != 18 || $18 != "" { exit 1 }
    !($2 > 0 && $3 > 0 && $4 > 0 && $11 > 0 && $13 > 0 && $14 > 0 && $17 > 0) || $5 != "" || $15 != "" { exit 1 }
    $6 < 0 || $6 > 1 || $8 < 0 || $8 > 1 || $9 < 0 || $9 > 1 || (($10 == "") != ($1 ~ /tuned/)) { exit 1 }
    $3 * $4 < 0.99 * 4 * 64 * 1000 || $3 * $4 > 1.01 * 4 * 64 * 1000 { exit 1 }
    ($1 ~ /dualpipe$/) != ($12 != "") && $1 !~ /tuned/ { exit 1 }' out/rows.tsv || fail "a row is wrong: $(cat out/rows.tsv)"
for name in residual.dualpipev mhc.dualpipe mhc.balanced mhc.tuned; do
    grep -q '</svg>' "out/pictures/$name.svg" || fail "no picture of $name"
    grep -q '</html>' "out/pictures/$name.html" || fail "no page of $name"
done
[ "$(grep -c '^| [rm][a-z]*, ' out/tables.md)" -eq 8 ] || fail "the table: $(cat out/tables.md)"
grep -Eq '^\| mhc, dualpipe \| [0-9.]+ \| [0-9.]+ \| [+-][0-9.]+ \|' out/tables.md || fail "no overhead over residual: $(cat out/tables.md)"

echo "== the prediction"
"${bench[@]}" --predict "$work/out" --from-layers 4 --ranks 4 --microbatches 8 --schedules 1f1b,balanced,dualpipe,tuned >log 2>&1 || fail "$(cat log)"
[ "$(grep -Ec '^\| 4 \| 8 \| (residual|mhc), [a-z0-9]+ \| [0-9.]+ \| [0-9]+ \|' log)" -eq 6 ] || fail "the prediction: $(cat log)"

echo "== rows that are refused"
write_config
cat >rows <<'ROWS'
# NAME and settings
good  schedule.kind=1f1b
bad   schedule.kind=1f2b
odd   schedule.microbatches=3
other parallel.transport=mpi
small parallel.memory_limit=1000        # bytes
last
ROWS
mkdir -p rows.out/bad/profile
touch rows.out/bad/{report.html,step.svg,costs.yaml}    # of an earlier bench
launch 2 bench pipeline config.yaml --set train.sequence_length=16 --rows rows --output rows.out --repetitions 1 --record 1 >log 2>&1 ||
    fail "$(cat log)"
[ "$(cut -f1 rows.out/rows.tsv | tr '\n' ' ')" = "name good bad odd other small last " ] || fail "rows are missing: $(cat rows.out/rows.tsv)"
for word in 'bad.*no schedule is called "1f2b"' 'odd.*dualpipe on 2 ranks with 3' 'other.*expected parallel.transport' 'small.*rank 0 needs'; do
    grep -Eq "^$word" rows.out/rows.tsv || fail "expected $word: $(cat rows.out/rows.tsv)"
done
[ "$(ls rows.out/bad)" = config.resolved.yaml ] || fail "a row that is refused has figures: $(ls rows.out/bad)"
awk -F'\t' 'NF != 18 || (($1 == "good" || $1 == "last") && ($18 != "" || !($3 > 0))) { exit 1 }' rows.out/rows.tsv || fail "$(cat rows.out/rows.tsv)"
echo "../up schedule.kind=1f1b" >rows
! launch 2 bench pipeline config.yaml --rows rows --output rows.out >log 2>&1 || fail "a row with a path for a name runs"
grep -q 'rows:1: row "../up"' log || fail "$(cat log)"

echo "== a row that takes too long, and what follows it"
! launch 2 bench pipeline config.yaml --output slow --repetitions 10000 --row-seconds 1 >log 2>&1 || fail "no limit of a row's time"
grep -q 'a row of the bench took longer than --row-seconds' log || fail "$(cat log)"
! "${bench[@]}" --connections residual --microbatches 4000,4 --schedules 1f1b --ablation no --row-seconds 3 --output "$work/again" \
    >log 2>&1 || fail "a row fails, and the bench does not: $(cat log)"
grep -q '^pipeline.sh: rows that failed: 1' log || fail "$(cat log)"
awk -F'\t' '$1 == "residual.1f1b.m4000" && $18 ~ /longer than --row-seconds/ { slow = 1 } $1 == "residual.1f1b.m4" && $3 > 0 { next_ = 1 }
    END { exit !(slow && next_) }' again/rows.tsv || fail "the row behind a slow one: $(cat again/rows.tsv log)"
