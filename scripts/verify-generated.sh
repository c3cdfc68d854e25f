#!/usr/bin/env bash
# verify-generated.sh fails when `go generate` would change, add or remove a
# file. It compares the work tree before and after, committed or not, and
# leaves the current files behind.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}

tree() { # one line per file: hash and name
	local file
	git ls-files -z --cached --others --exclude-standard |
		while IFS= read -rd '' file; do [[ ! -f $file ]] || echo "$file"; done |
		xargs -d '\n' -r sha256sum
}

before=$(tree)
"$go" generate ./...
if ! changes=$(diff <(echo "$before") <(tree)); then
	echo "verify: generated files were not current; they are now, commit them:" >&2
	awk '/^[<>]/ { print "    " $3 }' <<<"$changes" | sort -u >&2
	exit 1
fi
