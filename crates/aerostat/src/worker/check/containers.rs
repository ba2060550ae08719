//! Containers: each by itself, and what they wait for.

use std::collections::BTreeSet;

use types::ImageRef;
use types::machine::{ContainerConfig, DependsOn, DependsOnCondition};

use super::words::{
    check_env, check_name, check_restart, check_stop, check_words, is_plain_absolute,
};
use super::{Checked, CheckedConfig, Invalid, directories, files, invalid, unbuilt};

/// Containers of one machine. Each is a disk or two of the VM, and QEMU's PCI bus has 32 places.
pub(super) const CONTAINERS_MAX: usize = 12;

pub(super) fn check(checked: &CheckedConfig) -> Checked {
    let config = checked.as_given();
    let containers = checked.containers();
    let member = match (config.containers.is_empty(), config.processes.is_empty()) {
        (false, _) => Some("config.containers"),
        (true, false) => Some("config.processes"),
        (true, true) => None,
    };
    if containers.len() > CONTAINERS_MAX {
        let reason = format!("at most {CONTAINERS_MAX} are possible");
        invalid(member.unwrap_or("config"), reason)?;
    }
    for (index, process) in config.processes.iter().enumerate() {
        unbuilt(&format!("config.processes[{index}]"), &process.other)?;
    }
    let mut files_bytes = 0;
    for (index, container) in containers.iter().enumerate() {
        let field = match member {
            Some(member) => format!("{member}[{index}]"),
            None => "config".to_owned(),
        };
        files_bytes += check_container(&field, container)?;
        directories::check_mounts(&field, container, config)?;
    }
    files::check_sum(files_bytes)?;
    check_order(&containers)
}

/// Checks one container, and returns how large its files are.
fn check_container(field: &str, container: &ContainerConfig) -> Result<usize, Invalid> {
    let at = |member: &str| format!("{field}.{member}");
    unbuilt(field, &container.other)?;
    check_name(&at("name"), &container.name)?;
    if let Err(error) = container.image.parse::<ImageRef>() {
        invalid(at("image"), error.to_string())?;
    }
    check_words(&at("exec"), &container.exec)?;
    check_words(&at("entrypoint"), &container.entrypoint)?;
    check_words(&at("cmd"), &container.cmd)?;
    check_env(&at("env"), &container.env)?;
    for from in &container.env_from {
        check_env(&at("env_from"), [(&from.env_var, &String::new())])?;
    }
    check_restart(&at("restart"), container.restart.as_ref())?;
    check_stop(&at("stop"), container.stop.as_ref())?;
    let dir = container.working_dir.as_deref();
    if dir.is_some_and(|dir| !is_plain_absolute(dir)) {
        invalid(at("working_dir"), "must be an absolute path without `..`")?;
    }
    files::check(&at("files"), &container.files)
}

/// Names are unique, and what containers wait for exists and does not wait for them.
fn check_order(containers: &[ContainerConfig]) -> Checked {
    let names: BTreeSet<&str> = containers.iter().map(|c| c.name.as_str()).collect();
    if names.len() != containers.len() {
        invalid("config.containers", "two containers have the same name")?;
    }
    for (index, container) in containers.iter().enumerate() {
        let field = format!("config.containers[{index}].depends_on");
        for DependsOn { name, condition } in &container.depends_on {
            let Some(on) = containers.iter().find(|other| other.name == *name) else {
                let known: Vec<&str> = names.iter().copied().collect();
                let (name, known) = (name.escape_default(), known.join(", "));
                let reason = format!("there is no container `{name}`; there are {known}");
                return invalid(field, reason);
            };
            match condition {
                DependsOnCondition::Healthy if on.healthchecks.is_empty() => {
                    let reason = format!(
                        "waits for `{name}` to be healthy, which has no healthchecks; give it \
                         one, or wait for started or exited_successfully"
                    );
                    invalid(&field, reason)?;
                }
                DependsOnCondition::Healthy
                | DependsOnCondition::Started
                | DependsOnCondition::ExitedSuccessfully => {}
            }
        }
    }
    // Takes away what waits for nothing that is left, until nothing changes.
    let mut left = names;
    loop {
        let before = left.len();
        for container in containers {
            let mut on = container.depends_on.iter();
            if on.all(|on| !left.contains(on.name.as_str())) {
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
