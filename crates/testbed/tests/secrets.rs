//! A secret on a real host: a container has it, and it is nowhere else. What is looked through is
//! everything that the host keeps, logs, answers and runs.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use testbed::{Host, succeed};

const IMAGE: &str = "localhost/hello:1";

/// Values that occur nowhere by chance.
const CANARIES: [&str; 2] = ["canary-9f27c1-of-stdin", "canary-5b80e4-of-a-file"];

#[test]
fn a_secret_is_in_its_machine_and_nowhere_else() {
    let host = Host::new();
    host.configure("rootfs_mib = 32");
    host.up();
    succeed(&mut host.aerostat(&["app", "create", "vault"]));
    give(
        &host,
        &["secret", "set", "-a", "vault", "DB_URL=-"],
        CANARIES[0],
    );
    let file = host.folder().join("one.env");
    fs::write(&file, format!("API_KEY='{}'\n", CANARIES[1])).unwrap();
    let path = file.to_str().unwrap();
    succeed(&mut host.aerostat(&["secret", "set", "-a", "vault", "--from-env-file", path]));
    fs::remove_file(&file).unwrap();

    let run = [
        "machine",
        "run",
        "-a",
        "vault",
        "--name",
        "safe",
        "--isolation",
        "container",
        IMAGE,
        "sleep",
        "1000",
    ];
    succeed(&mut host.aerostat(&run));
    let inside = succeed(&mut host.aerostat(&[
        "machine",
        "exec",
        "vault/safe",
        "--",
        "/bin/sh",
        "-c",
        "tr '\\0' '\\n' < /proc/1/environ",
    ]));
    for canary in CANARIES {
        assert!(inside.contains(canary), "the machine has it: {inside}");
    }
    nowhere_else(&host);
    // A new key, and after it a boot that still has them.
    succeed(&mut host.aerostat(&["secret", "rotate-key"]));
    succeed(&mut host.aerostat(&["machine", "restart", "vault/safe"]));
    nowhere_else(&host);
    host.kill_daemon();
    host.up();
    nowhere_else(&host);
    host.down();
    in_files(host.folder(), &|_| false);
}

fn give(host: &Host, words: &[&str], input: &str) {
    use std::io::Write as _;
    let mut child = host
        .aerostat(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success(), "{words:?}");
}

fn nowhere_else(host: &Host) {
    for words in [
        ["secret", "list", "-a", "vault", "-o", "json"].as_slice(),
        &["machine", "list", "-a", "vault", "-o", "json"],
        &["machine", "events", "vault/safe", "-o", "json"],
        &["machine", "status", "vault/safe", "-o", "json"],
        &["machine", "logs", "vault/safe"],
    ] {
        let shown = succeed(&mut host.aerostat(words));
        assert!(!holds(shown.as_bytes()), "{words:?} shows it");
    }
    // The specification of the boot that runs, and what the runtime makes of it, are in memory and
    // root's alone.
    let run = host.folder().join("run");
    in_files(host.folder(), &|path| {
        path.starts_with(&run) && is_private(path, &run)
    });
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let folder = process.path();
        let arguments = fs::read(folder.join("cmdline")).unwrap_or_default();
        assert!(
            !holds(&arguments),
            "{} has it as an argument",
            folder.display()
        );
        let program = fs::read_link(folder.join("exe")).unwrap_or_default();
        let environment = fs::read(folder.join("environ")).unwrap_or_default();
        let ours = program.ends_with("aerostat");
        assert!(
            !(ours && holds(&environment)),
            "{}: environment",
            folder.display()
        );
    }
}

/// Whether nobody but its owner comes to `path`, by one of the folders on the way or by itself.
fn is_private(path: &Path, top: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    let closed = |path: &Path| {
        let mode = fs::metadata(path).map(|meta| meta.permissions().mode());
        mode.is_ok_and(|mode| mode & 0o077 == 0)
    };
    let below = path.ancestors().take_while(|folder| *folder != top);
    below.into_iter().any(closed)
}

fn in_files(folder: &Path, may: &dyn Fn(&Path) -> bool) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        // A root filesystem is another machine's view, and /proc in it is not a file of this one.
        if kind.is_dir() && !path.ends_with("rootfs") && !path.ends_with("root") {
            in_files(&path, may);
        } else if kind.is_file() {
            let found = holds(&fs::read(&path).unwrap_or_default());
            assert!(!found || may(&path), "{} holds it", path.display());
        }
    }
}

fn holds(bytes: &[u8]) -> bool {
    // Disks are looked through too.
    let mut canaries = CANARIES.iter().map(|canary| canary.as_bytes());
    canaries.any(|canary| memchr::memmem::find(bytes, canary).is_some())
}
