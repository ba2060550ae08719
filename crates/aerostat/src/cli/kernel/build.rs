//! `aerostat kernel build`: fetch, unpack, configure, check, compile, keep.
//!
//! Every step is taken up where an interrupted build left it. What comes out is known by a digest
//! of the source's version and the configuration, so that the same is never built twice.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

use super::about::About;
use super::source::Source;
use super::tools::{self, step};
use super::{Store, output};

/// What the kernel must have.
const CONFIG: &str = include_str!("guest.config");
/// Hexadecimal digits of the digest that make an id.
const ID_DIGITS: usize = 12;
/// Source, objects and the kernel with its symbols.
const DISK_BYTES_MIN: u64 = 4 << 30;
/// Files that are compiled for this configuration of 6.12: for the progress only.
const FILES_ABOUT: usize = 1900;
const PROGRESS_EVERY: Duration = Duration::from_millis(200);

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Build {
    /// Compile this many files at a time [default: as many as there are processors]
    #[arg(short, long)]
    jobs: Option<usize>,
    /// A kernel's source as an archive, instead of Debian's package
    #[arg(long, value_name = "ARCHIVE")]
    source: Option<PathBuf>,
    /// Build it, but let machines go on booting the one they boot now
    #[arg(long)]
    no_use: bool,
    /// Keep source and objects, about 2 GiB
    #[arg(long)]
    keep: bool,
}

impl Build {
    /// Whether machines shall boot it.
    pub(super) fn chooses(&self) -> bool {
        !self.no_use
    }

    /// Returns the id of the kernel, which is there when this returns.
    pub(super) fn run(&self, store: &Store) -> anyhow::Result<String> {
        let source = Source::find(self.source.as_deref())?;
        let id = id(source.version(), CONFIG);
        if About::read(&store.kernel(&id)).is_some() {
            eprintln!("kernel {id} is there already");
            return Ok(id);
        }
        tools::check()?;
        let dir = store.kernel(&format!("{id}.build"));
        fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let _lock = lock(&dir)?;
        enough_disk(&dir)?;
        let begun = Instant::now();
        let log = dir.join("log");
        let tree = source.unpack(&dir, &log)?;
        configure(&tree, &log)?;
        let jobs = match self.jobs {
            Some(jobs) => jobs.max(1),
            None => std::thread::available_parallelism().map_or(1, Into::into),
        };
        compile(&tree, &log, jobs)?;
        keep(store, &id, &tree, &source, &log)?;
        if !self.keep {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        let took = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        eprintln!("kernel {id} was built in {}", output::took(took));
        Ok(id)
    }
}

fn id(version: &str, config: &str) -> String {
    let digest = Sha256::new()
        .chain_update(version)
        .chain_update([0])
        .chain_update(config)
        .finalize();
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    digits[..ID_DIGITS].to_owned()
}

/// Two builds of the same kernel would write the same files.
fn lock(dir: &Path) -> anyhow::Result<Flock<File>> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err(_) => bail!("somebody builds this kernel already, in {}", dir.display()),
    }
}

fn enough_disk(dir: &Path) -> anyhow::Result<()> {
    // What an interrupted build has there already counts too.
    if dir.join("linux").exists() {
        return Ok(());
    }
    let stat = nix::sys::statvfs::statvfs(dir)?;
    let free = stat.blocks_available() * stat.fragment_size();
    ensure!(
        free >= DISK_BYTES_MIN,
        "{} has {} free, and building needs {}",
        dir.display(),
        output::size(free),
        output::size(DISK_BYTES_MIN)
    );
    Ok(())
}

fn make(tree: &Path) -> Command {
    let mut make = Command::new("make");
    make.arg("-C").arg(tree);
    // Of equal sources and tools the same kernel comes out.
    make.env("KBUILD_BUILD_TIMESTAMP", "@0")
        .env("KBUILD_BUILD_USER", "aerostat")
        .env("KBUILD_BUILD_HOST", "aerostat")
        .env("LC_ALL", "C");
    make
}

/// Lays our configuration over the smallest one, and looks whether all of it came through: what
/// depends on something else that is missing is left out without a word.
fn configure(tree: &Path, log: &Path) -> anyhow::Result<()> {
    let config = tree.join(".config");
    let is_ours = |text: &str| lost(CONFIG, text).is_empty();
    if fs::read_to_string(&config).is_ok_and(|text| is_ours(&text)) {
        return Ok(());
    }
    eprintln!("configuring");
    let doing = "configure the kernel";
    step(doing, make(tree).arg("tinyconfig"), log, |_| {})?;
    let mut file = OpenOptions::new().append(true).open(&config)?;
    file.write_all(CONFIG.as_bytes())?;
    drop(file);
    step(doing, make(tree).arg("olddefconfig"), log, |_| {})?;
    let text = fs::read_to_string(&config)?;
    let lost = lost(CONFIG, &text);
    ensure!(
        lost.is_empty(),
        "this source cannot have what the configuration asks for: {}",
        lost.join(", ")
    );
    Ok(())
}

