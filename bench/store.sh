#!/usr/bin/env bash
# The store on SQLite beside a real etcd under the same load: durable writes of 1 KiB that compare
# the revision, at 1, 32 and 64 clients, and one writer with 100 watchers. Both sync before they
# acknowledge. Rounds alternate and the median of each side counts.
#
# etcd is a process of its own and only its CPU time counts; the store is a library, and its figure
# includes the clients. So rates favour the store, which has no connection to serve, and CPU time
# favours etcd, whose clients are free. Ratios above 1 are in the store's favour.
#
# Needs etcd, python3; build first: cargo build --release -p store --example store_load
# Usage: [ROUNDS=3] [SECONDS_EACH=3] bench/store.sh
set -euo pipefail
cd "$(dirname "$0")/.."
LOAD=${LOAD:-target/release/examples/store_load}
ROUNDS=${ROUNDS:-3}
SECONDS_EACH=${SECONDS_EACH:-3}
here=$(mktemp -d "${BENCH_DIR:-/tmp}/store-bench.XXXXXX")
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
client=http://127.0.0.1:$(free_port) peer=http://127.0.0.1:$(free_port)
etcd --data-dir "$here/etcd" --name bench --listen-client-urls "$client" \
    --advertise-client-urls "$client" --listen-peer-urls "$peer" \
    --initial-advertise-peer-urls "$peer" --initial-cluster "bench=$peer" \
    --quota-backend-bytes 8000000000 >/dev/null 2>&1 &
etcd=$!
trap 'kill "$etcd" 2>/dev/null || true; wait "$etcd" 2>/dev/null || true; rm -rf "$here"' EXIT
address=${client#http://}
for _ in $(seq 200); do (: <"/dev/tcp/${address/:/\/}") 2>/dev/null && break; sleep 0.05; done
sleep 1

etcd --version | head -1
printf 'load average before: %s\n' "$(cut -d' ' -f1-3 /proc/loadavg)"
: >"$here/figures"
for round in $(seq "$ROUNDS"); do
    for what in "write create 1" "write create 32" "write create 64" "write update 1" \
        "write update 32" "write update 64" "watch 100"; do
        for side in store etcd; do
            target=sqlite:$here/store.db
            [ "$side" = etcd ] && target=etcd:$client,$etcd
            # shellcheck disable=SC2086 # words on purpose
            figures=$("$LOAD" "$target" $what "$SECONDS_EACH" 2>&1 | tail -1)
            printf '%s|%s|%s\n' "$what" "$side" "$figures" >>"$here/figures"
            rm -f "$here"/store.db*
        done
    done
done
python3 - "$here/figures" <<'PY'
import collections, statistics, sys

figures = collections.defaultdict(list)
for line in open(sys.argv[1]):
    what, side, numbers = line.strip().split("|")
    figures[what, side].append([float(number) for number in numbers.split()])
median = {key: [statistics.median(column) for column in zip(*rows)] for key, rows in figures.items()}
print(f"{'':16}{'store/s':>10}{'etcd/s':>10}{'ratio':>7}{'store µs':>10}{'etcd µs':>9}{'ratio':>7}"
      f"{'store p99':>11}{'etcd p99':>10}")
for what in dict.fromkeys(what for what, _ in figures):
    ours, theirs = median[what, "store"], median[what, "etcd"]
    late = f"{ours[3]:11.0f}{theirs[3]:10.0f}" if what.startswith("write") else ""
    print(f"{what:16}{ours[0]:10.0f}{theirs[0]:10.0f}{ours[0] / theirs[0]:7.1f}{ours[1]:10.2f}"
          f"{theirs[1]:9.2f}{theirs[1] / ours[1]:7.1f}{late}")
print("µs: CPU time per operation (watch: per event and watcher); p99: latency in µs")
PY
printf 'load average after: %s\n' "$(cut -d' ' -f1-3 /proc/loadavg)"
