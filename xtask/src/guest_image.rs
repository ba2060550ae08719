//! The kernel and the initial RAM file system of the virtual machines.
//!
//! The kernel is Debian's, made for clouds: fetched with apt, unpacked beside the build and never
//! installed. VMMs start an uncompressed ELF image sooner than a compressed one, and some take
//! nothing else, so `vmlinux` is taken out of the boot image. `initramfs.cpio` holds our `init`
//! and the modules it loads, uncompressed, because unpacking is slower than reading.

use std::collections::BTreeSet;
use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Debian's package that depends on the newest such kernel.
const KERNEL: &str = "linux-image-6.12-cloud-amd64";

/// Modules that a guest needs; what they depend on is found. virtio_mmio is for VMMs without PCI, vsock for Firecracker.
const MODULES: [&str; 8] = [
    "virtio_mmio",
    "vmw_vsock_virtio_transport",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "crc32c_intel",
    "overlay",
    "erofs",
];

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Makes `vmlinux` and `initramfs.cpio` in `out`. What is there and right is left alone.
pub(crate) fn run(out: &Path) -> Result<()> {
    let repository = crate::repository();
    let init = build_init(&repository)?;
    let kernel = unpack_kernel(&repository.join(".cache/kernel"))?;
    fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let image = read(&only_file(&kernel.join("boot"), "vmlinuz-")?)?;
    install(&out.join("vmlinux"), &vmlinux(&image)?)?;
    install(&out.join("initramfs.cpio"), &initramfs(&init, &kernel)?)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Writes a file whole or not at all, and only if it differs.
fn install(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|present| present == content) {
        return Ok(());
    }
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, content)
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Runs a program to its end and returns its standard output; `package` is Debian's that has it.
fn output(command: &mut Command, input: &[u8], package: &str) -> Result<Vec<u8>> {
    let name = command.get_program().to_string_lossy().into_owned();
    let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = match piped.spawn() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("there is no `{name}`; Debian's package `{package}` has it")
        }
        child => child.with_context(|| format!("cannot run `{name}`"))?,
    };
    let mut stdin = child.stdin.take().context("a pipe was asked for")?;
    // Written beside the reading, or both would wait for each other.
    let result = std::thread::scope(|scope| {
        let written = scope.spawn(move || stdin.write_all(input));
        let output = child.wait_with_output();
        // A program that has read enough says so by its exit code.
        drop(written.join());
        output
    });
    let result = result.with_context(|| format!("cannot run `{name}`"))?;
    ensure!(
        result.status.success(),
        "`{name}` failed: {}",
        result.status
    );
    Ok(result.stdout)
}

/// Builds `init` static, in a directory of its own: its flags would rebuild everything else.
fn build_init(repository: &Path) -> Result<Vec<u8>> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target = repository.join("target/guest");
    let mut command = Command::new(cargo);
    command
        .current_dir(repository)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .args([
            "build",
            "--package",
            "init",
            "--release",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target);
    output(&mut command, &[], "cargo").context("cannot build init")?;
    read(&target.join(TARGET).join("release/init"))
}

/// Fetches the newest kernel package into `cache`, unless it is there, and returns its files.
fn unpack_kernel(cache: &Path) -> Result<PathBuf> {
    let mut depends = Command::new("apt-cache");
    let text = output(depends.args(["depends", KERNEL]), &[], "apt")?;
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines();
    let package = lines.find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.with_context(|| {
        format!("apt knows no package `{KERNEL}`; it is in Debian 12's security updates")
    })?;
    let unpacked = cache.join(package);
    if unpacked.exists() {
        return Ok(unpacked);
    }
    let fresh = cache.join(format!("{package}.unfinished"));
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir_all(&fresh).with_context(|| format!("cannot make {}", fresh.display()))?;
    let mut download = Command::new("apt-get");
    // As the user who asked: apt's own may not enter the checkout.
    download.args(["-q", "-o", "APT::Sandbox::User=root", "download", package]);
    output(download.current_dir(&fresh), &[], "apt")?;
    let archive = only_file(&fresh, "linux-image-")?;
    let files = fresh.join("files");
    let mut unpack = Command::new("dpkg-deb");
    output(unpack.arg("-x").arg(&archive).arg(&files), &[], "dpkg")?;
    fs::rename(&files, &unpacked).context("cannot keep the unpacked kernel")?;
    fs::remove_dir_all(&fresh).context("cannot remove the kernel package")?;
    Ok(unpacked)
}

/// The file in `directory` whose name begins like that.
fn only_file(directory: &Path, prefix: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(directory);
    let entries = entries.with_context(|| format!("cannot list {}", directory.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            return Ok(entry.path());
        }
    }
    bail!("there is no {prefix}… in {}", directory.display())
}

/// Takes the ELF kernel out of a boot image (Linux, arch/x86/boot.rst, protocol 2.08 and later).
fn vmlinux(image: &[u8]) -> Result<Vec<u8>> {
    let payload = payload(image).context("the kernel is no boot image of protocol 2.08")?;
    ensure!(
        payload.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]),
        "the kernel is not compressed with zstd"
    );
    let elf = output(
        Command::new("zstd").args(["-q", "-d", "-c"]),
        payload,
        "zstd",
    )?;
    ensure!(
        elf.starts_with(b"\x7fELF"),
        "the boot image holds no ELF kernel"
    );
    Ok(elf)
}

