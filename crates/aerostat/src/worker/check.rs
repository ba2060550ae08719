//! Whether a configuration can be run. Pure.
//!
//! What is not built is refused by name: a machine that silently lacks a volume or a check is
//! worse than none. What comes out always has containers, at least one, with names of their own.
//! Every refusal names the member, says why, and says what would do.

mod checked;
mod containers;
mod directories;
mod files;
mod mounts;
mod probes;
mod size;
mod words;

use std::collections::BTreeMap;

use serde_json::Value;
use types::machine::{ContainerConfig, Dns, Init, MachineConfig, RootFs};

pub use checked::CheckedConfig;
pub use words::check_signal;

/// Name of the only container of a machine that names an image instead of containers.
pub const ONLY_CONTAINER: &str = "app";

/// Everything in a configuration but its files, as JSON.
pub(super) const CONFIG_BYTES_MAX: usize = 512 << 10;
const ROOTFS_GB_MAX: u32 = 1024;

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
    check_other(&config.other)?;
    check_withheld(&config)?;
    size::check(config.guest.as_ref(), &config.size)?;
    check_dns(&config.dns)?;
    check_rootfs(&config.rootfs)?;
    check_persist(&config)?;
    words::check_restart("config.restart", config.restart.as_ref())?;
    words::check_stop("config.stop_config", config.stop_config.as_ref())?;
    words::check_env("config.env", &config.env)?;
    check_shape(&config)?;
    directories::check(&config)?;
    mounts::check_mounts(&config.mounts, &config.containers)?;
    let checked = CheckedConfig::new(config);
    containers::check(&checked)?;
    check_secrets(&checked.containers())?;
    probes::check(&checked)?;
    check_bytes(&checked)?;
    Ok(checked)
}

/// What there is to run is said in one of three ways, and members of another one are not there.
fn check_shape(config: &MachineConfig) -> Checked {
    let (containers, processes) = (&config.containers, &config.processes);
    if config.image.is_empty() && containers.is_empty() {
        return invalid("config.image", "is missing; name an image or containers");
    }
    if !containers.is_empty() && !processes.is_empty() {
        return invalid(
            "config.processes",
            "cannot stand beside containers; make each a container",
        );
    }
    for (member, is_there) in [
        ("init", config.init != Init::default()),
        ("files", !config.files.is_empty()),
    ] {
        if is_there && !containers.is_empty() {
            return invalid(
                format!("config.{member}"),
                "belongs to machines without containers; set it per container",
            );
        }
    }
    if !processes.is_empty() && config.init != Init::default() {
        return invalid(
            "config.init",
            "belongs to machines without processes; set it per process",
        );
    }
    Ok(())
}

/// Members that this version has no place for.
fn check_other(other: &BTreeMap<String, Value>) -> Checked {
    if other.get("standbys").is_some_and(says_something) {
        return invalid(
            "config.standbys",
            "machines that stand by for others are not built yet; leave it out, and run two \
             machines behind a service instead",
        );
    }
    unbuilt("config", other)
}

/// Refuses members that this version does nothing for. Clients write empty ones too.
fn unbuilt(field: &str, other: &BTreeMap<String, Value>) -> Checked {
    match other.iter().find(|(_, value)| says_something(value)) {
        Some((name, _)) => invalid(format!("{field}.{name}"), why_unbuilt(name)),
        None => Ok(()),
    }
}

/// Why a member of Fly's has no meaning here, and what to do instead.
pub(crate) fn why_unbuilt(member: &str) -> &'static str {
    match member {
        "services" | "disable_machine_autostart" => {
            "ports are opened by the services of the app here (`aerostat service`); leave it out"
        }
        "metrics" => "nothing collects metrics of machines here; leave it out",
        "statics" => "the machine itself serves its files here; leave it out",
        "cache_drive" => "there are no cache drives here; mount a volume instead",
        "swap_size_mb" => "machines have no swap here; raise guest.memory_mb instead",
        "kernel_args" => "the arguments of the kernel are the host's own here; leave it out",
        "gpus" | "gpu_kind" | "gpu_bid_price" => {
            "no host here has graphics processors; leave it out"
        }
        "host_dedication_id" => "hosts are not dedicated to anybody here; leave it out",
        "max_memory_mb" => "memory does not grow while a machine runs; set guest.memory_mb",
        "dns_forward_rules" => {
            "the resolver here forwards by no rules; set dns.nameservers instead"
        }
        "hostname_fqdn" => "is not built; set dns.hostname instead",
        "image_config" => "is not built; set raw_value or secret_name instead",
        "lsvd" => "volumes are on the disks of the hosts here; leave it out",
        _ => "is not built yet; leave it out",
    }
}

fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(members) => !members.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    }
}

/// Nothing is made of what another host was told of a machine.
fn check_withheld(config: &MachineConfig) -> Checked {
    if config.withheld {
        return invalid(
            "config.withheld",
            "says that variables and files are left out here; take the configuration from `GET` of \
             the machine itself",
        );
    }
    Ok(())
}

/// Names of secrets are not looked up here: they may be set before the machine boots.
fn check_secrets(containers: &[ContainerConfig]) -> Checked {
    for (index, container) in containers.iter().enumerate() {
        let field = format!("config.containers[{index}].secrets");
        for secret in &container.secrets {
            words::check_env(&field, [(&secret.env_var, &String::new())])?;
        }
    }
    Ok(())
}

fn check_dns(dns: &Dns) -> Checked {
    unbuilt("config.dns", &dns.other)?;
    let label = |b: u8| b.is_ascii_alphanumeric() || b"-.".contains(&b);
    // 64 is Linux' bound (sethostname(2)).
    if dns.hostname.len() > 64 || !dns.hostname.bytes().all(label) {
        invalid(
            "config.dns.hostname",
            "must be letters, digits, dashes and dots, at most 64",
        )?;
    }
    for name in &dns.nameservers {
        if name.parse::<std::net::IpAddr>().is_err() {
            let reason = format!("`{name}` is not an IP address");
            invalid("config.dns.nameservers", reason)?;
        }
    }
    for option in &dns.options {
        let is_word = |text: &str| !text.contains(|c: char| c.is_whitespace() || c.is_control());
        if option.name.is_empty() || !is_word(&option.name) || !is_word(&option.value) {
            let reason = format!("`{}` is not an option of a resolver", option.name);
            invalid("config.dns.options", reason)?;
        }
    }
    Ok(())
}

fn check_rootfs(rootfs: &RootFs) -> Checked {
    unbuilt("config.rootfs", &rootfs.other)?;
    if rootfs.size_gb > ROOTFS_GB_MAX {
        invalid(
            "config.rootfs.size_gb",
            format!("must be at most {ROOTFS_GB_MAX}"),
        )?;
    }
    Ok(())
}

fn check_persist(config: &MachineConfig) -> Checked {
    let older = config.guest.as_ref().and_then(|guest| guest.persist_rootfs);
    match (config.rootfs.persist, older) {
        (Some(persist), Some(older)) if persist != older => invalid(
            "config.guest.persist_rootfs",
            "says something else than config.rootfs.persist; leave it out",
        ),
        (_, _) => Ok(()),
    }
}

fn check_bytes(checked: &CheckedConfig) -> Checked {
    let bytes = serde_json::to_vec(checked).map_or(usize::MAX, |json| json.len());
    if bytes > CONFIG_BYTES_MAX + files::FILES_BYTES_MAX / 3 * 4 {
        invalid("config", format!("is larger than {CONFIG_BYTES_MAX} bytes"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
