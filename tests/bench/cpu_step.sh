#!/usr/bin/env bash
# cpu_step.sh [BUILD]: the step of the quickstart model, and of one four times as wide, against OpenBLAS on the same shapes; then four
# ranks on two cores against one rank with two threads.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bench=${1:-build}/tests/bench/cpu_step
config=launch/examples/quickstart.yaml
one=(parallel.pipeline=1 schedule.kind=gpipe)
wide=(model.hidden_size=512 model.intermediate_size=1536 model.num_attention_heads=16 model.num_key_value_heads=8 schedule.microbatches=2)

tests/mpirun.sh 1 "$bench" "$config" 10 "${one[@]}"
tests/mpirun.sh 1 "$bench" "$config" 5 "${one[@]}" "${wide[@]}"
tests/mpirun.sh 1 "$bench" "$config" 15 "${one[@]}" parallel.threads=2
tests/mpirun.sh 4 "$bench" "$config" 15
tests/mpirun.sh 4 "$bench" "$config" 15 schedule.kind=1f1b
