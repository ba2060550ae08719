//! Firecracker itself, in its jail, with a tap, disks and vsock, and a guest that needs no Linux.
//!
//! `AEROSTAT_TEST_FIRECRACKER` and `AEROSTAT_TEST_JAILER` name the programs; otherwise they are
//! looked for in `PATH`. Needs root and a `/dev/kvm` that starts guests, of whatever use to Linux.

use std::fs;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tempfile::TempDir;
use types::{HostId, MachineId};

use super::super::Firecracker;
use super::super::find::{FirecrackerPaths, FirecrackerPrograms, find};
use super::tiny;
use crate::ContainerImage;
use crate::cgroup::Group;
use crate::paths::{BootDir, Paths};
use crate::shim::ShimSpec;
use crate::shim::tests::spec;

const PATIENCE: Duration = Duration::from_secs(60);
pub(super) const USER: u32 = 64_321;

/// Where a machine of one test lives.
pub(super) struct Place {
    pub(super) dir: TempDir,
    pub(super) spec: ShimSpec,
    network: String,
}

pub(super) fn programs(test: &str) -> Option<FirecrackerPrograms> {
    let skip = |why: &str| {
        eprintln!("SKIPPED: {test}: {why}");
        None
    };
    let named = |name| std::env::var_os(name).map(PathBuf::from);
    let paths = FirecrackerPaths {
        firecracker: named("AEROSTAT_TEST_FIRECRACKER"),
        jailer: named("AEROSTAT_TEST_JAILER"),
    };
    let asked_for = paths.firecracker.is_some();
    match find(&paths) {
        _ if !nix::unistd::geteuid().is_root() => skip("needs root"),
        _ if !Path::new("/dev/kvm").exists() => skip("there is no /dev/kvm"),
        Ok(programs) => Some(programs),
        Err(missing) if asked_for => panic!("{missing}"),
        Err(missing) => skip(&missing.to_string()),
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    assert!(status.unwrap().success(), "ip {arguments}");
}

impl Place {
    pub(super) fn new(programs: FirecrackerPrograms, number: u16) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("fc-test-")
            .tempdir()
            .unwrap();
        let path = |name: &str| dir.path().join(name);
        let network = format!("fc-test-{}-{number}", std::process::id());
        ip(&format!("netns add {network}"));
        ip(&format!(
            "-n {network} tuntap add m1 mode tap vnet_hdr user {USER}"
        ));
        fs::create_dir(path("guest")).unwrap();
        fs::write(path("guest/vmlinux"), tiny::kernel()).unwrap();
        fs::write(path("guest/initramfs.cpio"), [0; 512]).unwrap();
        fs::write(path("image"), vec![0; 1 << 20]).unwrap();
        let mut spec = spec();
        spec.data_dir = path("data");
        spec.run_dir = path("run");
        spec.guest_dir = path("guest");
        spec.firecracker = Some(programs);
        let pid = u16::try_from(std::process::id() & 0x0fff).unwrap();
        spec.host = HostId::new((number << 12) | pid);
        spec.boot.machine = MachineId::from_bits(u64::from(spec.host.bits()));
        spec.boot.guest.cpus = 1;
        spec.boot.attachment.host_netns = Path::new("/run/netns").join(&network);
        spec.boot.attachment.owner_uid = USER;
        spec.boot.rootfs_size_bytes = 16 << 20;
        spec.boot.spec.containers = vec![
            serde_json::from_value(json!({
                "name": "main", "command": ["/bin/true"], "env": {}, "working_dir": "/",
                "user": "", "tty": false, "stdin": false, "restart": { "policy": "no" },
                "stop_signal": null, "depends_on": [], "files": [], "image_disk": "",
                "upper_disk": ""
            }))
            .unwrap(),
        ];
        spec.boot.images = vec![ContainerImage {
            container: "main".into(),
            rootfs: path("image"),
        }];
        let place = Self { dir, spec, network };
        for dir in [&place.boot().0, &place.data()] {
            fs::create_dir_all(dir).unwrap();
        }
        place.group().create(place.spec.limits()).unwrap();
        place
    }

    fn boot(&self) -> BootDir {
        let boot = &self.spec.boot;
        self.spec.paths().boot(&boot.machine, boot.boot)
    }

    pub(super) fn paths(&self) -> Paths {
        self.spec.paths()
    }

    fn data(&self) -> PathBuf {
        self.paths().data(&self.spec.boot.machine)
    }

    pub(super) fn group(&self) -> Group {
        let boot = &self.spec.boot;
        Group::new(self.spec.host, &boot.machine, boot.boot).unwrap()
    }

    pub(super) async fn start(&mut self) -> Firecracker {
        let (dir, paths) = (self.boot(), self.paths());
        let started = Firecracker::start(&dir, &paths, &mut self.spec).await;
        let (vm, vsock) = started.unwrap_or_else(|error| panic!("{}", types::chain(&*error)));
        assert!(vsock.socket.exists(), "{vsock:?}");
        vm
    }

    fn console(&self) -> String {
        fs::read_to_string(self.data().join("console.log")).unwrap_or_default()
    }

    /// Waits until the guest has said something, and returns all that it said.
    async fn heard(&self, is_enough: impl Fn(&str) -> bool) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let said = self.console();
            if is_enough(&said) {
                return said;
            }
            assert!(Instant::now() < deadline, "the guest said: {said}");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.group().destroy().unwrap();
        // A shim's mounts go with its process, but this one lives on.
        while umount2(&self.boot().jail(), MntFlags::MNT_DETACH).is_ok() {}
        ip(&format!("netns del {}", self.network));
    }
}

