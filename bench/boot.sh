#!/usr/bin/env bash
# Time from a request to the Machines API until the machine's process runs, beside the nearest thing
# that does less: libcontainer alone and `runc run` for class container, a bare QEMU with the same
# kernel for class emulated. p50 and p99 of RUNS; ratios above 1 mean that Aerostat takes longer.
# Ours is one request to create and one to wait, on a Unix socket, with the image at hand; theirs are
# whole processes with a root directory that is already there.
#
# Build first: cargo build --release -p aerostat && cargo build --release -p vmm --example bare-container
set -euo pipefail
cd "$(dirname "$0")/.."
AEROSTAT=${AEROSTAT:-$PWD/target/release/aerostat}
BARE=${BARE:-$PWD/target/release/examples/bare-container}
RUNS=${RUNS:-30}
GUEST=${AEROSTAT_GUEST_DIR:-.cache/guest}
# Another kernel than the one beside the initial RAM file system, such as `aerostat kernel path` prints.
KERNEL=$(readlink -f "${KERNEL:-$GUEST/vmlinux}")
here=$(mktemp -d)
# Where a host has it, in memory.
run=$(mktemp -d /run/aerostat-bench.XXXXXX)
export AEROSTAT_DATA_DIR=$here/data AEROSTAT_RUN_DIR=$run AEROSTAT_CONFIG=$here/config
export AEROSTAT_GUEST_DIR=$(readlink -f "$GUEST")
cat >"$AEROSTAT_CONFIG" <<TOML
host_number = 3999
api_listen = "127.0.0.1:0"
kubernetes_listen = "127.0.0.1:0"
mesh_listen = "[::]:0"
gateway_listen = "[::]:0"
join_listen = "[::]:0"
kernel = "$KERNEL"
TOML
trap '"$AEROSTAT" down --grace 0 --purge --yes >/dev/null 2>&1; rm -rf "$here" "$run"' EXIT
"$AEROSTAT" up >/dev/null 2>&1

mkdir -p "$here/bundle/rootfs/bin" "$here/bundle/rootfs/proc" "$here/bundle/rootfs/dev" "$here/bundle/rootfs/sys"
cp /bin/busybox "$here/bundle/rootfs/bin/true"
if command -v runc >/dev/null; then
    (cd "$here/bundle" && runc spec && sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"true"/' config.json)
fi
mkdir -p "$here/bare/bin"
cp /bin/busybox "$here/bare/bin/busybox"
printf '#!/bin/busybox sh\necho up\n/bin/busybox reboot -f\n' >"$here/bare/init"
chmod +x "$here/bare/init"
(cd "$here/bare" && find . | /bin/busybox cpio -o -H newc >"$here/bare.cpio" 2>/dev/null)

emulated=0
"$AEROSTAT" doctor -o json 2>/dev/null | tr -d ' \n' | grep -q '"name":"classemulated","verdict":"ok"' && emulated=1

RUNS=$RUNS BARE=$BARE HERE=$here EMULATED=$emulated KERNEL=$KERNEL python3 - <<'PY'
import http.client, json, math, os, shutil, socket, subprocess, time

here, runs, bare = os.environ["HERE"], int(os.environ["RUNS"]), os.environ["BARE"]

class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ["AEROSTAT_RUN_DIR"] + "/api.sock")

api = Unix("localhost")

def call(method, path, body=None):
    api.request(method, "/v1" + path, body and json.dumps(body), {"content-type": "application/json"})
    answer = api.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status} {text.decode()}")
    return json.loads(text or b"{}")

def machine(isolation):
    config = {"image": "localhost/hello:1", "isolation": isolation}
    start = time.monotonic()
    machine = call("POST", "/apps/bench/machines", {"config": config})
    wait = f"/apps/bench/machines/{machine['id']}/wait?state=started&timeout=60"
    call("GET", wait)
    took = time.monotonic() - start
    call("DELETE", f"/apps/bench/machines/{machine['id']}?force=true")
    call("GET", f"/apps/bench/machines/{machine['id']}/wait?state=destroyed&timeout=60")
    return took

def process(*command):
    def run():
        start = time.monotonic()
        subprocess.run(command, check=True, cwd=here + "/bundle", stdout=subprocess.DEVNULL,
                       stdin=subprocess.DEVNULL)
        return time.monotonic() - start
    return run

def qemu():
    start = time.monotonic()
    vm = subprocess.Popen(
        ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
         "-M", "q35,usb=off", "-bios", "qboot.rom", "-accel", "tcg", "-cpu", "max", "-m", "256",
         "-kernel", os.environ["KERNEL"], "-initrd", here + "/bare.cpio", "-serial", "stdio", "-append",
         "console=ttyS0 reboot=t panic=-1 quiet tsc=reliable no_timer_check"],
        stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    for line in vm.stdout:
        if b"up" in line:
            break
    took = time.monotonic() - start
    vm.kill()
    vm.wait()
    return took

def measure(what, times):
    times = sorted(times)
    at = lambda share: times[min(len(times) - 1, math.ceil(len(times) * share) - 1)] * 1000
    return what, at(0.5), at(0.99)

def report(ours, peers):
    print(f"{ours[0]:34} p50 {ours[1]:8.1f} ms  p99 {ours[2]:8.1f} ms")
    for peer in peers:
        print(f"  {peer[0]:32} p50 {peer[1]:8.1f} ms  p99 {peer[2]:8.1f} ms"
              f"  ratio {ours[1] / peer[1]:.2f}  added {ours[1] - peer[1]:+.1f} ms")

call("POST", "/apps", {"name": "bench", "org_slug": "personal"})
machine("container")
peers = {"machine": lambda: machine("container")}
if os.path.exists(bare):
    peers["libcontainer alone"] = process(bare, "bench")
if shutil.which("runc"):
    peers["runc run true"] = process("runc", "run", "bench")
# In turns, so that all meet the same moods of this machine.
times = {name: [] for name in peers}
for _ in range(runs):
    for name, run in peers.items():
        times[name].append(run())
ours = measure("machine, class container", times.pop("machine"))
report(ours, [measure(name, all) for name, all in times.items()])
if os.environ["EMULATED"] == "1":
    few = max(3, runs // 5)
    times = [(machine("emulated"), qemu()) for _ in range(few)]
    report(measure("machine, class emulated", [a for a, _ in times]),
           [measure("bare QEMU, same kernel", [b for _, b in times])])
with open(os.environ["AEROSTAT_RUN_DIR"] + "/endpoints.json") as file:
    pid = json.load(file)["pid"]
with open(f"/proc/{pid}/status") as file:
    resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
print(f"daemon, idle: {resident / 1024:.1f} MiB resident")
PY
