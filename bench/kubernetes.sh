#!/usr/bin/env bash
# The Kubernetes API server alone: start to ready, creates over TLS at 1, 16 and 64 clients, a
# thousand watchers, memory, and CPU time of each operation; then the start with what was created.
#
# With PEER, PEER_PID, PEER_CA, PEER_CERT and PEER_KEY (an address host:port, its process, and PEM
# files of an administrator) another API server gets the same load. A genuine kube-apiserver 1.36
# with etcd, measured on a machine of this class: 348, 738 and 1274 creates/s, ready after 2.7 s,
# 283 MiB.
#
# Build first: cargo build --release -p kube --example api_server --example api_load
set -euo pipefail
cd "$(dirname "$0")/.."
EXAMPLES=${EXAMPLES:-target/release/examples}
SECONDS_EACH=${SECONDS_EACH:-5} WATCHERS=${WATCHERS:-1000}
here=$(mktemp -d "${BENCH_DIR:-/tmp}/kubernetes-bench.XXXXXX")
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
trap 'kill "$server" 2>/dev/null; wait "$server" 2>/dev/null; rm -rf "$here"' EXIT
ulimit -n 8192

start() {
    local begin end
    begin=$(date +%s%N)
    "$EXAMPLES/api_server" "$here" "$port" 2>>"$here/log" &
    server=$!
    until curl -sk "https://127.0.0.1:$port/readyz" | grep -q ok; do sleep 0.002; done
    end=$(date +%s%N)
    echo "ready after $(((end - begin) / 1000000)) ms with $1 objects, $(awk '/VmRSS/ {printf "%.1f MiB", $2 / 1024}' "/proc/$server/status") resident"
}

printf 'load average before: %s\n' "$(cut -d' ' -f1-3 /proc/loadavg)"
start no
"$EXAMPLES/api_load" "127.0.0.1:$port" "$here/ca.crt" "$here/admin.crt" "$here/admin.key" "$server" "$SECONDS_EACH" "$WATCHERS"
begin=$(awk '{print $14 + $15}' "/proc/$server/stat"); sleep 5
echo "idle: $((($(awk '{print $14 + $15}' "/proc/$server/stat") - begin) * 2)) ms of CPU in 10 s"
kill "$server"; wait "$server" 2>/dev/null || true
start "these"
if [ -n "${PEER:-}" ]; then
    echo "the peer at $PEER:"
    "$EXAMPLES/api_load" "$PEER" "$PEER_CA" "$PEER_CERT" "$PEER_KEY" "$PEER_PID" "$SECONDS_EACH" "$WATCHERS"
fi
