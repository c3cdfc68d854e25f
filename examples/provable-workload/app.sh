#!/bin/sh
# What the demo's container runs: it says what it finds itself in, tries to get
# out of line, and waits until it is told to stop.
trap 'echo "told to stop"; exit 0' TERM
echo "hello from $(hostname), process $$, user $(id -u)"
grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status
echo "network interfaces: $(tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' ' | tr '\n' ' ')"
echo "processes it can see: $(set -- /proc/[0-9]*; echo $#)"
touch /written 2>&1
while :; do
	sleep 3600 &
	wait $!
done
