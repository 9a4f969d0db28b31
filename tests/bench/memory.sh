#!/usr/bin/env bash
# memory.sh [BUILD]: activation memory and the cost of recompute for the quickstart model and one four times as wide; then peak resident
# size over what was planned, for connections x schedules x modes on 1, 2 and 4 ranks.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bench=${1:-build}/tests/bench/memory
config=launch/examples/quickstart.yaml
one=(parallel.pipeline=1 schedule.kind=1f1b)
wide=(model.hidden_size=512 model.intermediate_size=1536 model.num_attention_heads=16 model.num_key_value_heads=8 schedule.microbatches=2)
larger=(model.hidden_size=256 model.intermediate_size=768 model.num_attention_heads=8 model.num_key_value_heads=4
    train.sequence_length=256)

tests/mpirun.sh 1 "$bench" "$config" 9 "${one[@]}"
tests/mpirun.sh 1 "$bench" "$config" 7 "${one[@]}" "${wide[@]}"
for ranks in 1 2 4; do
    MHP_TEST_TIMEOUT=600 tests/mpirun.sh "$ranks" "$bench" "$config" peak parallel.pipeline="$ranks" schedule.kind=gpipe "${larger[@]}"
done
