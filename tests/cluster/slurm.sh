#!/usr/bin/env bash
# slurm.sh MHCPIPE: a Slurm of one node - munged, slurmctld, slurmd - in namespaces of its own: srun --mpi=pmix, launch/cluster/slurm.sh
# from sbatch, and its way back to the queue after a preemption. Skipped without Slurm (Debian's package slurm-wlm), which is large.
# shellcheck source-path=SCRIPTDIR
set -euo pipefail

if [ -z "${MHP_TEST_SLURM:-}" ]; then
    for program in munged slurmctld slurmd sbatch; do
        if ! PATH=$PATH:/usr/sbin command -v $program >/dev/null; then
            echo "skipped: no $program on this machine (Debian's package slurm-wlm)"
            exit 77
        fi
    done
    if [ "$(id -u)" -ne 0 ] || ! unshare --net --mount --pid --uts --fork --kill-child --mount-proc \
        sh -c 'mount -t tmpfs none /run && ip link add name bridge type bridge' 2>/dev/null; then
        echo "skipped: namespaces are not permitted here"
        exit 77
    fi
    MHP_TEST_SLURM=1 exec unshare --net --mount --pid --uts --fork --kill-child --mount-proc bash "$0" "$@"
fi
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
PATH=$PATH:/usr/sbin
trap 'cd /; chmod -R u+w "$work"; rm -rf "$work" 2>/dev/null || true' EXIT

start_slurm() {
    mount -t tmpfs none /run
    hostname node
    printf '127.0.0.1 localhost\n10.98.0.1 node\n' >hosts
    mount --bind hosts /etc/hosts
    ip link set lo up
    ip link add name bridge type bridge         # an address that is not the loopback's, for names to resolve to
    ip addr add 10.98.0.1/24 dev bridge
    ip link set bridge up
    mkdir -p slurm/state slurm/spool slurm/munge
    chmod 755 "$work" slurm
    chmod 700 slurm/munge
    head -c 1024 /dev/urandom >slurm/munge/key
    chmod 400 slurm/munge/key
    munged --force --key-file="$work/slurm/munge/key" --socket="$work/slurm/munge/socket" --log-file="$work/slurm/munge/log" \
        --pid-file="$work/slurm/munge/pid" --seed-file="$work/slurm/munge/seed" 2>slurm/munge/err || fail "munged: $(cat slurm/munge/err)"
    cat >slurm/slurm.conf <<CONF
ClusterName=test
SlurmctldHost=node
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$work/slurm/munge/socket,cred_expire=2
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$work/slurm/state
SlurmdSpoolDir=$work/slurm/spool
SlurmctldPidFile=$work/slurm/slurmctld.pid
SlurmdPidFile=$work/slurm/slurmd.pid
SlurmctldLogFile=$work/slurm/slurmctld.log
SlurmdLogFile=$work/slurm/slurmd.log
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1
ReturnToService=2
NodeName=node NodeAddr=10.98.0.1 Boards=1 SocketsPerBoard=1 CoresPerSocket=4 ThreadsPerCore=1 State=UNKNOWN
PartitionName=main Nodes=node Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF=$work/slurm/slurm.conf
    slurmctld -c
    slurmd
    wait_for_node
}

wait_for_node() {
    for _ in $(seq 100); do
        [ "$(sinfo -h -o %t 2>/dev/null)" = idle ] && return
        sleep 0.2
    done
    fail "no node is idle: $(tail -n 5 slurm/slurmctld.log slurm/slurmd.log 2>&1)"
}

# wait_for STATE JOB: as sacct would say; Slurm forgets a job after some minutes.
wait_for() {
    for _ in $(seq 450); do
        grep -qE "JobState=($1)" <<<"$(scontrol show job "$2" 2>/dev/null)" && return
        sleep 0.2
    done
    fail "job $2 is not $1: $(scontrol show job "$2"; cat slurm-"$2".out)"
}

make_data
write_config
start_slurm
one_node=(--nodes=1 --ntasks-per-node=2 --cpus-per-task=2 --time=10)

echo "== srun --mpi=pmix: the same bits as under mpirun"
launch 2 train config.yaml --set log.dir=mpirun >/dev/null
srun "${one_node[@]}" --mpi=pmix "$mhcpipe" train config.yaml --set log.dir=srun >out 2>err || fail "srun: $(cat out err)"
losses() {
    grep -o '"step":[0-9]*,"loss":[0-9.e+-]*' "$1/metrics.jsonl"
}
cmp <(losses mpirun) <(losses srun) || fail "srun trained something else"

echo "== sbatch slurm.sh"
export MHCPIPE=$mhcpipe
job=$(sbatch --parsable "${one_node[@]}" "$here/../launch/cluster/slurm.sh" config.yaml --set log.dir=batch)
wait_for COMPLETED "$job"
grep -q 'trained 12 steps' "slurm-$job.out" || fail "$(cat "slurm-$job.out")"
cmp <(losses mpirun) <(losses batch) || fail "sbatch trained something else"

echo "== a failure is the job's, and does not go back to the queue"
job=$(sbatch --parsable "${one_node[@]}" "$here/../launch/cluster/slurm.sh" config.yaml --set train.steps=0)
wait_for FAILED "$job"
grep -q 'error: .*train.steps=0' "slurm-$job.out" || fail "$(cat "slurm-$job.out")"
[ "$(scontrol show job "$job" | grep -o 'Restarts=[0-9]*')" = Restarts=0 ] || fail "job $job was started again"

echo "== SIGUSR2: exit status 75, back to the queue, and on from the checkpoint"
steps=3000                                      # of 3 ms: more than Slurm takes to bring the signal, which can be a second
long=(config.yaml --set log.dir=long --set "train.steps=$steps" --set eval.every=10000)
job=$(sbatch --parsable "${one_node[@]}" "$here/../launch/cluster/slurm.sh" "${long[@]}")
for _ in $(seq 600); do
    [ "$(wc -l 2>/dev/null <long/metrics.jsonl)" -ge 20 ] 2>/dev/null && break
    sleep 0.1
done
scancel --signal=USR2 "$job"
wait_for PENDING "$job"
# Slurm leaves two minutes after a requeue. Within the same second slurmd would refuse the second start: "Job credential revoked".
wait_for_node
sleep 3
scontrol update JobId="$job" StartTime=now
wait_for COMPLETED "$job"
grep -q "slurm.sh: preempted; job $job goes back to the queue" "slurm-$job.out" || fail "$(cat "slurm-$job.out")"
grep 'resumes from long/checkpoints/step-' "slurm-$job.out" || fail "not resumed: $(cat "slurm-$job.out")"
[ "$(losses long | cut -d, -f1 | sort -u | wc -l)" -eq "$steps" ] || fail "steps are missing: $(losses long | wc -l)"
grep -q "trained $steps steps" "slurm-$job.out" || fail "not done: $(cat "slurm-$job.out")"
