//! What VMMs and containers may not do, and how much they may use.

use std::fs;

use types::IsolationClass;
use vmm::Vmm;

use crate::fixture::{Fixture, container, exec};
use crate::{ready, started};

const IDLE: &str = "while :; do sleep 1; done";

/// A line of `/proc/<pid>/status`.
fn status(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let value = line.and_then(|rest| rest.strip_prefix(':'));
    value
        .unwrap_or_else(|| panic!("{name}: {text}"))
        .trim()
        .to_owned()
}

/// Whether that is all a process knows: programs, its machine's files, and no network.
fn sees_little_of_the_host(proc: &str) {
    // Programs and libraries, none of which it can change; no /proc, /etc/passwd or /run.
    let root = fs::read_link(format!("{proc}/root")).unwrap();
    assert!(root.ends_with("jail"), "{root:?}");
    let inside = |path: &str| fs::metadata(format!("{proc}/root/{path}")).is_ok();
    assert!(inside("usr/bin"));
    for path in [
        "proc/self",
        "etc/passwd",
        "run",
        "tmp",
        "root",
        "home",
        "dev/mem",
    ] {
        assert!(!inside(path), "{path}");
    }
    for mount in fs::read_to_string(format!("{proc}/mountinfo"))
        .unwrap()
        .lines()
    {
        let mut words = mount.split(' ').skip(4);
        let (path, options) = (words.next().unwrap(), words.next().unwrap());
        if path.contains("/jail/") || path.starts_with("/usr") {
            assert!(options.starts_with("ro,"), "{mount}");
        }
    }
    assert_eq!(fs::read(format!("{proc}/environ")).unwrap(), b"");
    let net = |proc: &str| fs::read_link(format!("{proc}/ns/net")).unwrap();
    assert_ne!(net(proc), net("/proc/self"));
    let interfaces = fs::read_to_string(format!("{proc}/net/dev")).unwrap();
    assert_eq!(
        interfaces.lines().skip(2).count(),
        1,
        "only lo: {interfaces}"
    );
    let limits = fs::read_to_string(format!("{proc}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|l| l.starts_with("Max core file size"))
        .unwrap();
    assert_eq!(core.split_whitespace().nth(4), Some("0"));
    // Of files it has its disks and the tap, and what it says when something is wrong.
    for entry in fs::read_dir(format!("{proc}/fd")).unwrap() {
        let target = fs::read_link(entry.unwrap().path()).unwrap();
        let name = target.file_name().unwrap().to_string_lossy().into_owned();
        let known = [
            "image.erofs",
            "upper-main.ext4",
            "tun",
            "shim.log",
            "null",
            "urandom",
        ];
        let is_known = known.contains(&name.as_str());
        assert!(is_known || !target.has_root(), "{}", target.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_has_nothing_but_what_its_machine_needs() {
    let Some(fixture) = Fixture::new("qemu jail", IsolationClass::Emulated) else {
        return;
    };
    let mut spec = fixture.spec(1, vec![container("main", IDLE)]);
    spec.guest.cpus = 2;
    fixture.vmm.boot(spec).await.unwrap();
    let mut reports = fixture.reports(1).await;
    fixture.wait(&mut reports, ready).await;
    let proc = format!("/proc/{}", fixture.qemu_pid());
    let text = fs::read_to_string(format!("{proc}/status")).unwrap();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(status(&text, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(&text, "NoNewPrivs"), "1");
    assert_eq!(status(&text, "Seccomp"), "2");
    let user = fixture.user().to_string();
    for ids in ["Uid", "Gid"] {
        assert_eq!(
            status(&text, ids).split_whitespace().collect::<Vec<_>>(),
            [&user; 4]
        );
    }
    assert_eq!(status(&text, "Groups"), "");

    sees_little_of_the_host(&proc);
    fixture.clean().await;
}

/// The value of a file of the boot's group, which has another name in each version.
fn limit(fixture: &Fixture, v1: (&str, &str), v2: &str) -> String {
    let boot = format!("aerostat-{}/{}.1", fixture.host(), fixture.machine);
    let paths = [
        format!("/sys/fs/cgroup/{}/{boot}/{}", v1.0, v1.1),
        format!("/sys/fs/cgroup/{boot}/{v2}"),
    ];
    let found = paths.iter().find_map(|path| fs::read_to_string(path).ok());
    found
        .unwrap_or_else(|| panic!("none of {paths:?}"))
        .trim()
        .to_owned()
}

async fn is_limited(class: IsolationClass, kind: &str, shares: [&str; 2], overhead_mib: u64) {
    let Some(fixture) = Fixture::new("limits", class) else {
        return;
    };
    let mut spec = fixture.spec(1, vec![container("main", IDLE)]);
    spec.guest.cpus = 2;
    spec.guest.cpu_kind = kind.to_owned();
    fixture.vmm.boot(spec).await.unwrap();
    let mut reports = fixture.reports(1).await;
    fixture.wait(&mut reports, started).await;
    let memory = limit(&fixture, ("memory", "memory.limit_in_bytes"), "memory.max");
    assert_eq!(memory.parse::<u64>().unwrap(), (128 + overhead_mib) << 20);
    let quota = limit(&fixture, ("cpu", "cpu.cfs_quota_us"), "cpu.max");
    assert!(
        ["200000", "200000 100000"].contains(&quota.as_str()),
        "{quota}"
    );
    let weight = limit(&fixture, ("cpu", "cpu.shares"), "cpu.weight");
    assert!(shares.contains(&weight.as_str()), "{weight}");
    assert_eq!(limit(&fixture, ("pids", "pids.max"), "pids.max"), "4096");
    fixture.clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_virtual_machine_has_its_memory_and_what_qemu_needs_and_whole_cpus_weigh_most() {
    is_limited(
        IsolationClass::Emulated,
        "performance",
        ["2048", "192"],
        512,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_machine_has_its_memory_and_shared_cpus_weigh_a_sixteenth() {
    is_limited(IsolationClass::Container, "shared", ["128", "12"], 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_can_neither_mount_nor_make_namespaces_nor_load_modules() {
    let Some(fixture) = Fixture::new("container jail", IsolationClass::Container) else {
        return;
    };
    let mut user = container("user", IDLE);
    user.user = "1000".into();
    let mut reports = fixture.boot(1, vec![container("main", IDLE), user]).await;
    fixture.wait(&mut reports, started).await;
    fixture.wait(&mut reports, started).await;
    for tries in [
        "mount -t tmpfs none /tmp",
        "mount -o remount,rw /proc/sys",
        "umount /proc",
        "unshare -U true",
        "unshare -m true",
        "nsenter -t 1 -m true",
        "insmod /etc/passwd",
        "rmmod loop",
        "swapon /etc/passwd",
        "reboot -f",
        "echo 1 >/proc/sys/kernel/panic",
        "echo b >/proc/sysrq-trigger",
        "dmesg",
        "mknod /tmp/sda b 8 0",
        "echo c 1:1 rwm >/sys/fs/cgroup/devices/devices.allow",
        "test -s /proc/kcore",
    ] {
        let output = fixture.exec(exec(tries)).await;
        let text = format!("{tries}: {output:?}");
        assert_ne!(
            output.end,
            types::guest::ExecEnd::Exited { exit_code: 0 },
            "{text}"
        );
    }
    // Both the first process and what is executed beside it.
    for of in ["1", "self"] {
        let text = fixture
            .exec(exec(&format!("cat /proc/{of}/status")))
            .await
            .stdout;
        assert_eq!(status(&text, "Seccomp"), "2");
        assert_eq!(status(&text, "NoNewPrivs"), "0");
        let held = u64::from_str_radix(&status(&text, "CapBnd"), 16).unwrap();
        assert_eq!(held & (1 << 21), 0, "no CAP_SYS_ADMIN: {held:x}");
        assert_eq!(status(&text, "CapEff"), status(&text, "CapBnd"));
    }
    let mut request = exec("cat /proc/self/status; kill -0 1 && echo visible");
    request.container = "user".into();
    let text = fixture.exec(request).await.stdout;
    assert_eq!(status(&text, "NoNewPrivs"), "1");
    assert_eq!(status(&text, "Seccomp"), "2");
    assert_eq!(status(&text, "CapEff"), "0000000000000000");
    // What containers usually do goes on working.
    let usual = exec("touch /a && chown 5:6 /a && chmod 640 /a && ping -c1 ::1");
    let output = fixture.exec(usual).await;
    let done = types::guest::ExecEnd::Exited { exit_code: 0 };
    assert_eq!(output.end, done, "{output:?}");
    fixture.clean().await;
}
