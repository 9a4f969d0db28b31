#!/usr/bin/env bash
# binding.sh MHCPIPE: ranks never run where their launcher does not let them; on four cores and more, two ranks share what there is.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
write_config

# cores COMMAND ...: what doctor says each rank keeps to.
cores() {
    "$@" >out 2>err || fail "$(cat out err)"
    sed -n '/^  rank started/,/^$/p' out | awk 'NR > 1 && NF { print $7 }' | tr '\n' ' '
}
first=$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//')      # a core that this test may use

[ "$(cores taskset -c "$first" "$here/mpirun.sh" 2 "$mhcpipe" doctor --cluster config.yaml)" = "$first $first " ] ||
    fail "ranks left the core that they were given: $(cat out)"
[ "$(cores launch 2 doctor --cluster config.yaml --set parallel.bind=none | tr ' ' '\n' | sort -u | grep -c .)" -eq 1 ] ||
    fail "parallel.bind=none bound something: $(cat out)"
shares=$(cores launch 2 doctor --cluster config.yaml)
threads=$(processors)
echo "two ranks on $threads hardware threads: $shares"
if [ "$threads" -ge 4 ]; then
    [ "$(tr ' ' '\n' <<<"$shares" | grep -c '^[0-9]')" -eq 2 ] || fail "nobody was bound: $(cat out)"
    [ "$(tr ' ' '\n' <<<"$shares" | sort -u | grep -c '^[0-9]')" -eq 2 ] || fail "the ranks have the same cores: $(cat out)"
fi
