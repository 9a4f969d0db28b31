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

# look RUN_DIR: the page as its script left it, compared with the report.
look() {
    "$mhcpipe" report "$1" >out || fail "$1: $(cat out)"
    grep -q 'http' <(grep -o 'src="[^"]*"\|href="[^"]*"' "$1/report.html") && fail "the page loads something"
    timeout 100 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --host-resolver-rules='MAP * ~NOTFOUND' \
        --window-size=1500,1000 --dump-dom "file://$work/$1/report.html" 2>browser.log >dom || fail "the browser failed: $(cat browser.log)"
    "$check" page "$1/report.json" dom
    "$check" figures "$1/report.json"
    "$check" trace "$1/profile/trace.json"
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
