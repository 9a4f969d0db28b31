#!/usr/bin/env bash
#SBATCH --job-name=mhcpipe
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=2
#SBATCH --time=08:00:00
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#
# sbatch slurm.sh CONFIG [--set section.key=value]: trains in Slurm until the run is done. Two minutes before the time limit, and at a
# preemption where PreemptParameters has send_user_signal, Slurm sends SIGUSR2 to the ranks: they save a checkpoint and end with exit
# status 75. Then the job goes back to the queue and, when it is its turn, on from that checkpoint. Nodes and tasks are options of
# sbatch, which take precedence over the lines above; nodes x tasks is parallel.pipeline x parallel.data. With cards: --gpus-per-node.
#
#   MHCPIPE       the program (mhcpipe)
#   MHP_SRUN_MPI  srun's --mpi (pmix)
set -euo pipefail
readonly requeue_status=75
if [ $# -lt 1 ]; then
    echo "usage: sbatch slurm.sh CONFIG [--set section.key=value]" >&2
    exit 2
fi
config=$1
shift
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"       # srun does not take it from sbatch since Slurm 22.05

# One rank that fails ends the step; the exit status is the highest of all ranks'.
status=0
srun --mpi="${MHP_SRUN_MPI:-pmix}" --kill-on-bad-exit=0 --wait=30 \
    "${MHCPIPE:-mhcpipe}" train "$config" --resume auto "$@" || status=$?
if [ "$status" -eq "$requeue_status" ]; then
    echo "slurm.sh: preempted; job $SLURM_JOB_ID goes back to the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
