#!/bin/sh
# Which read-only file system should an OCI image become? Measures, on one tree of this machine
# stored as a one-layer OCI image (gzip): conversion, size, reading everything with cold caches,
# and random 4 KiB reads. Prints one line per candidate and the ratios to ours.
#
# Needs root, erofs-utils, squashfs-tools, umoci, python3; build the importer first:
#   cargo build --release -p image --example import_layout
# Usage: bench/read-only-image.sh [directory...]   (default: /usr/bin /usr/share/doc)
set -eu
cd "$(dirname "$0")/.."
importer=${IMPORTER:-target/release/examples/import_layout}
rounds=${ROUNDS:-3}
[ $# -gt 0 ] || set -- /usr/bin /usr/share/doc
work=$(mktemp -d "${TMPDIR:-/var/tmp}/aerostat-bench.XXXXXX")
trap 'umount "$work/mnt" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir "$work/mnt"

tar --numeric-owner -cf "$work/layer.tar" "$@" 2>/dev/null
umoci init --layout "$work/layout" && umoci new --image "$work/layout:1"
umoci raw add-layer --image "$work/layout:1" "$work/layer.tar"
tree_bytes=$(stat -c %s "$work/layer.tar")
files=$(tar -tf "$work/layer.tar" | wc -l)
echo "tree: $files entries, $((tree_bytes / 1000000)) MB as tar"

# Wall and CPU milliseconds of a command, best of the rounds by CPU.
measure() {
    python3 - "$rounds" "$@" <<'PY'
import os, resource, shutil, subprocess, sys, time
rounds, command = int(sys.argv[1]), sys.argv[2:]
best = None
for _ in range(rounds):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.monotonic()
    subprocess.run(["sh", "-c", command[0]], check=True, stdout=subprocess.DEVNULL)
    wall = time.monotonic() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if best is None or cpu < best[1]:
        best = (wall, cpu)
print(f"{best[0] * 1000:.0f} {best[1] * 1000:.0f}")
PY
}

random_reads() {
    python3 - "$work/mnt" <<'PY'
import os, random, sys, time
paths = []
for base, _, names in os.walk(sys.argv[1]):
    for name in names:
        path = os.path.join(base, name)
        if os.path.isfile(path) and not os.path.islink(path) and os.path.getsize(path) > 65536:
            paths.append((path, os.path.getsize(path)))
paths.sort()
random.seed(1)
files = {}
start = time.monotonic()
for _ in range(4000):
    path, size = random.choice(paths)
    if path not in files:
        files[path] = os.open(path, os.O_RDONLY)
        os.posix_fadvise(files[path], 0, 0, os.POSIX_FADV_RANDOM)
    os.pread(files[path], 4096, random.randrange(size // 4096) * 4096)
print(f"{(time.monotonic() - start) / 4000 * 1e6:.0f}")
PY
}

ours=
report() { # name, type, image, wall ms, cpu ms
    bytes=$(stat -c %s "$3")
    read_all() {
        sync; echo 3 >/proc/sys/vm/drop_caches
        mount -t "$2" -o ro,loop "$3" "$work/mnt"
        measure_once "$work/mnt"
        umount "$work/mnt"
    }
    measure_once() { rounds=1 measure "tar -cf - -C $1 . | cat"; }
    all=$(read_all "$@"); all2=$(read_all "$@")
    [ "${all#* }" -le "${all2#* }" ] || all=$all2
    sync; echo 3 >/proc/sys/vm/drop_caches
    mount -t "$2" -o ro,loop "$3" "$work/mnt"
    random=$(random_reads)
    umount "$work/mnt"
    line="$4 $5 $bytes ${all% *} ${all#* } $random"
    [ -n "$ours" ] || ours=$line
    echo "$1 $line $ours" | awk '{
        printf "%-26s convert %6d ms (cpu %6d, %4.1fx)  size %4d MB (%4.2fx)  read all %5d ms (cpu %5d, %4.1fx)  random 4K %4d us (%4.1fx)\n",
            $1, $2, $3, $3/$9, $4/1e6, $4/$10, $5, $6, $6/$12, $7, $7/$13 }'
}

convert() { # name, type, image, command
    set -- "$1" "$2" "$3" $(measure "rm -rf $3 $work/bundle; $4")
    report "$@"
}

image=$work/candidate
unpack="umoci unpack --image $work/layout:1 $work/bundle"
convert ours erofs "$image" \
    "rm -rf $work/store; $importer $work/store $work/layout localhost/x:1 && ln \$(ls $work/store/rootfs/*) $image"
convert umoci+mkfs.erofs erofs "$image" "$unpack && mkfs.erofs --quiet -T0 $image $work/bundle/rootfs"
convert umoci+mkfs.erofs-lz4 erofs "$image" "$unpack && mkfs.erofs --quiet -T0 -zlz4hc $image $work/bundle/rootfs"
gunzip="gzip -dc \$(ls -S $work/layout/blobs/sha256/* | head -1)"
for compression in zstd lz4 gzip; do
    convert "mksquashfs-tar-$compression" squashfs "$image" \
        "$gunzip | mksquashfs - $image -tar -quiet -no-progress -comp $compression"
done
convert mksquashfs-tar-plain squashfs "$image" \
    "$gunzip | mksquashfs - $image -tar -quiet -no-progress -noI -noD -noF -noX"
