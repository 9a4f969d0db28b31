#!/usr/bin/env bash
# with_cards.sh MHCPIPE COUNT COMMAND ...: runs the command if so many cards work, else exits with 77.
set -euo pipefail
mhcpipe=$1 count=$2
shift 2
usable=$("$mhcpipe" doctor | sed -n 's/^  usable *\([0-9]*\) of .*/\1/p')
if [ "${usable:-0}" -lt "$count" ]; then
    echo "skipped: ${usable:-0} cards, expected $count"
    exit 77
fi
exec "$@"
