#!/usr/bin/env bash
# checkpoint.sh FOLDER [ROUNDS [BUILD]]: checkpoints of a model of 30 M parameters in a new folder below FOLDER: one rank with a core to
# spare for the writing, then two ranks; then resuming with two and one ranks from what was written, which storage is made to read again.
set -euo pipefail
parent=$(realpath "${1:?FOLDER}")
rounds=${2:-7}
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bench=${3:-build}/tests/bench/checkpoint
folder=$(mktemp -d "$parent/mhcpipe-bench.XXXXXX")
trap 'rm -rf "$folder"' EXIT
export MHP_TEST_TIMEOUT=900
model=(schedule.kind=1f1b model.hidden_size=512 model.intermediate_size=1536 model.num_attention_heads=16 model.num_key_value_heads=8)

# forget: takes the files out of the system's cache.
forget() {
    sync
    find "$folder" -type f -exec dd of={} oflag=nocache conv=notrunc,fdatasync count=0 status=none \;
}

for ranks in 1 2; do
    echo "== $ranks ranks"
    tests/mpirun.sh "$ranks" "$bench" launch/examples/quickstart.yaml "$folder" "$rounds" "${model[@]}" parallel.pipeline="$ranks" \
        schedule.microbatches=$((2 * ranks))
done
for ranks in 2 1; do
    echo "== resuming on $ranks ranks"
    forget
    tests/mpirun.sh "$ranks" "$bench" launch/examples/quickstart.yaml "$folder" resume "${model[@]}" parallel.pipeline="$ranks" \
        schedule.microbatches=$((4 / ranks))
done
