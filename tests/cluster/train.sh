#!/usr/bin/env bash
# train.sh MHCPIPE: three hosts train what one does; a link that is cut ends the job; two hosts go on from its checkpoint.
# shellcheck source-path=SCRIPTDIR
. "$(dirname "${BASH_SOURCE[0]}")/hosts.sh"
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
make_data
write_config
hosts_up a b c
run=(train config.yaml --set parallel.pipeline=3 --set schedule.kind=1f1b --set eval.every=1000 --set checkpoint.every=10)
run+=(--set train.steps=120)
deadline=6

losses() {
    grep -o '"step":[0-9]*,"loss":[0-9.e+-]*' "$1/metrics.jsonl"
}

echo "== three hosts: the same bits as one"
launch 3 "${run[@]}" --set log.dir=one >/dev/null
on_hosts a:1,b:1,c:1 "${run[@]}" --set log.dir=three >out 2>err || fail "three hosts: $(cat out err)"
[ "$(losses one | wc -l)" -eq 120 ] || fail "one host: $(losses one | wc -l) steps"
cmp <(losses one) <(losses three) || fail "three hosts trained something else"

echo "== two replicas of two ranks, dealt round two hosts: each on one host"
run2=(train config.yaml --set parallel.data=2 --set schedule.microbatches=4 --set train.micro_batch_size=1 --set eval.every=1000)
launch 4 "${run2[@]}" --set log.dir=one2 >/dev/null
OMPI_MCA_rmaps_base_mapping_policy=node on_hosts a:2,b:2 "${run2[@]}" --set log.dir=two2 >out 2>err || fail "two hosts: $(cat out err)"
cmp <(losses one2) <(losses two2) || fail "two hosts trained something else"

echo "== a link is cut in a step"
on_hosts a:1,b:1,c:1 "${run[@]}" --set log.dir=cut --set train.steps=100000 --set watch.silence_seconds=$deadline --resume auto \
    >out 2>err &
launcher=$!
for _ in $(seq 300); do
    [ -e cut/checkpoints/latest ] && [ "$(wc -l <cut/metrics.jsonl)" -ge 15 ] && break
    sleep 0.1
done
[ -e cut/checkpoints/latest ] || fail "no checkpoint within 30 s: $(cat out err)"
ip link set link-b down
SECONDS=0

# Processes of the program itself, whose name the launchers' command lines have too.
ranks_left() {
    local pid
    for pid in $(pgrep -f 'train config.yaml'); do
        [ "$(readlink "/proc/$pid/exe")" = "$mhcpipe" ] && echo "$pid"
    done
    true
}
while [ -n "$(ranks_left)" ]; do
    [ "$SECONDS" -le $((deadline + 10)) ] || fail "$SECONDS s after the cut these ranks still run: $(ranks_left): $(cat err)"
    sleep 0.2
done
echo "the ranks ended $SECONDS s after the cut"
status=0
wait "$launcher" || status=$?
echo "mpirun ended $SECONDS s after the cut, with status $status"
[ "$status" -ne 0 ] || fail "the launch ended with 0 though a link was cut"
[ "$SECONDS" -le $((deadline + 60)) ] || fail "the launch ended only $SECONDS s after the cut"
[ "$(grep -c 'mhcpipe: error:' err)" -eq 1 ] || fail "not one error: $(cat err)"
grep 'mhcpipe: error: .*rank 1 (host host-b, ' err || fail "the error does not name the host that was cut off: $(cat err)"

echo "== two hosts go on"
last=$(cat cut/checkpoints/latest)
on_hosts a:2,c:1 "${run[@]}" --set log.dir=cut --resume auto >out 2>err || fail "going on: $(cat out err)"
grep -q "resumes from cut/checkpoints/step-" out || fail "not resumed: $(cat out)"
echo "$last; $(grep -o 'resumes from [^,]*' out)"
[ "$(losses cut | tail -1 | grep -o '"step":[0-9]*')" = '"step":120' ] || fail "it ended at $(losses cut | tail -1)"
