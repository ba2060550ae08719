//! In a mount namespace of the test's own, which takes root.

use std::os::unix::fs::symlink;

use nix::sched::{CloneFlags, unshare};

use super::*;

/// A thread with mounts that nobody else sees.
fn alone(test: &str, run: fn(&Path)) {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: {test}: needs root");
        return;
    }
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let directory = tempfile::tempdir().unwrap();
        for name in ["root", "volume", "outside"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        fs::write(directory.path().join("outside/secret"), "secret").unwrap();
        run(directory.path());
        for path in ["root", "stage"] {
            unmount_below(&directory.path().join(path));
        }
    });
    thread.join().unwrap();
}

fn unmount_below(path: &Path) {
    let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
    for line in mounts.lines().rev() {
        let target = Path::new(line.split(' ').nth(1).unwrap());
        if target.starts_with(path) {
            umount2(target, MntFlags::MNT_DETACH).unwrap();
        }
    }
}

fn spec(path: &str, sub_path: &str) -> MountSpec {
    MountSpec {
        source: "data".into(),
        sub_path: sub_path.into(),
        path: path.into(),
        read_only: false,
    }
}

fn mount_here(directory: &Path, mounts: &[MountSpec]) -> Result<Mounted, RuntimeError> {
    let root = Root::open(&directory.join("root")).unwrap();
    let sources = Sources::from([("data".into(), directory.join("volume"))]);
    mount_all(&root, &sources, &directory.join("stage"), mounts)
}

#[test]
fn sources_are_mounted_whole_or_in_part_and_read_only() {
    alone("sources_are_mounted", |directory| {
        fs::write(directory.join("volume/file"), "data").unwrap();
        let read_only = MountSpec {
            read_only: true,
            ..spec("/ro", "")
        };
        let mounts = [
            spec("/data/deep/er", "new/sub"),
            spec("/data", ""),
            spec("/etc/one", "file"),
            read_only,
            spec("/dev/shm", "shm"),
        ];
        let mounted = mount_here(directory, &mounts).unwrap();
        let root = directory.join("root");
        assert_eq!(fs::read(root.join("data/file")).unwrap(), b"data");
        assert_eq!(fs::read(root.join("etc/one")).unwrap(), b"data");
        fs::write(root.join("data/deep/er/x"), "x").unwrap();
        assert_eq!(fs::read(directory.join("volume/new/sub/x")).unwrap(), b"x");
        assert!(fs::write(root.join("data/y"), "").is_ok());
        let error = fs::write(root.join("ro/y"), "").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS));
        let shared_memory = mounted.shared_memory.unwrap();
        fs::write(shared_memory.join("z"), "").unwrap();
        assert!(directory.join("volume/shm/z").exists());
    });
}

#[test]
fn links_of_an_image_or_a_volume_never_lead_out() {
    alone("links_never_lead_out", |directory| {
        let root = directory.join("root");
        symlink("../outside", root.join("up")).unwrap();
        symlink(directory.join("outside"), root.join("absolute")).unwrap();
        symlink("../outside", directory.join("volume/up")).unwrap();
        symlink("/outside/secret", directory.join("volume/file")).unwrap();
        fs::create_dir(directory.join("volume/outside")).unwrap();
        fs::write(directory.join("volume/outside/secret"), "inside").unwrap();
        // A link that leads nowhere inside is an error.
        assert!(mount_here(directory, &[spec("/up/data", "up")]).is_err());
        fs::create_dir(root.join("outside")).unwrap();
        mount_here(directory, &[spec("/up/data", "up"), spec("/one", "file")]).unwrap();
        assert_eq!(fs::read(root.join("one")).unwrap(), b"inside");
        assert_eq!(
            fs::read(root.join("outside/data/secret")).unwrap(),
            b"inside"
        );
        assert!(mount_here(directory, &[spec("/absolute/data", "")]).is_err());
        let outside = fs::read_dir(directory.join("outside")).unwrap();
        assert_eq!(outside.count(), 1);
        symlink("/", root.join("itself")).unwrap();
        let error = mount_here(directory, &[spec("/itself", "")]).unwrap_err();
        assert!(error.reason().contains("is the root"), "{}", error.reason());
    });
}

#[test]
fn directories_are_for_everybody_and_memory_has_a_size() {
    alone("directories_are_for_everybody", |directory| {
        let specs = [("disk", false), ("memory", true)].map(|(name, memory)| DirectorySpec {
            name: name.into(),
            memory,
            size_bytes: 1 << 20,
        });
        let (disk, memory) = (directory.join("stage/disk"), directory.join("stage/memory"));
        let made = make_directories(&specs, &disk, &memory).unwrap();
        for path in made.values() {
            assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o777);
        }
        let big = vec![0; 2 << 20];
        assert!(fs::write(made["disk"].join("x"), &big).is_ok());
        assert!(fs::write(made["memory"].join("x"), &big).is_err());
    });
}
