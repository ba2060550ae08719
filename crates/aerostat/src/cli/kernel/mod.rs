//! `aerostat kernel …`: the kernel that virtual machines boot.
//!
//! ```text
//!  <data_dir>/kernels/
//!      <id>/{vmlinux,config,about.json}    built here; the id is a digest of what went into it
//!      <id>.build/                         under way, or left by an interrupted build
//!      current ──► <id>                    what `kernel use` chose
//! ```
//!
//! Debian's cloud kernel, with its modules in the initial RAM file system, is there without
//! compiling anything. The small one has everything built in and boots about three times faster.

mod about;
mod build;
mod source;
mod tools;

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::Subcommand;
use serde::Serialize;

use super::output::{self, Table};
use super::{Context, Refused};
use about::About;
use build::Build;

/// The one that comes with `./x up`.
const DEBIAN: &str = "debian";
/// Link to the chosen one.
const CURRENT: &str = "current";

#[derive(Debug, Subcommand)]
pub(super) enum Kernels {
    /// Build the small kernel from Debian's kernel source, unless it is there already
    Build(Build),
    /// List the kernels that machines can boot
    #[command(visible_alias = "ls")]
    List,
    /// Choose the kernel that machines boot from their next start on
    Use {
        /// An id of `kernel list`, or `debian`
        id: String,
    },
    /// Print the path of the kernel that machines boot now
    Path,
}

/// A kernel in the list.
#[derive(Debug, Serialize)]
struct Kernel {
    id: String,
    /// Of Linux, as its source package has it.
    version: String,
    path: PathBuf,
    bytes: u64,
    /// Seconds since 1970; 0 where it is not known.
    built_s: i64,
    current: bool,
}

impl Kernels {
    pub(super) fn run(self, context: &Context) -> anyhow::Result<()> {
        let store = Store::of(context);
        match self {
            Self::Build(build) => {
                let id = build.run(&store)?;
                if build.chooses() {
                    choose(context, &store, &id)?;
                }
                print(context, &store, |kernel| kernel.id == id)
            }
            Self::List => print(context, &store, |_| true),
            Self::Use { id } => {
                choose(context, &store, &id)?;
                print(context, &store, |kernel| kernel.id == id)
            }
            Self::Path => {
                let kernels = store.list(context)?;
                let current = kernels.into_iter().find(|kernel| kernel.current);
                let Some(current) = current else {
                    bail!("there is no kernel yet; `./x up` or `aerostat kernel build` makes one");
                };
                if !context.format.is_table() {
                    return print(context, &store, |kernel| kernel.current);
                }
                output::line(&current.path.display().to_string())
            }
        }
    }
}

fn choose(context: &Context, store: &Store, id: &str) -> anyhow::Result<()> {
    store.choose(id)?;
    if let Some(path) = context.config()?.kernel {
        eprintln!(
            "warning: the configuration's key `kernel` comes first: machines boot {}",
            path.display()
        );
    }
    Ok(())
}

fn print(context: &Context, store: &Store, wanted: impl Fn(&Kernel) -> bool) -> anyhow::Result<()> {
    let kernels: Vec<Kernel> = store.list(context)?.into_iter().filter(wanted).collect();
    let table = || {
        let mut table = Table::new(&["ID", "VERSION", "SIZE", "CURRENT"]).wide(&["BUILT", "PATH"]);
        for kernel in &kernels {
            table.row([
                kernel.id.clone(),
                kernel.version.clone(),
                output::size(kernel.bytes),
                if kernel.current { "yes" } else { "" }.to_owned(),
                built(kernel.built_s),
                kernel.path.display().to_string(),
            ]);
        }
        table
    };
    let names = || kernels.iter().map(|kernel| kernel.id.clone()).collect();
    let first = "there is no kernel yet; `./x up` or `aerostat kernel build` makes one";
    output::print_list(context.format, &kernels, table, names, first)
}

fn built(seconds: i64) -> String {
    let time = jiff::Timestamp::from_second(seconds).ok();
    time.filter(|_| seconds > 0)
        .map(|time| time.to_string())
        .unwrap_or_default()
}

/// The directory of kernels.
#[derive(Debug, Clone)]
struct Store {
    dir: PathBuf,
}

impl Store {
    fn of(context: &Context) -> Self {
        Self {
            dir: context.paths.kernels(),
        }
    }

    /// Directory of a kernel that is there, or will be.
    fn kernel(&self, id: &str) -> PathBuf {
        self.dir.join(id)
    }

    fn chosen(&self) -> Option<PathBuf> {
        let link = fs::read_link(self.dir.join(CURRENT)).ok()?;
        let vmlinux = self.dir.join(link).join("vmlinux");
        vmlinux.is_file().then_some(vmlinux)
    }

