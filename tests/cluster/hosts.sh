# shellcheck shell=bash disable=SC2154     # work, mhcpipe and fail are those of lib.sh
# Several hosts on one machine, for tests that source this before anything else: network namespaces on a bridge, each with a host name
# and an SSH daemon of its own. The test runs in namespaces of processes, mounts and networks that end with it, so that nothing of them
# is left however it ends, be it by SIGKILL. Exits with 77 and the reason where the machine does not permit that.
set -euo pipefail
hosts_net=10.99.0

# shellcheck disable=SC2317  # called below
hosts_missing() {
    if [ "$(id -u)" -ne 0 ]; then
        echo "namespaces need root"
    elif ! command -v ip >/dev/null; then
        echo "no ip on this machine (Debian's package iproute2)"
    elif ! command -v pgrep >/dev/null || ! command -v sysctl >/dev/null; then
        echo "no pgrep or sysctl on this machine (Debian's package procps)"
    elif ! command -v ssh >/dev/null || [ ! -x /usr/sbin/sshd ]; then
        echo "no SSH client and daemon on this machine (Debian's packages openssh-client and openssh-server)"
    elif ! unshare --net --mount --pid --uts --fork --kill-child --mount-proc true 2>/dev/null; then
        echo "namespaces are not permitted here"
    elif ! unshare --net --mount sh -c 'mount -t tmpfs none /run && ip netns add a && ip link add name bridge type bridge &&
            ip link add name link-a type veth peer name eth0 netns a' 2>/dev/null; then
        echo "network namespaces, bridges or virtual links are not permitted here"
    fi
}

if [ -z "${MHP_TEST_HOSTS:-}" ]; then
    hosts_reason=$(hosts_missing)
    if [ -n "$hosts_reason" ]; then
        echo "skipped: $hosts_reason"
        exit 77
    fi
    MHP_TEST_HOSTS=1 exec unshare --net --mount --pid --fork --kill-child --mount-proc bash "$0" "$@"
fi
mount -t tmpfs none /run
mkdir /run/sshd
ip link set lo up

# The third host is 10.99.0.13, called host-c, in the namespace c; its link is the bridge's port link-c.
host_address() {
    echo "$hosts_net.$(($(printf '%d' "'$1") - 86))"
}

# hosts_up NAME ...: hosts of one letter each. The work folder is everybody's, but for its folder own.
hosts_up() {
    local name
    mkdir ssh own
    ssh-keygen -q -t ed25519 -N '' -f ssh/key
    ssh-keygen -q -t ed25519 -N '' -f ssh/host_key
    write_ssh_client
    ip link add bridge type bridge
    ip addr add $hosts_net.1/24 dev bridge
    ip link set bridge up
    for name in "$@"; do
        host_up "$name"
    done
}

host_up() {
    ip netns add "$1"
    ip link add "link-$1" type veth peer name eth0 netns "$1"
    ip link set "link-$1" master bridge up
    ip -n "$1" addr add "$(host_address "$1")/24" dev eth0
    ip -n "$1" link set eth0 up
    ip -n "$1" link set lo up
    ip netns exec "$1" sysctl -q -w net.ipv4.tcp_retries2=5     # what is sent to a host that is cut off fails within seconds
    cat >"ssh/sshd_$1" <<CONFIG
ListenAddress $(host_address "$1")
HostKey $work/ssh/host_key
AuthorizedKeysFile $work/ssh/key.pub
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
StrictModes no
UsePAM no
CONFIG
    ip netns exec "$1" unshare --uts --mount sh -c "hostname host-$1 && mount -t tmpfs none $work/own && exec /usr/sbin/sshd -f $work/ssh/sshd_$1 -E $work/ssh/log_$1" ||
        fail "the SSH daemon of host $1: $(cat "ssh/log_$1")"
}

write_ssh_client() {
    cat >ssh/client <<CLIENT
#!/bin/sh
exec ssh -F /dev/null -q -i $work/ssh/key -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null "\$@"
CLIENT
    chmod +x ssh/client
}

# on_hosts HOST:RANKS,... COMMAND ...: launch/cluster/mpirun.sh, started on the first of them. OMPI_MCA_... in the environment goes along.
on_hosts() {
    local item list="" settings
    local first=${1:0:1}
    for item in ${1//,/ }; do
        list+="${list:+,}$(host_address "${item%%:*}"):${item##*:}"
    done
    shift
    settings=$(env | grep '^OMPI_MCA_' || true)
    ssh/client "$(host_address "$first")" "cd $work && MHCPIPE=${on_hosts_program:-$mhcpipe} MHP_SSH=$work/ssh/client MHP_NETWORK=$hosts_net.0/24 \
        exec env $settings timeout --kill-after=5 ${MHP_TEST_TIMEOUT:-150} $here/../launch/cluster/mpirun.sh $list $(printf '%q ' "$@")"
}

# own_file HOST FILE: writes stdin to own/FILE of that host alone.
own_file() {
    ssh/client "$(host_address "$1")" "cat >$work/own/$2 && chmod +x $work/own/$2"
}
