#!/usr/bin/env bash
# kernels.sh MHCPIPE: `bench kernels` prints a time, the least bytes and a rate for every kernel, and names what is wrong with its options.
set -euo pipefail
mhcpipe=$1

# check ROWS OPTIONS ...: all rows are there, and MB, ms and the rate agree with each other.
check() {
    local rows=$1 report
    shift
    report=$("$mhcpipe" bench kernels --device cpu --tokens 16 --hidden 64 --repetitions 1 "$@")
    awk -v wanted="$rows" -v report="$report" '
        /moves/ { copy = $(NF - 4) }
        NF > 5 && $(NF - 2) ~ /^[0-9]+C$/ {
            rows++
            if (!($(NF - 3) > 0 && copy > 0 && $NF > 0)) bad = bad "\n" $0
            else if ($(NF - 1) >= 1) {
                ratio = $(NF - 1) / $(NF - 3) / copy / $NF
                if (ratio < 0.9 || ratio > 1.1) bad = bad "\n" $0
            }
        }
        END { if (rows != wanted || bad) { print rows " rows, expected " wanted ":" bad "\n" report; exit 1 } }' <<<"$report" >&2
    grep -q "^mhc  *forward and backward " <<<"$report"
}

# fails WORDS OPTIONS ...
fails() {
    local words=$1 text
    shift
    if text=$("$mhcpipe" bench "$@" 2>&1); then
        echo "no error: bench $*" >&2
        exit 1
    fi
    grep -qF -- "$words" <<<"$text" || { echo "expected \"$words\" in: $text" >&2; exit 1; }
}

check 34
check 34 --streams 2 --dtype f64 --tokens 128 --hidden 128
fails "no kernels of bf16 on cpu: expected f32 or f64" kernels --device cpu --dtype bf16
fails '--dtype is "f16": expected f32, f64 or bf16' kernels --dtype f16
fails '--device is "tpu": expected cpu or cuda' kernels --device tpu
fails "--streams" kernels --streams 9
fails "expected: step CONFIG, pipeline CONFIG, or: kernels" kernels config.yaml
fails "expected: step CONFIG, pipeline CONFIG, or: kernels" step
fails "expected: step CONFIG, pipeline CONFIG, or: kernels"
