#!/usr/bin/env bash
# check.sh [lint] is what every change must pass before its tests are worth
# running: gofmt and go vet. With `lint` also staticcheck, and that go.mod and
# go.sum are tidy and match the modules on this machine. It looks at
# everything and then fails, so that one run shows all.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
failed=()

# step NAME COMMAND...: runs it and remembers a failure.
step() {
	local name=$1
	shift
	"$@" || failed+=("$name")
}

formatted() {
	local files
	files=$(find . \( -name '.?*' -o -name node_modules -o -name testdata \) -prune -o -name '*.go' -print0 |
		xargs -0 "$(command -v gofmt || echo "$("$go" env GOROOT)/bin/gofmt")" -l)
	[[ -z $files ]] || {
		printf 'not formatted (make fmt):\n%s\n' "$files" >&2
		return 1
	}
}

# staticcheck's default checks, plus ST1000: every package has a comment.
static() {
	local staticcheck
	staticcheck=$(scripts/tool.sh staticcheck) && "$staticcheck" -checks 'inherit,ST1000' ./...
}

step gofmt formatted
step vet "$go" vet ./...
if [[ ${1:-} == lint ]]; then
	step staticcheck static
	step 'go mod tidy' "$go" mod tidy -diff
	step 'go mod verify' "$go" mod verify
fi
if ((${#failed[@]})); then
	printf 'check: failed: %s\n' "${failed[@]}" >&2
	exit 1
fi
