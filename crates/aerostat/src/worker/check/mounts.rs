//! Whether a configuration's volumes can be mounted where it says. Pure: whether they exist and
//! are free is seen when the machine claims them.

use std::collections::BTreeSet;

use types::VolumeId;
use types::machine::{ContainerConfig, Mount};

use super::words::is_plain_absolute;
use super::{Checked, Invalid, invalid};

/// Volumes of one machine: each is a disk of the VM.
const MOUNTS_MAX: usize = 8;
/// Members of Fly's that say what the volume is anyway.
const INFORMATIVE: [&str; 2] = ["encrypted", "size_gb"];
/// Members of Fly's that let a volume grow by itself.
const AUTOMATIC: [&str; 3] = ["extend_threshold_percent", "add_size_gb", "size_gb_limit"];

/// Checks the mounts of a machine, and those of its containers that are no directories.
pub(super) fn check_mounts(mounts: &[Mount], containers: &[ContainerConfig]) -> Checked {
    if mounts.len() > MOUNTS_MAX {
        invalid(
            "config.mounts",
            format!("at most {MOUNTS_MAX} are possible"),
        )?;
    }
    let mut seen = [const { BTreeSet::new() }; 3];
    for (index, mount) in mounts.iter().enumerate() {
        let at = |member: &str| format!("config.mounts[{index}].{member}");
        if let Err(error) = mount.volume.parse::<VolumeId>() {
            invalid(at("volume"), error.to_string())?;
        }
        let may_be_empty = !containers.is_empty();
        if !(mount.path.is_empty() && may_be_empty) {
            check_path(&at("path"), &mount.path)?;
        }
        let mut other = mount.other.clone();
        other.retain(|name, _| !INFORMATIVE.contains(&name.as_str()));
        if let Some(name) = AUTOMATIC.iter().find(|name| says(&other, name)) {
            let reason = "is not built: volumes do not grow by themselves; use \
                          `aerostat volume extend`";
            invalid(at(name), reason)?;
        }
        super::unbuilt(&format!("config.mounts[{index}]"), &other)?;
        for (seen, (member, value)) in seen.iter_mut().zip([
            ("volume", &mount.volume),
            ("path", &mount.path),
            ("name", &mount.name),
        ]) {
            if !value.is_empty() && !seen.insert(value) {
                invalid(at(member), format!("`{value}` is there twice"))?;
            }
        }
    }
    Ok(())
}

fn says(other: &std::collections::BTreeMap<String, serde_json::Value>, name: &str) -> bool {
    other
        .get(name)
        .is_some_and(|value| !value.is_null() && value.as_f64() != Some(0.0))
}

fn check_path(field: &str, path: &str) -> Result<(), Invalid> {
    if !is_plain_absolute(path) {
        let reason = format!("`{path}` is not an absolute path without `..`");
        return invalid(field, reason);
    }
    if path.split('/').all(|part| part.is_empty() || part == ".") {
        return invalid(field, "cannot be the root of the container");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    fn check(mounts: serde_json::Value) -> Result<(), String> {
        let config = json!({"image": "x", "mounts": mounts});
        let checked = super::super::check(serde_json::from_value(config).unwrap());
        checked.map(drop).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn what_cannot_be_mounted_is_refused_by_member() {
        let id = "vol_0002000000000001";
        assert_eq!(
            check(json!([{"volume": id, "path": "/data", "encrypted": true}])),
            Ok(())
        );
        for (mounts, field) in [
            (
                json!([{"volume": "data", "path": "/d"}]),
                "config.mounts[0].volume",
            ),
            (
                json!([{"volume": id, "path": "d"}]),
                "config.mounts[0].path",
            ),
            (json!([{"volume": id, "path": ""}]), "config.mounts[0].path"),
            (
                json!([{"volume": id, "path": "/a/../b"}]),
                "config.mounts[0].path",
            ),
            (
                json!([{"volume": id, "path": "//."}]),
                "config.mounts[0].path",
            ),
            (
                json!([{"volume": id, "path": "/a"}, {"volume": id, "path": "/b"}]),
                "config.mounts[1].volume",
            ),
            (
                json!([{"volume": id, "path": "/a"},
                    {"volume": "vol_0002000000000002", "path": "/a"}]),
                "config.mounts[1].path",
            ),
            (
                json!([{"volume": id, "path": "/a", "extend_threshold_percent": 80}]),
                "config.mounts[0].extend_threshold_percent",
            ),
        ] {
            let refused = check(mounts).unwrap_err();
            assert!(refused.starts_with(&format!("{field}: ")), "{refused}");
        }
    }
}
