//! The flags that say what a machine is: shared by `run`, `create`, `update` and `clone`.
//!
//! [`Flags::apply`] changes a configuration and asks nobody, so that an update is the same code
//! on the configuration that is there.

use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use clap::Args;
use types::IsolationClass;
use types::machine::{
    Check, CheckMeaning, CheckType, Duration, File, Guest, MachineConfig, Mount, Persist, Restart,
    RestartPolicy, Schedule, StopConfig,
};

use crate::cli::{Refused, complete};

#[derive(Debug, Default, Args)]
pub(in crate::cli) struct Flags {
    /// Variable of its environment; KEY alone takes the value from here
    #[arg(short, long, value_name = "KEY[=VALUE]", help_heading = "Program")]
    env: Vec<String>,
    /// File of variables, one KEY=VALUE in a line
    #[arg(long, value_name = "FILE", help_heading = "Program")]
    env_file: Vec<PathBuf>,
    /// Program instead of the image's entry point, as a shell splits it
    #[arg(long, help_heading = "Program")]
    entrypoint: Option<String>,
    /// File to put into it, from here; up to 1 MiB in all
    #[arg(long, value_name = "LOCAL:/PATH", help_heading = "Program")]
    file: Vec<String>,
    /// Volume to mount, by id, or by name: a free one, made if there is none; may be repeated
    #[arg(short, long, value_name = "VOLUME:/PATH", value_parser = volume, help_heading = "Program")]
    volume: Vec<(String, String)>,
    /// Metadata, for lists and services
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = pair, help_heading = "Program")]
    metadata: Vec<(String, String)>,

    /// Preset of processors and memory, such as shared-cpu-2x or performance-1x
    #[arg(long, conflicts_with_all = ["cpus", "memory", "cpu_kind"], help_heading = "Size")]
    size: Option<String>,
    /// Processors [default of a new machine: 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Size")]
    cpus: Option<u32>,
    /// shared or performance [default of a new machine: shared]
    #[arg(long, value_name = "KIND", value_parser = ["shared", "performance"], help_heading = "Size")]
    cpu_kind: Option<String>,
    /// Memory in MiB, or as 512m or 2g [default of a new machine: 256]
    #[arg(long, value_parser = mebibytes, help_heading = "Size")]
    memory: Option<u32>,
    /// Size of its writable layer, in GiB
    #[arg(long, value_name = "GIB", help_heading = "Size")]
    rootfs_size: Option<u32>,
    /// How long its writable layer stays: never, restart (until an update) or always [default of a
    /// new machine: never]
    #[arg(long = "persist", alias = "rootfs-persist", value_name = "UNTIL", value_parser = persist,
          help_heading = "Size")]
    rootfs_persist: Option<Persist>,

    /// Isolation: microvm, emulated or container [default: what the host offers]
    #[arg(long, visible_alias = "isolation", help_heading = "Life")]
    class: Option<IsolationClass>,
    /// What to do when it ends: no, on-failure or always, and how often at most
    #[arg(long, value_name = "POLICY[:MAX]", value_parser = restart, help_heading = "Life")]
    restart: Option<Restart>,
    /// Start it again hourly, daily, weekly or monthly
    #[arg(long, value_parser = schedule, help_heading = "Life")]
    schedule: Option<Schedule>,
    /// Destroy it when it ends
    #[arg(long, help_heading = "Life")]
    rm: bool,
    /// Signal that asks it to stop [default: SIGINT]
    #[arg(long, value_name = "SIGNAL", help_heading = "Life")]
    stop_signal: Option<String>,
    /// Seconds from that signal to the kill [default: 5]
    #[arg(long, value_name = "SECONDS", help_heading = "Life")]
    stop_timeout: Option<u64>,
    /// Check of its health: tcp:PORT, http:PORT/PATH or https:PORT/PATH, then ,name=…
    /// ,interval=10s ,timeout=2s ,grace=5s ,readiness; of https ,server-name=… ,skip-verify
    #[arg(long, value_name = "CHECK", value_parser = check, help_heading = "Life")]
    check: Vec<(String, Check)>,

    /// Begin with this configuration: a JSON file as of the Machines API, - for standard input
    #[arg(long, value_name = "FILE", help_heading = "Program")]
    pub(super) machine_config: Option<PathBuf>,
}

