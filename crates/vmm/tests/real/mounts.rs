//! Volumes and directories in containers: both classes.

use std::fs;
use std::path::Path;
use std::process::Command;

use types::IsolationClass;
use types::guest::{ContainerSpec, DirectorySpec, MountSpec, VolumeSpec};
use types::machine::RestartPolicy;
use vmm::{ReportEvent, Vmm};

use crate::fixture::{Fixture, collect, container, exec};
use crate::started;

fn mount(source: &str, sub_path: &str, path: &str) -> MountSpec {
    MountSpec {
        source: source.into(),
        sub_path: sub_path.into(),
        path: path.into(),
        read_only: false,
    }
}

/// Two containers that share a volume and directories.
fn containers() -> Vec<ContainerSpec> {
    let mut writer = container(
        "writer",
        "echo one >/data/file; echo two >/scratch/file; echo three >/dev/shm/file; \
         echo four >/out/in/file; echo done; while :; do sleep 1; done",
    );
    // In the image `out` is a link to `../../../../tmp`.
    writer.mounts = vec![
        mount("data", "", "/data"),
        mount("scratch", "", "/scratch"),
        mount("memory", "", "/dev/shm"),
        mount("data", "sub", "/out/in"),
    ];
    let mut reader = container("reader", "while :; do sleep 1; done");
    reader.mounts = vec![
        MountSpec {
            read_only: true,
            ..mount("data", "", "/new/data")
        },
        mount("memory", "", "/memory"),
        mount("scratch", "", "/scratch"),
    ];
    vec![writer, reader]
}

async fn shares(class: IsolationClass) {
    let Some(fixture) = Fixture::new("shares", class) else {
        return;
    };
    let volume = fixture.path("volume.ext4");
    make_volume(&volume);
    for boot in [1, 2] {
        let mut spec = fixture.spec(boot, containers());
        spec.spec.volumes.push(VolumeSpec {
            name: "data".into(),
            disk: String::new(),
            file: volume.to_str().unwrap().into(),
        });
        for (name, memory) in [("scratch", false), ("memory", true)] {
            spec.spec.directories.push(DirectorySpec {
                name: name.into(),
                memory,
                size_bytes: 1 << 20,
            });
        }
        let mut reports = fixture.boot_spec(spec).await;
        fixture.wait(&mut reports, started).await;
        fixture.wait(&mut reports, started).await;
        let (vmm, machine, id) = (&fixture.vmm, &fixture.machine, fixture.boot_id(boot));
        let reader = |script: &str| {
            let mut request = exec(script);
            request.container = "reader".into();
            request
        };
        let see = "while ! grep -q four /new/data/sub/file; do sleep 0.1; done; \
            cat /new/data/file /scratch/file /memory/file; cat /new/data/boots; \
            touch /new/data/x || echo refused; dd if=/dev/zero of=/memory/x bs=1M count=2 || \
            echo full";
        let io = vmm.exec(machine, id, reader(see)).await.unwrap();
        let output = collect(io).await;
        // What the first boot wrote is there in the second, and nothing else of it.
        let before = if boot == 1 { "" } else { "first\n" };
        let expected = format!("one\ntwo\nthree\n{before}refused\nfull\n");
        assert_eq!(output.stdout, expected, "{output:?}");
        let mut writer = exec("echo first >/data/boots; cat /tmp/in/file; ls /scratch");
        writer.container = "writer".into();
        let output = collect(vmm.exec(machine, id, writer).await.unwrap()).await;
        assert_eq!(output.stdout, "four\nfile\n");
        assert!(!Path::new("/tmp/in").exists());
        let grace = std::time::Duration::from_millis(200);
        vmm.stop(machine, id, None, grace).await.unwrap();
        fixture.end(&mut reports).await;
        vmm.kill(machine, id).await.unwrap();
        // Unmounted, not just cut off.
        let mut check = Command::new("e2fsck");
        let output = check.args(["-f", "-n"]).arg(&volume).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    fixture.clean().await;
}

fn make_volume(path: &Path) {
    fs::File::create(path).unwrap().set_len(32 << 20).unwrap();
    let mut mkfs = Command::new("mkfs.ext4");
    assert!(
        mkfs.args(["-q", "-F"])
            .arg(path)
            .status()
            .unwrap()
            .success()
    );
    // The virtual machine's monitor runs as another user.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    fs::set_permissions(path, mode).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_class_container_share_volumes_and_directories() {
    shares(IsolationClass::Container).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_of_a_virtual_machine_share_volumes_and_directories() {
    shares(IsolationClass::Emulated).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_that_is_not_possible_ends_the_boot_with_the_reason() {
    let Some(fixture) = Fixture::new("impossible", IsolationClass::Container) else {
        return;
    };
    for (path, why) in [
        ("/proc/x", "belongs to the kernel"),
        ("/root-link", "is the root"),
    ] {
        let mut main = container("main", "true");
        main.restart.policy = RestartPolicy::No;
        main.mounts.push(mount("scratch", "", path));
        let mut spec = fixture.spec(1, vec![main]);
        spec.spec.directories.push(DirectorySpec {
            name: "scratch".into(),
            memory: true,
            size_bytes: 0,
        });
        let mut reports = fixture.boot_spec(spec).await;
        let end = fixture.end(&mut reports).await;
        assert!(
            matches!(&end.event, ReportEvent::Failed { reason } if reason.contains(why)),
            "{end:?}"
        );
        fixture.clean().await;
    }
}
