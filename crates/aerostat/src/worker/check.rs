//! Whether a configuration can be run. Pure.
//!
//! What is not built is refused by name: a machine that silently lacks a volume or a check is
//! worse than none. What comes out always has containers, at least one, with names of their own.

mod mounts;

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use types::machine::{
    ContainerConfig, DependsOn, File, Guest, MachineConfig, Restart, RestartPolicy, StopConfig,
};
use types::{ImageRef, IsolationClass};

/// Name of the only container of a machine that names an image instead of containers.
pub const ONLY_CONTAINER: &str = "app";

/// Containers of one machine. Each is a disk or two of the VM, and QEMU's PCI bus has 32 places.
pub(super) const CONTAINERS_MAX: usize = 12;
/// Sum of the files' contents. A boot's specification has to fit one frame of the guest protocol.
pub(super) const FILES_BYTES_MAX: usize = 2 << 20;
/// Everything else in a configuration, as JSON.
pub(super) const CONFIG_BYTES_MAX: usize = 512 << 10;
const MEMORY_MB_MIN: u32 = 64;
const MEMORY_MB_MAX: u32 = 1 << 20;
const CPUS_MAX: u32 = 64;
const ROOTFS_GB_MAX: u32 = 1024;
/// The Machines API allows no more.
const STOP_TIMEOUT_S_MAX: u64 = 300;

/// A configuration that [`check`] has let through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckedConfig(MachineConfig);

/// The first thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct Invalid {
    /// Where, as a path of member names: `config.containers[1].image`.
    pub field: String,
    pub reason: String,
}

type Checked = Result<(), Invalid>;

fn invalid(field: impl Into<String>, reason: impl Into<String>) -> Checked {
    Err(Invalid {
        field: field.into(),
        reason: reason.into(),
    })
}

/// Checks a configuration.
///
/// # Errors
/// The first thing that is wrong or not built.
pub fn check(config: MachineConfig) -> Result<CheckedConfig, Invalid> {
    unbuilt("config", &config.other)?;
    refuse_unbuilt(&config)?;
    check_guest(config.guest.as_ref())?;
    unbuilt("config.dns", &config.dns.other)?;
    check_hostname(&config.dns.hostname)?;
    for name in &config.dns.nameservers {
        if name.parse::<std::net::IpAddr>().is_err() {
            invalid(
                "config.dns.nameservers",
                format!("`{name}` is not an IP address"),
            )?;
        }
    }
    for option in &config.dns.options {
        let is_word = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control());
        if option.name.is_empty() || !is_word(&option.name) || !is_word(&option.value) {
            invalid(
                "config.dns.options",
                format!("`{}` is not an option of a resolver", option.name),
            )?;
        }
    }
    mounts::check_mounts(&config.mounts, &config.containers)?;
    check_rootfs(&config)?;
    check_restart("config.restart", config.restart.as_ref())?;
    check_stop("config.stop_config", config.stop_config.as_ref())?;
    check_env("config.env", &config.env)?;
    if config.containers.is_empty() && config.image.is_empty() {
        invalid("config.image", "is missing; name an image or containers")?;
    }
    if config.containers.len() > CONTAINERS_MAX {
        invalid(
            "config.containers",
            format!("at most {CONTAINERS_MAX} are possible"),
        )?;
    }
    if !config.containers.is_empty() && config.init != types::machine::Init::default() {
        invalid(
            "config.init",
            "belongs to machines without containers; set it per container",
        )?;
    }
    let checked = CheckedConfig(config);
    let containers = checked.containers();
    let mut files_bytes = 0;
    for (index, container) in containers.iter().enumerate() {
        let field = if checked.0.containers.is_empty() {
            "config".to_owned()
        } else {
            format!("config.containers[{index}]")
        };
        files_bytes += check_container(&field, container)?;
    }
    if files_bytes > FILES_BYTES_MAX {
        invalid(
            "config",
            format!("its files are larger than {FILES_BYTES_MAX} bytes together"),
        )?;
    }
    check_order(&containers)?;
    let bytes = serde_json::to_vec(&checked).map_or(usize::MAX, |json| json.len());
    if bytes > CONFIG_BYTES_MAX + FILES_BYTES_MAX / 3 * 4 {
        invalid("config", format!("is larger than {CONFIG_BYTES_MAX} bytes"))?;
    }
    Ok(checked)
}

/// Refuses members that this version does nothing for. Clients write empty ones too.
fn unbuilt(field: &str, other: &BTreeMap<String, Value>) -> Checked {
    let says_something = |value: &Value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    };
    match other.iter().find(|(_, value)| says_something(value)) {
        Some((name, _)) => invalid(format!("{field}.{name}"), "is not built yet; leave it out"),
        None => Ok(()),
    }
}

