#!/usr/bin/env bash
# The Kubernetes API server, and a peer under the same load in turns: start to ready, creates and
# updates over TLS at 1, 16 and 64 clients, a thousand watchers, lists, memory, idling. Medians of
# ROUNDS; the CPU time of each operation is the judge, rates and latencies on a shared machine are
# there for orientation. Ratios above 1 are in our favour. Goals are those of docs/kubernetes.md.
#
# Both sides are a command that gets a directory and a port, writes admin.conf there, serves at
# https://localhost:<port> and ends, with all that it has started, on SIGTERM. Ours is the API server
# alone on its database; CPU time and memory of a peer include its children, such as an etcd.
#
# Usage: [PEER=<command>] [ROUNDS=3] [SECONDS_EACH=4] bench/kubernetes.sh [measures]
# Measures: ready create update watch list start informers idle; all of them by default.
# Build first: cargo build --release -p kube --example api_server --example api_load
set -euo pipefail
cd "$(dirname "$0")/.."
EXAMPLES=${EXAMPLES:-target/release/examples}
OURS=${OURS:-$EXAMPLES/api_server} PEER=${PEER:-}
ROUNDS=${ROUNDS:-3} SECONDS_EACH=${SECONDS_EACH:-4} WATCHERS=${WATCHERS:-1000}
IDLE_SECONDS=${IDLE_SECONDS:-60} OBJECTS=${OBJECTS:-5000} LISTED=${LISTED:-10000}
wanted=" ${*:-ready create update watch list start informers idle} "
here=$(mktemp -d "${BENCH_DIR:-/tmp}/kubernetes-bench.XXXXXX")
sides=ours; [ -z "$PEER" ] || sides="ours peer"
declare -A pid port
trap 'for side in $sides; do stop $side; done; rm -rf "$here"' EXIT
ulimit -n 8192

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
wants() { case $wanted in *" $1 "*) ;; *) return 1 ;; esac; }
note() { printf '%s|%s|%s\n' "$1" "$2" "$3" >>"$here/figures"; printf '%s %s: %s\n' "$2" "$1" "$3" >&2; }
load() { "$EXAMPLES/api_load" "$here/$1/admin.conf" "${pid[$1]}" "${@:2}"; }

# start <side> <what>: notes under <what> how long it took until it was ready.
start() {
    local side=$1 begin end command=$OURS
    [ "$side" = ours ] || command=$PEER
    mkdir -p "$here/$side"
    port[$side]=$(free_port)
    begin=$(date +%s%N)
    "$command" "$here/$side" "${port[$side]}" alone >>"$here/$side/log" 2>&1 &
    pid[$side]=$!
    until curl -sfko /dev/null "https://127.0.0.1:${port[$side]}/readyz"; do
        kill -0 "${pid[$side]}" || { tail -n 20 "$here/$side/log" >&2; exit 1; }
        sleep 0.002
    done
    end=$(date +%s%N)
    note "$2" "$side" "ready_ms=$(((end - begin) / 1000000)) $(load "$side" ready)"
}

stop() {
    [ -n "${pid[$1]:-}" ] || return 0
    kill "${pid[$1]}" 2>/dev/null || true
    wait "${pid[$1]}" 2>/dev/null || true
    pid[$1]=
}

# turns <what> <arguments of the load>: every round, each side once.
turns() {
    local round side
    for round in $(seq "$ROUNDS"); do
        for side in $sides; do note "$1" "$side" "$(load "$side" "${@:2}")"; done
    done
}

printf 'load average before: %s; %s processors\n' "$(cut -d' ' -f1-3 /proc/loadavg)" "$(nproc)"
for side in $sides; do start "$side" "start, empty"; done
# First: memory that was used before would hide what watches need.
wants watch && turns "watch, $WATCHERS watchers" watch "$WATCHERS"
for kind in create update; do
    wants $kind || continue
    for clients in 1 16 64; do turns "$kind, $clients clients" $kind $clients "$SECONDS_EACH"; done
