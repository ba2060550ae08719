//! The OCI runtime specification of a container, as Docker would write it by default, without
//! `CAP_MKNOD` (device rules cannot be set everywhere). The seccomp filter is not part of it: see
//! `seccomp.rs`.
//!
//! `no_new_privileges` is off for root, as with Docker, so that what drops privileges can raise
//! them again; a process of another user gets none that it did not begin with.

use std::path::Path;

use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};
use types::api::TerminalSize;

/// Docker's default set without `CAP_MKNOD`.
const CAPABILITIES: [&str; 13] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];
/// Needed to install the filter, and given back then.
const FILTER_CAPABILITY: &str = "CAP_SYS_ADMIN";
const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY_PATHS: [&str; 5] = [
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
];
const SHM_OPTIONS: [&str; 5] = ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"];

/// What systemd gives to services.
const FILES_MAX: u64 = 524_288;

/// Who and what runs in a container.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Process<'a> {
    pub(super) command: &'a [String],
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    pub(super) working_dir: &'a str,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) tty: bool,
    pub(super) size: Option<TerminalSize>,
}

/// What stands around the process.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Container<'a> {
    pub(super) root: &'a Path,
    pub(super) hostname: &'a str,
    pub(super) netns: &'a Path,
    /// From the root of the trees of control groups.
    pub(super) group: &'a Path,
    /// What is bound to /dev/shm instead of memory of its own.
    pub(super) shared_memory: Option<&'a Path>,
    /// Whether the group has been made, with the devices that may be used.
    pub(super) is_limited: bool,
}

impl Process<'_> {
    pub(super) fn to_json(&self) -> Value {
        let empty: [&str; 0] = [];
        let is_root = self.uid == 0;
        let mut bounding = CAPABILITIES.to_vec();
        if is_root {
            bounding.push(FILTER_CAPABILITY);
        }
        // A process of another user than root has none.
        let held = if is_root { &bounding[..] } else { &empty[..] };
        // Raising our own limit takes a capability that not every root has.
        let files = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(_, hard)| hard);
        let files = files.min(FILES_MAX);
        let mut process = json!({
            "terminal": self.tty,
            "user": {
                "uid": self.uid,
                "gid": self.gid,
                "additionalGids": self.groups,
                "umask": 0o022,
            },
            "args": self.command,
            "env": self.env,
            "cwd": self.working_dir,
            "capabilities": {
                "bounding": bounding,
                "effective": held,
                "permitted": held,
                "inheritable": empty,
                "ambient": empty,
            },
            "rlimits": [{ "type": "RLIMIT_NOFILE", "soft": files.min(1024), "hard": files }],
            "noNewPrivileges": !is_root,
            // That of the shim, which this would inherit, is another.
            "oomScoreAdj": 0,
        });
        if let Some(size) = self.size {
            process["consoleSize"] = json!({ "height": size.height, "width": size.width });
        }
        process
    }
}

impl Container<'_> {
    /// `config.json`.
    pub(super) fn to_json(&self, process: &Process) -> Value {
        // Limits are those of the machine, set on the parent group.
        let resources = match self.is_limited {
            true => Value::Null,
            false => json!({ "devices": [{ "allow": false, "access": "rwm" }] }),
        };
        json!({
            "ociVersion": "1.0.2",
            "process": process.to_json(),
            "root": { "path": self.root, "readonly": false },
            "hostname": self.hostname,
            "mounts": mounts(self.shared_memory),
            "linux": {
                "namespaces": [
                    { "type": "pid" },
                    { "type": "ipc" },
                    { "type": "uts" },
                    { "type": "mount" },
                    { "type": "network", "path": self.netns },
                ],
                "cgroupsPath": Path::new("/").join(self.group),
                "resources": resources,
                "maskedPaths": MASKED_PATHS,
                "readonlyPaths": READ_ONLY_PATHS,
            },
        })
    }
}

fn mounts(shared_memory: Option<&Path>) -> Value {
    let mount = |destination: &str, kind: &str, options: &[&str]| {
        json!({
            "destination": destination,
            "type": kind,
            "source": kind,
            "options": options,
        })
    };
    json!([
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount(
            "/dev",
            "tmpfs",
            &["nosuid", "strictatime", "mode=755", "size=65536k"]
        ),
        mount(
            "/dev/pts",
            "devpts",
            &[
                "nosuid",
                "noexec",
                "newinstance",
                "ptmxmode=0666",
                "mode=0620",
                "gid=5"
            ],
        ),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        match shared_memory {
            None => mount("/dev/shm", "tmpfs", &SHM_OPTIONS),
            Some(path) => json!({
                "destination": "/dev/shm",
                "type": "bind",
                "source": path,
                "options": ["bind", "nosuid", "nodev"],
            }),
        },
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use libcontainer::oci_spec::runtime::Spec;

    fn config(uid: u32) -> Value {
        let command = ["sh".to_owned()];
        let process = Process {
            command: &command,
            env: vec!["A=b".into()],
            working_dir: "/",
            uid,
            gid: uid,
            groups: vec![7],
            tty: true,
            size: Some(TerminalSize {
                width: 80,
                height: 24,
            }),
        };
        let container = Container {
            root: Path::new("/root"),
            hostname: "web",
            netns: Path::new("/run/netns/m"),
            group: Path::new("aerostat-0002/m.1/c-web"),
            shared_memory: None,
            is_limited: false,
        };
        container.to_json(&process)
    }

    #[test]
    fn libcontainer_understands_the_specification() {
        let spec: Spec = serde_json::from_value(config(0)).unwrap();
        let process = spec.process().as_ref().unwrap();
        assert_eq!(process.terminal(), Some(true));
        assert_eq!(process.user().additional_gids(), &Some(vec![7]));
        let linux = spec.linux().as_ref().unwrap();
        let group = linux.cgroups_path().as_ref().unwrap();
        assert_eq!(group, Path::new("/aerostat-0002/m.1/c-web"));
        assert_eq!(linux.namespaces().as_ref().unwrap().len(), 5);
    }

    #[test]
    fn only_root_has_capabilities_from_the_start_and_none_may_make_devices() {
        let root = config(0);
        let user = config(1000);
        let effective = |config: &Value| config["process"]["capabilities"]["effective"].clone();
        let held = effective(&root).as_array().unwrap().len();
        assert_eq!(held, CAPABILITIES.len() + 1, "and the one for the filter");
        assert_eq!(effective(&user), json!([]));
        assert!(!root.to_string().contains("CAP_MKNOD"));
        assert!(!user.to_string().contains("CAP_SYS_ADMIN"));
        assert_eq!(root["process"]["noNewPrivileges"], false);
        assert_eq!(user["process"]["noNewPrivileges"], true);
    }
}