/// Members that are known, and that nothing is done for yet.
fn refuse_unbuilt(config: &MachineConfig) -> Checked {
    let container = |holds: fn(&ContainerConfig) -> bool| config.containers.iter().any(holds);
    for (member, is_there) in [
        ("size", !config.size.is_empty()),
        ("processes", !config.processes.is_empty()),
        ("files", !config.files.is_empty()),
        ("volumes", !config.volumes.is_empty()),
        ("checks", !config.checks.is_empty()),
        ("schedule", config.schedule.is_some()),
        ("containers.secrets", container(|c| !c.secrets.is_empty())),
        (
            "containers.healthchecks",
            container(|c| !c.healthchecks.is_empty()),
        ),
        (
            "containers.files.secret_name",
            container(|c| c.files.iter().any(|f| f.secret_name.is_some())),
        ),
    ] {
        if is_there {
            invalid(format!("config.{member}"), "is not built yet; leave it out")?;
        }
    }
    Ok(())
}

fn check_guest(guest: Option<&Guest>) -> Checked {
    let Some(guest) = guest else { return Ok(()) };
    unbuilt("config.guest", &guest.other)?;
    if !matches!(guest.cpu_kind.as_str(), "shared" | "performance") {
        invalid("config.guest.cpu_kind", "must be shared or performance")?;
    }
    if !(1..=CPUS_MAX).contains(&guest.cpus) {
        invalid("config.guest.cpus", format!("must be 1 to {CPUS_MAX}"))?;
    }
    if !(MEMORY_MB_MIN..=MEMORY_MB_MAX).contains(&guest.memory_mb) {
        let reason = format!("must be {MEMORY_MB_MIN} to {MEMORY_MB_MAX}");
        invalid("config.guest.memory_mb", reason)?;
    }
    Ok(())
}

fn check_hostname(hostname: &str) -> Checked {
    let label = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    // 64 is Linux' bound (sethostname(2)).
    if hostname.len() > 64 || !hostname.bytes().all(label) {
        invalid(
            "config.dns.hostname",
            "must be letters, digits, dashes and dots, at most 64",
        )?;
    }
    Ok(())
}

fn check_rootfs(config: &MachineConfig) -> Checked {
    let mut other = config.rootfs.other.clone();
    // The layer is fresh at every boot: exactly what `never` (1, or 0: not said) asks for.
    if matches!(other.get("persist"), Some(Value::String(text)) if text == "never")
        || matches!(other.get("persist"), Some(Value::Number(n)) if n.as_u64() == Some(1))
    {
        other.remove("persist");
    }
    unbuilt("config.rootfs", &other)?;
    if config.rootfs.size_gb > ROOTFS_GB_MAX {
        invalid(
            "config.rootfs.size_gb",
            format!("must be at most {ROOTFS_GB_MAX}"),
        )?;
    }
    Ok(())
}

fn check_restart(field: &str, restart: Option<&Restart>) -> Checked {
    match restart {
        Some(Restart {
            policy: RestartPolicy::No,
            max_retries: Some(1..),
        }) => invalid(field, "max_retries needs a policy that restarts"),
        Some(_) | None => Ok(()),
    }
}

fn check_stop(field: &str, stop: Option<&StopConfig>) -> Checked {
    let Some(stop) = stop else { return Ok(()) };
    if let Some(signal) = &stop.signal {
        check_signal(&format!("{field}.signal"), signal)?;
    }
    let timeout = stop.timeout.map_or(0, |timeout| timeout.0.as_secs());
    if timeout > STOP_TIMEOUT_S_MAX {
        invalid(
            format!("{field}.timeout"),
            format!("must be at most {STOP_TIMEOUT_S_MAX}s"),
        )?;
    }
    Ok(())
}

/// Checks the name of a signal: `SIGTERM`, `TERM` or a number.
///
/// # Errors
/// If Linux has no such signal.
pub fn check_signal(field: &str, signal: &str) -> Checked {
    let number = signal
        .parse::<u8>()
        .is_ok_and(|number| (1..=64).contains(&number));
    let named = format!("SIG{}", signal.trim_start_matches("SIG"));
    if !number && named.parse::<nix::sys::signal::Signal>().is_err() {
        invalid(field, format!("`{signal}` is not a signal"))?;
    }
    Ok(())
}

fn check_env<'a>(field: &str, env: impl IntoIterator<Item = (&'a String, &'a String)>) -> Checked {
    for (name, value) in env {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            let name = name.escape_default().to_string();
            invalid(field, format!("`{name}` cannot be an environment variable"))?;
        }
    }
    Ok(())
}

