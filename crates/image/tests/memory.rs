//! How much memory a hostile image can make this host use, and that it is refused in the end.
//!
//! The import runs in a process of its own, whose peak the kernel tells.

#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/layout.rs"]
mod layout;
#[allow(dead_code, reason = "each test file uses its own part")]
#[path = "common/tarball.rs"]
mod tarball;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use image::ImageStore;
use serde_json::json;
use tarball::Tarball;

const ROOT: &str = "AEROSTAT_TEST_MEMORY";
const PEAK_KIB_MAX: u64 = 256 << 10;

/// Not a test of its own: what the other one starts and looks at.
#[test]
fn import_what_the_environment_says() {
    let Some(root) = std::env::var_os(ROOT) else {
        return;
    };
    let root = Path::new(&root);
    let store = ImageStore::open(&root.join("store")).unwrap();
    let name = "localhost/x:1".parse().unwrap();
    let imported = store.import(&root.join("layout"), Some(&name));
    let said = imported.map_or_else(|error| error.to_string(), |_| "accepted".to_owned());
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    let peak = peak.trim().trim_end_matches(" kB");
    fs::write(root.join("said"), format!("{peak} {said}")).unwrap();
}

/// Imports a layer of this many empty files in a process of its own: its peak in KiB, and what it
/// said.
fn import(entries: usize) -> (u64, String) {
    let root = tempfile::tempdir().unwrap();
    let directory = root.path().join("layout");
    // Only the name, the link and the check sum differ: one header is written over and over.
    let mut packed = zstd::Encoder::new(Vec::new(), 1).unwrap();
    let mut hasher = <sha2::Sha256 as sha2::Digest>::new();
    let mut write = |bytes: &[u8]| {
        sha2::Digest::update(&mut hasher, bytes);
        packed.write_all(bytes).unwrap();
    };
    for n in 0..entries {
        let path = format!("{:03}/file-with-a-name-of-usual-length-{n}", n % 997);
        let entry = Tarball::new().file(&path, 0o644, b"").cut();
        write(&entry);
    }
    write(&[0; 1024]);
    let diff_id = sha2::Digest::finalize(hasher);
    let diff_id: String = diff_id.iter().map(|b| format!("{b:02x}")).collect();
    let mut config = layout::config(&[]);
    config["rootfs"]["diff_ids"] = json!([format!("sha256:{diff_id}")]);
    let config = layout::blob(&directory, layout::CONFIG, config.to_string().as_bytes());
    let media_type = format!("{}+zstd", layout::LAYER);
    let layer = layout::blob(&directory, &media_type, &packed.finish().unwrap());
    let manifest = json!({ "schemaVersion": 2, "mediaType": layout::MANIFEST,
        "config": config, "layers": [layer] });
    let manifest = layout::blob(
        &directory,
        layout::MANIFEST,
        manifest.to_string().as_bytes(),
    );
    layout::index(&directory, &[manifest]);
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "import_what_the_environment_says"])
        .env(ROOT, root.path())
        .status()
        .unwrap();
    assert!(status.success());
    let said = fs::read_to_string(root.path().join("said")).unwrap();
    let (peak, said) = said.split_once(' ').unwrap();
    (peak.parse().unwrap(), said.to_owned())
}

#[test]
fn entries_without_end_are_refused_within_the_memory_that_is_promised() {
    let (peak, said) = import(1_200_000);
    assert!(said.contains("refused image: layer 1 of 1"), "{said}");
    assert!(
        said.contains("more than 1000000 files and directories"),
        "{said}"
    );
    assert!(peak <= PEAK_KIB_MAX, "{peak} KiB");
}
