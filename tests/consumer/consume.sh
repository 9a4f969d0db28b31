#!/usr/bin/env bash
# consume.sh BUILD VERSION: installs BUILD elsewhere, moves it, and uses it as a stranger would.
set -euo pipefail
build=$1 version=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/mhcpipe-consumer.XXXXXX")
trap 'rm -rf "$work"' EXIT

cmake --install "$build" --prefix "$work/first" >/dev/null
mv "$work/first" "$work/prefix"     # nothing may remember where it was installed
export OPENBLAS_NUM_THREADS=1 CMAKE_GENERATOR=Ninja      # what the list of packages has

echo "== CMake package"
cmake -S "$here/project" -B "$work/cmake" -DCMAKE_PREFIX_PATH="$work/prefix" -DEXPECTED_VERSION="$version" >/dev/null
cmake --build "$work/cmake" >/dev/null
"$work/cmake/consumer"

echo "== pkg-config"
PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name mhcpipe.pc)")
export PKG_CONFIG_PATH
[ "$(pkg-config --modversion mhcpipe)" = "$version" ]
# shellcheck disable=SC2046
cc -std=c17 $(pkg-config --cflags mhcpipe) "$here/project/consumer.c" $(pkg-config --libs mhcpipe) -o "$work/consumer"
LD_LIBRARY_PATH=$(pkg-config --variable=libdir mhcpipe) "$work/consumer"

echo "== the installed program"
"$work/prefix/bin/mhcpipe" --version >"$work/version"
grep -qx "mhcpipe $version" "$work/version"
[ -s "$(find "$work/prefix" -name LICENSE)" ]
