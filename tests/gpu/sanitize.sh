#!/usr/bin/env bash
# Runs the `gpu` test programs under compute-sanitizer: memcheck, racecheck and initcheck. Programs get the argument "clean", for which
# those with planted faults leave them out and those with large cases keep to small ones. sanitize.sh [--tools TOOL,TOOL] [PROGRAM ...]
# takes some of them.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/build.sh"
sanitizer=$(command -v compute-sanitizer || echo /usr/local/cuda/bin/compute-sanitizer)

tools=memcheck,racecheck,initcheck
if [ "${1:-}" = --tools ]; then
    tools=${2:?names of tools}
    shift 2
fi
programs=("$@")
if [ ${#programs[@]} -eq 0 ]; then
    programs=(build/tests/gpu/test_*)
fi
failed=0
for tool in ${tools//,/ }; do
    for program in "${programs[@]}"; do
        echo "== $tool: $program"
        options=(--tool "$tool" --error-exitcode 1)
        if [ "$tool" = memcheck ]; then
            options+=(--report-api-errors no)       # allocations that are meant to be refused
        fi
        if [ "$tool" = racecheck ]; then
            options+=(--kernel-name-exclude kernel_substring=cudnn)     # barriers that it does not follow; not ours to mend
        fi
        "$sanitizer" "${options[@]}" "$program" clean || { echo "failed: $tool: $program"; failed=1; }
    done
done
exit $failed
