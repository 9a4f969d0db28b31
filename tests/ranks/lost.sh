#!/usr/bin/env bash
# lost.sh TEST_TRANSPORT RANKS cpu|test|cuda TRANSPORT: of the ranks one is lost amid messages. The others get free within seconds; or all
# are ended by the launcher if it was killed. Nothing is left running.
set -uo pipefail
program=$1 ranks=$2 device=$3 transport=$4
export MHP_TEST_TIMEOUT=40
[ "$device" = cuda ] && export MHP_TEST_TIMEOUT=120         # where many processes begin to use a card each takes up to a minute
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
killed=$(sed -n 's/^killed at //p' "$out")
[ "$status" -ne 0 ] && [ "$status" -ne 124 ] && [ -n "$killed" ] || fail "killed: exit status $status"
[ $(($(date +%s) - killed)) -lt 30 ] || fail "killed: ended $(($(date +%s) - killed)) s later, expected less than 30"
! pgrep -f "^$program $device $transport killed" >/dev/null || fail "killed: ranks are left"
