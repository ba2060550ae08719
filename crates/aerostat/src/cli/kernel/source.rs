//! Where the kernel's source comes from: Debian's source package, fetched with apt and unpacked
//! beside the build, or a directory or archive of one's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};

use super::tools::step;

/// Debian's package with the source of the kernel series that the configuration is made for.
const PACKAGE: &str = "linux-source-6.12";

/// A source, before it is unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Version of Debian's package.
    Debian { version: String },
    /// An archive that tar understands.
    Archive { path: PathBuf, version: String },
}

impl Source {
    /// What is asked for: an archive, or Debian's newest.
    ///
    /// # Errors
    /// If there is no such archive, or apt knows no such package.
    pub(super) fn find(archive: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(path) = archive {
            let path = path
                .canonicalize()
                .with_context(|| format!("cannot find {}", path.display()))?;
            ensure!(path.is_file(), "{} is no archive", path.display());
            // A changed file is another source; reading a hundred megabytes is not worth it.
            let metadata = path.metadata()?;
            let modified = metadata
                .modified()?
                .duration_since(std::time::UNIX_EPOCH)?
                .as_secs();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let version = format!("{name} {} {modified}", metadata.len());
            return Ok(Self::Archive { path, version });
        }
        let output = Command::new("apt-cache")
            .args(["show", "--no-all-versions", PACKAGE])
            .stdin(Stdio::null())
            .output()
            .context("cannot run apt-cache; give an archive with --source instead")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let version = text.lines().find_map(|line| line.strip_prefix("Version: "));
        let Some(version) = version else {
            bail!(
                "apt knows no package `{PACKAGE}`; it is in Debian 12's security updates and in \
                 Debian 13 (try apt-get update), or give an archive with --source"
            );
        };
        Ok(Self::Debian {
            version: version.trim().to_owned(),
        })
    }

    pub(super) fn version(&self) -> &str {
        match self {
            Self::Debian { version } | Self::Archive { version, .. } => version,
        }
    }

    /// Unpacks the source to `dir/linux`, unless it is there. An interrupted attempt leaves
    /// nothing that is taken for it.
    pub(super) fn unpack(&self, dir: &Path, log: &Path) -> anyhow::Result<PathBuf> {
        let tree = dir.join("linux");
        if tree.join("Makefile").is_file() {
            return Ok(tree);
        }
        let archive = match self {
            Self::Debian { version } => debian(version, dir, log)?,
            Self::Archive { path, .. } => path.clone(),
        };
        let unfinished = dir.join("linux.unfinished");
        for stale in [&unfinished, &tree] {
            if stale.exists() {
                fs::remove_dir_all(stale)?;
            }
        }
        fs::create_dir_all(&unfinished)?;
        eprintln!("unpacking {}", archive.display());
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(&archive).arg("-C").arg(&unfinished);
        tar.args(["--strip-components=1", "--no-same-owner"]);
        step("unpack the source", &mut tar, log, |_| {})?;
        ensure!(
            unfinished.join("Kconfig").is_file(),
            "{} holds no Linux",
            archive.display()
        );
        fs::rename(&unfinished, &tree).context("cannot keep the source")?;
        let package = dir.join("package");
        if package.exists() {
            fs::remove_dir_all(package).context("cannot remove the source package")?;
        }
        Ok(tree)
    }
}

/// Fetches the package; apt checks its digest and signature. Returns the archive in it.
fn debian(version: &str, dir: &Path, log: &Path) -> anyhow::Result<PathBuf> {
    let unpacked = dir.join("package");
    let archive = unpacked.join(format!("usr/src/{PACKAGE}.tar.xz"));
    if archive.is_file() {
        return Ok(archive);
    }
    let fresh = dir.join("package.unfinished");
    if fresh.exists() {
        fs::remove_dir_all(&fresh)?;
    }
    fs::create_dir_all(&fresh)?;
    eprintln!("fetching {PACKAGE} {version} (about 150 MB)");
    let mut download = Command::new("apt-get");
    // As the user who asked: apt's own may not enter the data directory.
    download.args(["-q", "-o", "APT::Sandbox::User=root", "download"]);
    download
        .arg(format!("{PACKAGE}={version}"))
        .current_dir(&fresh);
    step("fetch the source", &mut download, log, |_| {})?;
    let entries = fs::read_dir(&fresh)?.collect::<Result<Vec<_>, _>>()?;
    let package = entries.iter().map(fs::DirEntry::path);
    let package = package
        .into_iter()
        .find(|path| path.extension().is_some_and(|e| e == "deb"));
    let package = package.context("apt-get fetched no package")?;
    let files = fresh.join("files");
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("-x").arg(&package).arg(&files);
    step("unpack the source package", &mut unpack, log, |_| {})?;
    fs::rename(&files, &unpacked).context("cannot keep the source package")?;
    fs::remove_dir_all(&fresh).context("cannot remove the source package")?;
    ensure!(
        archive.is_file(),
        "{PACKAGE} holds no {}",
        archive.display()
    );
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_unpacked_once_and_one_without_linux_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, log) = (dir.path().join("linux-6"), dir.path().join("log"));
        fs::create_dir(&tree).unwrap();
        fs::write(tree.join("Makefile"), "all:\n").unwrap();
        let archive = dir.path().join("linux-6.tar");
        let pack = || {
            let mut tar = Command::new("tar");
            tar.arg("-cf").arg(&archive).arg("-C").arg(dir.path());
            assert!(tar.arg("linux-6").status().unwrap().success());
        };
        pack();
        let source = Source::find(Some(&archive)).unwrap();
        let build = dir.path().join("build");
        fs::create_dir(&build).unwrap();
        let error = source.unpack(&build, &log).unwrap_err().to_string();
        assert!(error.contains("holds no Linux"), "{error}");
        fs::write(tree.join("Kconfig"), "\n").unwrap();
        pack();
        let unpacked = source.unpack(&build, &log).unwrap();
        assert!(unpacked.join("Kconfig").is_file());
        fs::remove_file(&archive).unwrap();
        assert_eq!(source.unpack(&build, &log).unwrap(), unpacked);
        assert!(Source::find(Some(&archive)).is_err());
    }
}
