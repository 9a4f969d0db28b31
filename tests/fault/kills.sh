#!/usr/bin/env bash
# kills.sh MHCPIPE [--count N] [--seed S] [--device cpu|cuda]: kills a random rank at a random moment, N times, over 2 and 4 ranks. Every
# launch resumes what the one before left; when a run has come to its end, its parameters, its optimizer and its losses must be those of an
# undisturbed one. Prints a table at the end. A launch that is not gone 5 s after the kill counts as hung; where the ranks were not
# connected yet, which is MPI's start and not the program's, it is counted apart.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
shift
count=6
seed=1
device=cpu
while [ $# -gt 0 ]; do
    case $1 in
        --count) count=$2 ;;
        --seed) seed=$2 ;;
        --device) device=$2 ;;
        *) fail "kills.sh: $1: expected --count, --seed or --device" ;;
    esac
    shift 2
done
if [ "$device" = cuda ] && ! "$mhcpipe" doctor --device cuda >/dev/null; then
    echo "skipped: no card"
    exit 77
fi
RANDOM=$seed
steps=100
every=4             # steps between checkpoints
kills_of_run=8      # then it may come to its end
gone_ms=5000
make_data
write_config

declare -A tried lost_steps lost_most hangs stuck mismatches longest_ms named unnamed runs whole_ms
now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
sleep_ms() { sleep "$(($1 / 1000)).$(printf %03d $(($1 % 1000)))"; }

# start RANKS FOLDER: sets launcher (of mpirun.sh) and files out and err.
start() {
    local ranks=$1 kind=dualpipe
    [ "$ranks" -eq 2 ] || kind=1f1b
    "$here/mpirun.sh" "$ranks" "$mhcpipe" train config.yaml --resume auto --set log.dir="$2" --set parallel.pipeline="$ranks" \
        --set parallel.device="$device" --set schedule.kind=$kind --set train.steps=$steps --set checkpoint.every=$every \
        --set checkpoint.keep_last=3 --set eval.every=25 --set log.every=50 >out 2>err &
    launcher=$!
}

