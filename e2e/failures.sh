#!/usr/bin/env bash
# Runs a command that runs tests, and if it fails says at its end in short which of them failed and why.
set -uo pipefail
log=$(mktemp)
trap 'rm -f "$log"' EXIT
"$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
[ "$status" = 0 ] || awk '
	/^---- .* stdout ----$/ { test = $2; left = 0 }
	test != "" && (/^Error: / || / panicked at /) { print "FAILED " test ":"; left = 6; test = "" }
	/^stack backtrace:|^failures:|^note: / { left = 0 }
	left > 0 { left--; print "  " substr($0, 1, 300) }' "$log"
exit "$status"
