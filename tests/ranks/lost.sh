#!/usr/bin/env bash
# lost.sh TEST_TRANSPORT RANKS cpu|test|cuda TRANSPORT: of the ranks one is lost amid messages. The others get free within seconds; or all
# are ended by the launcher if it was killed. Nothing is left running.
set -uo pipefail
program=$1 ranks=$2 device=$3 transport=$4
export MHP_TEST_TIMEOUT=40
launch=$(dirname "${BASH_SOURCE[0]}")/../mpirun.sh
out=$(mktemp)
trap 'rm -f "$out"' EXIT
fail() { echo "$*: $(cat "$out")" >&2; exit 1; }

"$launch" "$ranks" "$program" "$device" "$transport" lost >"$out" 2>&1
status=$?
if grep -q '^skipped' "$out"; then
    exit 77
fi
[ "$status" -ne 0 ] && [ "$status" -ne 124 ] && [ "$status" -ne 137 ] || fail "lost: exit status $status"
[ "$(grep -c 'got free after' "$out")" -eq $((ranks - 1)) ] || fail "lost: expected $((ranks - 1)) ranks to get free"
cat "$out"

"$launch" "$ranks" "$program" "$device" "$transport" killed >"$out" 2>&1
status=$?
[ "$status" -ne 0 ] && [ "$status" -ne 124 ] && [ "$status" -ne 137 ] || [ "$status" -eq 137 -a "$SECONDS" -lt 30 ] || fail "killed: exit status $status"
! pgrep -f "^$program $device $transport killed" >/dev/null || fail "killed: ranks are left"