# The processes of the ranks: mpirun's children, once all are there.
find_ranks() {
    local mpirun
    rank_pids=()
    while [ -e "/proc/$launcher" ] && [ ${#rank_pids[@]} -lt "$1" ]; do
        mpirun=$(pgrep -P "$launcher" -x mpirun || true)
        [ -z "$mpirun" ] || mapfile -t rank_pids < <(pgrep -P "$mpirun" -x mhcpipe)
        sleep 0.01
    done
}

is_running() {
    local state
    state=$(sed -n 's/^State:[[:space:]]*\(.\).*/\1/p' "/proc/$1/status" 2>/dev/null) || return 1
    [ -n "$state" ] && [ "$state" != Z ]
}

any_running() {
    local pid
    for pid in "$@"; do
        is_running "$pid" && return 0
    done
    return 1
}

# Waits until the launch is gone; the milliseconds in took_ms. One that hangs is ended by force.
await_end() {
    local since=$1 ranks=$2 pid
    while any_running "$launcher" "${rank_pids[@]}"; do
        took_ms=$(($(now_ms) - since))
        if [ $took_ms -gt $gone_ms ]; then
            if grep -q 'parameters, ' out; then
                hangs[$ranks]=$((hangs[$ranks] + 1))
            else
                stuck[$ranks]=$((stuck[$ranks] + 1))
            fi
            echo "hung: $(cat out err; ps -o pid,stat,wchan:20,args -p "$launcher" --ppid "$launcher" -p "${rank_pids[*]}")" >&2
            for pid in "${rank_pids[@]}" "$launcher"; do
                kill -KILL "$pid" 2>/dev/null || true
            done
            break
        fi
        sleep 0.01
    done
    took_ms=$(($(now_ms) - since))
    { wait "$launcher" || true; } 2>/dev/null
}

last_step() {
    [ ! -s "$1/metrics.jsonl" ] || tail -1 "$1/metrics.jsonl" | sed -n 's/.*"step":\([0-9]*\).*/\1/p'
}

# Whether the cause had to be named: the kill came between the start's line and the end's. Then exactly one line names the process.
check_cause() {
    local ranks=$1 victim=$2
    if ! grep -q 'parameters, ' out || grep -q '^trained' out; then
        return
    fi
    if [ "$(grep -c 'mhcpipe: error:' err)" -eq 1 ] && grep -q "mhcpipe: error: rank [0-9]* (host .*, pid $victim) died during" err; then
        named[$ranks]=$((named[$ranks] + 1))
    else
        unnamed[$ranks]=$((unnamed[$ranks] + 1))
        echo "cause not named, process $victim: $(cat out err)" >&2
    fi
}

# kill_once RANKS FOLDER: false if the run came to its end first.
kill_once() {
    local ranks=$1 folder=$2 victim since before began
    began=$(now_ms)
    before=$(last_step "$folder")
    start "$ranks" "$folder"
    find_ranks "$ranks"
    sleep_ms $((RANDOM % (${whole_ms[$ranks]} * 3 / 4)))
    victim=${rank_pids[$((RANDOM % ranks))]:-0}
    since=$(now_ms)
    if [ "$victim" -eq 0 ] || ! kill -KILL "$victim" 2>/dev/null; then
        wait "$launcher" || fail "a launch failed by itself: $(cat out err)"
        [ -n "$before" ] || whole_ms[$ranks]=$(($(now_ms) - began))     # of a whole run: the machine has less to do than before
        return 1
    fi
    await_end "$since" "$ranks"
    tried[$ranks]=$((tried[$ranks] + 1))
    [ "$took_ms" -gt $gone_ms ] || [ "$took_ms" -le "${longest_ms[$ranks]}" ] || longest_ms[$ranks]=$took_ms
    check_cause "$ranks" "$victim"
    count_lost "$ranks" "${before:-0}"
    return 0
}

# Steps that the launch had to do again: what the one before it had done beyond the checkpoint that this one went on from.
count_lost() {
    local ranks=$1 before=$2 resumed lost
    grep -q 'parameters, ' out || return 0          # killed before it said
    resumed=$(sed -n 's/^resumes from .*, \([0-9]*\) steps done.*/\1/p' out)
    lost=$((before - ${resumed:-0}))
    [ $lost -ge 0 ] || lost=0           # the checkpoint was complete before the line of its step was written
    lost_steps[$ranks]=$((lost_steps[$ranks] + lost))
    [ $lost -le "${lost_most[$ranks]}" ] || lost_most[$ranks]=$lost
}

losses() { sed 's/.*"step":\([0-9]*\),"loss":\([^,]*\),.*/\1 \2/' "$1/metrics.jsonl"; }

# compare RANKS FOLDER: the end of a run with the undisturbed one's.
compare() {
    local ranks=$1 folder=$2 file step
    step=$(printf 'checkpoints/step-%08d' $steps)
    runs[$ranks]=$((runs[$ranks] + 1))
    for file in "undisturbed-$ranks/$step"/*.safetensors; do
        if ! cmp -s "$file" "$folder/$step/${file##*/}"; then
            mismatches[$ranks]=$((mismatches[$ranks] + 1))
            echo "$folder: ${file##*/} differs" >&2
            return
        fi
    done
    if ! diff <(losses "undisturbed-$ranks") <(losses "$folder") >&2; then
        mismatches[$ranks]=$((mismatches[$ranks] + 1))
    fi
}

for ranks in 2 4; do
    tried[$ranks]=0 lost_steps[$ranks]=0 lost_most[$ranks]=0 hangs[$ranks]=0 stuck[$ranks]=0 mismatches[$ranks]=0 longest_ms[$ranks]=0
    named[$ranks]=0 unnamed[$ranks]=0 runs[$ranks]=0
    began=$(now_ms)
    start $ranks undisturbed-$ranks
    wait $launcher || fail "the undisturbed run: $(cat out err)"
    whole_ms[$ranks]=$(($(now_ms) - began))
    [ "$(losses undisturbed-$ranks | wc -l)" -eq $steps ] || fail "not one line a step: $(losses undisturbed-$ranks)"
    target=$(((count + (ranks == 2)) / 2))
    while [ "${tried[$ranks]}" -lt "$target" ]; do
        folder=run-$ranks-${runs[$ranks]}
        ended=
        for _ in $(seq $kills_of_run); do
            [ "${tried[$ranks]}" -lt "$target" ] || break
            kill_once $ranks "$folder" || { ended=yes; break; }
        done
        if [ -z "$ended" ]; then
            start $ranks "$folder"
            wait $launcher || fail "the last launch of $folder: $(cat out err)"
        fi
        compare $ranks "$folder"
        [ $((hangs[$ranks] + stuck[$ranks])) -le 5 ] || fail "too many hangs"
        rm -rf "$folder"
    done
done

echo "seed $seed, $steps steps a run, a checkpoint every $every"
echo "| ranks | kills tried | runs compared | mismatches | hangs | stuck in MPI's start | steps done again (most at once) | cause named, of kills between start and end of training | longest from kill to gone |"
echo "|---|---|---|---|---|---|---|---|---|"
bad=0
for ranks in 2 4; do
    echo "| $ranks | ${tried[$ranks]} | ${runs[$ranks]} | ${mismatches[$ranks]} | ${hangs[$ranks]} | ${stuck[$ranks]} |" \
        "${lost_steps[$ranks]} (${lost_most[$ranks]}) | ${named[$ranks]} of $((named[$ranks] + unnamed[$ranks])) |" \
        "$((longest_ms[$ranks] / 1000)).$(printf %03d $((longest_ms[$ranks] % 1000))) s |"
    bad=$((bad + mismatches[$ranks] + hangs[$ranks] + unnamed[$ranks]))
done
[ $bad -eq 0 ] || fail "mismatches, hangs or causes not named: $bad"
