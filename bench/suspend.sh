#!/usr/bin/env bash
# Suspension of a QEMU machine: how long it takes, and how long until the resumed machine answers:
# its init on the control channel, its kernel on the network, and a process started in it. Beside
# a cold boot of the same machine, and beside QEMU alone: started with the same kernel until its
# monitor answers, nothing booted.
#
# Needs root, qemu-system-x86, erofs-utils, iputils-ping and busybox; build the program first:
#   cargo build --release -p vmm --example suspend_bench
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/.."
PROGRAM=${PROGRAM:-target/release/examples/suspend_bench}
RUNS=${RUNS:-21}
GUEST=${AEROSTAT_GUEST_DIR:-.cache/guest}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/tree"/{bin,etc,proc,sys,dev,tmp,root}
cp /bin/busybox "$work/tree/bin/"
for applet in sh sleep echo; do ln -s busybox "$work/tree/bin/$applet"; done
echo 'root:x:0:0::/root:/bin/sh' >"$work/tree/etc/passwd"
echo 'root:x:0:' >"$work/tree/etc/group"
mkfs.erofs -x1 "$work/image.erofs" "$work/tree" >/dev/null 2>&1

"$PROGRAM" "$GUEST" "$work/image.erofs" "$RUNS" | tee "$work/ours"

bare() {
    echo '{"execute":"qmp_capabilities"}{"execute":"quit"}' |
        qemu-system-x86_64 -nodefaults -no-user-config -display none -machine q35,usb=off \
            -bios qboot.rom -accel tcg -cpu max -m 256 -kernel "$GUEST/vmlinux" \
            -initrd "$GUEST/initramfs.cpio" -S -qmp stdio >/dev/null
}
for _ in $(seq "$RUNS"); do
    start=$(date +%s%N)
    bare
    echo $((($(date +%s%N) - start) / 1000000))
done | sort -n >"$work/bare"
percentile() { sed -n "$(((RUNS * $1 + 99) / 100))p" "$work/bare"; }
printf '%-28s p50 %6d ms   p99 %6d ms   (%d times)\n' \
    "bare QEMU to its monitor" "$(percentile 50)" "$(percentile 99)" "$RUNS"

p50() { sed -n "s/^$1 *p50 *\([0-9]*\) ms.*/\1/p" "$work/ours"; }
awk -v resume="$(p50 'resume to network echo')" -v exec="$(p50 'resume to exec answer')" \
    -v cold="$(p50 'cold boot to exec answer')" \
    -v bare="$(percentile 50)" 'BEGIN {
        printf "resume to exec answer: %.2f of a cold boot\n", exec / cold
        printf "resume to first byte (echo): %.2f times bare QEMU; goal 300 ms: %s\n",
            resume / bare, resume <= 300 ? "met" : "missed"
    }'
