#!/usr/bin/env bash
# run.sh [seconds] measures what the issue sets goals for and prints each figure
# beside a baseline measured in the same run. On a shared machine read the ratios.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-6}
go=${GO:-go}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

echo "# $(date -u +%F) $(nproc) cores, $("$go" version | cut -d' ' -f3), load $(cut -d' ' -f1-3 /proc/loadavg)"
"$go" build -trimpath -o "$dir/provost" ./cmd/provost
"$go" build -trimpath -o "$dir/governed" ./bench/governed
"$go" build -trimpath -o "$dir/ledger" ./bench/ledger
(cd bench/peers/tessera && "$go" build -trimpath -o "$dir/tessera" .)

"$dir/governed" -provost "$dir/provost" -seconds "$seconds"

# field JSON NAME prints a number out of one line of JSON.
field() { sed -n "s/.*\"$2\":\([0-9.]*\).*/\1/p" <<<"$1"; }
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }

echo "the log alone, 512 writers (ours also decides and indexes)"
t=$("$dir/tessera" -seconds "$seconds" 2>/dev/null)
o=$("$dir/ledger" -seconds "$seconds")
printf '  entries       ours %s /s, tessera %s /s: %s x\n' "$(field "$o" entries_per_s)" "$(field "$t" entries_per_s)" \
	"$(ratio "$(field "$o" entries_per_s)" "$(field "$t" entries_per_s)")"
echo "the log alone, 1 writer (tessera tuned: batches of at most 1 ms)"
t=$("$dir/tessera" -writers 1 -age 1ms -seconds "$seconds" 2>/dev/null)
o=$("$dir/ledger" -writers 1 -seconds "$seconds")
printf '  p50 latency   ours %s ms, tessera %s ms: %s x\n' "$(field "$o" p50_ms)" "$(field "$t" p50_ms)" \
	"$(ratio "$(field "$o" p50_ms)" "$(field "$t" p50_ms)")"

echo "in process"
"$go" test -run '^$' -bench 'Decide|Authenticate$|VerifyTarGz|VerifyBundle|Verify/' -benchtime 1s -cpu 1 \
	./internal/kernel/policy ./internal/kernel/identity/idp ./internal/kernel/evidence/bundle | grep '^Benchmark' || true