impl Flags {
    /// The configuration of a new machine.
    pub(super) fn new_config(&self) -> anyhow::Result<MachineConfig> {
        let mut config = MachineConfig::default();
        self.apply(&mut config)?;
        Ok(config)
    }

    /// Changes what was asked for and nothing else.
    pub(super) fn apply(&self, config: &mut MachineConfig) -> anyhow::Result<()> {
        if let Some(path) = &self.machine_config {
            *config = read_config(path)?;
        }
        for path in &self.env_file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            config.env.extend(env_file(&text).map_err(|line| {
                Refused(format!(
                    "{}, line {line}: must be KEY=VALUE",
                    path.display()
                ))
            })?);
        }
        for text in &self.env {
            let (key, value) = variable(text)?;
            config.env.insert(key, value);
        }
        if let Some(text) = &self.entrypoint {
            let words = shlex::split(text);
            config.init.entrypoint = words
                .ok_or_else(|| Refused(format!("--entrypoint `{text}` has a quote without end")))?;
        }
        for text in &self.file {
            let file = file(text)?;
            config
                .files
                .retain(|other| other.guest_path != file.guest_path);
            config.files.push(file);
        }
        for (volume, path) in &self.volume {
            config.mounts.retain(|mount| mount.path != *path);
            config.mounts.push(Mount {
                volume: volume.clone(),
                path: path.clone(),
                ..Mount::default()
            });
        }
        config.metadata.extend(self.metadata.iter().cloned());
        self.apply_size(config);
        self.apply_life(config);
        Ok(())
    }

    fn apply_size(&self, config: &mut MachineConfig) {
        if let Some(size) = &self.size {
            config.size.clone_from(size);
            config.guest = None;
        }
        if self.cpus.is_some() || self.memory.is_some() || self.cpu_kind.is_some() {
            let guest = config.guest.get_or_insert_with(Guest::default);
            guest.cpus = self.cpus.unwrap_or(guest.cpus);
            guest.memory_mb = self.memory.unwrap_or(guest.memory_mb);
            if let Some(kind) = &self.cpu_kind {
                guest.cpu_kind.clone_from(kind);
            }
            config.size.clear();
        }
        if let Some(size_gb) = self.rootfs_size {
            config.rootfs.size_gb = size_gb;
        }
        if self.rootfs_persist.is_some() {
            config.rootfs.persist = self.rootfs_persist;
            if let Some(guest) = &mut config.guest {
                guest.persist_rootfs = None;
            }
        }
    }

    fn apply_life(&self, config: &mut MachineConfig) {
        if self.class.is_some() {
            config.isolation = self.class;
        }
        if self.restart.is_some() {
            config.restart.clone_from(&self.restart);
        }
        if self.schedule.is_some() {
            config.schedule = self.schedule;
        }
        if self.rm {
            config.auto_destroy = true;
            // One that is started again does not end, and so would stay for ever.
            config.restart.get_or_insert(Restart {
                policy: RestartPolicy::No,
                max_retries: None,
            });
        }
        if self.stop_signal.is_some() || self.stop_timeout.is_some() {
            let stop = config.stop_config.get_or_insert_with(StopConfig::default);
            if self.stop_signal.is_some() {
                stop.signal.clone_from(&self.stop_signal);
            }
            if let Some(seconds) = self.stop_timeout {
                stop.timeout = Some(Duration(std::time::Duration::from_secs(seconds)));
            }
        }
        config.checks.extend(self.check.iter().cloned());
    }
}

fn read_config(path: &std::path::Path) -> anyhow::Result<MachineConfig> {
    let text = match path.to_str() {
        Some("-") => {
            std::io::read_to_string(std::io::stdin()).context("cannot read standard input")?
        }
        _ => std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?,
    };
    let config = serde_json::from_str(&text);
    config.with_context(|| format!("{} is no configuration of a machine", path.display()))
}

pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("must be KEY=VALUE".to_owned()),
    }
}

fn variable(text: &str) -> Result<(String, String), Refused> {
    if let Ok(pair) = pair(text) {
        return Ok(pair);
    }
    let value = std::env::var(text).map_err(|_| {
        Refused(format!(
            "--env {text} takes the value from here, where `{text}` is not set; write {text}=VALUE"
        ))
    })?;
    Ok((text.to_owned(), value))
}

