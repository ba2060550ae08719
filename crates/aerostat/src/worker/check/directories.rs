//! Directories that the containers of a machine share, and what containers mount.

use std::collections::BTreeSet;

use types::machine::{ContainerConfig, MachineConfig, SharedDirectory};

use super::words::{check_name, is_plain, is_plain_absolute};
use super::{Checked, invalid, unbuilt};

/// Directories of one machine. Far more than a pod has volumes.
const DIRECTORIES_MAX: usize = 64;
/// Mounts of one container.
const MOUNTS_MAX: usize = 128;
/// 1 TiB; a directory in memory is bounded by the machine's own as well.
const SIZE_MB_MAX: u64 = 1 << 20;

/// The machine's directories.
pub(super) fn check(config: &MachineConfig) -> Checked {
    let directories = &config.volumes;
    if directories.len() > DIRECTORIES_MAX {
        let reason = format!("at most {DIRECTORIES_MAX} are possible");
        invalid("config.volumes", reason)?;
    }
    if !directories.is_empty() && config.containers.is_empty() {
        let reason = "are mounted by containers, and there are none";
        invalid("config.volumes", reason)?;
    }
    let mut names = BTreeSet::new();
    for (index, directory) in directories.iter().enumerate() {
        let field = format!("config.volumes[{index}]");
        check_directory(&field, directory)?;
        if !names.insert(directory.name.as_str()) {
            let reason = format!("another one is named `{}`", directory.name);
            invalid(format!("{field}.name"), reason)?;
        }
    }
    Ok(())
}

fn check_directory(field: &str, directory: &SharedDirectory) -> Checked {
    unbuilt(field, &directory.other)?;
    check_name(&format!("{field}.name"), &directory.name)?;
    let Some(temp_dir) = &directory.temp_dir else {
        return invalid(format!("{field}.temp_dir"), "is missing; write {} at least");
    };
    if temp_dir.size_mb > SIZE_MB_MAX {
        let reason = format!("must be at most {SIZE_MB_MAX}");
        invalid(format!("{field}.temp_dir.size_mb"), reason)?;
    }
    Ok(())
}

/// What one container mounts.
pub(super) fn check_mounts(
    field: &str,
    container: &ContainerConfig,
    config: &MachineConfig,
) -> Checked {
    if container.mounts.len() > MOUNTS_MAX {
        let reason = format!("at most {MOUNTS_MAX} are possible");
        invalid(format!("{field}.mounts"), reason)?;
    }
    let mut paths = BTreeSet::new();
    for (index, mount) in container.mounts.iter().enumerate() {
        let at = |member: &str| format!("{field}.mounts[{index}].{member}");
        unbuilt(&format!("{field}.mounts[{index}]"), &mount.other)?;
        // A volume also has a name of its own, which only the volume's row tells: when there are
        // any, the boot decides.
        let mut directories = config.volumes.iter().map(|directory| &directory.name);
        if config.mounts.is_empty() && !directories.any(|name| *name == mount.name) {
            let known: Vec<&str> = config.volumes.iter().map(|d| d.name.as_str()).collect();
            let (name, known) = (mount.name.escape_default(), known.join(", "));
            let reason = format!("there is no volume `{name}`; there are: {known}");
            invalid(at("name"), reason)?;
        }
        if !is_plain_absolute(&mount.path) || mount.path == "/" {
            let path = mount.path.escape_default();
            let reason = format!("`{path}` is not an absolute path without `..`, beyond `/`");
            invalid(at("path"), reason)?;
        }
        if !paths.insert(mount.path.trim_end_matches('/')) {
            let reason = format!("something else is mounted at `{}`", mount.path);
            invalid(at("path"), reason)?;
        }
        if mount.sub_path.starts_with('/') || !is_plain(&mount.sub_path) {
            let path = mount.sub_path.escape_default();
            let reason = format!("`{path}` is not a relative path without `..`");
            invalid(at("sub_path"), reason)?;
        }
    }
    Ok(())
}
