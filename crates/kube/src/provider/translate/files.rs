//! ConfigMap and secret volumes, as files that a container finds when it starts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use types::machine::File;

use super::super::budget::Budget;
use super::super::env::{self, Kind};
use super::super::pod::{Container, FileSource, Pod, VolumeMount};
use super::{NotReady, Sources, Untranslatable, refuse, unsupported};

/// Every file of the volumes that `container` mounts.
pub(super) fn of(
    pod: &Pod,
    container: &Container,
    at: &str,
    sources: &Sources,
    budget: &Budget,
) -> Result<Vec<File>, Untranslatable> {
    let mut files = Vec::new();
    for mount in &container.volume_mounts {
        let field = format!("{at}.volumeMounts[{}]", mount.name);
        let mut volumes = pod.spec.volumes.iter();
        let volume = volumes
            .find(|volume| volume.name == mount.name)
            .ok_or_else(|| unsupported(&field, "there is no volume of this name"))?;
        if volume.is_service_account_token() {
            continue;
        }
        let accepted = ["readOnly", "recursiveReadOnly", "mountPropagation"];
        refuse::others(&field, &mount.other, &accepted)?;
        if let Some(source) = &volume.config_map {
            files.extend(mounted(mount, source, Kind::ConfigMap, sources, budget)?);
        } else if let Some(source) = &volume.secret {
            files.extend(mounted(mount, source, Kind::Secret, sources, budget)?);
        }
    }
    Ok(files)
}

/// The files that a configMap or secret shows under a mount.
fn mounted(
    mount: &VolumeMount,
    source: &FileSource,
    kind: Kind,
    sources: &Sources,
    budget: &Budget,
) -> Result<Vec<File>, Untranslatable> {
    let Some(mut data) = env::data(sources, &source.name, source.optional, kind)? else {
        return Ok(Vec::new());
    };
    let mut chosen: Vec<(String, Vec<u8>, Option<u32>)> = Vec::new();
    if source.items.is_empty() {
        chosen.extend(data.into_iter().map(|(key, bytes)| (key, bytes, None)));
    } else {
        for item in &source.items {
            match data.remove(&item.key) {
                Some(bytes) => chosen.push((item.path.clone(), bytes, item.mode)),
                None if source.optional => {}
                None => {
                    let what = format!("{} references non-existent key {}", source.name, item.key);
                    return Err(Untranslatable::NotReady(NotReady { what }));
                }
            }
        }
    }
    let mount_path = mount.mount_path.trim_end_matches('/');
    let mut files = Vec::new();
    for (path, bytes, mode) in chosen {
        let guest_path = if mount.sub_path.is_empty() {
            format!("{mount_path}/{path}")
        } else if path == mount.sub_path {
            mount_path.to_owned()
        } else if let Some(below) = path.strip_prefix(&format!("{}/", mount.sub_path)) {
            format!("{mount_path}/{below}")
        } else {
            continue;
        };
        let field = format!("volumeMounts[{}]", mount.name);
        budget.take(guest_path.len() + bytes.len(), &field)?;
        files.push(File {
            guest_path,
            raw_value: Some(STANDARD.encode(bytes)),
            mode: Some(mode.or(source.default_mode).unwrap_or(0o644)),
            ..File::default()
        });
    }
    Ok(files)
}
