#!/usr/bin/env bash
# losses.sh MHCPIPE: a small mHC model learns real text on the card in bf16; its first 200 losses stay beside those of the CPU in F32,
# and the card gives the same losses twice, bit for bit.
. "$(dirname "${BASH_SOURCE[0]}")/text.sh"

train 1 cpu --set parallel.device=cpu --set model.dtype=f32 --set parallel.threads=4      # more wait for each other where tests run beside
train 1 f32 --set parallel.device=cuda --set model.dtype=f32
train 1 bf16 --set parallel.device=cuda --set model.dtype=bf16
train 1 again --set parallel.device=cuda --set model.dtype=bf16

distance cpu f32 2e-2 3e-3 1e-4
distance cpu bf16 3e-2 6e-3 6e-3
cmp -s bf16.losses again.losses || fail "two runs differ: $(diff bf16.losses again.losses | head -4)"
echo "two runs have the same bits"
[ "$(tail -1 bf16.losses | cut -c1)" -lt 3 ] || fail "it did not learn: $(tail -1 bf16.losses)"
