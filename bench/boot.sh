#!/usr/bin/env bash
# Time from asking for a machine until it has started, beside the nearest thing that does less:
# `runc run` for class container, a bare QEMU with the same kernel for class emulated.
# Whole processes, medians of RUNS; ratios above 1 mean that Aerostat takes longer.
set -euo pipefail
AEROSTAT=${AEROSTAT:?path of the aerostat binary}
RUNS=${RUNS:-11}
GUEST=${AEROSTAT_GUEST_DIR:-.cache/guest}
here=$(mktemp -d)
export AEROSTAT_DATA_DIR=$here/data AEROSTAT_RUN_DIR=$here/run AEROSTAT_CONFIG=$here/config
export AEROSTAT_GUEST_DIR=$(readlink -f "$GUEST")
printf 'host_number = 3999\napi_listen = "127.0.0.1:0"\nkubernetes_listen = "127.0.0.1:0"\n' >"$AEROSTAT_CONFIG"
trap '"$AEROSTAT" down --grace 0 --purge --yes 2>/dev/null; rm -rf "$here"' EXIT
"$AEROSTAT" up >/dev/null 2>&1
IMAGE=localhost/hello:1

median_ms() { # command…
    local i start times=()
    for i in $(seq "$RUNS"); do
        start=$(date +%s%N)
        "$@" >/dev/null 2>&1
        times+=($((($(date +%s%N) - start) / 10000)))
        "after_$1" >/dev/null 2>&1
    done
    printf '%s\n' "${times[@]}" | sort -n | sed -n "$(((RUNS + 1) / 2))p" | awk '{printf "%.1f", $1 / 100}'
}

machine() { "$AEROSTAT" machine run --isolation "$1" --name bench "$IMAGE"; }
after_machine() { "$AEROSTAT" machine destroy --force bench; sleep 0.3; }

runc_run() { runc run -b "$here/bundle" bench; }
after_runc_run() { runc delete -f bench || true; }

bare_qemu() {
    timeout 60 qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot -M q35,usb=off \
        -bios qboot.rom -accel tcg -cpu max -m 256 -kernel "$AEROSTAT_GUEST_DIR/vmlinux" \
        -initrd "$here/bare.cpio" -serial stdio \
        -append "console=ttyS0 reboot=t panic=-1 quiet tsc=reliable no_timer_check"
}
after_bare_qemu() { :; }

report() { # what, ours, peer's name, peer's
    awk -v w="$1" -v a="$2" -v n="$3" -v b="$4" \
        'BEGIN { printf "%-42s %8.1f ms   %-28s %8.1f ms   ratio %.2f\n", w, a, n, b, a / b }'
}

ours=$(median_ms machine container)
if command -v runc >/dev/null; then
    mkdir -p "$here/bundle/rootfs/bin"
    cp /bin/busybox "$here/bundle/rootfs/bin/true"
    (cd "$here/bundle" && runc spec && sed -i 's/"terminal": true/"terminal": false/; s/"sh"/"true"/' config.json)
    report "machine run, class container" "$ours" "runc run true" "$(median_ms runc_run)"
else
    echo "machine run, class container: $ours ms (no runc here to compare with: apt-get install runc)"
fi

if "$AEROSTAT" doctor -o json 2>/dev/null | tr -d ' \n' | grep -q '"name":"classemulated","verdict":"ok"'; then
    mkdir -p "$here/bare/bin"
    cp /bin/busybox "$here/bare/bin/busybox"
    printf '#!/bin/busybox sh\necho up\n/bin/busybox reboot -f\n' >"$here/bare/init"
    chmod +x "$here/bare/init"
    (cd "$here/bare" && find . | /bin/busybox cpio -o -H newc >"$here/bare.cpio" 2>/dev/null)
    report "machine run, class emulated" "$(median_ms machine emulated)" \
        "bare QEMU, same kernel" "$(median_ms bare_qemu)"
fi

pid=$(sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' "$AEROSTAT_RUN_DIR/endpoints.json")
awk '/VmRSS/ { printf "daemon, idle: %.1f MiB resident\n", $2 / 1024 }' "/proc/$pid/status"
