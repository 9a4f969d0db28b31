#!/usr/bin/env bash
# page.sh MHCPIPE CHECK_REPORT SIMULATED_RUN: opens report.html in a headless Chromium without a network, of a real run of 4 ranks and of
# a simulated one of 32; its figures, and what it draws, must be those of report.json. Skipped without a browser.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
check=$(realpath "$2")
simulated_run=$(realpath "$3")

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    echo "skipped: no Chromium on this machine (Debian's package chromium)"
    exit 77
fi

# look RUN_DIR: reports, and compares the page with the report.
look() {
    "$mhcpipe" report "$1" >out || fail "$1: $(cat out)"
    grep -q 'http' <(grep -o 'src="[^"]*"\|href="[^"]*"' "$1/report.html") && fail "the page loads something"
    picture "$1"
    "$check" page "$1/report.json" dom
    "$check" figures "$1/report.json"
    "$check" trace "$1/profile/trace.json"
}

# picture RUN_DIR: the page as its script left it, into dom.
picture() {
    timeout 100 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --host-resolver-rules='MAP * ~NOTFOUND' \
        --window-size=1500,1000 --dump-dom "file://$work/$1/report.html" 2>browser.log >dom || fail "the browser failed: $(cat browser.log)"
}

# counts PLANNED: boxes of the plan.
counts() {
    grep -q "data-planned=\"$1\" data-measured=\"[1-9][0-9]*\" data-plots=\"$2\"" dom ||
        fail "expected $1 planned boxes and $2 plots, the page says $(grep -o '<body[^>]*>' dom | grep -o 'data-planned.*')"
}

# F, B, I, W of the compute order, a pair is two; reductions and an optimizer a rank.
boxes_of() {
    "$mhcpipe" plan "$@" --compute-only --format csv | tr ',' '\n' | awk '/OVERLAP/ { n++ } /./ { n++ } END { print n }'
}

echo "== four real ranks"
make_data
write_config
launch 4 train config.yaml --set parallel.pipeline=4 --set schedule.microbatches=8 --set log.dir=four --profile 1 >/dev/null
look four
counts $(($(boxes_of four/config.resolved.yaml) + 8 + 4)) 3

echo "== a long run with bad steps: its curves, and what stands behind them"
cp -r four long
awk 'BEGIN {
    for (s = 1; s <= 150000; s++) {
        printf "{\"step\":%d,\"loss\":%.6f,\"gain_forward\":1.2,\"gain_backward\":1.5,\"worst_gain_forward\":1.1,\"worst_gain_backward\":1.2}\n", s, 5 - s / 1e5
        if (s % 1000 == 0) printf "{\"event\":\"skip\",\"step\":%d,\"loss\":1e30}\n", s
    }
}' >long/metrics.jsonl
look long
counts $(($(boxes_of four/config.resolved.yaml) + 8 + 4)) 3
grep -q '<dt>window</dt>' dom || fail "the page ends before its words"
[ "$(grep -o 'class="tick"' dom | wc -l)" -eq 300 ] || fail "expected 150 ticks in two plots, found $(grep -o 'class="tick"' dom | wc -l)"

echo "== a metrics.jsonl that cannot be used: no curves, and why"
truncate -s 2G long/metrics.jsonl
look long
counts $(($(boxes_of four/config.resolved.yaml) + 8 + 4)) 1
grep -q 'No curves of loss and gain: long/metrics.jsonl has 2147483648 bytes' dom || fail "the page does not say why it has no curves"

echo "== a plan slower than what was measured"
mkdir slow
"$mhcpipe" config config.yaml --print --set parallel.pipeline=4 --set schedule.microbatches=8 >slow/config.resolved.yaml
"$simulated_run" slow dualpipe 4 8 slow >/dev/null
"$mhcpipe" report slow >/dev/null
picture slow
grep -q 'data-beyond="0"' dom || fail "boxes lie beyond the axis: $(grep -o 'data-beyond="[^"]*"' dom)"

echo "== 32 simulated ranks"
mkdir -p many
"$mhcpipe" config config.yaml --print --set parallel.pipeline=32 --set schedule.microbatches=64 --set model.num_hidden_layers=32 \
    >many/config.resolved.yaml
makespan=$("$simulated_run" many dualpipe 32 64)
look many
counts "$(boxes_of many/config.resolved.yaml)" 1
# What was simulated comes back from the measured costs of its own trace.
awk -v a="$makespan" -v b="$(grep -o '"simulated_plan_us":[^,]*' <(tr -d ' ' <many/report.json) | cut -d: -f2)" \
    'BEGIN { exit !(a > 0 && (a - b) ^ 2 < 1e-4 * a * a) }' || fail "simulated $makespan us, and from its trace $(grep simulated_plan many/report.json)"
