//! A snapshot of a volume that a machine writes to, on a disk that can share blocks: the file system
//! stands still for that moment, so that nothing of it has to be repaired.

use std::path::Path;
use std::process::Command;

use testbed::{Host, skip, succeed};

const IMAGE: &str = "localhost/hello:1";
const TEST: &str = "a_volume_in_use_stands_still_for_its_snapshot";

/// XFS on a file, where a host keeps its data.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(file: &Path, at: &'a Path) -> Result<Self, String> {
        let image = std::fs::File::create(file).map_err(|error| error.to_string())?;
        image.set_len(4 << 30).map_err(|error| error.to_string())?;
        std::fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let mut make = Command::new("mkfs.xfs");
        let mut mount = Command::new("mount");
        for command in [
            make.args(["-q", "-mreflink=1"])
                .arg(file)
                .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin"),
            mount.args(["-o", "loop"]).arg(file).arg(at),
        ] {
            let done = command
                .status()
                .map_err(|error| format!("{command:?}: {error}"))?;
            if !done.success() {
                return Err(format!("{command:?}: {done}"));
            }
        }
        Ok(Self(at))
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_volume_in_use_stands_still_for_its_snapshot() {
    let host = Host::new();
    let data = host.folder().join("data");
    let disk = match Disk::mount(&host.folder().join("xfs"), &data) {
        Ok(disk) => disk,
        Err(why) => return skip(TEST, &why),
    };
    host.up();
    for class in ["container", "emulated"] {
        let doctor = host.aerostat(&["doctor", "-o", "json"]).output().unwrap();
        let checks: Vec<serde_json::Value> = serde_json::from_slice(&doctor.stdout).unwrap();
        let name = format!("class {class}");
        let is_offered =
            |check: &serde_json::Value| check["name"] == name && check["verdict"] == "ok";
        if !checks.iter().any(is_offered) {
            skip(TEST, &format!("{name} is not offered here"));
            continue;
        }
        snapshot_in_use(&host, class, &data);
    }
    host.down();
    drop(disk);
}

fn snapshot_in_use(host: &Host, class: &str, data: &Path) {
    let volume = format!("{class}-data:/data");
    let run = [
        "machine", "run", "--name", class, "--class", class, "-v", &volume,
    ];
    let run = run.into_iter().chain([IMAGE, "sleep", "100000"]);
    succeed(&mut host.aerostat(&run.collect::<Vec<_>>()));
    let sh = |script: &str| {
        let words = ["machine", "exec", class, "--", "sh", "-c", script];
        succeed(&mut host.aerostat(&words)).trim().to_owned()
    };
    // Nothing is synced: it is the freeze that writes it down.
    sh(
        "(while :; do echo line >>/data/log; done) </dev/null >/dev/null 2>&1 & \
        echo mark >/data/mark",
    );
    let name = format!("{class}-data");
    let take = ["volume", "snapshot", "create", &name, "-a", "default"];
    let snapshot = host.json(&take).unwrap();
    assert_eq!(snapshot["exact"], true, "{snapshot}");
    let file = data
        .join("volumes")
        .join(snapshot["id"].as_str().unwrap())
        .join("disk.ext4");
    let about = succeed(Command::new("/sbin/dumpe2fs").arg("-h").arg(&file));
    assert!(!about.contains("needs_recovery"), "{about}");
    succeed(Command::new("/sbin/e2fsck").arg("-fn").arg(&file));
    let debugfs = ["-R", "cat /mark"];
    let mark = succeed(Command::new("/sbin/debugfs").args(debugfs).arg(&file));
    assert_eq!(mark, "mark\n");
    // It goes on.
    let lines = || sh("wc -l </data/log").parse::<u64>().unwrap();
    let before = lines();
    testbed::eventually("more lines", || match lines() {
        now if now > before => Ok(()),
        now => Err(format!("{now} lines")),
    });
    succeed(&mut host.aerostat(&["machine", "destroy", "--force", "--yes", class]));
}
