#!/usr/bin/env bash
# pack.sh FILE.tar.xz: of the release build what the tests and benchmarks on cards need, for a host with cards that has no compiler or
# little time. There: tar -xJf FILE.tar.xz -C /, for CTest knows the tree by its place, and then in the tree, with MHP_BUILT=1 set,
# tests/gpu/all.sh, run.sh, sanitize.sh or ctest.
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: pack.sh FILE.tar.xz" >&2; exit 2; }
file=$(realpath "$1")
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
root=$(pwd -P)
[ -x build/mhcpipe ] || { echo "pack.sh: $root/build/mhcpipe: no such program: build first" >&2; exit 1; }

# The programs that the tests name, and those that measure.
programs=$(ctest --preset release -N -L gpu --show-only=json-v1 | python3 -c '
import json, sys
root = sys.argv[1] + "/"
words = {word for test in json.load(sys.stdin)["tests"] for word in test["command"]}
print("\n".join(sorted(word[len(root):] for word in words if word.startswith(root + "build/"))))' "$root")
[ -n "$programs" ] || { echo "pack.sh: $root/build has no gpu tests: it was built without CUDA" >&2; exit 1; }
{
    git ls-files -- CMakePresets.json tests launch docs
    echo "$programs"
    ls build/libmhcpipe.so* build/tests/bench/{edges,cuda_kernels,device_events,telemetry}
    find build -name CTestTestfile.cmake
} | tar --files-from - --transform "s,^,${root#/}/,S" -c | xz -T1 -6 --lzma2=preset=6,dict=64MiB >"$file"
ls -l "$file"
