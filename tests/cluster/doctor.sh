#!/usr/bin/env bash
# doctor.sh MHCPIPE: doctor --cluster over four hosts finds the mapping, a slow link, and hosts whose program or configuration differs.
# shellcheck source-path=SCRIPTDIR disable=SC2094
. "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
make_data
write_config
hosts_up a b c d
chain=(--set parallel.pipeline=4 --set schedule.kind=1f1b)

expect() {
    grep -q -- "$1" out || fail "expected \"$1\" in: $(cat out err)"
}

echo "== alike"
on_hosts a:1,b:1,c:1,d:1 doctor --cluster config.yaml "${chain[@]}" >out 2>err || fail "$(cat out err)"
cat out
for line in '^mhcpipe .* on 4 ranks$' '^ *0 *0 host-a .* all ' '^ *3 *3 host-d ' '^  2 - 3 *host-c - host-d between hosts messages '; do
    expect "$line"
done
[ "$(sed -n '/^differences/,$p' out | tr -d '\n ')" = differencesnone ] || fail "differences: $(cat out)"
[ "$(grep -c 'between hosts' out)" -eq 3 ] || fail "expected three lines: $(cat out)"

echo "== without a configuration; on one host"
on_hosts a:1,b:1 doctor --cluster >out 2>err || fail "$(cat out err)"
expect '^  0 - 1 *host-a - host-b between hosts messages '
launch 2 doctor --cluster config.yaml >out 2>err || fail "$(cat out err)"
expect '^  0 - 1 .* same host *messages and sums '
"$mhcpipe" doctor --cluster >out 2>err || fail "$(cat out err)"
expect '^  none$'

echo "== ranks dealt round the hosts: neighbours share one all the same"
OMPI_MCA_rmaps_base_mapping_policy=node on_hosts a:2,b:2 doctor --cluster config.yaml "${chain[@]}" >out 2>err || fail "$(cat out err)"
[ "$(awk '$3 ~ /^host-/ { printf "%s:%s:%s ", $1, $2, $3 }' out)" = "0:0:host-a 1:2:host-a 2:1:host-b 3:3:host-b " ] || fail "$(cat out)"
[ "$(grep -c 'between hosts' out)" -eq 1 ] || fail "expected one line between hosts: $(cat out)"
OMPI_MCA_rmaps_base_mapping_policy=node on_hosts a:2,b:2 doctor --cluster config.yaml "${chain[@]}" --set parallel.map=none >out 2>err ||
    fail "$(cat out err)"
[ "$(grep -c 'between hosts' out)" -eq 3 ] || fail "expected three lines between hosts: $(cat out)"

echo "== a slow link to host c"
if tc qdisc add dev link-c root tbf rate 40mbit burst 64kb latency 500ms 2>err; then
    on_hosts a:1,b:1,c:1,d:1 doctor --cluster config.yaml "${chain[@]}" >out 2>err || fail "$(cat out err)"
    expect '^  1 - 2 .* SLOW: .*there [0-9.]* times'
    expect '^  2 - 3 .* SLOW: .*back [0-9.]* times'
    tc qdisc del dev link-c root
else
    echo "no slow link on this machine: $(cat err)"
fi

echo "== configurations differ"
for host in a b c d; do
    own_file $host config.yaml <config.yaml
done
sed 's/steps: 12/steps: 13/' config.yaml | own_file c config.yaml
! on_hosts a:1,b:1,c:1,d:1 doctor --cluster own/config.yaml "${chain[@]}" >out 2>err || fail "differing configurations passed: $(cat out)"
expect '^  the configurations of rank 0 on host-a and rank 2 on host-c differ '
ssh/client "$(host_address a)" "ln -s $work/data $work/own/data"
! on_hosts a:1,b:1,c:1,d:1 train own/config.yaml "${chain[@]}" >out 2>err || fail "differing configurations trained"
grep -q 'error: the configurations of rank 0 on host-a and rank 2 on host-c differ ' err || fail "$(cat err)"
[ "$(grep -c 'mhcpipe: error:' err)" -eq 1 ] || fail "not one error: $(cat err)"

echo "== programs and versions differ"
version=$("$mhcpipe" --version | awk 'NR == 1 { print $2 }')
for host in a b; do
    own_file $host mhcpipe <"$mhcpipe"
done
(cat "$mhcpipe" && echo) | own_file b mhcpipe
on_hosts_program=$work/own/mhcpipe
! on_hosts a:1,b:1 doctor --cluster >out 2>err || fail "another build passed: $(cat out)"
expect '^  the programs of rank 0 on host-a and rank 1 on host-b differ '
LC_ALL=C sed "s/${version//./\\.}/9.9.9/g" "$mhcpipe" | own_file b mhcpipe
! on_hosts a:1,b:1 doctor --cluster >out 2>err || fail "another version passed: $(cat out)"
expect "^  rank 1 on host-b is mhcpipe 9.9.9 and rank 0 on host-a is $version"
