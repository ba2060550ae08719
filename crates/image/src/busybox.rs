//! The first image: made on this host from its static busybox, so that something real runs
//! before any registry is within reach. It takes the one way in that all images take.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use types::ImageRef;

use crate::layout::ImportError;
use crate::layout::write::{RunConfig, write_layout};
use crate::store::{Image, ImageStore};

/// Why there is no first image.
#[derive(Debug, thiserror::Error)]
pub enum BusyboxError {
    #[error("cannot read {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} must be statically linked; Debian has it in busybox-static")]
    NotStatic { path: PathBuf },
    #[error("cannot run {path} to list its applets")]
    List { path: PathBuf, source: io::Error },
    #[error("{path} lists no applets: {answer}")]
    NoApplets { path: PathBuf, answer: String },
    #[error("cannot write the image's layout")]
    Layout { source: io::Error },
    #[error(transparent)]
    Import(#[from] ImportError),
}

const DIRECTORIES: [(&str, u32); 17] = [
    ("bin", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("sbin", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/tmp", 0o1777),
    ("www", 0o755),
    ("www/cgi-bin", 0o755),
];
const FILES: [(&str, u32, &str); 6] = [
    (
        "etc/passwd",
        0o644,
        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    ),
    ("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n"),
    ("etc/profile", 0o644, "export PS1='\\u@\\h:\\w\\$ '\n"),
    ("bin/hello", 0o755, include_str!("busybox/hello.sh")),
    ("www/index.html", 0o644, include_str!("busybox/index.html")),
    (
        "www/cgi-bin/hostname",
        0o755,
        include_str!("busybox/hostname.sh"),
    ),
];
const COMMAND: [&str; 1] = ["hello"];
const ENVIRONMENT: [&str; 1] =
    ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];

impl ImageStore {
    /// Makes an image of the statically linked busybox at `busybox` and stores it as `name`.
    /// Its command serves a page on port 8080, and the machine's host name at `/cgi-bin/hostname`.
    ///
    /// # Errors
    /// When the file is no static busybox, or the import fails.
    pub fn busybox(&self, busybox: &Path, name: &ImageRef) -> Result<Image, BusyboxError> {
        let read = |source| BusyboxError::Read {
            path: busybox.to_owned(),
            source,
        };
        let program = fs::read(busybox).map_err(read)?;
        if has_interpreter(&program) {
            return Err(BusyboxError::NotStatic {
                path: busybox.to_owned(),
            });
        }
        let failed = |source| BusyboxError::Layout { source };
        let layer = layer(&program, &applets(busybox)?).map_err(failed)?;
        let work = self.begin().map_err(ImportError::from)?;
        let layout = work.path().join("layout");
        let config = RunConfig {
            cmd: &COMMAND,
            env: &ENVIRONMENT,
            working_dir: "/",
            labels: serde_json::json!({ "org.opencontainers.image.title": "hello" }),
        };
        write_layout(&layout, &[layer], &config).map_err(failed)?;
        Ok(self.import_layout(&layout, name)?)
    }
}

/// Whether an ELF file names a dynamic loader (64-bit, little-endian: what this host runs).
fn has_interpreter(elf: &[u8]) -> bool {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, bytes: usize| {
        let field = elf.get(at..at.checked_add(bytes)?)?;
        Some(
            field
                .iter()
                .rev()
                .fold(0_usize, |n, byte| n << 8 | usize::from(*byte)),
        )
    };
    let headers = || Some((number(32, 8)?, number(54, 2)?, number(56, 2)?));
    let Some((start, size, count)) = headers() else {
        return false;
    };
    (0..count)
        .filter_map(|i| number(start.checked_add(i * size)?, 4))
        .any(|kind| kind == PT_INTERP as usize)
}

/// Paths of the applets, as busybox itself installs them; all in `bin` if it does not say.
fn applets(busybox: &Path) -> Result<BTreeSet<String>, BusyboxError> {
    let list = |option: &str| {
        Command::new(busybox)
            .arg(option)
            .output()
            .map_err(|source| BusyboxError::List {
                path: busybox.to_owned(),
                source,
            })
    };
    let paths = |text: &[u8], prefix: &str| -> BTreeSet<String> {
        String::from_utf8_lossy(text)
            .lines()
            .map(|line| format!("{prefix}{line}"))
            .filter(|path| {
                let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
                ["bin", "sbin", "usr/bin", "usr/sbin"].contains(&directory)
                    && !name.is_empty()
                    && name != "busybox"
                    && name.bytes().all(|b| b.is_ascii_graphic())
            })
            .collect()
    };
    let full = list("--list-full")?;
    if full.status.success() {
        let found = paths(&full.stdout, "");
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let short = list("--list")?;
    let found = paths(&short.stdout, "bin/");
    if !short.status.success() || found.is_empty() {
        let answer = crate::error::printable(&short.stderr);
        return Err(BusyboxError::NoApplets {
            path: busybox.to_owned(),
            answer,
        });
    }
    Ok(found)
}

fn layer(program: &[u8], applets: &BTreeSet<String>) -> io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let header = |kind, mode, bytes: usize| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes as u64);
        // The same busybox gives the same image, whenever it is made.
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header
    };
    for (path, mode) in DIRECTORIES {
        let mut header = header(tar::EntryType::Directory, mode, 0);
        tar.append_data(&mut header, format!("{path}/"), io::empty())?;
    }
    let mut file = header(tar::EntryType::Regular, 0o755, program.len());
    tar.append_data(&mut file, "bin/busybox", program)?;
    for (path, mode, text) in FILES {
        let mut file = header(tar::EntryType::Regular, mode, text.len());
        tar.append_data(&mut file, path, text.as_bytes())?;
    }
    for path in applets {
        let mut link = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut link, path, "/bin/busybox")?;
    }
    tar.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dynamically_linked_program_is_told_from_a_static_one() {
        let this_test = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(has_interpreter(&this_test));
        assert!(!has_interpreter(b"\x7fELF"));
        assert!(!has_interpreter(&[0xff; 100]));
    }

    #[test]
    fn equal_programs_give_equal_layers() {
        let applets: BTreeSet<String> = ["bin/sh".to_owned(), "usr/bin/[".to_owned()].into();
        assert_eq!(
            layer(b"x", &applets).unwrap(),
            layer(b"x", &applets).unwrap()
        );
    }
}