    fn list(&self, context: &Context) -> anyhow::Result<Vec<Kernel>> {
        let configured = context.config()?.kernel;
        let current = configured.clone().or_else(|| self.chosen());
        let mut kernels = Vec::new();
        let debian = context.paths.guest().join("vmlinux");
        if let Ok(metadata) = debian.metadata() {
            kernels.push(Kernel {
                id: DEBIAN.to_owned(),
                version: "Debian's cloud kernel".to_owned(),
                bytes: metadata.len(),
                built_s: 0,
                current: current.is_none(),
                path: debian,
            });
        }
        let entries = match fs::read_dir(&self.dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            entries => {
                Some(entries.with_context(|| format!("cannot list {}", self.dir.display()))?)
            }
        };
        for entry in entries.into_iter().flatten() {
            let dir = entry?.path();
            let name = dir.file_name().unwrap_or_default().to_string_lossy();
            let (id, path) = (name.into_owned(), dir.join("vmlinux"));
            // The link, builds, and what else there may be.
            let Some(about) = About::read(&dir).filter(|_| id != CURRENT) else {
                continue;
            };
            kernels.push(Kernel {
                id,
                version: about.version,
                bytes: path.metadata().map_or(0, |file| file.len()),
                built_s: about.built_s,
                current: current.as_ref() == Some(&path),
                path,
            });
        }
        if let Some(path) = configured
            && !kernels.iter().any(|kernel| kernel.current)
        {
            let metadata = path.metadata();
            let metadata = metadata.with_context(|| {
                format!("the configuration's kernel {} is missing", path.display())
            })?;
            kernels.push(Kernel {
                id: "configured".to_owned(),
                version: String::new(),
                bytes: metadata.len(),
                built_s: 0,
                current: true,
                path,
            });
        }
        kernels.sort_by(|a, b| (a.id != DEBIAN, &a.id).cmp(&(b.id != DEBIAN, &b.id)));
        Ok(kernels)
    }

    /// Machines boot this one from now on. One step for whoever looks meanwhile.
    fn choose(&self, id: &str) -> anyhow::Result<()> {
        let link = self.dir.join(CURRENT);
        if id == DEBIAN {
            return match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("cannot remove {}", link.display()))
                }
                Ok(()) | Err(_) => Ok(()),
            };
        }
        if id == CURRENT || id.contains('/') || About::read(&self.kernel(id)).is_none() {
            let text = format!("there is no kernel `{id}`; `aerostat kernel list` shows those");
            return Err(Refused(text).into());
        }
        let next = self.dir.join("current.new");
        let replace = || -> io::Result<()> {
            match fs::remove_file(&next) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            symlink(Path::new(id), &next)?;
            fs::rename(&next, &link)
        };
        replace().with_context(|| format!("cannot make {}", link.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Paths;

    fn context(dir: &Path) -> Context {
        Context {
            paths: Paths {
                data_dir: dir.to_owned(),
                run_dir: dir.join("run"),
                config: dir.join("aerostat.toml"),
                guest_dir: None,
            },
            format: output::Format::Json,
            remote: None,
        }
    }

    fn add(store: &Store, id: &str) {
        let dir = store.kernel(id);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("vmlinux"), "\x7fELF").unwrap();
        About {
            version: "6.12".into(),
            built_s: 1,
            ..About::default()
        }
        .write(&dir)
        .unwrap();
    }

    fn current(context: &Context, store: &Store) -> Vec<String> {
        let kernels = store.list(context).unwrap().into_iter();
        kernels.filter(|k| k.current).map(|k| k.id).collect()
    }

    #[test]
    fn debians_is_current_until_another_is_chosen_and_the_configuration_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(dir.path());
        let store = Store::of(&context);
        assert!(store.list(&context).unwrap().is_empty());
        fs::create_dir_all(context.paths.guest()).unwrap();
        fs::write(context.paths.guest().join("vmlinux"), "x").unwrap();
        add(&store, "aa");
        add(&store, "bb");
        fs::create_dir_all(store.kernel("cc.build")).unwrap();
        assert_eq!(current(&context, &store), ["debian"]);
        assert_eq!(context.paths.chosen_kernel(), None);
        for id in ["aa", "bb"] {
            store.choose(id).unwrap();
            assert_eq!(current(&context, &store), [id]);
            let chosen = store.kernel(id).join("vmlinux");
            assert_eq!(context.paths.chosen_kernel(), Some(chosen));
        }
        assert_eq!(store.list(&context).unwrap().len(), 3);
        for wrong in ["cc", "cc.build", "current", "../aa"] {
            assert!(store.choose(wrong).is_err(), "{wrong}");
        }
        let own = dir.path().join("own");
        fs::write(&own, "x").unwrap();
        let text = format!("kernel = \"{}\"\n", own.display());
        fs::write(&context.paths.config, text).unwrap();
        assert_eq!(current(&context, &store), ["configured"]);
        fs::remove_file(&context.paths.config).unwrap();
        store.choose("debian").unwrap();
        store.choose("debian").unwrap();
        assert_eq!(current(&context, &store), ["debian"]);
    }
}