/// Lines of `wanted` that `config` does not have.
fn lost(wanted: &str, config: &str) -> Vec<String> {
    let lines: BTreeSet<&str> = config.lines().collect();
    let is_kept = |line: &str| match line.strip_prefix("# ").and_then(|l| l.split_once(" is ")) {
        // What nobody asks for is not mentioned.
        Some((symbol, _)) => !lines.iter().any(|line| {
            line.strip_prefix(symbol)
                .is_some_and(|rest| rest.starts_with('='))
        }),
        None => lines.contains(line),
    };
    let is_setting = |line: &&str| line.starts_with("CONFIG_") || line.starts_with("# CONFIG_");
    let settings = wanted.lines().filter(is_setting);
    settings
        .filter(|line| !is_kept(line))
        .map(str::to_owned)
        .collect()
}

fn compile(tree: &Path, log: &Path, jobs: usize) -> anyhow::Result<()> {
    let is_terminal = std::io::stderr().is_terminal();
    eprintln!(
        "compiling with {jobs} at a time; about ten minutes of a processor (log: {})",
        log.display()
    );
    let mut done = 0;
    let mut shown = Instant::now();
    let mut command = make(tree);
    command.arg(format!("-j{jobs}")).arg("vmlinux");
    step("compile the kernel", &mut command, log, |line| {
        let Some(file) = compiled(line) else { return };
        done += 1;
        if is_terminal && shown.elapsed() > PROGRESS_EVERY {
            shown = Instant::now();
            let percent = (done * 100 / FILES_ABOUT).min(99);
            eprint!("\r\x1b[K{percent:3} %  {file}");
        }
    })?;
    if is_terminal {
        eprint!("\r\x1b[K");
    }
    Ok(())
}

/// The file in a line such as `  CC      kernel/fork.o`.
fn compiled(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    let verb = words.next()?;
    let file = words.next()?;
    (line.starts_with("  ") && verb.chars().all(|c| c.is_ascii_uppercase())).then_some(file)
}

/// Keeps the kernel whole or not at all.
fn keep(store: &Store, id: &str, tree: &Path, source: &Source, log: &Path) -> anyhow::Result<()> {
    let unfinished = store.kernel(&format!("{id}.unfinished"));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished)?;
    }
    fs::create_dir_all(&unfinished)?;
    let kernel = unfinished.join("vmlinux");
    // Without symbols it has a third of the size, and boots sooner.
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&kernel).arg(tree.join("vmlinux"));
    step("strip the kernel", &mut strip, log, |_| {})?;
    fs::copy(tree.join(".config"), unfinished.join("config"))?;
    let about = About {
        version: source.version().to_owned(),
        compiler: tools::version("gcc"),
        built_s: jiff::Timestamp::now().as_second(),
    };
    about.write(&unfinished)?;
    for name in ["vmlinux", "config", "about.json"] {
        File::open(unfinished.join(name))?.sync_all()?;
    }
    fs::rename(&unfinished, store.kernel(id)).context("cannot keep the kernel")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_known_by_its_source_and_its_configuration() {
        assert_eq!(id("6.12.1", "a"), id("6.12.1", "a"));
        assert_ne!(id("6.12.1", "a"), id("6.12.2", "a"));
        assert_ne!(id("6.12.1", "a"), id("6.12.1", "b"));
        assert_eq!(id("6.12.1", "a").len(), ID_DIGITS);
    }

    #[test]
    fn settings_that_did_not_come_through_are_named() {
        let wanted = "# a comment\nCONFIG_A=y\nCONFIG_B=4\n# CONFIG_C is not set\n";
        assert!(lost(wanted, "CONFIG_B=4\nCONFIG_A=y\n").is_empty());
        assert!(lost(wanted, "CONFIG_B=4\nCONFIG_A=y\n# CONFIG_C is not set\n").is_empty());
        assert_eq!(
            lost(wanted, "CONFIG_A=m\nCONFIG_B=4\nCONFIG_C=y\nCONFIG_CC=y\n"),
            ["CONFIG_A=y", "# CONFIG_C is not set"]
        );
        let twice: BTreeSet<_> = CONFIG
            .lines()
            .filter(|l| l.starts_with("CONFIG_"))
            .collect();
        let all = CONFIG.lines().filter(|l| l.starts_with("CONFIG_")).count();
        assert_eq!(twice.len(), all, "each setting once");
    }

    #[test]
    fn lines_of_the_compiler_are_told_from_others() {
        assert_eq!(compiled("  CC      kernel/fork.o"), Some("kernel/fork.o"));
        assert_eq!(compiled("  LD      vmlinux"), Some("vmlinux"));
        assert_eq!(compiled("make[1]: Entering directory"), None);
        assert_eq!(compiled("  warning: x"), None);
        assert_eq!(compiled(""), None);
    }

    #[test]
    fn a_kernel_is_built_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let held = lock(dir.path()).unwrap();
        let error = lock(dir.path()).unwrap_err().to_string();
        assert!(error.contains("somebody builds"), "{error}");
        drop(held);
        lock(dir.path()).unwrap();
    }
}
