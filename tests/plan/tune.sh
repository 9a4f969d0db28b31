#!/usr/bin/env bash
# tune.sh MHCPIPE: tunes for uneven costs, trains what was found on two ranks with the losses of a named schedule, and refuses what is wrong.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
make_data
write_config

cat >costs.yaml <<'YAML'
stages:
  - {forward_us: 100, input_gradient_us: 120, weight_gradient_us: 80}
  - {forward_us: 140, input_gradient_us: 168, weight_gradient_us: 112}
links: [{default: true, latency_us: 20}]
YAML

refused() {
    local words=$1
    shift
    if "$mhcpipe" tune "$@" >out 2>err; then
        fail "tune $* succeeded"
    fi
    grep -qF -- "$words" err || fail "tune $*: expected \"$words\", got $(cat err)"
}

# Of the first three steps: loss, as printed.
losses() {
    head -3 "$1/metrics.jsonl" | grep -o '"loss":[0-9.e+-]*'
}

echo "== tune, check, train"
"$mhcpipe" tune config.yaml --costs costs.yaml --iterations 2000 -o best.yaml >out
grep -q '^best named ' out && grep -Eq '^best .*: [0-9.]+ % less, [0-9.]+ % above the lower bound' out || fail "no summary: $(cat out)"
"$mhcpipe" check best.yaml >/dev/null
options=$(sed -n 's/^  mpirun -n 2 mhcpipe train config.yaml //p' out)
[ -n "$options" ] || fail "no command to run it by: $(cat out)"
eval "launch 2 train config.yaml $options --set train.steps=3 --set log.dir=tuned" >/dev/null
launch 2 train config.yaml --set schedule.kind=1f1b --set train.steps=3 --set log.dir=named >/dev/null
paste <(losses tuned | cut -d: -f2) <(losses named | cut -d: -f2) | awk '{ d = $1 - $2; if (d * d > 1e-8) exit 1 }' ||
    fail "losses differ: $(losses tuned) and $(losses named)"

echo "== the command that is printed runs as it is"
mkdir "an odd folder" path
cp config.yaml "an odd folder/a config.yaml"
"$mhcpipe" tune "an odd folder/a config.yaml" --costs costs.yaml --iterations 2000 --set model.intermediate_size=48 \
    --set 'data.split={held_out: 0.2}' -o "an odd folder/it's: 1 #.yaml" >out
sed -n 's/^  mpirun /mpirun /p' out >command
[ "$(wc -l <command)" -eq 1 ] || fail "no command to run it by: $(cat out)"
grep -qxF "# $(cat command)" "an odd folder/it's: 1 #.yaml" || fail "the file has another command: $(head -3 "an odd folder/it's: 1 #.yaml")"
# As it is, in a shell, where mpirun may start ranks as the tests do.
cat >path/mpirun <<SH
#!/bin/sh
[ "\$1 \$3" = "-n mhcpipe" ] || exit 9
ranks=\$2
shift 3
PATH=\${PATH#*:} exec "$here/mpirun.sh" "\$ranks" "$mhcpipe" "\$@"
SH
chmod +x path/mpirun
PATH="$PWD/path:$PATH" sh command >trained || fail "the command that tune printed does not run: $(cat command trained)"
grep -q '^trained 12 steps' trained || fail "the command that tune printed trained nothing: $(cat trained)"
grep -q 'intermediate_size: 48' run/config.resolved.yaml && grep -q 'held_out: 0.2' run/config.resolved.yaml ||
    fail "the command that tune printed has lost a --set: $(cat command)"

echo "== costs of a model with fewer layers"
cat >four.yaml <<'YAML'
stages:
  - {forward_us: 100, input_gradient_us: 120, weight_gradient_us: 80}
  - {forward_us: 100, input_gradient_us: 120, weight_gradient_us: 80}
  - {forward_us: 100, input_gradient_us: 120, weight_gradient_us: 80}
  - {forward_us: 140, input_gradient_us: 168, weight_gradient_us: 112}
links: [{default: true, latency_us: 20}]
YAML
deeper=(config.yaml --set schedule.kind=1f1b --set parallel.pipeline=4 --set model.num_hidden_layers=8)
"$mhcpipe" plan "${deeper[@]}" --costs four.yaml >expected
"$mhcpipe" plan "${deeper[@]}" --costs costs.yaml --costs-layers 4 | cmp - expected || fail "layers in the middle cost something else"
"$mhcpipe" tune "${deeper[@]}" --costs costs.yaml --costs-layers 4 --iterations 100 >out || fail "tune takes no costs of fewer layers"
refused "costs.yaml: --costs-layers 9: expected at most the layers of a configuration, 8" "${deeper[@]}" --costs costs.yaml --costs-layers 9

echo "== the same again"
"$mhcpipe" tune config.yaml --costs costs.yaml --iterations 2000 -o again.yaml >/dev/null
cmp <(grep -v '^#' best.yaml) <(grep -v '^#' again.yaml) || fail "two searches with one seed differ"

echo "== what is refused"
refused "--costs FILE expected" config.yaml
refused "a CONFIG expected" --costs costs.yaml
refused "expected a configuration" best.yaml --costs costs.yaml
refused "expected a divisor" config.yaml --costs costs.yaml --microbatches 3
refused "expected bytes, as 80GiB" config.yaml --costs costs.yaml --memory many
refused "no schedule fits into 1024 bytes" config.yaml --costs costs.yaml --memory 1KiB
refused "no schedule of this name" config.yaml --costs costs.yaml --kinds none
refused "stages has 2 entries" config.yaml --costs costs.yaml --set parallel.pipeline=4 --set schedule.kind=1f1b

echo "== more stages than layers: halves that are given"
cat >half.yaml <<'YAML'
model: {hidden_size: 16, num_hidden_layers: 2, num_attention_heads: 2, intermediate_size: 32, vocab_size: 64}
data: {path: none}
parallel: {pipeline: 4}
schedule: {kind: 1f1b, microbatches: 4, layers_per_stage: [0.5, 0.5, 0.5, 0.5]}
YAML
echo 'stages: [{forward_us: 1, input_gradient_us: 1, weight_gradient_us: 1}]' >half.costs
"$mhcpipe" plan half.yaml --compare gpipe >out || fail "no comparison: $(cat out)"
grep -Eq '^gpipe +4 ' out || fail "gpipe has no row: $(cat out)"
"$mhcpipe" tune half.yaml --costs half.costs --iterations 100 >out || fail "tune refuses a cut that train takes: $(cat out)"
grep -q '^layers  *0.5 0.5 0.5 0.5$' out || fail "$(cat out)"
