#!/usr/bin/env bash
# fuzz.sh TIME [PACKAGE...] runs every fuzz target of the packages for TIME each
# (default: 10s, all packages). What it finds stays in testdata/fuzz as a regression test.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
time=${1:-10s}
shift || true
(($#)) || set -- ./...

list=$("$go" test -vet=off -list '^Fuzz' "$@") || {
	echo "$list"
	exit 1
}
# The list gives a package's targets and then "ok <package>".
mapfile -t targets < <(awk '
	/^Fuzz/ { found[++n] = $1 }
	$1 == "ok" { for (i = 1; i <= n; i++) print $2, found[i]; n = 0 }' <<<"$list")
((${#targets[@]})) || {
	echo "fuzz: no fuzz target in $*" >&2
	exit 1
}

out=$(mktemp)
trap 'rm -f "$out"' EXIT

# fuzz PACKAGE NAME. Go before 1.27 can report its own deadline, the end of
# -fuzztime, as a failure of the target (go.dev/issue/75804): with that line, which
# no test prints this way, and no failing input, the target has passed.
fuzz() {
	if "$go" test -vet=off -run '^$' -fuzz "^$2\$" -fuzztime "$time" "$1" 2>&1 | tee "$out"; then
		return 0
	fi
	grep -qx '    context deadline exceeded' "$out" && ! grep -q 'Failing input written' "$out"
}

failed=()
for target in "${targets[@]}"; do
	read -r package name <<<"$target"
	echo "fuzz: $package $name for $time"
	fuzz "$package" "$name" || failed+=("$target")
done
if ((${#failed[@]})); then
	printf 'fuzz: failed: %s\n' "${failed[@]}" >&2
	exit 1
fi
echo "fuzz: ${#targets[@]} targets, none failed"
