#!/usr/bin/env bash
# pipeline_losses.sh MHCPIPE TRANSPORT ...: a small mHC model learns real text in bf16 on two ranks, by each transport; the losses follow
# those of one rank, and the first step's, which no update has touched, are the same bits.
. "$(dirname "${BASH_SOURCE[0]}")/text.sh"
shift
bf16=(--set parallel.device=cuda --set model.dtype=bf16)

train 1 one "${bf16[@]}"
for transport in "$@"; do
    for kind in 1f1b dualpipev; do
        train 2 "$kind-$transport" "${bf16[@]}" --set schedule.kind="$kind" --set parallel.transport="$transport"
        distance one "$kind-$transport" 3e-2 4e-3 3e-3
        cmp -s <(head -1 one.losses) <(head -1 "$kind-$transport.losses") ||
            fail "the first losses differ: $(head -1 one.losses) and $(head -1 "$kind-$transport.losses")"
    done
done
