#!/usr/bin/env bash
# What it costs a WireGuard client that its gateway does not know it: time to the first answer beside
# a peer that is installed, packets lost, and CPU time of a handshake beside Debian's wireguard-go,
# which has to know all its peers.
#
# Needs root, wireguard-go, wireguard-tools, python3; build first:
#   cargo build --release -p net --example wireguard_gateway --example wireguard_clients
# Usage: [ROUNDS=20] [LOOKUP_MS=0] [CLIENTS=4000] bench/gateway.sh
set -euo pipefail
cd "$(dirname "$0")/.."
EXAMPLES=${EXAMPLES:-target/release/examples}
ROUNDS=${ROUNDS:-20} LOOKUP_MS=${LOOKUP_MS:-0} CLIENTS=${CLIENTS:-4000}
a=wgq$$a b=wgq$$b link=wgq$$
work=$(mktemp -d)
pids=()
clean() {
    exec 7>&- || true
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done
    ip netns del $a 2>/dev/null || true
    ip netns del $b 2>/dev/null || true
    rm -rf "$work" /var/run/wireguard/"$link"*.sock
}
trap clean EXIT
export WG_PROCESS_FOREGROUND=1 WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1

ip netns add $a && ip netns add $b
ip -n $a link add under type veth peer name under netns $b
ip -n $a address add 2001:db8::1/64 dev under nodad
ip -n $b address add 2001:db8::2/64 dev under nodad
for side in $a $b; do ip -n $side link set lo up; ip -n $side link set under up; done
for side in 1 2; do (umask 077; wg genkey >"$work/$side"; wg pubkey <"$work/$side" >"$work/$side.pub"); done

mkfifo "$work/commands"
ip netns exec $b "$EXAMPLES/wireguard_gateway" "$link" '[::]:51820' "$(cat "$work/2")" "$LOOKUP_MS" <"$work/commands" 2>"$work/gateway" &
gateway=$!
pids+=($gateway)
exec 7>"$work/commands"
until ip -n $b link show "$link" >/dev/null 2>&1; do sleep 0.1; done
ip -n $b address add fdaa::2/128 dev "$link" nodad && ip -n $b route replace fdaa::1/128 dev "$link"

client=${link}c
ip netns exec $a wireguard-go -f "$client" >/dev/null 2>&1 &
pids+=($!)
until [ -S /var/run/wireguard/"$client".sock ]; do sleep 0.1; done
ip netns exec $a wg set "$client" listen-port 51820 private-key "$work/1"
ip -n $a link set "$client" mtu 1420 up
ip -n $a address add fdaa::1/128 dev "$client" nodad && ip -n $a route replace fdaa::2/128 dev "$client"

tell() { # what the gateway is to do with its peers
    local lines
    lines=$(wc -l <"$work/gateway")
    echo "$1" >&7
    until [ "$(wc -l <"$work/gateway")" -gt "$lines" ]; do sleep 0.02; done
}
first_ms() { # of 3 pings by a client that has no session, the first; and how many were answered
    local key
    key=$(cat "$work/2.pub")
    ip netns exec $a wg set "$client" peer "$key" remove
    # A second client's key would do; the same with a new session is the harder case.
    ip netns exec $a wg set "$client" peer "$key" endpoint '[2001:db8::2]:51820' allowed-ips fdaa::/16
    ip netns exec $a ping -6 -n -c 3 -i 0.05 -W 6 fdaa::2 >"$work/ping" || true
    sed -n 's/.*icmp_seq=1 .*time=\([0-9.]*\).*/\1/p' "$work/ping"
    grep -c 'time=' "$work/ping" >>"$work/answered" || true
}

echo "load before: $(cut -d' ' -f1 /proc/loadavg); $ROUNDS rounds, look-up $LOOKUP_MS ms, $(nproc) cores shared"
first_ms >/dev/null
: >"$work/answered"
for _ in $(seq "$ROUNDS"); do
    tell remove; first_ms >>"$work/unknown"
    # The old session's times stay valid; the peer is there before the client speaks.
    tell remove; tell add; first_ms >>"$work/installed"
done
python3 - "$work" <<'PY'
import statistics, sys
work = sys.argv[1]
read = lambda name: [float(line) for line in open(f"{work}/{name}")]
unknown, installed, answered = read("unknown"), read("installed"), read("answered")
u, i = statistics.median(unknown), statistics.median(installed)
print(f"first answer   unknown {u:7.2f} ms   installed {i:7.2f} ms   {u / i:5.2f} x installed   +{u - i:.2f} ms")
print(f"packets lost   {3 * len(answered) - sum(answered):.0f} of {3 * len(answered)}")
PY

cpu_ns() { # of a process so far
    python3 -c 'import os,sys; f=open(f"/proc/{sys.argv[1]}/stat").read().rsplit(") ",1)[1].split(); print((int(f[11])+int(f[12]))*10**9//os.sysconf("SC_CLK_TCK"))' "$1"
}
shake() { # name, process, port, public key
    local before after
    before=$(cpu_ns "$2")
    ip netns exec $b "$EXAMPLES/wireguard_clients" shake "127.0.0.1:$3" "$4" "$CLIENTS" >"$work/shake"
    after=$(cpu_ns "$2")
    python3 - "$1" "$((after - before))" "$work/shake" "$CLIENTS" "$work/ours" <<'PY'
import os, sys
name, cpu, shake, clients, ours = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5]
answered, seconds = open(shake).read().split()
each = cpu / max(int(answered), 1) / 1000
if not os.path.exists(ours):
    open(ours, "w").write(str(each))
print(f"{name:24} {answered} of {clients} answered   {each:7.1f} CPU-us each   {1e6 / each:7.0f} handshakes/s per core   {each / float(open(ours).read()):5.2f} x ours (unknown)")
PY
}
tell remove
shake "ours, unknown keys" $gateway 51820 "$(cat "$work/2.pub")"
tell remove; tell add
shake "ours, installed" $gateway 51820 "$(cat "$work/2.pub")"

server=${link}s
ip netns exec $b wireguard-go -f "$server" >/dev/null 2>&1 &
go=$!
pids+=($go)
until [ -S /var/run/wireguard/"$server".sock ]; do sleep 0.1; done
{ printf '[Interface]\nPrivateKey = %s\nListenPort = 51830\n' "$(cat "$work/2")"
  "$EXAMPLES/wireguard_clients" keys "$CLIENTS" | sed 's/.*/[Peer]\nPublicKey = &/'; } >"$work/peers"
ip netns exec $b wg setconf "$server" "$work/peers"
ip -n $b link set "$server" up
shake "wireguard-go, installed" $go 51830 "$(cat "$work/2.pub")"
