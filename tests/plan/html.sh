#!/usr/bin/env bash
# html.sh MHCPIPE: opens the page in a headless Chromium, whose script must have found every cell and curve. Skipped without one.
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)
if [ -z "$browser" ]; then
    echo "skipped: no Chromium on this machine (Debian's package chromium)"
    exit 77
fi

# open_page PLAN-ARGUMENTS...: the page's body as its script left it.
open_page() {
    "$mhcpipe" plan "$@" --arrows -o page.html
    timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/profile" --dump-dom "file://$work/page.html" \
        2>browser.log >dom || fail "the browser failed: $(cat browser.log)"
}

# A cell for every F, B, I and W of the compute order; a pair is two.
cells_of() {
    "$mhcpipe" plan "$@" --compute-only --format csv | tr ',' '\n' | awk '/OVERLAP/ { n++ } /./ { n++ } END { print n }'
}

for arguments in "--kind dualpipe --ranks 8 --microbatches 20" "--kind dualpipev --ranks 4 --microbatches 10" \
    "--kind 1f1b --ranks 4 --microbatches 8"; do
    # shellcheck disable=SC2086
    open_page $arguments
    # shellcheck disable=SC2086
    expected=$(cells_of $arguments)
    ranks=$(grep -o 'ranks [0-9]*' <<<"$arguments" | grep -o '[0-9]*')
    grep -q "<body data-cells=\"$expected\" data-curves=\"$ranks\">" dom ||
        fail "$arguments: expected $expected cells and $ranks curves, the page says $(grep -o '<body[^>]*>' dom)"
    echo "$arguments: $expected cells"
done
