#!/usr/bin/env bash
# mpirun.sh HOSTS COMMAND ...: runs mhcpipe COMMAND on every rank of hosts that are reached by SSH. HOSTS is a list with the ranks of
# each, as for mpirun --host: node1:4,node2:4. The program, the configuration, the data and log.dir have the same path on every host.
#
#   mpirun.sh node1:4,node2:4 doctor --cluster run.yaml
#   mpirun.sh node1:4,node2:4 train run.yaml --resume auto
#
# Signals go to mpirun, which passes SIGUSR1 and SIGUSR2 on to the ranks; the exit status is the ranks'.
#
#   MHCPIPE       the program (mhcpipe, on the PATH of every host)
#   MHP_NETWORK   the network of the messages, if hosts have several: 10.0.0.0/8, or an interface's name
#   MHP_SSH       what starts a command on a host (ssh -q -o BatchMode=yes)
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: mpirun.sh HOST:RANKS,... COMMAND [ARGUMENTS]" >&2
    exit 2
fi
hosts=$1
shift

# A host that went away: its SSH connection ends after 15 s, its daemon's after a minute without a sign of life.
remote="${MHP_SSH:-ssh -q -o BatchMode=yes} -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
options=(-q --host "$hosts" --mca plm_rsh_agent "$remote")
options+=(--mca oob_tcp_keepalive_time 30 --mca oob_tcp_keepalive_intvl 10 --mca oob_tcp_keepalive_probes 3)
options+=(--bind-to none)           # the ranks bind themselves: parallel.bind
if [ -n "${MHP_NETWORK:-}" ]; then
    options+=(--mca btl_tcp_if_include "$MHP_NETWORK" --mca oob_tcp_if_include "$MHP_NETWORK")
fi
if [ "$(id -u)" -eq 0 ]; then
    options+=(--allow-run-as-root)
fi
export OPENBLAS_NUM_THREADS="${OPENBLAS_NUM_THREADS:-1}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
for variable in OPENBLAS_NUM_THREADS OMP_NUM_THREADS CUDA_VISIBLE_DEVICES; do
    if [ -n "${!variable:-}" ]; then
        options+=(-x "$variable")
    fi
done
exec mpirun "${options[@]}" "${MHCPIPE:-mhcpipe}" "$@"
