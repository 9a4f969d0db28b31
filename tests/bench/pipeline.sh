#!/usr/bin/env bash
# pipeline.sh [BUILD] [OPTIONS]: the step of a pipeline over this host's cards. A table {residual, hc, mhc} x {1f1b, dualpipe, dualpipev,
# balanced, tuned}, balanced being dualpipev with the layers that tune finds from dualpipev's row; what each part of the overlap and each
# transport gives, for mhc and dualpipev; PyTorch's 1F1B on the same cards, where PyTorch is. Everything goes into a folder: tables.md,
# rows.tsv, pictures/ of one measured step a row, measured costs. The exit status is 1 if a row failed.
#
#   --ranks P             cards in a pipeline (2)
#   --replicas D          pipelines beside each other (1)
#   --layers L            (8 a pipeline rank)
#   --microbatches M,M    of a replica (8)
#   --connections K,K     (residual,hc,mhc)
#   --schedules S,S       names, balanced and tuned; "" for none (1f1b,dualpipe,dualpipev,balanced,tuned)
#   --transport T         of the table (auto)
#   --ablation yes|no     (yes)
#   --peer yes|all|no     PyTorch's 1F1B on one replica's ranks; all: interleaved 1F1B too (yes on cards)
#   --device cuda|cpu     cpu: a tiny model, which shows that everything runs (cuda)
#   --repetitions N       timed steps of either kind (5)
#   --record N            recorded steps (3)
#   --row-seconds S       after which a row is given up (60)
#   --config FILE         (tests/bench/pipeline.yaml)
#   --set KEY=VALUE       of the configuration, for all rows; may stand several times
#   --output FOLDER       (runs/pipeline-DATE); rows that an earlier run left there are not run again, and stand in the tables too
#   --predict FOLDER      runs nothing: what the simulator expects of the table from the costs that an earlier run left in FOLDER; its
#                         --from-ranks P (2) and --from-layers L (8 a rank) tell of which model; the ranks are 4 and 8 unless given
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=build ranks="" replicas=1 layers="" microbatches=8 connections=residual,hc,mhc schedules=1f1b,dualpipe,dualpipev,balanced,tuned
transport=auto ablation=yes peer="" device=cuda repetitions=5 record=3 row_seconds=60 config=tests/bench/pipeline.yaml
predict="" from_ranks=2 from_layers=""
output=runs/pipeline-$(date +%Y%m%d-%H%M%S)
settings=()
if [ $# -gt 0 ] && [[ $1 != --* ]]; then
    build=$1
    shift
fi
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || { echo "pipeline.sh: $1: expected a value" >&2; exit 2; }
    case $1 in
    --ranks | --replicas | --layers | --microbatches | --connections | --schedules | --transport | --ablation | --peer | --device | \
        --repetitions | --record | --row-seconds | --config | --output | --predict | --from-ranks | --from-layers)
        name=${1#--}
        printf -v "${name//-/_}" %s "$2"
        ;;
    --set) settings+=(--set "$2") ;;
    *)
        echo "pipeline.sh: unknown option $1: the head of the script lists them" >&2
        exit 2
        ;;
    esac
    shift 2
done
mhcpipe=$build/mhcpipe
first_m=${microbatches%%,*}
begin=$SECONDS
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
export NCCL_NVLS_ENABLE=0       # NVLink multicast stays off
tiny=(model.hidden_size=64 model.num_attention_heads=2 model.num_key_value_heads=2 model.intermediate_size=128 model.vocab_size=257
    model.dtype=f32 train.sequence_length=64 parallel.device=cpu)

# base_for RANKS LAYERS: settings of all rows, into `base`.
base_for() {
    base=(--set parallel.pipeline="$1" --set parallel.data="$replicas" --set model.num_hidden_layers="$2")
    if [ "$device" = cpu ]; then
        for setting in "${tiny[@]}"; do
            base+=(--set "$setting")
        done
    fi
    base+=("${settings[@]}")
}

say() {
    printf '== %s (%d s)\n' "$*" $((SECONDS - begin))
}

