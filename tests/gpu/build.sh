# shellcheck shell=bash disable=SC2164       # whoever takes this in stops at errors
# Shared by the scripts that need a build with CUDA: brings it up to date. With MHP_BUILT=1 it is taken as it is, as on a host that got
# it from pack.sh, and by scripts that such a script starts.
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
if [ -z "${MHP_BUILT:-}" ]; then
    cmake --preset release -DMHP_CUDA=on >/dev/null
    cmake --build --preset release
    export MHP_BUILT=1
fi
