#!/usr/bin/env bash
# test.sh [go test flags] runs all tests (of the packages in TEST) with everything they need, and lets
# none of them off: what a test needs and does not find is then a failure, and a
# skipped test must be listed in tools/testreport/may-skip.txt. `make tools` first.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
read -ra packages <<<"${TEST:-./...}"

COSIGN=$(scripts/tool.sh cosign)
CRANE=$(scripts/tool.sh crane)
export COSIGN CRANE
export PROVOST_REQUIRE_TOOLS=1 PROVOST_REQUIRE_RUNC=1 PROVOST_REQUIRE_POSTGRES=1
export PATH="$PATH:/usr/sbin:/sbin" # where Debian has runc, also for those whose PATH lacks it

# The report is built first, so that it does not compete with what it reports on.
report=$(mktemp)
trap 'rm -f "$report"' EXIT
"$go" build -o "$report" ./tools/testreport

started=$SECONDS
status=0
# -vet=off: `make check` has vetted everything already. -count=1: a cached pass
# says nothing about the tools and the system of today.
"$go" test -json -vet=off -count=1 -timeout 12m "$@" "${packages[@]}" |
	"$report" -may-skip tools/testreport/may-skip.txt || status=$?
((status == 0)) && verdict=passed || verdict=FAILED
echo "make test: $verdict in $((SECONDS - started)) s"
exit "$status"