/// Lines of KEY=VALUE; blank ones and comments are left out. An error is the number of a line.
fn env_file(text: &str) -> Result<Vec<(String, String)>, usize> {
    let lines = text.lines().enumerate();
    let lines = lines.map(|(number, line)| (number + 1, line.trim()));
    lines
        .filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
        .map(|(number, line)| {
            let line = line.strip_prefix("export ").unwrap_or(line);
            let (key, value) = pair(line).map_err(|_| number)?;
            let quoted = ['"', '\'']
                .into_iter()
                .find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
            Ok((key, quoted.unwrap_or(&value).to_owned()))
        })
        .collect()
}

fn file(text: &str) -> anyhow::Result<File> {
    use std::os::unix::fs::PermissionsExt as _;
    let (local, guest_path) = match text.rsplit_once(':') {
        Some((local, path)) if path.starts_with('/') && !local.is_empty() => (local, path),
        Some(_) | None => {
            let told =
                format!("--file {text}: must be LOCAL:/PATH, such as app.conf:/etc/app.conf");
            return Err(Refused(told).into());
        }
    };
    let content = std::fs::read(local).with_context(|| format!("cannot read {local}"))?;
    let mode = std::fs::metadata(local)?.permissions().mode() & 0o7777;
    Ok(File {
        guest_path: guest_path.to_owned(),
        raw_value: Some(base64::engine::general_purpose::STANDARD.encode(content)),
        mode: Some(mode),
        ..File::default()
    })
}

fn volume(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((volume, path)) if path.starts_with('/') && !volume.is_empty() => {
            Ok((volume.to_owned(), path.to_owned()))
        }
        Some(_) | None => Err("must be VOLUME:/PATH, such as data:/var/lib/data".to_owned()),
    }
}

/// MiB, or a number with m or g.
fn mebibytes(text: &str) -> Result<u32, String> {
    let lower = text.to_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &lower[digits.len()..] {
        "" | "m" | "mb" | "mib" => 1,
        "g" | "gb" | "gib" => 1024,
        _ => 0,
    };
    let number = digits.parse::<u32>().ok().filter(|_| factor > 0);
    number
        .and_then(|number| number.checked_mul(factor))
        .filter(|mebibytes| *mebibytes > 0)
        .ok_or_else(|| "must be MiB, or as 512m or 2g".to_owned())
}

fn persist(text: &str) -> Result<Persist, String> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_| "must be never, restart or always".to_owned())
}

fn restart(text: &str) -> Result<Restart, String> {
    let problem = || "must be no, on-failure or always, and may go on with :MAX".to_owned();
    let (policy, max) = match text.split_once(':') {
        Some((policy, max)) => (policy, Some(max.parse().map_err(|_| problem())?)),
        None => (text, None),
    };
    let policy = match policy {
        "no" | "never" => RestartPolicy::No,
        "on-failure" => RestartPolicy::OnFailure,
        "always" => RestartPolicy::Always,
        _ => return Err(problem()),
    };
    Ok(Restart {
        policy,
        max_retries: max,
    })
}

fn schedule(text: &str) -> Result<Schedule, String> {
    serde_json::from_value(serde_json::Value::from(text))
        .map_err(|_| "must be hourly, daily, weekly or monthly".to_owned())
}

