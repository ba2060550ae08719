#!/usr/bin/env bash
# One TCP stream between two machines on two hosts: through the mesh, and through a service's VIP and
# the mesh, beside the plain link between the hosts. Prints Gbit/s and the CPU time of both daemons per
# byte. `wireguard.sh` has the engine alone beside wireguard-go.
#
# Needs root, iperf3, python3, busybox-static; build first:
#   cargo build --release -p aerostat
# Usage: [SECONDS_EACH=6] bench/mesh.sh
set -euo pipefail
cd "$(dirname "$0")/.."
AEROSTAT=${AEROSTAT:-$PWD/target/release/aerostat}
SECONDS_EACH=${SECONDS_EACH:-6}
work=$(mktemp -d)
wire=aerobench$$
numbers=(61001 61002)
server=
clean() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    for host in 1 2; do on $host "$AEROSTAT" down --grace 0 --purge --yes >/dev/null 2>&1 || true; done
    for host in 1 2; do ip netns del $wire-$host 2>/dev/null || true; done
    rm -rf "$work"
}
trap clean EXIT

on() { # host, command
    local host=$1 home=$work/$1
    shift
    nsenter --net=/run/netns/$wire-"$host" env AEROSTAT_DATA_DIR="$home/data" AEROSTAT_RUN_DIR="$home/run" \
        AEROSTAT_CONFIG="$home/aerostat.toml" "$@"
}

ip netns add $wire-1 && ip netns add $wire-2
ip -n $wire-1 link add under type veth peer name under netns $wire-2
for host in 1 2; do
    ip -n $wire-$host address add 2001:db8::$host/64 dev under nodad
    ip -n $wire-$host link set lo up
    ip -n $wire-$host link set under up
    mkdir "$work/$host"
    printf 'advertise = "2001:db8::%s"\n' $host >"$work/$host/aerostat.toml"
done
printf 'host_number = %s\n' ${numbers[0]} >>"$work/1/aerostat.toml"
on 1 "$AEROSTAT" up >/dev/null 2>&1
token=$(on 1 "$AEROSTAT" host token create 2>/dev/null)
on 2 "$AEROSTAT" join "$token" --name second --number ${numbers[1]} >/dev/null
on 2 "$AEROSTAT" up >/dev/null 2>&1

# A machine on each host: replicas are spread. Programs run in their network namespaces.
until [ "$(on 1 "$AEROSTAT" host list -o json | grep -c '"ok"')" -ge 2 ]; do sleep 0.2; done
for _ in 1 2; do on 1 "$AEROSTAT" machine run --app bench --isolation container localhost/hello:1 >/dev/null 2>&1; done
mapfile -t addresses < <(on 1 "$AEROSTAT" machine list --app bench -o json |
    python3 -c 'import json, sys; [print(m["private_ip"]) for m in json.load(sys.stdin)]' | sort)
[ ${#addresses[@]} = 2 ] || { echo "there are not two machines" >&2; exit 1; }
netns_of() { # address: the namespace that has it
    local netns
    for netns in $(ip netns list | awk '{print $1}' | grep '^aero-.*-'); do
        if [[ $(ip -n "$netns" -6 -o address 2>/dev/null) == *" $1/"* ]]; then echo "$netns"; return; fi
    done
    echo "no namespace has $1" >&2
    exit 1
}
from=$(netns_of "${addresses[0]}") to=$(netns_of "${addresses[1]}")
vip=$(on 1 "$AEROSTAT" service set iperf --app bench --port 5201 --address "${addresses[1]}" -o json |
    python3 -c 'import json, sys; s = json.load(sys.stdin); print((s[0] if isinstance(s, list) else s)["vip"])')

cpu_ns() {
    local total=0 host pid fields
    for host in 1 2; do
        pid=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["pid"])' "$work/$host/run/endpoints.json")
        fields=($(sed 's/.*) //' /proc/"$pid"/stat))
        total=$((total + fields[11] + fields[12]))
    done
    echo $((total * 1000000000 / $(getconf CLK_TCK)))
}

measure() { # name, namespace of the client, of the server, address
    ip netns exec "$3" iperf3 -s -1 >/dev/null 2>&1 &
    server=$!
    sleep 0.5
    local before after
    before=$(cpu_ns)
    nice -n -5 ip netns exec "$2" iperf3 -6 -J -t "$SECONDS_EACH" -c "$4" >"$work/report" ||
        { python3 -c 'import json, sys; print(json.load(open(sys.argv[1])).get("error"))' "$work/report" >&2; exit 1; }
    after=$(cpu_ns)
    wait $server || true
    server=
    python3 - "$1" "$((after - before))" "$work/report" "$work/first" <<'PY'
import json, os, sys
name, cpu_ns, report, first = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
end = json.load(open(report))["end"]
received, sent = end["sum_received"], end["sum_sent"]
gbit, ns = received["bits_per_second"] / 1e9, cpu_ns / received["bytes"]
if not os.path.exists(first):
    open(first, "w").write(f"{gbit} {ns}")
base_gbit, base_ns = map(float, open(first).read().split())
print(f"{name:20} {gbit:6.2f} Gbit/s  {gbit / base_gbit:5.2f} x the mesh  {ns:6.2f} CPU-ns/byte of both daemons  {sent.get('retransmits', 0)} retransmits")
PY
}

echo "load before: $(cut -d' ' -f1 /proc/loadavg); 1 stream, $SECONDS_EACH s each, $(nproc) cores shared by both ends"
measure "the mesh" "$from" "$to" "${addresses[1]}"
sleep 2
measure "a VIP and the mesh" "$from" "$to" "$vip"
measure "the plain link" $wire-1 $wire-2 2001:db8::2