/// The compressed kernel, without the uncompressed length that ends it.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let u32_at = |at: usize| {
        let bytes = image.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    };
    (image.get(0x202..0x206)? == b"HdrS").then_some(())?;
    let setup_sectors = match image[0x1f1] {
        // As written by boot loaders of old.
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup_sectors + 1) * 512 + u32_at(0x248)?;
    let length = u32_at(0x24c)?.checked_sub(4)?;
    image.get(start..)?.get(..length)
}

fn initramfs(init: &[u8], kernel: &Path) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for directory in ["dev", "proc", "sys", "run", "modules"] {
        archive.directory(directory);
    }
    archive.console();
    archive.file("init", 0o755, init);
    let mut order = String::new();
    for (name, module) in modules(kernel)? {
        archive.file(&format!("modules/{name}"), 0o644, &module);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file("modules/order", 0o644, order.as_bytes());
    Ok(archive.finish())
}

/// The wanted modules and all that they depend on, in the order in which to load them.
fn modules(kernel: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let version = only_file(&kernel.join("lib/modules"), "")?;
    let mut files = Vec::new();
    list(&version, &mut files)?;
    let builtin = read(&version.join("modules.builtin"))?;
    let builtin = String::from_utf8_lossy(&builtin).into_owned();
    let builtin = builtin.lines().map(|line| plain_name(Path::new(line)));
    let mut ordered = Ordered {
        files,
        done: builtin.collect(),
        modules: Vec::new(),
    };
    for name in MODULES {
        ordered.add(name)?;
    }
    Ok(ordered.modules)
}

struct Ordered {
    files: Vec<PathBuf>,
    /// Built in, or in `modules` already.
    done: BTreeSet<String>,
    modules: Vec<(String, Vec<u8>)>,
}

impl Ordered {
    fn add(&mut self, name: &str) -> Result<()> {
        if !self.done.insert(name.to_owned()) {
            return Ok(());
        }
        let file = self.files.iter().find(|file| plain_name(file) == name);
        let file = file.with_context(|| format!("the kernel has no module {name}"))?;
        let mut module = read(file)?;
        if file.extension() == Some(OsStr::new("xz")) {
            module = output(Command::new("xz").args(["-d", "-c"]), &module, "xz-utils")?;
        }
        for dependency in dependencies(&module) {
            self.add(&dependency)?;
        }
        self.modules.push((format!("{name}.ko"), module));
        Ok(())
    }
}

/// A module's name without directory, endings, and its two spellings of the underscore.
fn plain_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.split_once(".ko").map_or(&*name, |(name, _)| name);
    name.replace('-', "_")
}

/// What a module says of itself in its `.modinfo` section.
fn dependencies(module: &[u8]) -> Vec<String> {
    let mut entries = module.split(|byte| *byte == 0);
    let depends = entries.find_map(|entry| entry.strip_prefix(b"depends="));
    let depends = String::from_utf8_lossy(depends.unwrap_or_default()).into_owned();
    let names = depends.split(',').filter(|name| !name.is_empty());
    names.map(|name| name.replace('-', "_")).collect()
}

fn list(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = fs::read_dir(directory);
    for entry in entries.with_context(|| format!("cannot list {}", directory.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else if entry.file_name().to_string_lossy().contains(".ko") {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(())
}

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFCHR: u32 = 0o020_000;

/// A cpio archive in the format `newc` (Linux, driver-api/early-userspace/buffer-format.rst). All
/// belongs to root and is from 1970, so that equal inputs make equal archives.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    fn directory(&mut self, name: &str) {
        self.entry(name, S_IFDIR | 0o755, (0, 0), &[]);
    }

    fn file(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entry(name, S_IFREG | mode, (0, 0), content);
    }

    /// The kernel opens it for PID 1 before PID 1 can mount anything.
    fn console(&mut self) {
        self.entry("dev/console", S_IFCHR | 0o600, (5, 1), &[]);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), content: &[u8]) {
        self.inodes += 1;
        let links = if mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
        let fields = [
            self.inodes as usize,
            mode as usize,
            0,
            0,
            links,
            0,
            content.len(),
            0,
            0,
            device.0 as usize,
            device.1 as usize,
            name.len() + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        let length = self.bytes.len().next_multiple_of(4);
        self.bytes.resize(length, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_payload_of_a_boot_image_is_where_its_header_says() {
        let mut image = vec![0; 4096];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x1f1] = 1;
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&12u32.to_le_bytes());
        image[1040..1052].copy_from_slice(b"payload!size");
        assert_eq!(payload(&image), Some(&b"payload!"[..]));
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(b"short"), None);
    }

    #[test]
    fn modules_name_what_they_depend_on() {
        let module = b"\x7fELF\0license=GPL\0depends=net-failover,failover\0name=x\0";
        assert_eq!(dependencies(module), ["net_failover", "failover"]);
        assert!(dependencies(b"\x7fELF\0depends=\0").is_empty());
        assert_eq!(plain_name(Path::new("a/virtio-rng.ko.xz")), "virtio_rng");
    }

    #[test]
    fn archives_are_aligned_and_end_with_the_trailer() {
        let mut archive = Archive::default();
        archive.directory("dev");
        archive.console();
        archive.file("init", 0o755, b"12345");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 4, 0);
        assert!(bytes.starts_with(b"07070100000001000041ed"));
        let trailer = bytes.windows(10).position(|w| w == b"TRAILER!!!").unwrap();
        assert_eq!((trailer - 110) % 4, 0);
    }
}
