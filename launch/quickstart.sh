#!/usr/bin/env bash
# From a bare Debian 12 machine to a trained model: installs what is missing, builds, makes a data set of the C headers under
# /usr/include, trains launch/examples/quickstart.yaml on four ranks, and reports where the time of five steps went. Arguments go to
# mhcpipe train (--set section.key=value).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
launch/install_packages.sh

echo "== building"
cmake --preset release >/dev/null
cmake --build --preset release -- --quiet

data=runs/data/headers
if [ ! -e "$data.idx" ]; then
    echo "== making $data of the headers under /usr/include"
    build/mhcpipe data tokenize /usr/include --suffix .h -o "$data"
fi

echo "== training"
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
options=(-q --oversubscribe)
if [ "$(id -u)" -eq 0 ]; then
    options+=(--allow-run-as-root)
fi
mpirun "${options[@]}" -n 4 build/mhcpipe train launch/examples/quickstart.yaml --profile 5 "$@"

run=runs/quickstart
best=$run/best
if [ -d "$best" ]; then
    echo "== what the model writes"
    build/mhcpipe generate --model "$best" --prompt '#include <' --bytes 300
fi

if [ -d "$run/profile" ]; then
    echo "== where the time of five steps went"
    build/mhcpipe report "$run"
fi