# Names of rows: CONNECTIONS.SCHEDULE, .mM behind where there are several numbers of micro-batches.
name_of() {
    if [ "$microbatches" = "$first_m" ]; then
        echo "$1.$2"
    else
        echo "$1.$2.m$3"
    fi
}

# drop_done FILE: leaves the rows that have no line in the table yet.
drop_done() {
    awk -F'[\t ]' 'FILENAME == ARGV[1] { done[$1] = 1; next } !($1 in done)' "$output/rows.tsv" "$1" >"$1.left"
    mv "$1.left" "$1"
}

# fail_row NAME SECONDS TEXT: a line as the program writes it for a row that failed.
fail_row() {
    local tabs
    tabs=$(printf '\t%.0s' {1..16})
    printf '%s%s%s\t%s\n' "$1" "$tabs" "$2" "$(tr '\t\n' '  ' <<<"$3")" >>"$output/rows.tsv"
    printf '%-28s failed: %s\n' "$1" "$3"
}

# run_rows FILE SETTINGS ...: the file's rows in as few starts as they allow: one that ends the process is told, and a new start takes
# up the next. Two starts in a row that did no row are enough.
run_rows() {
    local rows=$1 before left text at barren=0
    shift
    touch "$output/rows.tsv"
    drop_done "$rows"
    while [ -s "$rows" ]; do
        before=$(wc -l <"$rows")
        at=$SECONDS
        MHP_TEST_TIMEOUT=$((before * (row_seconds + 5) + 120)) tests/mpirun.sh "$processes" "$mhcpipe" bench pipeline "$config" \
            "${base[@]}" "$@" --rows "$rows" --output "$output" --repetitions "$repetitions" --record "$record" \
            --row-seconds "$row_seconds" 2>"$output/errors" && true
        cat "$output/errors" >&2
        drop_done "$rows"
        [ -s "$rows" ] || break
        left=$(wc -l <"$rows")
        text=$(grep -m1 'error' "$output/errors" || tail -n 1 "$output/errors")
        [ "$left" -lt "$before" ] && barren=0 || barren=$((barren + 1))
        fail_row "$(head -n 1 "$rows" | cut -d' ' -f1)" $((SECONDS - at)) "${text:-ended without a word}"
        sed -i 1d "$rows"
        if [ "$barren" -ge 2 ]; then
            while read -r name _; do
                fail_row "$name" 0 "not tried: the program does not start"
            done <"$rows"
            break
        fi
    done
}

# ---- rows ----

