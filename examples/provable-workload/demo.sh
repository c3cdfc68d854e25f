#!/usr/bin/env bash
# demo.sh plays the provable workload on a server of its own, step by step, and
# fails when any step does not go as told. `make demo` builds what it needs.
#
#   DEMO_KEEP=1     leave the server and the workload running at the end
#   DEMO_PACE=3     seconds to wait between the steps
#   NO_COLOR=1      no colour, not on a terminal either
#   PROVOST, CRANE, COSIGN   the programs, where they are not in PATH
#
# It needs a host that can run containers (usually: root) and no network:
# everything listens on loopback, on ports that happen to be free.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# Commands are shown as one would type them; these are the programs they mean.
provost_bin=${PROVOST:-$(command -v provost || echo provost)}
provost() { "$provost_bin" "$@"; }
crane() { "${CRANE:-crane}" "$@"; }
cosign() { "${COSIGN:-cosign}" "$@"; }

# Everything is kept in one directory; nothing of the caller's is read or written.
work=$(mktemp -d "${TMPDIR:-/tmp}/provost-demo.XXXXXX")
for name in "${!PROVOST_@}"; do unset "$name"; done
export HOME=$work DOCKER_CONFIG=$work/docker PROVOST_CONFIG=$work/contexts.yaml
export COSIGN_PASSWORD=demo COSIGN_YES=true
output=$work/output server='' step=0

bold='' dim='' green='' red='' reset=''
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
	bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' reset=$'\e[0m'
fi

say() { fold -s -w 92 <<<"$1" | sed 's/^/   /'; }

chapter() {
	((step == 0)) || sleep "${DEMO_PACE:-0}"
	step=$((step + 1))
	printf '\n%s%d. %s%s\n' "$bold" "$step" "$1" "$reset"
	say "$2"
}

fail() {
	printf '\n%sThe demo failed at step %d: %s%s\n' "$red" "$step" "$*" "$reset" >&2
	exit 1
}

# short cuts digests and ids down to what tells them apart, and our own directory's name off.
short() { sed -E -e 's/(sha256:[0-9a-f]{10})[0-9a-f]{54}/\1…/g' -e "s#$work/##g"; }

# typed WORD...: the words as one would type them.
typed() {
	local word
	for word in "$@"; do
		[[ $word =~ ^[A-Za-z0-9_./:@=,+-]+$ ]] && printf ' %s' "$word" || printf " '%s'" "$word"
	done
}

# try CODE COMMAND...: shows a command and what it prints, and insists on its exit
# code. $shown is what to show in its place, $view a filter for what it prints.
try() {
	local want=$1 got=0
	shift
	printf '\n   %s$%s%s\n' "$dim" "$(short <<<"${shown:-$(typed "$@")}")" "$reset"
	"$@" >"$output" 2>&1 || got=$?
	short <"$output" | ${view:-cat} | sed 's/^/   /'
	((got == want)) || fail "\"$1 $2\" ended with exit code $got instead of $want"
}

# seen TEXT...: what the last command printed has to hold each of these.
seen() {
	local text
	for text in "$@"; do
		grep -qF -e "$text" "$output" || fail "the output above should hold \"$text\""
	done
	printf '\n   %s✓ as told%s\n' "$green" "$reset"
}

# await SECONDS WHAT COMMAND...: until the command succeeds.
await() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@"; do
		((SECONDS < end)) || fail "$what did not happen in time"
		sleep 0.1
	done
}

# log makes a table of events narrower: no times, no ids of events, short ids of others.
log() {
	sed -E 's#/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-([0-9a-f]{12})#/…\1#' |
		awk '{ printf "%-4s %-9s %-30s %-16s %-26s %s\n", $1, $3, $4, $5, $6, (NF > 7 ? $7 : "") }'
}

secret() { head -c 18 /dev/urandom | base64 | tr '+/' '-_'; }
ready() { [[ -s $work/data/dev.json ]] || { kill -0 "$server" 2>/dev/null || fail "the server ended"; false; }; }

# stop ends the server. Containers outlive a server on purpose, so they go first.
stop() {
	local id end=$((SECONDS + 20))
	for id in $(provost workload list --context developer@acme -o yaml 2>/dev/null | sed -n 's/^- id: //p'); do
		provost workload delete "$id" --context developer@acme >/dev/null 2>&1 || true
	done
	while compgen -G "$work/data/containers/containers/*" >/dev/null && ((SECONDS < end)); do sleep 0.1; done
	kill "$server" 2>/dev/null && wait "$server"
}

