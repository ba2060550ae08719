#!/usr/bin/env bash
# One TCP stream between two hosts' machines: our WireGuard engine, Debian's wireguard-go beside it,
# and plain veth as the limit. Prints Gbit/s and the CPU time of both tunnel processes per byte, and
# ratios to ours.
#
# Needs root, iperf3, wireguard-go, wireguard-tools, python3; build the tunnel first:
#   cargo build --release -p net --example wireguard_tunnel
# Usage: [SECONDS_EACH=6] [STREAMS=1] bench/wireguard.sh
set -euo pipefail
cd "$(dirname "$0")/.."
TUNNEL=${TUNNEL:-target/release/examples/wireguard_tunnel}
SECONDS_EACH=${SECONDS_EACH:-6}
STREAMS=${STREAMS:-1}
a=wgb$$a b=wgb$$b link=wgb$$
keys=$(mktemp -d)
tunnels=()
stop() {
    if [ ${#tunnels[@]} -gt 0 ]; then kill "${tunnels[@]}" 2>/dev/null || true; wait "${tunnels[@]}" 2>/dev/null || true; fi
    tunnels=()
}
clean() {
    stop
    [ -z "${server:-}" ] || kill "$server" 2>/dev/null || true
    ip netns del $a 2>/dev/null || true
    ip netns del $b 2>/dev/null || true
    rm -rf "$keys"
}
trap clean EXIT

ip netns add $a && ip netns add $b
ip -n $a link add under type veth peer name under netns $b
ip -n $a address add 2001:db8::1/64 dev under nodad
ip -n $b address add 2001:db8::2/64 dev under nodad
for side in $a $b; do ip -n $side link set lo up; ip -n $side link set under up; done
for side in 1 2; do (umask 077; wg genkey >"$keys/$side"; wg pubkey <"$keys/$side" >"$keys/$side.pub"); done
machine_a=fdaa:0:7:a7b:2:1:1:2 machine_b=fdaa:0:7:a7b:3:1:1:2

addresses() { # link
    ip -n $a address add $machine_a/128 dev "$1" nodad && ip -n $a route replace fdaa::/16 dev "$1"
    ip -n $b address add $machine_b/128 dev "$1" nodad && ip -n $b route replace fdaa::/16 dev "$1"
    for _ in $(seq 50); do ip netns exec $a ping -6 -n -c 1 -W 1 $machine_b >/dev/null && return; done
    echo "no answer through $1" >&2
    exit 1
}

start_ours() {
    ip netns exec $a "$TUNNEL" "$link" '[::]:51820' 2 "$(cat "$keys/1")" 3 "$(cat "$keys/2.pub")" '[2001:db8::2]:51820' &
    tunnels+=($!)
    ip netns exec $b "$TUNNEL" "$link" '[::]:51820' 3 "$(cat "$keys/2")" 2 "$(cat "$keys/1.pub")" '[2001:db8::1]:51820' &
    tunnels+=($!)
    until ip -n $a link show "$link" && ip -n $b link show "$link"; do sleep 0.1; done >/dev/null 2>&1
    addresses "$link"
}

start_wireguard_go() {
    export WG_PROCESS_FOREGROUND=1 WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1
    local side name other
    for side in 1 2; do
        # Control sockets are named after links, in one directory for all namespaces.
        name=$link$side other=$((3 - side))
        [ $side = 1 ] && netns=$a || netns=$b
        ip netns exec "$netns" wireguard-go -f "$name" >/dev/null 2>&1 &
        tunnels+=($!)
        until [ -S /var/run/wireguard/"$name".sock ]; do sleep 0.1; done
        ip netns exec "$netns" wg set "$name" listen-port 51820 private-key "$keys/$side" \
            peer "$(cat "$keys/$other.pub")" endpoint "[2001:db8::$other]:51820" allowed-ips fdaa::/16
        ip -n "$netns" link set "$name" name "$link" mtu 1420 up
    done
    addresses "$link"
}

# CPU nanoseconds of the tunnel processes so far.
cpu_ns() {
    local total=0 pid fields
    for pid in "${tunnels[@]}"; do
        fields=($(sed 's/.*) //' /proc/"$pid"/stat))
        total=$((total + fields[11] + fields[12]))
    done
    echo $((total * 1000000000 / $(getconf CLK_TCK)))
}

measure() { # name, address
    ip netns exec $b iperf3 -s -1 >/dev/null 2>&1 &
    server=$!
    sleep 0.5
    local before after
    before=$(cpu_ns)
    nice -n -5 ip netns exec $a iperf3 -6 -J -t "$SECONDS_EACH" -P "$STREAMS" -c "$2" >"$keys/report"
    after=$(cpu_ns)
    wait $server || true
    server=
    python3 - "$1" "$((after - before))" "$keys/report" "$keys/ours" <<'PY'
import json, os, sys
name, cpu_ns, report, ours = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
end = json.load(open(report))["end"]
received, sent = end["sum_received"], end["sum_sent"]
gbit, ns = received["bits_per_second"] / 1e9, cpu_ns / received["bytes"]
if not os.path.exists(ours):
    open(ours, "w").write(f"{gbit} {ns}")
our_gbit, our_ns = map(float, open(ours).read().split())
cost = f"{ns:6.2f} CPU-ns/byte  {ns / our_ns:5.2f} x ours" if cpu_ns else " " * 35
print(f"{name:14} {gbit:6.2f} Gbit/s  {gbit / our_gbit:5.2f} x ours  {cost}  {sent.get('retransmits', 0)} retransmits")
PY
}

echo "load before: $(cut -d' ' -f1 /proc/loadavg); $STREAMS stream(s), $SECONDS_EACH s each, $(nproc) cores shared by both ends"
start_ours
measure "ours" $machine_b
stop
start_wireguard_go
measure "wireguard-go" $machine_b
stop
measure "plain veth" 2001:db8::2
