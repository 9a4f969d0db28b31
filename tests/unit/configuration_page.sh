#!/usr/bin/env bash
# configuration_page.sh MHCPIPE PAGE [--write]: the list of keys in the page is what the program says, or is made so.
set -euo pipefail
keys=$("$1" config --list)
if [ "${3:-}" = --write ]; then
    head=$(sed '/^```keys$/q' "$2")
    printf '%s\n%s\n```\n' "$head" "$keys" >"$2"
fi
diff <(sed -n '/^```keys$/,/^```$/p' "$2" | sed '1d;$d') <(echo "$keys") ||
    { echo "the keys in $2 are not those of mhcpipe config --list: run this script with --write" >&2; exit 1; }
