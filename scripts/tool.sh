#!/usr/bin/env bash
# tool.sh NAME prints the path of a pinned tool and builds it first if need be.
#
# tools/NAME/go.mod says which tool in which version, tools/NAME/go.sum the
# content of every module it is built from. Each tool has a module of its own,
# so its dependencies never meet the product's. A binary is used when Go's build
# information in it names that very module version and hash: from the cache
#     ${PROVOST_TOOLS:-${XDG_CACHE_HOME:-~/.cache}/provost/tools}/NAME@VERSION/NAME
# or from PATH. Else it is built into the cache, where every clone finds it.
set -euo pipefail

say() { echo "tool: $*" >&2; }
die() {
	say "$@"
	exit 1
}

(($# == 1)) || die "usage: tool.sh NAME"
name=$1
go=${GO:-go}
pin=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)/tools/$name
[[ -f $pin/go.mod ]] || die "no tools/$name/go.mod pins a tool of this name"
command -v "$go" >/dev/null || die "needs Go in PATH"

# The package of the tool directive, and the module and version that hold it.
read -r package module version < <(awk '
	$1 == "tool" { package = $2 }
	{ sub(/^require /, "") }
	$2 ~ /^v[0-9]/ { version[$1] = $2 }
	END {
		for (m in version)
			if (index(package "/", m "/") == 1 && length(m) > length(module)) module = m
		print package, module, version[module]
	}' "$pin/go.mod")
[[ -n $package && -n $module && -n $version ]] || die "tools/$name/go.mod has no tool directive with a required module"
hash=$(awk -v m="$module" -v v="$version" '$1 == m && $2 == v { print $3 }' "$pin/go.sum")
[[ -n $hash ]] || die "tools/$name/go.sum does not know $module $version"

# right FILE: is it the pinned tool?
right() {
	[[ -x $1 ]] && GOFLAGS='' "$go" version -m "$1" 2>/dev/null |
		awk -v m="$module" -v v="$version" -v h="$hash" \
			'$1 == "mod" { found = $2 == m && $3 == v && $4 == h } END { exit !found }'
}

cache=${PROVOST_TOOLS:-}
if [[ -z $cache ]]; then
	[[ -n ${XDG_CACHE_HOME:-} || -n ${HOME:-} ]] || die "set PROVOST_TOOLS (where to keep tools) or HOME"
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/provost/tools
fi
dir=$cache/$name@$version
binary=$dir/$name

for candidate in "$binary" "$(command -v "$name" || true)"; do
	if right "$candidate"; then
		echo "$candidate"
		exit 0
	fi
done

mkdir -p "$dir" || die "cannot make the cache directory $dir; set PROVOST_TOOLS to one that can be written"
if command -v flock >/dev/null; then # whoever is second waits and finds it built
	exec 9<"$dir"
	flock -n 9 || { say "waiting for another build of $name $version"; flock 9; }
	if right "$binary"; then
		echo "$binary"
		exit 0
	fi
fi

say "building $name $version, once for this machine (a large one takes minutes)"
started=$SECONDS
building=$dir/.building.$$
(while sleep 30 2>/dev/null; do say "still building $name ($((SECONDS - started)) s)"; done) 9<&- >/dev/null &
ticker=$!
trap 'kill "$ticker" 2>/dev/null || true; rm -f "$building"' EXIT

# -mod=readonly: what go.mod and go.sum do not pin is not used.
if ! GOWORK=off GOFLAGS='-mod=readonly -buildvcs=false' nice -n 10 \
	"$go" -C "$pin" build -trimpath -ldflags='-s -w' -o "$building" "$package" >&2 9<&-; then
	die "could not build $name $version: see above. Its modules come from the Go module proxy; without a network," \
		"copy $binary from a machine that built it, or put $name $version in PATH"
fi
right "$building" || die "the $name just built does not carry $module $version $hash"
mv "$building" "$binary"
say "built $name $version in $((SECONDS - started)) s"
echo "$binary"
