# Shared by the tests that are scripts: a work folder that is removed at the end, a small data set and configuration, checks.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mhcpipe=$(realpath "$1")
work=$(mktemp -d "${TMPDIR:-/tmp}/mhcpipe-test.XXXXXX")
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"

fail() {
    echo "FAILED: $*" >&2
    exit 1
}

# How many threads this process may run at once; nproc alone goes by OMP_NUM_THREADS where that is set.
processors() {
    env -u OMP_NUM_THREADS nproc
}

# launch RANKS COMMAND ...: mpirun of the program under test.
launch() {
    local ranks=$1
    shift
    "$here/mpirun.sh" "$ranks" "$mhcpipe" "$@"
}

# await_steps FOLDER STEPS SECONDS: until the run that writes to out and err has done so many.
await_steps() {
    local end=$((SECONDS + $3)) count
    until count=$(wc -l 2>/dev/null <"$1/metrics.jsonl") && [ "$count" -ge "$2" ]; do
        [ $SECONDS -le $end ] || fail "no step $2 within $3 s: $(cat out err)"
        sleep 0.1
    done
}

# Documents of words, the same every time.
make_data() {
    mkdir text
    awk 'BEGIN {
        srand(7)
        split("int char void struct static const return while for if else sizeof size_t", word, " ")
        for (d = 0; d < 60; d++) {
            name = sprintf("text/%03d.txt", d)
            for (i = 0; i < 150; i++)
                printf "%s%s", word[int(rand() * 13) + 1], i % 8 ? " " : ";\n" > name
            close(name)
        }
    }'
    "$mhcpipe" data tokenize text -o data/words >/dev/null
}

write_config() {
    cat >config.yaml <<'YAML'
model:
  hidden_size: 16
  num_hidden_layers: 4
  num_attention_heads: 2
  num_key_value_heads: 1
  intermediate_size: 32
  vocab_size: 257
data:
  path: data/words
  split: {held_out: 0.1}
parallel:
  pipeline: 2
schedule:
  kind: dualpipe
  microbatches: 4
optimizer:
  lr: 1e-2
train:
  steps: 12
  sequence_length: 32
  micro_batch_size: 2
eval:
  every: 4
  sequences: 16
log:
  dir: run
  every: 4
YAML
}