/// `http:8080/health,interval=5s,readiness`
fn check(text: &str) -> Result<(String, Check), String> {
    let mut parts = text.split(',');
    let what = parts.next().unwrap_or_default();
    let (kind, target) = what
        .split_once(':')
        .ok_or("must begin with tcp:PORT or http:PORT/PATH")?;
    let (port, path) = match target.find('/') {
        Some(at) => (&target[..at], Some(target[at..].to_owned())),
        None => (target, None),
    };
    let port: u16 = port
        .parse()
        .map_err(|_| format!("`{port}` is no port of 1 to 65535"))?;
    let mut name = format!("{kind}-{port}");
    let mut check = Check {
        kind: match (kind, &path) {
            ("http" | "https", _) => CheckType::Http,
            ("tcp", None) => CheckType::Tcp,
            ("tcp", Some(_)) => return Err("a tcp check has no path; try http:".to_owned()),
            _ => {
                return Err(format!(
                    "`{kind}` is no check; there are tcp, http and https"
                ));
            }
        },
        protocol: (kind == "https").then(|| kind.to_owned()),
        port: Some(port),
        path,
        ..Check::default()
    };
    for part in parts {
        let time = |value: &str| {
            let time: Duration = value
                .parse()
                .map_err(|_| format!("`{value}` is no time; try 5s"))?;
            Ok::<_, String>(Some(time))
        };
        match part.split_once('=') {
            Some(("name", value)) => value.clone_into(&mut name),
            Some(("interval", value)) => check.interval = time(value)?,
            Some(("timeout", value)) => check.timeout = time(value)?,
            Some(("grace", value)) => check.grace_period = time(value)?,
            Some(("method", value)) => check.method = Some(value.to_owned()),
            Some(("server-name", value)) => check.tls_server_name = Some(value.to_owned()),
            None if part == "skip-verify" => check.tls_skip_verify = Some(true),
            None if part == "readiness" => check.meaning = Some(CheckMeaning::Readiness),
            Some(_) | None => {
                let told = "there are name=, interval=, timeout=, grace=, method=, readiness, \
                            and of https server-name= and skip-verify";
                return Err(format!("`{part}` is no part of a check; {told}"));
            }
        }
    }
    Ok((name, check))
}

/// Where a new machine goes.
#[derive(Debug, Args)]
pub(in crate::cli) struct Where {
    /// App to put it in; made if it is missing
    #[arg(short, long, env = "AEROSTAT_APP", hide_env_values = true, default_value = "default",
          add = complete::apps())]
    pub(super) app: types::AppName,
    /// Its name, unique in the app [default: made up]
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub(super) name: String,
    /// Region to place it in [default: the nearest]
    #[arg(short, long, default_value = "", hide_default_value = true)]
    pub(super) region: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_command_line_are_read_or_explained() {
        assert_eq!(mebibytes("512"), Ok(512));
        assert_eq!(mebibytes("2g"), Ok(2048));
        assert_eq!(mebibytes("512MiB"), Ok(512));
        for text in ["", "g", "2t", "0", "-1", "5000000g"] {
            assert!(mebibytes(text).is_err(), "{text}");
        }
        assert_eq!(restart("on-failure:3").unwrap().max_retries, Some(3));
        assert_eq!(restart("always").unwrap().policy, RestartPolicy::Always);
        assert!(restart("often").is_err());
        assert!(schedule("yearly").unwrap_err().contains("monthly"));
        assert!(volume("data").is_err());
    }

    #[test]
    fn a_check_is_written_in_one_word() {
        let (name, web) = check("http:8080/health,interval=5s,grace=1m,readiness").unwrap();
        assert_eq!((name.as_str(), web.port), ("http-8080", Some(8080)));
        assert_eq!(web.path.as_deref(), Some("/health"));
        assert_eq!(web.meaning, Some(CheckMeaning::Readiness));
        assert_eq!(web.interval.unwrap().0.as_secs(), 5);
        assert_eq!(check("tcp:5432,name=db").unwrap().0, "db");
        for text in [
            "8080",
            "tcp:x",
            "tcp:80/",
            "icmp:1",
            "tcp:80,often",
            "tcp:80,interval=x",
        ] {
            assert!(check(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_of_variables_may_have_comments_and_quotes() {
        let text = "# all\nA=1\n\nexport B=\"x y\"\nC='=z'\n";
        let pairs = env_file(text).unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| (&**k, &**v)).collect();
        assert_eq!(pairs, [("A", "1"), ("B", "x y"), ("C", "=z")]);
        assert_eq!(env_file("A=1\nwrong"), Err(2));
    }

    #[test]
    fn an_update_changes_what_was_asked_for_and_nothing_else() {
        let mut config = MachineConfig {
            image: "x".into(),
            guest: Some(Guest {
                cpus: 4,
                ..Guest::default()
            }),
            ..MachineConfig::default()
        };
        config.env.insert("A".into(), "1".into());
        let flags = Flags {
            memory: Some(512),
            env: vec!["B=2".into()],
            ..Flags::default()
        };
        flags.apply(&mut config).unwrap();
        let guest = config.guest.unwrap();
        assert_eq!((guest.cpus, guest.memory_mb), (4, 512));
        assert_eq!(config.env.len(), 2);
    }
}
