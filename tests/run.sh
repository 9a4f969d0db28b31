#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test that is not labelled `long`. Tests that need a card are skipped without one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
launch/install_packages.sh

jobs=$(env -u OMP_NUM_THREADS nproc)    # which else counts the threads that the tests are to have
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
export CUDAARCHS=${CUDAARCHS:-90}      # where there is nvcc the CUDA code is compiled as well; one kind of card is enough

echo "== release: all tests"
cmake --preset release >/dev/null
cmake --build --preset release -- -k 0
ctest --preset release -LE long -j "$jobs"

echo "== asan-ubsan: unit, golden, fuzz"
cmake --preset asan-ubsan >/dev/null
cmake --build --preset asan-ubsan -- -k 0
# Whole models in F64; golden.overlap has F32.
ctest --preset asan-ubsan -L '^(unit|golden|fuzz)$' -LE long -E '^golden\.model\..*\.f32' -j "$jobs"

echo "== tsan: devices and channels"
cmake --preset tsan >/dev/null
cmake --build --preset tsan --target tsan_tests
ctest --preset tsan -L tsan -j "$jobs"
