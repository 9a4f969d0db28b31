#!/usr/bin/env bash
# transports.sh MHCPIPE DEVICE TRANSPORT [RANKS]: whole runs over a transport - the same bits twice, and the same as over MPI; of layouts of
# at most RANKS ranks (4). Exits with 77 where the device is not there.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
device=$2 transport=$3 most=${4:-4}
make_data
write_config

losses() {
    grep -o '"step":[0-9]*,"loss":[0-9.e+-]*\|"grad_norm":[0-9.e+-]*' "$1/metrics.jsonl"
}

same_model() {
    cmp <("$mhcpipe" checkpoint --tensors "$1") <("$mhcpipe" checkpoint --tensors "$2") || fail "$1 and $2 hold different models"
}

# run FOLDER RANKS TRANSPORT setting ...
run() {
    local folder=$1 ranks=$2 over=$3
    shift 3
    launch "$ranks" train config.yaml --set log.dir="$folder" --set parallel.device="$device" --set parallel.transport="$over" \
        "${@/#/--set=}" >out 2>err || fail "$folder: $(cat err)"
}

if [ "$device" = cuda ] && ! "$mhcpipe" doctor --device cuda >/dev/null; then
    echo "skipped: no card"
    exit 77
fi
for layout in "2 dualpipe 2 1 4" "4 dualpipe 4 1 8" "4 zb-v 2 2 2" "2 interleaved 2 1 4"; do
    read -r ranks kind pipeline data microbatches <<<"$layout"
    [ "$ranks" -le "$most" ] || continue
    size=$((8 / data / microbatches))
    settings=(schedule.kind="$kind" parallel.pipeline="$pipeline" parallel.data="$data" schedule.microbatches="$microbatches"
        train.micro_batch_size="$size" train.steps=3)
    echo "== $layout"
    [ "$kind" = interleaved ] && settings+=(schedule.chunks=2)
    for folder in one two; do
        rm -rf "$folder"
        run "$folder" "$ranks" "$transport" "${settings[@]}"
    done
    rm -rf over_mpi
    run over_mpi "$ranks" mpi "${settings[@]}"
    # Sums of two are the same in any order, so are the models.
    same_model one/checkpoints/step-00000003 two/checkpoints/step-00000003
    same_model one/checkpoints/step-00000003 over_mpi/checkpoints/step-00000003
    cmp <(losses one) <(losses two) || fail "$layout: two runs differ in losses"
    cmp <(losses one) <(losses over_mpi) || fail "$layout: losses are not those over MPI"
done
