#!/usr/bin/env bash
# Time from a request to the Machines API until the machine's process runs, beside the nearest thing
# that does less: libcontainer alone and `runc run` for class container, a bare QEMU with the same
# kernel for class emulated. p50 and p99 of RUNS; ratios above 1 mean that Aerostat takes longer.
# Ours is one request to create, on a Unix socket, with the image at hand. Theirs begin with a program
# to start and a root directory that is there, and end when the process has said a word. For class
# emulated the nearest peer is QEMU with our own machine's arguments, disks and guest, started and
# spoken to by a program of a hundred lines; a busybox that says a word is what the kernel alone takes.
#
# Build first:
#   cargo build --release -p aerostat -p vmm --bins --example bare-container --example bare-qemu
set -euo pipefail
cd "$(dirname "$0")/.."
AEROSTAT=${AEROSTAT:-$PWD/target/release/aerostat}
EXAMPLES=${EXAMPLES:-$PWD/target/release/examples}
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
cp /bin/busybox "$here/bundle/rootfs/bin/echo"
if command -v runc >/dev/null; then
    (cd "$here/bundle" && runc spec && sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"echo", "up"/' config.json)
fi
mkdir -p "$here/bare/bin"
cp /bin/busybox "$here/bare/bin/busybox"
printf '#!/bin/busybox sh\necho up\n/bin/busybox reboot -f\n' >"$here/bare/init"
chmod +x "$here/bare/init"
(cd "$here/bare" && find . | /bin/busybox cpio -o -H newc >"$here/bare.cpio" 2>/dev/null)

emulated=0
"$AEROSTAT" doctor -o json 2>/dev/null | tr -d ' \n' | grep -q '"name":"classemulated","verdict":"ok"' && emulated=1

RUNS=$RUNS EXAMPLES=$EXAMPLES HERE=$here EMULATED=$emulated KERNEL=$KERNEL python3 - <<'PY'
import datetime, glob, http.client, json, math, os, re, shutil, socket, subprocess, time

here, run_dir, runs = os.environ["HERE"], os.environ["AEROSTAT_RUN_DIR"], int(os.environ["RUNS"])
examples = os.environ["EXAMPLES"]

class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(run_dir + "/api.sock")

api = Unix("localhost")

def call(method, path, body=None):
    api.request(method, "/v1" + path, body and json.dumps(body), {"content-type": "application/json"})
    answer = api.getresponse()
    text = answer.read()
    if answer.status >= 300:
        raise SystemExit(f"{method} {path}: {answer.status} {text.decode()}")
    return json.loads(text or b"{}")

def create(isolation):
    config = {"image": "localhost/hello:1", "isolation": isolation}
    machine = call("POST", "/apps/bench/machines", {"config": config})
    path = f"/apps/bench/machines/{machine['id']}"
    call("GET", path + "/wait?state=started&timeout=60")
    while call("GET", path)["containers"][0]["state"] != "started":
        time.sleep(0.0005)
    return machine["id"], path

def destroy(path):
    call("DELETE", path + "?force=true")
    call("GET", path + "/wait?state=destroyed&timeout=60")
    # What a start leaves for later is not to be a peer's trouble.
    time.sleep(0.15)

def container():
    start = time.monotonic()
    _, path = create("container")
    took = time.monotonic() - start
    destroy(path)
    return took

def process(*command):
    def run():
        start = time.monotonic()
        child = subprocess.Popen(command, cwd=here + "/bundle", stdout=subprocess.PIPE,
                                 stdin=subprocess.DEVNULL)
        assert child.stdout.readline() == b"up\n", command
        took = time.monotonic() - start
        assert child.wait() == 0, command
        return took
    return run

# What the shim of a machine's only boot has written down.
def shim(machine, name):
    [path] = glob.glob(f"{run_dir}/machines/{machine}/*/{name}")
    with open(path) as file:
        return file.read()

# Until QEMU runs, the guest speaks and the process runs, by the shim's own clock.
def emulated():
    start = time.time()
    machine, path = create("emulated")
    log = shim(machine, "shim.log")
    def at(words):
        [when] = re.findall(rf"^(\S+)Z .*{words}", log, re.M)
        return datetime.datetime.fromisoformat(when + "+00:00").timestamp() - start
    times = at("QEMU started"), at("guest is there"), at("container started")
    destroy(path)
    return times

# The command line of a machine of ours, with files in place of what the shim hands over.
def same_qemu():
    machine, path = create("emulated")
    [pid] = re.findall(r"QEMU started pid=(\d+)", shim(machine, "shim.log"))
    with open(f"/proc/{pid}/cmdline") as file:
        argv = file.read().split("\0")[1:-1]
    spec = json.loads(shim(machine, "spec.json"))["boot"]
    image = here + "/image"
    shutil.copy(spec["images"][0]["rootfs"], image)
    destroy(path)
    [container] = spec["spec"]["containers"]
    container["image_disk"], container["upper_disk"] = [
        re.search("serial=([^,]+)", device)[1] for device in argv if device.startswith("virtio-blk")]
    control, bare = here + "/control.sock", []
    for flag, value in zip(argv[:3] + argv[3::2], [None] * 3 + argv[4::2]):
        if flag in ("-add-fd", "-mon"):
            continue
        if flag == "-kernel":
            value = os.environ["KERNEL"]
        elif flag == "-initrd":
            value = os.environ["AEROSTAT_GUEST_DIR"] + "/initramfs.cpio"
        elif flag == "-chardev":
            name = re.search("id=([^,]+)", value)[1]
            value = f"null,id={name}"
            if name == "control":
                value = f"socket,id=control,path={control},server=on,wait=off"
        elif flag == "-netdev":
            value = "user,id=eth0,restrict=on"
        elif flag == "-blockdev":
            value = value.replace("/dev/fdset/0", image).replace("/dev/fdset/1", here + "/upper")
        bare += [flag] + ([value] if value is not None else [])
    with open(here + "/bare.json", "w") as file:
        json.dump({"argv": bare, "control": control, "spec": spec["spec"]}, file)
    [template] = glob.glob(f"{here}/data/templates/ext4-{spec['rootfs_size_bytes']}")
    def run():
        subprocess.run(["cp", "--sparse=always", template, here + "/upper"], check=True)
        told = subprocess.run([examples + "/bare-qemu", here + "/bare.json"], check=True,
                              stdout=subprocess.PIPE).stdout
        os.unlink(control)
        return [float(word) / 1000 for word in told.split()]
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
container()
peers = {"machine": container}
if os.path.exists(examples + "/bare-container"):
    peers["libcontainer alone"] = process(examples + "/bare-container", "bench")
if shutil.which("runc"):
    peers["runc run"] = process("runc", "run", "bench")
# In turns, so that all meet the same moods of this machine.
times = {name: [] for name in peers}
for _ in range(runs):
    for name, run in peers.items():
        times[name].append(run())
ours = measure("machine, class container", times.pop("machine"))
report(ours, [measure(name, all) for name, all in times.items()])
if os.environ["EMULATED"] == "1":
    same = same_qemu()
    times = [(emulated(), same(), qemu()) for _ in range(max(3, runs // 5))]
    for point, what in enumerate(["QEMU runs", "the guest speaks", "the process runs"]):
        peers = [measure("same QEMU, bare", [bare[point] for _, bare, _ in times])]
        if point == 2:
            peers.append(measure("busybox on the same kernel", [least for _, _, least in times]))
        report(measure(f"class emulated: {what}", [ours[point] for ours, _, _ in times]), peers)
with open(run_dir + "/endpoints.json") as file:
    pid = json.load(file)["pid"]
with open(f"/proc/{pid}/status") as file:
    resident = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
print(f"daemon, idle: {resident / 1024:.1f} MiB resident")
PY
