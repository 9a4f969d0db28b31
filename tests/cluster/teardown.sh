#!/usr/bin/env bash
# teardown.sh MHCPIPE: of hosts whose test is ended by SIGKILL nothing is left, no process, no namespace, no link.
# shellcheck source-path=SCRIPTDIR
if [ "${2:-}" = inside ]; then      # the test that is ended
    . "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"
    . "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
    hosts_up a b
    echo "$work" >"$3"
    sleep 1000
fi
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

links() {
    ip -o link 2>/dev/null | awk -F': ' '{ print $2 }'
    ip netns list 2>/dev/null
}
before=$(links)
bash "$here/cluster/teardown.sh" "$mhcpipe" inside "$work/up" &
test_pid=$!
for _ in $(seq 300); do
    [ -s up ] && break
    if ! kill -0 "$test_pid" 2>/dev/null; then
        status=0
        wait "$test_pid" || status=$?
        [ "$status" -eq 77 ] && exit 77
        fail "the hosts did not come up: status $status"
    fi
    sleep 0.1
done
folder=$(cat up)
pgrep -f "sshd -f $folder/ssh/sshd_b" >/dev/null || fail "no SSH daemon of host b"
kill -KILL "$test_pid"
for _ in $(seq 50); do
    pgrep -f "$folder" >/dev/null || break
    sleep 0.1
done
! pgrep -fa "$folder" || fail "processes are left"
[ "$(links)" = "$before" ] || fail "links or namespaces are left: $(links)"
rm -rf "$folder"
echo "nothing is left"
