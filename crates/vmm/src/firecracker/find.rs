//! Firecracker's two programs on this host, and whether they can be used.
//!
//! Older versions lack PCI devices and have other snapshots. The jailer copies Firecracker into a
//! directory without libraries, so only a static program starts there; releases are.

use std::env;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// Oldest version that has what we ask for.
pub(crate) const VERSION_MIN: Version = Version {
    major: 1,
    minor: 16,
    patch: 0,
};

/// Where to look for programs. What is not set is looked for in `PATH`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FirecrackerPaths {
    pub firecracker: Option<PathBuf>,
    pub jailer: Option<PathBuf>,
}

/// Programs that were found and can be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FirecrackerPrograms {
    pub firecracker: PathBuf,
    pub jailer: PathBuf,
    /// Of both.
    pub version: String,
}

/// Why Firecracker cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FirecrackerMissing {
    /// Nobody asked for it, and it is not there.
    #[error("Firecracker is not installed")]
    NotInstalled,
    #[error("{program} is not at {}", path.display())]
    NotThere {
        program: &'static str,
        path: PathBuf,
    },
    #[error("Firecracker is at {}, but its jailer is not installed", path.display())]
    NoJailer { path: PathBuf },
    #[error("{} does not tell its version", path.display())]
    NoVersion { path: PathBuf },
    #[error("{} is version {found}; {VERSION_MIN} or newer is needed", path.display())]
    TooOld { path: PathBuf, found: Version },
    #[error(
        "Firecracker is version {firecracker} and its jailer {jailer}; take both of one release"
    )]
    Mixed {
        firecracker: Version,
        jailer: Version,
    },
    #[error(
        "{} needs libraries, which its jail does not have; take a release, which is static",
        path.display()
    )]
    Dynamic { path: PathBuf },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            major,
            minor,
            patch,
        } = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

impl Version {
    /// From the first line of `--version`: `Firecracker v1.16.1`.
    fn parse(text: &str) -> Option<Self> {
        let word = text.lines().next()?.split_whitespace().nth(1)?;
        let word = word.strip_prefix('v')?;
        // Builds between releases add `-dev` or a commit.
        let numbers = word.split(['-', '+']).next()?;
        let mut numbers = numbers.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        Some(Self {
            major: next()?,
            minor: next()?,
            patch: next()?,
        })
    }
}

/// Looks for both programs and runs them to ask for their versions. Blocks for some milliseconds.
///
/// # Errors
/// What is missing or wrong, for people.
pub(crate) fn find(paths: &FirecrackerPaths) -> Result<FirecrackerPrograms, FirecrackerMissing> {
    let firecracker = locate("Firecracker", "firecracker", paths.firecracker.as_deref())?;
    let firecracker = firecracker.ok_or(FirecrackerMissing::NotInstalled)?;
    let jailer = locate("Firecracker's jailer", "jailer", paths.jailer.as_deref())?;
    let jailer = jailer.ok_or_else(|| FirecrackerMissing::NoJailer {
        path: firecracker.clone(),
    })?;
    let versions = [version(&firecracker)?, version(&jailer)?];
    if versions[0] != versions[1] {
        return Err(FirecrackerMissing::Mixed {
            firecracker: versions[0],
            jailer: versions[1],
        });
    }
    if versions[0] < VERSION_MIN {
        return Err(FirecrackerMissing::TooOld {
            path: firecracker,
            found: versions[0],
        });
    }
    if is_dynamic(&firecracker) {
        return Err(FirecrackerMissing::Dynamic { path: firecracker });
    }
    Ok(FirecrackerPrograms {
        firecracker,
        jailer,
        version: versions[0].to_string(),
    })
}

fn locate(
    program: &'static str,
    name: &str,
    path: Option<&Path>,
) -> Result<Option<PathBuf>, FirecrackerMissing> {
    let runs = |path: &Path| {
        let metadata = path.metadata();
        metadata.is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    };
    match path {
        Some(path) if runs(path) => Ok(Some(path.to_owned())),
        Some(path) => Err(FirecrackerMissing::NotThere {
            program,
            path: path.to_owned(),
        }),
        None => {
            let dirs = env::var_os("PATH").unwrap_or_default();
            let mut found = env::split_paths(&dirs).map(|dir| dir.join(name));
            Ok(found.find(|path| runs(path)))
        }
    }
}

fn version(path: &Path) -> Result<Version, FirecrackerMissing> {
    let output = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let version = text.ok().as_deref().and_then(Version::parse);
    version.ok_or_else(|| FirecrackerMissing::NoVersion {
        path: path.to_owned(),
    })
}

/// Whether an ELF program asks for a loader (program header `PT_INTERP`).
fn is_dynamic(path: &Path) -> bool {
    const PT_INTERP: u32 = 3;
    const HEADERS_BYTES_MAX: u64 = 64 << 10;
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|f| f.take(HEADERS_BYTES_MAX).read_to_end(&mut bytes));
    if read.is_err() || !bytes.starts_with(b"\x7fELF\x02") {
        return false;
    }
    let u16_at = |at: usize| Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let u64_at = |at: usize| Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?));
    let headers = || {
        let offset = usize::try_from(u64_at(0x20)?).ok()?;
        let (size, count) = (usize::from(u16_at(0x36)?), usize::from(u16_at(0x38)?));
        (0..count)
            .map(|index| offset.checked_add(index * size))
            .map(|at| Some(u32::from_le_bytes(*bytes.get(at?..)?.first_chunk()?)))
            .collect::<Option<Vec<u32>>>()
    };
    headers().is_some_and(|types| types.contains(&PT_INTERP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn program(dir: &Path, name: &str, version: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, format!("#!/bin/sh\necho '{version}'\necho\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn found(firecracker: &str, jailer: &str) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        let paths = FirecrackerPaths {
            firecracker: Some(program(dir.path(), "firecracker", firecracker)),
            jailer: Some(program(dir.path(), "jailer", jailer)),
        };
        let dir = format!("{}/", dir.path().display());
        find(&paths)
            .map(|programs| programs.version)
            .map_err(|error| error.to_string().replace(&dir, ""))
    }

    #[test]
    fn a_release_is_used_an_old_one_is_refused_and_so_are_two_of_different_releases() {
        assert_eq!(
            found("Firecracker v1.16.1", "Jailer v1.16.1"),
            Ok("1.16.1".into())
        );
        assert_eq!(
            found("Firecracker v2.0.0-dev", "Jailer v2.0.0-dev"),
            Ok("2.0.0".into())
        );
        let old = found("Firecracker v1.15.9", "Jailer v1.15.9").unwrap_err();
        assert_eq!(
            old,
            "firecracker is version 1.15.9; 1.16.0 or newer is needed"
        );
        let mixed = found("Firecracker v1.17.0", "Jailer v1.16.1").unwrap_err();
        assert!(mixed.contains("take both of one release"), "{mixed}");
        let none = found("Firecracker", "Jailer v1.16.1").unwrap_err();
        assert_eq!(none, "firecracker does not tell its version");
    }

    #[test]
    fn a_path_that_was_given_must_be_right() {
        let paths = FirecrackerPaths {
            firecracker: Some("/nonexistent/firecracker".into()),
            jailer: None,
        };
        let error = find(&paths).unwrap_err().to_string();
        assert_eq!(error, "Firecracker is not at /nonexistent/firecracker");
    }

    #[test]
    fn programs_that_need_a_loader_are_told_from_static_ones() {
        // The test itself is one of the former.
        let this = env::current_exe().unwrap();
        assert!(is_dynamic(&this));
        assert!(!is_dynamic(Path::new("/etc/passwd")));
    }
}
