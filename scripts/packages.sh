#!/usr/bin/env bash
# packages.sh NAME... makes sure that distribution packages are there.
#
# It looks for what each package provides, not for the package: a runc in PATH
# is a runc wherever it comes from. Only when something is missing does it call
# apt-get, as root or through sudo where that asks for no password; otherwise it
# says what to type. With nothing to do it prints nothing.
set -euo pipefail
export PATH="$PATH:/usr/sbin:/sbin"

say() { echo "packages: $*" >&2; }

# provided NAME: is what the package is needed for on this system?
provided() {
	local bin
	case $1 in
	runc) command -v runc >/dev/null ;;
	iproute2) command -v ip >/dev/null ;;
	postgresql) # Debian keeps the server's programs out of PATH
		{ command -v initdb && command -v postgres; } >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ;;
	busybox-static) # static, so that it runs alone in a container's root
		bin=$(command -v busybox) && ! ldd "$bin" >/dev/null 2>&1 ;;
	*)
		say "no rule says what $1 is needed for; add one to $0"
		exit 2
		;;
	esac
}

missing=()
look() {
	local name
	missing=()
	for name in "$@"; do
		provided "$name" || missing+=("$name")
	done
}

look "$@"
((${#missing[@]})) || exit 0

if ! command -v apt-get >/dev/null; then
	say "missing: ${missing[*]} (Debian's names)"
	say "this system has no apt-get; install them with its own package manager and run this again"
	exit 1
fi

as_root=()
if ((EUID != 0)); then
	if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
		say "missing: ${missing[*]}. As root, type"
		say "    apt-get update && apt-get install --no-install-recommends ${missing[*]}"
		say "and run this again"
		exit 1
	fi
	as_root=(sudo -n)
fi

# One installer at a time. The lock is a read-only hold on a directory that
# every apt system has: nothing to create, clean up, or own.
exec 9</var/lib/dpkg
flock 9
look "$@"
((${#missing[@]})) || exit 0

log=$(mktemp)
trap 'rm -f "$log"' EXIT
apt_get() {
	"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -y \
		-o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 "$@" >>"$log" 2>&1 </dev/null 9<&-
}

say "installing ${missing[*]}"
apt_get update || say "apt-get update failed; trying with the package lists that are there"
if ! apt_get install --no-install-recommends "${missing[@]}"; then
	cat "$log" >&2
	say "apt-get could not install ${missing[*]}: see above. Is the network there?"
	exit 1
fi

look "$@"
if ((${#missing[@]})); then
	say "installed, but still without what they are for: ${missing[*]}"
	exit 1
fi
