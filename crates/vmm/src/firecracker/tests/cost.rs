//! What a start costs beyond the calls that it consists of: the driver beside a jailer that is
//! started by hand and told the same over a bare socket.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::real::{Place, USER, as_shim, programs};
use crate::upper::make_upper;

const ROUNDS: usize = 9;

/// One call of the API, without a library.
fn call(stream: &mut UnixStream, path: &str, body: &Value) {
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "PUT {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(answer.starts_with("HTTP/1.1 204"), "{path}: {answer}");
}

/// A jail on a disk, with the files in it.
fn jail(place: &Place, id: &str) -> (PathBuf, PathBuf) {
    let programs = place.spec.firecracker.clone().unwrap();
    let base = place.dir.path().join(id);
    let program = programs.firecracker.file_name().unwrap();
    let root = base.join(program).join(id).join("root");
    fs::create_dir_all(&root).unwrap();
    for (from, to) in [
        ("guest/vmlinux", "vmlinux"),
        ("guest/initramfs.cpio", "initramfs.cpio"),
        ("image", "image0"),
    ] {
        fs::copy(place.dir.path().join(from), root.join(to)).unwrap();
    }
    (base, root)
}

fn spawn(place: &Place, id: &str, base: &Path) -> Child {
    let programs = place.spec.firecracker.clone().unwrap();
    let user = USER.to_string();
    Command::new(&programs.jailer)
        .args(["--id", id, "--uid", &user, "--gid", &user])
        .arg("--exec-file")
        .arg(&programs.firecracker)
        .arg("--chroot-base-dir")
        .arg(base)
        .arg("--netns")
        .arg(&place.spec.boot.attachment.host_netns)
        .args(["--cgroup-version", "1", "--parent-cgroup"])
        .arg(place.group().relative())
        .args(["--cgroup", "pids.max=64", "--", "--enable-pci"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn calls() -> Vec<(&'static str, Value)> {
    let drive = |id: &str, read_only| {
        json!({ "drive_id": id, "path_on_host": Path::new("/").join(id), "is_root_device": false,
                "is_read_only": read_only })
    };
    vec![
        (
            "/machine-config",
            json!({ "vcpu_count": 1, "mem_size_mib": 128 }),
        ),
        (
            "/boot-source",
            json!({ "kernel_image_path": "/vmlinux", "initrd_path": "/initramfs.cpio",
                    "boot_args": "console=ttyS0" }),
        ),
        ("/drives/image0", drive("image0", true)),
        ("/drives/upper0", drive("upper0", false)),
        (
            "/network-interfaces/eth0",
            json!({ "iface_id": "eth0", "host_dev_name": "m1",
                    "guest_mac": "02:00:00:00:00:01" }),
        ),
        ("/vsock", json!({ "guest_cid": 3, "uds_path": "/v.sock" })),
        ("/entropy", json!({})),
        ("/actions", json!({ "action_type": "InstanceStart" })),
    ]
}

/// From nothing to a guest that runs, with a jail whose files lie there already.
fn bare(place: &Place, round: usize) -> Duration {
    let id = format!("bare-{round}");
    let (base, root) = jail(place, &id);
    let begun = Instant::now();
    let upper = root.join("upper0");
    make_upper(&place.paths(), &upper, place.spec.boot.rootfs_size_bytes).unwrap();
    chown(&upper, Some(USER), Some(USER)).unwrap();
    let mut process = spawn(place, &id, &base);
    let socket = root.join("run/firecracker.socket");
    let mut stream = loop {
        match UnixStream::connect(&socket) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
        assert!(begun.elapsed() < Duration::from_secs(60));
    };
    for (path, body) in &calls() {
        call(&mut stream, path, body);
    }
    let took = begun.elapsed();
    process.kill().unwrap();
    process.wait().unwrap();
    took
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

/// Printed, and held to a bound that only a mistake can pass: the host may be busy.
#[test]
fn a_start_costs_little_more_than_its_calls() {
    let Some(programs) = programs("a_start_costs_little_more_than_its_calls") else {
        return;
    };
    as_shim(move || async move {
        let mut place = Place::new(programs, 3);
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            bare.push(self::bare(&place, round));
            let begun = Instant::now();
            let vm = place.start().await;
            ours.push(begun.elapsed());
            vm.finish(false).await;
        }
        let (ours, bare) = (median(ours), median(bare));
        eprintln!("from nothing to a running guest: {ours:?}; the bare calls: {bare:?}");
        assert!(ours < bare * 3 + Duration::from_millis(500));
    });
}