done
for side in $sides; do stop "$side"; rm -rf "${here:?}/$side"; done
for side in $sides; do start "$side" "start, empty"; done
if wants list; then
    for side in $sides; do note "memory of 1 KiB objects" "$side" "$(load "$side" fill many "$LISTED" 1024)"; done
    turns "list of $LISTED" list many 5
fi
for side in $sides; do stop "$side"; rm -rf "${here:?}/$side"; done
if wants start || wants idle; then
    for side in $sides; do start "$side" "start, empty"; load "$side" fill many "$OBJECTS" 1024 >/dev/null; done
    for round in $(seq "$ROUNDS"); do
        for side in $sides; do stop "$side"; start "$side" "start, $OBJECTS objects"; done
    done
    # One after the other: an idle peer wakes the processor too.
    if wants idle; then
        for side in $sides; do sleep 5; note "idle, $OBJECTS objects" "$side" "$(load "$side" idle "$IDLE_SECONDS")"; done
    fi
    for side in $sides; do stop "$side"; rm -rf "${here:?}/$side"; done
fi
if wants informers; then
    for side in $sides; do
        start "$side" "start, empty"
        load "$side" fill large 10000 10240 >/dev/null
        for how in list watch-list; do
            note "16 informers of 100 MB, $how" "$side" "$(load "$side" informers large 16 $how)"
        done
        stop "$side"
    done
fi
python3 - "$here/figures" <<'PY'
import collections, statistics, sys

# The figures of each measure that are shown: unit, and whether more is better.
SHOWN = {
    "rate": ("/s", True), "p50_ms": ("ms p50", False), "p99_ms": ("ms p99", False),
    "cpu_us": ("CPU-µs each", False), "cpu_ms": ("CPU-ms each", False), "cpu_s": ("CPU-s", False),
    "kib_each": ("KiB each", False), "bytes_per_object": ("bytes each", False),
    "ready_ms": ("ms to ready", False), "resident_mib": ("MiB resident", False),
    "grown_mib": ("MiB more at peak", False), "seconds": ("s", False),
    "cpu_percent": ("% of a core", False), "wakeups_per_s": ("wake-ups/s", False),
    "missed": ("events missed", False), "refused": ("refused", False),
}
GOALS = {
    ("create", "rate"): "3x", ("watch", "p99_ms"): "<= 5", ("watch", "kib_each"): "<= 8",
    ("start, 5000 objects", "ready_ms"): "<= 300", ("idle", "resident_mib"): "<= 64",
    ("idle", "cpu_percent"): "<= 0.5", ("memory", "bytes_per_object"): "<= 4096", ("16", "grown_mib"): "flat",
}
figures = collections.defaultdict(lambda: collections.defaultdict(list))
for line in open(sys.argv[1]):
    what, side, pairs = line.strip().split("|")
    for name, value in (pair.split("=") for pair in pairs.split()):
        figures[what, name][side].append(float(value))
print(f"{'':36}{'':18}{'ours':>10}{'peer':>10}{'ratio':>8}  goal")
last = None
for (what, name), by_side in figures.items():
    if name not in SHOWN:
        continue
    unit, more_is_better = SHOWN[name]
    # Memory of watches is seen once only, while it is new to the process.
    middle = max if name == "kib_each" else statistics.median
    ours = middle(by_side["ours"])
    peer = middle(by_side["peer"]) if by_side["peer"] else None
    ratio = ""
    if peer is not None and ours > 0 and peer > 0:
        ratio = f"{(ours / peer if more_is_better else peer / ours):.1f}"
    theirs = "" if peer is None else f"{peer:.6g}"
    goal = next((goal for (begin, of), goal in GOALS.items() if what.startswith(begin) and of == name), "")
    print(f"{'' if what == last else what:36}{unit:18}{ours:10.6g}{theirs:>10}{ratio:>8}  {goal}")
    last = what
PY
printf 'load average after: %s\n' "$(cut -d' ' -f1-3 /proc/loadavg)"