cleanup() {
	local status=$?
	trap - EXIT
	trap '' INT TERM HUP
	((status == 0)) && [[ -n ${DEMO_KEEP:-} ]] && exit 0
	[[ -z $server ]] || stop || true
	if ((status == 1)) && [[ -s $work/server.log ]]; then
		printf '\nThe last words of the server:\n%s\n' "$(tail -n 20 "$work/server.log")" >&2
	fi
	rm -rf "$work"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

for tool in "$provost_bin" "${CRANE:-crane}" "${COSIGN:-cosign}" busybox; do
	command -v "$tool" >/dev/null || fail "there is no $tool; \"make demo\" sees to it"
done
mkdir "$work/data"
if ! provost doctor --data-dir "$work/data" >"$output" 2>&1; then
	sed 's/^/   /' "$output"
	fail "on this host, this user cannot run isolated containers. What is MISSING above says why, and how to mend it; most often it is to run this as root"
fi

chapter "A server" "One program, one directory. It makes its own keys, and listens on loopback only."
printf '\n   %s$ provost dev --data-dir data --listen 127.0.0.1:0 &%s\n' "$dim" "$reset"
setsid "$provost_bin" dev --data-dir "$work/data" --listen 127.0.0.1:0 --s3-listen 127.0.0.1:0 >"$work/server.log" 2>&1 &
server=$! # in a session of its own, so that Ctrl-C does not end it before us
await 60 "the start of the server" ready
url=$(sed -n 's/^  "url": "\(.*\)",$/\1/p' "$work/data/dev.json") registry=${url#*//}
printf '   It answers at %s\n' "$url"

chapter "The platform's administrator creates a tenant" \
	"A tenant acts under an authority (a mandate with an end), in a jurisdiction, and by a policy. The administrator brings in its first people; what happens inside is theirs."
admin=$(sed -n '/"platform"/,$ s/.*"password": "\(.*\)".*/\1/p' "$work/data/dev.json")
try 0 provost login --url "$url" --username admin --password-stdin <<<"$admin"
try 0 provost authority create auth-acme --issuer 'Acme board' --subject acme --scope '*' --valid-for 52w
try 0 provost tenant create acme --authority-binding auth-acme --jurisdiction DE --classification-ceiling restricted --policy-baseline policy-baseline
seen active restricted
for user in operator developer auditor; do
	password=$(secret)
	try 0 provost user create $user --role $user --password-stdin --tenant acme --context admin@system <<<"$password"
	provost login --url "$url" --username $user@acme --password-stdin <<<"$password" >"$output" 2>&1 || fail "$user@acme cannot sign in"
	[[ $user != developer ]] || crane auth login "$registry" -u developer@acme --password-stdin <<<"$password" >"$output" 2>&1 ||
		fail "developer@acme cannot sign in to the registry"
done

chapter "A developer pushes an image" \
	"A real one, of busybox and a script, made by crane. The registry is part of the server, and the developer's password is good there."
mkdir -p "$work/root/bin" "$work/root/tmp"
cp "$(command -v busybox)" "$work/root/bin/busybox"
for applet in sh cut grep hostname id ls sleep tail touch tr wc; do ln -s busybox "$work/root/bin/$applet"; done
cp "$here/app.sh" "$work/root/app.sh"
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 -C "$work/root" -cf "$work/layer.tar" .
try 0 crane append --oci-empty-base -f "$work/layer.tar" -t "$registry/acme/app:base"
try 0 crane mutate "$registry/acme/app:base" --entrypoint /app.sh -t "$registry/acme/app:v1"
image=$registry/acme/app@$(crane digest "$registry/acme/app:v1")

chapter "Unsigned, it is refused" \
	"Because a tag can come to mean something else, and because nobody stands behind the image. A refusal names its rules, what would help, and where the evidence of it is."
provost context use developer@acme 2>/dev/null
try 4 provost workload create --image "$registry/acme/app:v1"
seen image.not_pinned
try 4 provost workload create --image "$image"
seen image.signature_missing image.provenance_missing image.sbom_missing eosc://evidence/sha256:

chapter "Signed by somebody whom the tenant does not trust, it is refused" \
	"Whose signatures count is not for the developer to say, but for the operator."
try 0 cosign generate-key-pair --output-key-prefix "$work/cosign"
sign=(--key "$work/cosign.key" --signing-config "$here/signing-config.json" --trusted-root "$here/trusted-root.json") # no log, no network
shown=" cosign sign --key cosign.key $image" try 0 cosign sign "${sign[@]}" "$image"
try 4 provost workload create --image "$image"
seen image.signature_invalid
try 4 provost trust add ci "$work/cosign.pub"
seen trust-keys.write
try 0 provost trust add ci "$work/cosign.pub" --context operator@acme

chapter "With provenance and a bill of materials as well, it is admitted" \
	"What is attached is verified when it is pushed. Admission asks no registry and no network."
try 4 provost workload create --image "$image"
seen image.provenance_missing image.sbom_missing
for kind in slsaprovenance1:provenance.json cyclonedx:sbom.cdx.json; do
	shown=" cosign attest --key cosign.key --type ${kind%:*} --predicate ${kind#*:} $image" \
		try 0 cosign attest "${sign[@]}" --type "${kind%:*}" --predicate "$here/${kind#*:}" "$image"
done
try 0 provost workload create --image "$image" --name app --memory 64Mi --pids 32 --wait
seen running "64.0 MiB"
workload=$(awk '$1 == "id" { print $2 }' "$output")

chapter "It runs in a real, isolated container" \
	"Not as root, without capabilities, with system calls filtered, nothing to write to, and no network but its own loopback."
greeted() { provost workload logs "$workload" >"$output" 2>&1 && grep -q /written "$output"; }
await 20 "the container's greeting" greeted
try 0 provost workload logs "$workload"
seen "user 65532" "CapEff:	0000000000000000" "CapBnd:	0000000000000000" "Seccomp:	2" "Read-only file system" "interfaces: lo"

chapter "Every decision is in the tenant's log" \
	"The refused ones, too, and what the platform did by itself. And what led to this workload can be asked for, each event with its proof."
view=log try 0 provost events list --limit 0 --context operator@acme
seen execution.refuse execution.admit workload.envelope.start trust-key.create
try 0 provost why "workload/$workload" --context operator@acme
seen "✓" "key ci"

chapter "The auditor exports the log, and a stranger verifies it offline" \
	"The stranger has the bundle, the program and the log's public key; no account, no server, and no network."
mkdir "$work/stranger"
try 0 provost export --profile admissible --out "$work/stranger/evidence.tar.gz" --context auditor@acme
provost whoami --context auditor@acme -o yaml | sed -n 's/^log_key: //p' >"$work/stranger/acme.key"
cp "$provost_bin" "$work/stranger/provost"
cd "$work/stranger"
offline=(unshare --net)
"${offline[@]}" true 2>/dev/null || offline=(unshare --map-root-user --net)
"${offline[@]}" true 2>/dev/null || fail "this host cannot take the network away from a program (unshare --net)"
try 0 env -i "${offline[@]}" ./provost verify evidence.tar.gz --key acme.key
seen verified "a key you gave"

chapter "One flipped byte is found" "Somebody would rather have had another developer's name on the admission."
mkdir forged
tar -xzf evidence.tar.gz -C forged
line=$(grep -n '"event_type":"execution.admit"' forged/events.jsonl | cut -d: -f1)
before=$(head -n $((line - 1)) forged/events.jsonl | wc -c)
within=$(sed -n "${line}p" forged/events.jsonl | grep -abo 'developer@acme' | sed -n '1s/:.*//p')
cp forged/events.jsonl as-exported.jsonl
printf 'D' | dd of=forged/events.jsonl bs=1 seek=$((before + within)) conv=notrunc status=none
try 1 cmp -b as-exported.jsonl forged/events.jsonl
try 6 env -i "${offline[@]}" ./provost verify forged --key acme.key
seen "events.jsonl line $line" failed

printf '\n%s%s✓ All %d steps went as told.%s\n' "$bold" "$green" "$step" "$reset"
if [[ -n ${DEMO_KEEP:-} ]]; then
	cat <<-END
		The server is still running at $url, and the workload in it. To look around:
		    export PROVOST_CONFIG=$PROVOST_CONFIG
		    $provost_bin context list
		To end it (delete the workload first: containers outlive their server):
		    $provost_bin workload delete $workload --context developer@acme
		    kill $server && rm -rf $work
	END
fi