/// Runs a test as a shim runs a machine: on one thread, with mounts of its own.
pub(super) fn as_shim<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.unwrap().block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Firecracker is another user without rights, in its own network, group and root.
fn is_confined(place: &Place, vm: &Firecracker) {
    let pid = vm.process.id().unwrap();
    let process = PathBuf::from(format!("/proc/{pid}"));
    assert_eq!(process.metadata().unwrap().uid(), USER);
    let status = fs::read_to_string(process.join("status")).unwrap();
    assert!(status.contains("CapEff:\t0000000000000000"), "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let groups = fs::read_to_string(process.join("cgroup")).unwrap();
    let group = place.group().relative();
    let group = group.join(place.spec.boot.machine.as_str());
    assert!(groups.contains(group.to_str().unwrap()), "{groups}");
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(network(&pid.to_string()), network("self"));
    let mut seen: Vec<_> = fs::read_dir(process.join("root"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    seen.sort();
    eprintln!("in the jail: {}", seen.join(" "));
    assert!(!seen.contains(&"etc".to_owned()), "{seen:?}");
}

#[test]
fn a_jailed_machine_starts_is_saved_while_it_stands_still_and_goes_on_in_another_process() {
    let Some(programs) = programs("a_jailed_machine_starts_…") else {
        return;
    };
    as_shim(move || async move {
        let mut place = Place::new(programs, 1);
        let began = Instant::now();
        let mut vm = place.start().await;
        let started = began.elapsed();
        place.heard(|said| said.contains(tiny::HELLO)).await;
        eprintln!("started in {started:?}, heard after {:?}", began.elapsed());

        is_confined(&place, &vm);
        place.heard(|said| said.ends_with('.')).await;
        let began = Instant::now();
        vm.pause().await.unwrap();
        let paused = began.elapsed();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let before = place.console();
        tokio::time::sleep(Duration::from_millis(1000)).await;
        assert_eq!(place.console(), before, "it stands still");
        let began = Instant::now();
        vm.save(&place.paths(), &place.spec.boot).await.unwrap();
        eprintln!("paused in {paused:?}, saved in {:?}", began.elapsed());
        let suspended = place.paths().suspended(&place.spec.boot.machine);
        assert!(suspended.is_of(place.spec.boot.boot));
        let memory = suspended.file("memory").metadata().unwrap();
        assert_eq!((memory.uid(), memory.mode() & 0o777), (0, 0o600));
        vm.finish(false).await;

        let began = Instant::now();
        place.spec.boot.resume = true;
        let vm = place.start().await;
        let loaded = began.elapsed();
        assert!(suspended.read().is_err(), "it is nobody else's now");
        let said = place.heard(|said| said.len() > 2).await;
        eprintln!("loaded in {loaded:?}, heard after {:?}", began.elapsed());
        assert!(
            said.chars().all(|c| c == '.'),
            "it did not begin anew: {said}"
        );
        let log = fs::read_to_string(place.data().join("firecracker.log")).unwrap();
        assert!(log.contains("/snapshot/load"), "{log}");
        let words = vm.finish(false).await;
        assert!(words.ends_with('.'), "{words}");
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        assert!(
            mounts.contains("/jail tmpfs"),
            "gone with the shim: {mounts}"
        );
    });
}

#[test]
fn a_kernel_that_is_none_is_refused_in_firecrackers_words_and_nothing_is_left() {
    let Some(programs) = programs("a_kernel_that_is_none_…") else {
        return;
    };
    as_shim(move || async move {
        let mut place = Place::new(programs, 2);
        fs::write(place.dir.path().join("guest/vmlinux"), "no kernel").unwrap();
        let (dir, paths) = (place.boot(), place.paths());
        let started = Firecracker::start(&dir, &paths, &mut place.spec).await;
        let error = types::chain(&*started.expect_err("it is refused"));
        assert!(error.contains("refused PUT /actions with 400"), "{error}");
        assert!(error.contains("Start microvm error"), "{error}");
        // A second start finds nothing in its way.
        fs::write(place.dir.path().join("guest/vmlinux"), tiny::kernel()).unwrap();
        let vm = place.start().await;
        place.heard(|said| said.contains(tiny::HELLO)).await;
        vm.finish(false).await;
    });
}