/// Checks one container, and returns how large its files are.
fn check_container(field: &str, container: &ContainerConfig) -> Result<usize, Invalid> {
    let at = |member: &str| format!("{field}.{member}");
    unbuilt(field, &container.other)?;
    let label = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let name = &container.name;
    if !(1..=63).contains(&name.len()) || !name.bytes().all(label) {
        invalid(
            at("name"),
            "must be 1 to 63 lower-case letters, digits, dashes, underscores",
        )?;
    }
    if let Err(error) = container.image.parse::<ImageRef>() {
        invalid(at("image"), error.to_string())?;
    }
    for (member, words) in [
        ("exec", &container.exec),
        ("entrypoint", &container.entrypoint),
        ("cmd", &container.cmd),
    ] {
        if words.iter().any(|word| word.contains('\0')) {
            invalid(at(member), "must not hold a zero byte")?;
        }
    }
    check_env(&at("env"), &container.env)?;
    for from in &container.env_from {
        check_env(&at("env_from"), [(&from.env_var, &String::new())])?;
    }
    check_restart(&at("restart"), container.restart.as_ref())?;
    check_stop(&at("stop"), container.stop.as_ref())?;
    if container
        .working_dir
        .as_deref()
        .is_some_and(|dir| !is_plain_absolute(dir))
    {
        invalid(at("working_dir"), "must be an absolute path without `..`")?;
    }
    let mut bytes = 0;
    for file in &container.files {
        bytes += check_file(&at("files"), file)?;
    }
    Ok(bytes)
}

fn check_file(field: &str, file: &File) -> Result<usize, Invalid> {
    unbuilt(field, &file.other)?;
    if !is_plain_absolute(&file.guest_path) || file.guest_path.ends_with('/') {
        let reason = format!("`{}` is not an absolute path without `..`", file.guest_path);
        invalid(format!("{field}.guest_path"), reason)?;
    }
    if file.mode.is_some_and(|mode| mode > 0o7777) {
        invalid(format!("{field}.mode"), "must be at most 0o7777 (4095)")?;
    }
    let content = file.raw_value.as_deref().unwrap_or_default();
    match base64::engine::general_purpose::STANDARD.decode(content) {
        Ok(bytes) => Ok(bytes.len()),
        Err(error) => invalid(
            format!("{field}.raw_value"),
            format!("is not base64: {error}"),
        )
        .map(|()| 0),
    }
}

fn is_plain_absolute(path: &str) -> bool {
    path.starts_with('/')
        && path.len() <= 4096
        && !path.contains('\0')
        && !path.split('/').any(|part| part == "..")
}

/// Names are unique, and what containers wait for exists and does not wait for them.
fn check_order(containers: &[ContainerConfig]) -> Checked {
    let names: BTreeSet<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    if names.len() != containers.len() {
        invalid("config.containers", "two containers have the same name")?;
    }
    for container in containers {
        for DependsOn { name, condition } in &container.depends_on {
            if !names.contains(name.as_str()) {
                let reason = format!(
                    "`{}` waits for `{name}`, which is not there",
                    container.name
                );
                invalid("config.containers.depends_on", reason)?;
            }
            if *condition == types::machine::DependsOnCondition::Healthy {
                invalid(
                    "config.containers.depends_on",
                    "condition healthy is not built yet",
                )?;
            }
        }
    }
    // Takes away what waits for nothing that is left, until nothing changes.
    let mut left = names;
    loop {
        let before = left.len();
        for container in containers {
            if container
                .depends_on
                .iter()
                .all(|on| !left.contains(on.name.as_str()))
            {
                left.remove(container.name.as_str());
            }
        }
        match left.len() {
            0 => return Ok(()),
            after if after == before => {
                let names: Vec<&str> = left.into_iter().collect();
                let reason = format!("{} wait for each other", names.join(", "));
                return invalid("config.containers.depends_on", reason);
            }
            _ => {}
        }
    }
}

impl CheckedConfig {
    /// As it was given.
    pub fn as_given(&self) -> &MachineConfig {
        &self.0
    }

    /// The containers; one named [`ONLY_CONTAINER`] if the configuration names an image.
    /// The machine's `env` counts for each of them, less than its own.
    pub fn containers(&self) -> Vec<ContainerConfig> {
        let config = &self.0;
        let mut containers = config.containers.clone();
        if containers.is_empty() {
            containers.push(ContainerConfig {
                name: ONLY_CONTAINER.into(),
                image: config.image.clone(),
                exec: config.init.exec.clone(),
                entrypoint: config.init.entrypoint.clone(),
                cmd: config.init.cmd.clone(),
                tty: config.init.tty,
                stdin: config.init.stdin || config.init.tty,
                // The machine's own policy restarts it, with a new boot.
                restart: Some(Restart {
                    policy: RestartPolicy::No,
                    max_retries: None,
                }),
                ..ContainerConfig::default()
            });
        }
        for container in &mut containers {
            let own = std::mem::replace(&mut container.env, config.env.clone());
            container.env.extend(own);
        }
        containers
    }

    pub fn container_names(&self) -> Vec<String> {
        if self.0.containers.is_empty() {
            return vec![ONLY_CONTAINER.into()];
        }
        self.0
            .containers
            .iter()
            .map(|container| container.name.clone())
            .collect()
    }

    pub fn guest(&self) -> Guest {
        self.0.guest.clone().unwrap_or_default()
    }

    /// The machine's own restart policy, with its defaults.
    pub fn restart(&self) -> Restart {
        self.0.restart.clone().unwrap_or_default()
    }

    pub fn isolation(&self) -> Option<IsolationClass> {
        self.0.isolation
    }
}

#[cfg(test)]
mod tests;
