#!/usr/bin/env bash
# What machines cost that only stand in the ledger: memory of the daemon, time to list them, time to
# start. Beside the same daemon without any; ratios above 1 mean that the machines cost something.
#
# Needs root, python3. Usage: AEROSTAT=target/release/aerostat [MACHINES=1000] [RUNS=9] bench/ledger.sh
set -euo pipefail
AEROSTAT=${AEROSTAT:?path of the aerostat binary}
MACHINES=${MACHINES:-1000}
RUNS=${RUNS:-9}
here=$(mktemp -d)
export AEROSTAT_DATA_DIR=$here/data AEROSTAT_RUN_DIR=$here/run AEROSTAT_CONFIG=$here/config
export AEROSTAT_GUEST_DIR=${AEROSTAT_GUEST_DIR:-$PWD/.cache/guest}
printf 'host_number = 3998\napi_listen = "127.0.0.1:0"\nkubernetes_listen = "127.0.0.1:0"\nmesh_listen = "127.0.0.1:0"\ngateway_listen = "127.0.0.1:0"\njoin_listen = "127.0.0.1:0"\n' >"$AEROSTAT_CONFIG"
trap '"$AEROSTAT" down --grace 0 --purge --yes >/dev/null 2>&1; rm -rf "$here"' EXIT

cat >"$here/ask.py" <<'PY'
import http.client, json, os, statistics, sys, time

home = os.environ["AEROSTAT_RUN_DIR"]
endpoints = json.load(open(home + "/endpoints.json"))
token = open(endpoints["token_file"]).read().strip()
connection = http.client.HTTPConnection(endpoints["api"])

def ask(method, path, body=None):
    headers = {"authorization": "Bearer " + token, "content-type": "application/json"}
    connection.request(method, "/v1" + path, json.dumps(body) if body is not None else None, headers)
    answer = connection.getresponse()
    data = answer.read()
    if answer.status >= 300:
        sys.exit(f"{method} {path}: {answer.status} {data[:300]}")
    return data

what = sys.argv[1]
if what == "fill":
    ask("POST", "/apps", {"app_name": "bench", "org_slug": "personal"})
    config = {"image": "localhost/hello:1", "env": {"A": "b"}, "metadata": {"k": "v"}, "restart": {"policy": "no"}}
    for number in range(int(sys.argv[2])):
        body = {"name": f"m{number}", "config": config, "skip_launch": True}
        machine = json.loads(ask("POST", "/apps/bench/machines", body))
        ask("POST", f"/apps/bench/machines/{machine['id']}/stop", {})
elif what == "list":
    times = []
    for _ in range(int(sys.argv[2])):
        begin = time.perf_counter()
        data = ask("GET", "/apps/bench/machines")
        times.append((time.perf_counter() - begin) * 1000)
    machines = json.loads(data)
    states = {machine["state"] for machine in machines}
    print(f"{statistics.median(times):.2f} {max(times):.2f} {len(data)} {len(machines)} {','.join(states)}")
elif what == "rss":
    status = open(f"/proc/{endpoints['pid']}/status").read()
    print(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
PY
ask() { python3 "$here/ask.py" "$@"; }

kill_daemon() {
    local pid
    pid=$(python3 -c 'import json, os; print(json.load(open(os.environ["AEROSTAT_RUN_DIR"] + "/endpoints.json"))["pid"])')
    kill -9 "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
}

start_ms() { # median
    local i begin times=()
    for i in $(seq "$RUNS"); do
        kill_daemon
        begin=$(date +%s%N)
        "$AEROSTAT" up >/dev/null 2>&1
        times+=($((($(date +%s%N) - begin) / 1000000)))
    done
    printf '%s\n' "${times[@]}" | sort -n | sed -n "$(((RUNS + 1) / 2))p"
}

"$AEROSTAT" up >/dev/null 2>&1
empty_start=$(start_ms)
sleep 1
empty_rss=$(ask rss)
begin=$(date +%s%N)
ask fill "$MACHINES"
filled=$((($(date +%s%N) - begin) / 1000000))
full_start=$(start_ms)
sleep 1
full_rss=$(ask rss)
read -r list_ms list_max bytes count states <<<"$(ask list 50)"
listed_rss=$(ask rss)
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
echo "machines in the ledger     $count, all $states; made in $filled ms ($(ratio "$filled" "$count") ms each, recorded twice)"
echo "resident memory            $empty_rss KiB without, $full_rss KiB with, $listed_rss KiB after 50 lists; ratio $(ratio "$full_rss" "$empty_rss"), $(ratio $((full_rss - empty_rss)) "$count") KiB each"
echo "list of all                $list_ms ms median, $list_max ms longest; $bytes bytes"
echo "up after kill -9           $empty_start ms without, $full_start ms with; ratio $(ratio "$full_start" "$empty_start")"