make_named_rows() {
    for m in ${microbatches//,/ }; do
        for kind in ${connections//,/ }; do
            for schedule in ${schedules//,/ }; do
                [[ $schedule = tuned || $schedule = balanced ]] || echo "$(name_of "$kind" "$schedule" "$m")" \
                    "model.connections.kind=$kind schedule.kind=$schedule schedule.microbatches=$m"
            done
        done
    done
}

make_ablation_rows() {
    local of="model.connections.kind=mhc schedule.kind=dualpipev schedule.microbatches=$first_m"
    echo "ablation.as-it-is $of"
    echo "ablation.critical-stream-off $of schedule.overlap.critical_stream=false"
    echo "ablation.slices-off $of schedule.overlap.slices=1"
    echo "ablation.spare-4 $of schedule.overlap.spare=4"
    echo "ablation.pairs-interleaved $of schedule.overlap.pair=interleave"
    echo "ablation.pairs-on-two-parts $of schedule.overlap.pair=parts"
    echo "ablation.pairs-off $of schedule.overlap.pair=off"
    echo "ablation.all-off $of schedule.overlap.critical_stream=false schedule.overlap.slices=1 schedule.overlap.pair=off"
    echo "ablation.recompute-connections $of schedule.recompute.what=connections"
    echo "ablation.recompute-full $of schedule.recompute.what=full"
}

# tune_best FILE FOLDER CONNECTIONS M OPTIONS ...: the best schedule for the costs that the rows of FOLDER measured, into FILE; prints its
# microseconds. DualPipe's costs alone have the reduction of stages that two ranks hold, so it is tuned from its own.
tune_best() {
    local file=$1 folder=$2 kind=$3 m=$4 best="" us costs from kinds
    shift 4
    for from in dualpipev 1f1b dualpipe; do
        costs=$folder/$(name_of "$kind" "$from" "$m")/costs.yaml
        [ -e "$costs" ] || costs=$folder/$kind.$from/costs.yaml
        [ -e "$costs" ] || continue
        [ "$from" = 1f1b ] && [ -n "$best" ] && continue
        kinds=gpipe,1f1b,interleaved,zb-h1,zb-v,dualpipev
        [ "$from" = dualpipe ] && kinds=dualpipe
        "$mhcpipe" tune "$config" "${base[@]}" --set model.connections.kind="$kind" --set schedule.kind="$from" --kinds "$kinds" \
            --set schedule.microbatches="$m" --costs "$costs" "$@" -o "$file.$from" >"$file.$from.txt" 2>&1 || continue
        us=$(sed -n 's/^best  .*, \([0-9.e+]*\) us: .*/\1/p' "$file.$from.txt")
        if [ -z "$best" ] || awk "BEGIN { exit !($us < $best) }"; then
            best=$us
            sed "s#schedule.file=[^ ]*#schedule.file=$file#" "$file.$from" >"$file"
        fi
    done
    [ -n "$best" ] && echo "$best"
}

# balance_row CONNECTIONS M: adds dualpipev as it is, but with the layers of the best that tune finds on its placement.
balance_row() {
    local name costs layers=""
    local -a of=(model.connections.kind="$1" schedule.kind=dualpipev schedule.microbatches="$2")
    name=$(name_of "$1" balanced "$2")
    costs=$output/$(name_of "$1" dualpipev "$2")/costs.yaml
    [ ! -e "$costs" ] || layers=$("$mhcpipe" tune "$config" "${base[@]}" "${of[@]/#/--set=}" --kinds dualpipev --costs "$costs" \
        --iterations 0 2>/dev/null | sed -n 's/^layers  *\([0-9]\)/\1/p' | tr ' ' ,) || layers=""
    if [ -z "$layers" ]; then
        fail_row "$name" 0 "no layers to move: the row of dualpipev has no costs that tune takes"
        return
    fi
    echo "$name ${of[*]} schedule.layers_per_stage=[$layers]" >>"$output/tuned.rows"
}

# tune_row CONNECTIONS M: adds the tuned schedule as a row.
tune_row() {
    local name words
    name=$(name_of "$1" tuned "$2")
    mkdir -p "$output/$name"
    if ! tune_best "$output/$name/schedule.yaml" "$output" "$1" "$2" >/dev/null; then
        fail_row "$name" 0 "nothing to tune from: $(cat "$output/$name"/schedule.yaml.*.txt 2>/dev/null | tail -n 1)"
        return
    fi
    # What tune chose stands behind the settings that all rows have.
    words=$(sed -n 's/^# mpirun .* --set \(schedule.weight_gradients=.*\)/\1/p' "$output/$name/schedule.yaml" | tr -d \')
    [ -n "$words" ] || { echo "pipeline.sh: $output/$name/schedule.yaml names no settings" >&2; exit 1; }
    echo "$name model.connections.kind=$1 ${words//--set /}" >>"$output/tuned.rows"
}

run_everything() {
    say "$processes ranks: $layers layers, micro-batches $microbatches, into $output"
    make_named_rows >"$output/named.rows"
    [ "$ablation" = no ] || make_ablation_rows >>"$output/named.rows"
    run_rows "$output/named.rows" --set parallel.transport="$transport"
    if [[ ,$schedules, =~ ,(balanced|tuned), ]]; then
        say "tuning"
        : >"$output/tuned.rows"
        for m in ${microbatches//,/ }; do
            for kind in ${connections//,/ }; do
                for schedule in ${schedules//,/ }; do
                    case $schedule in
                    balanced) balance_row "$kind" "$m" ;;
                    tuned) tune_row "$kind" "$m" ;;
                    esac
                done
            done
        done
        run_rows "$output/tuned.rows" --set parallel.transport="$transport"
    fi
    for one in mpi ipc nccl; do
        [ "$ablation" = no ] && break
        say "transport $one"
        echo "ablation.transport-$one model.connections.kind=mhc schedule.kind=dualpipev schedule.microbatches=$first_m" >"$output/transport.rows"
        run_rows "$output/transport.rows" --set parallel.transport="$one"
    done
    for picture in "$output"/*/step.svg; do
        [ -e "$picture" ] || continue
        name=$(basename "$(dirname "$picture")")
        cp "$picture" "$output/pictures/$name.svg"
        cp "$(dirname "$picture")/report.html" "$output/pictures/$name.html"
    done
}

# torch_pipeline.py: one line, or why not.
run_torch() {
    say "PyTorch: $*"
    timeout --kill-after=5 300 python3 -m torch.distributed.run --standalone --nproc-per-node "$ranks" tests/bench/torch_pipeline.py \
        --layers "$layers" --repetitions "$repetitions" "$@" 2>"$output/errors" | tee -a "$output/peer.txt" ||
        { echo "failed: $*"; tail -n 5 "$output/errors"; }
}

run_peer() {
    if ! python3 -c 'import torch' 2>/dev/null; then
        echo "PyTorch is not installed: no peer in this run"
        return
    fi
    for m in ${microbatches//,/ }; do
        for kind in ${connections//,/ }; do
            [ "$kind" = hc ] || run_torch --connections "$kind" --microbatches "$m"
        done
        [ "$peer" != all ] || run_torch --connections residual --schedule interleaved --microbatches "$m"
    done
}

# ---- tables ----

# In Markdown. The overhead is over the residual row of the same schedule; the ablation's, over its first row.
print_tables() {
    awk -F'\t' '
        function cell(text, factor, digits) { return text == "" ? "" : sprintf("%." digits "f", factor * text) }
        function against(own, other) { return own == "" || other == "" ? "" : sprintf("%+.1f", 100 * (own / other - 1)) }
        function head(title) {
            print "\n" title "\n"
            print "| | step ms | forward + backward ms | over the first | tok/s | MFU % | hidden % | exposed ms | bubble % | simulated | formula | simulated ms | off % | reductions hidden % | GiB planned | taken | of the card | J/token | s |"
            print "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
        }
        function row(name, other) {
            if ($18 != "") { print "| " name " | " $18 " |"; return }
            print "| " name " | " cell($2, 1, 1) " | " cell($3, 1, 1) " | " against($3, other) " | " cell($4, 1, 0) " | " cell($5, 100, 1) \
                " | " cell($6, 100, 1) " | " cell($7, 1, 2) " | " cell($8, 100, 1) " | " cell($9, 100, 1) " | " cell($10, 100, 1) " | " \
                cell($11, 1, 1) " | " against($11, $2) " | " cell($12, 100, 1) " | " cell($13, 1, 2) " | " cell($14, 1, 2) " | " \
                cell($15, 1, 2) " | " cell($16, 1, 4) " | " cell($17, 1, 0) " |"
        }
        FNR == 1 && ++pass == 2 { head("## Connections x schedules: over residual, the same schedule") }
        FNR == 1 && pass == 3 && ablation { head("## mhc, dualpipev: over the first row") }
        $1 == "name" || $1 == "" { next }
        { split($1, word, "."); rest = substr($1, length(word[1]) + 2) }
        pass == 1 && word[1] == "residual" { residual[rest] = $3 }
        pass == 1 && word[1] == "ablation" { ablation = 1; whole = whole == "" ? $3 : whole }
        pass == 2 && word[1] != "ablation" { row(word[1] ", " rest, word[1] == "residual" ? "" : residual[rest]) }
        pass == 3 && word[1] == "ablation" { row(rest, rest == "as-it-is" ? "" : whole) }
    ' "$output/rows.tsv" "$output/rows.tsv" "$output/rows.tsv"
    if [ -s "$output/peer.txt" ]; then
        printf '\n## PyTorch on the same ranks\n\n'
        sed 's/^/- /' "$output/peer.txt"
    fi
}

# ---- prediction ----

# costs_for CONNECTIONS SCHEDULE FILE: what the earlier run measured, into FILE. Times are those of the finest cut that it ran; what
# reducing a stage's gradients over two ranks takes is known from dualpipe's row, and no other schedule has it.
costs_for() {
    local from reduce=0.0 own=$predict/$1.dualpipe/costs.yaml
    for from in dualpipev zb-v 1f1b dualpipe; do
        [ ! -e "$predict/$1.$from/costs.yaml" ] || break
    done
    [ "$2" != dualpipe ] || [ ! -e "$own" ] || reduce=$(sed -n 's/^all_reduce_us: //p' "$own")
    sed "s/^all_reduce_us: .*/all_reduce_us: $reduce/" "$predict/$1.$from/costs.yaml" >"$3"
}

# predict_row RANKS M CONNECTIONS SCHEDULE: a line of the table.
predict_row() {
    local p=$1 m=$2 kind=$3 schedule=$4 own out
    own=$(mktemp)
    costs_for "$kind" "$schedule" "$own"
    if [ "$schedule" = tuned ]; then
        out="makespan $(tune_best "$own.tuned" "$predict" "$kind" "$m" --costs-layers "$from_layers")"
    else
        out=$("$mhcpipe" plan "$config" "${base[@]}" --set model.connections.kind="$kind" --set schedule.kind="$schedule" \
            --set schedule.microbatches="$m" --costs "$own" --costs-layers "$from_layers" 2>&1) || true
    fi
    rm -f "$own"*
    awk -v p="$p" -v m="$m" -v kind="$kind" -v schedule="$schedule" -v tokens=$((m * replicas * tokens)) '
        $1 == "makespan" && $2 + 0 > 0 { us = $2 + 0 }
        $1 == "bubble" { worst = $3 }
        $1 == "messages" && $2 == "exposed" { exposed = $3 }
        /error/ { failed = failed $0 }
        END {
            if (!us) { print "| " p " | " m " | " kind ", " schedule " | " failed " |"; exit }
            printf "| %d | %d | %s, %s | %.1f | %.0f | %s | %s |\n", p, m, kind, schedule, us / 1000, tokens / us * 1e6, worst, exposed
        }' <<<"$out"
}

print_prediction() {
    echo "What the simulator expects from the costs in $predict ($from_ranks ranks, $from_layers layers), with the optimizer"
    echo
    echo "| ranks | micro-batches | | step ms | tok/s | worst bubble % | exposed % |"
    echo "|---|---|---|---|---|---|---|"
    for p in ${ranks:-4 8}; do
        base_for "$p" "${layers:-$((p * from_layers / from_ranks))}"
        tokens=$("$mhcpipe" config --print "$config" "${base[@]}" | awk '
            $1 == "sequence_length:" { length_ = $2 } $1 == "micro_batch_size:" { size = $2 } END { print length_ * size }')
        for m in ${microbatches//,/ }; do
            for kind in ${connections//,/ }; do
                for schedule in ${schedules//,/ }; do
                    [ "$schedule" = balanced ] && continue      # of a model that was run
                    predict_row "$p" "$m" "$kind" "$schedule"
                done
            done
        done
    done
}

if [ -n "$predict" ]; then
    from_layers=${from_layers:-$((8 * from_ranks))}
    print_prediction
    exit
fi
ranks=${ranks:-2}
layers=${layers:-$((8 * ranks))}
peer=${peer:-$([ "$device" = cuda ] && echo yes || echo no)}
processes=$((ranks * replicas))
base_for "$ranks" "$layers"
mkdir -p "$output/pictures"
if [ "$device" = cuda ]; then
    nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader || true
fi
run_everything
[ "$peer" = no ] || run_peer
print_tables | tee "$output/tables.md"
say "done: $output/tables.md, $output/pictures"
failed=$(awk -F'\t' '$1 != "name" && $18 != "" { rows++ } END { print rows + 0 }' "$output/rows.tsv")
[ "$failed" -eq 0 ] || { echo "pipeline.sh: rows that failed: $failed" >&2; exit 1; }
