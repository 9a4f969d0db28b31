#!/usr/bin/env bash
# all.sh FOLDER [SECONDS] [PART ...]: what a build has to show on this host's cards. A part is a log in FOLDER and a line here; those for
# which SECONDS (3600) do not last are cut or not begun, and count as failed. Parts, in the order in which they run unless named:
#   doctor      what the host has
#   tests       the tests of one card
#   two         those of two cards
#   sanitize    the small cases of the kernels under compute-sanitizer
#   kernels     each kernel against a copy of the card, at four widths
#   step        the reference step on one card
#   pipeline    the reference step over two cards, all tables
# MHP_BUILT=1 takes the build as it is.
# shellcheck disable=SC2317     # the parts are called by their names
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: all.sh FOLDER [SECONDS] [PART ...]" >&2; exit 2; }
mkdir -p "$1"
out=$(realpath "$1")
seconds=3600
shift
if [ $# -gt 0 ] && [[ $1 =~ ^[0-9]+$ ]]; then
    seconds=$1
    shift
fi
parts=("$@")
known=(doctor tests two sanitize kernels step pipeline)
[ ${#parts[@]} -gt 0 ] || parts=("${known[@]}")
for part in "${parts[@]}"; do
    [[ " ${known[*]} " == *" $part "* ]] || { echo "all.sh: part \"$part\": expected some of: ${known[*]}" >&2; exit 2; }
done
. "$(dirname "${BASH_SOURCE[0]}")/build.sh"

doctor() { build/mhcpipe doctor --device cuda; }
tests() { passed '^gpu$' 8; }
two() { passed '^multi-gpu$' 8; }
sanitize() { tests/gpu/sanitize.sh build/tests/gpu/test_{connections,rebuild,kernels}; }
kernels() {
    local hidden
    for hidden in 1280 2560 4096 7168; do
        build/mhcpipe bench kernels --device cuda --tokens 8192 --hidden "$hidden" --streams 4 || return
    done
}
step() { tests/bench/gpu_step.sh; }
pipeline() { rm -rf "$out/pipeline" && tests/bench/pipeline.sh build --output "$out/pipeline"; }

# passed LABEL PROCESSES: the tests of that label, so many processes at a time, of which none may have been skipped.
passed() {
    local status=0
    ctest --preset release --no-tests=error -L "$1" -j "$2" || status=1
    if grep -qF '***Skipped' "$out/$part.log"; then
        echo "not all of them ran"
        status=1
    fi
    return "$status"
}

export out part
export -f "${known[@]}" passed
failed=0
for part in "${parts[@]}"; do
    begin=$SECONDS left=$((seconds - SECONDS)) status=0
    if [ "$left" -lt 10 ]; then
        echo "$part: not begun, no time left"
        failed=1
        continue
    fi
    timeout --kill-after=5 "$left" bash -c "$part" >"$out/$part.log" 2>&1 || status=$?
    case $status in
    0) end=passed ;;
    124 | 137) end="cut, no time left" ;;
    *) end="failed, status $status" ;;
    esac
    [ "$status" -eq 0 ] || failed=1
    printf '%-10s %4d s  %s: %s\n' "$part" $((SECONDS - begin)) "$end" "$out/$part.log"
done
exit $failed
