//! Volumes of configMaps, secrets, tokens and the pod itself, as files that a container finds when
//! it starts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use types::machine::File;

use super::super::budget::Budget;
use super::super::env::{self, Kind};
use super::super::pod::{Container, FileSource, KeyToPath, Pod, TokenSource, Volume, VolumeMount};
use super::{NotReady, Sources, Untranslatable, refuse, unsupported};

/// Kubernetes' default of `defaultMode`.
const MODE: u32 = 0o644;

/// A file of a volume, by its path in there.
struct Content {
    path: String,
    bytes: Vec<u8>,
    mode: Option<u32>,
}

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
        let accepted = ["readOnly", "recursiveReadOnly", "mountPropagation"];
        refuse::others(&field, &mount.other, &accepted)?;
        let (contents, mode) = contents(pod, volume, sources)?;
        files.extend(mounted(mount, contents, mode, budget)?);
    }
    Ok(files)
}

/// What is in a volume, and the mode of what does not say its own.
fn contents(
    pod: &Pod,
    volume: &Volume,
    sources: &Sources,
) -> Result<(Vec<Content>, u32), Untranslatable> {
    let mut all = Vec::new();
    let mut mode = None;
    let at = format!("spec.volumes[{}]", volume.name);
    let kinds = [
        (&volume.config_map, Kind::ConfigMap),
        (&volume.secret, Kind::Secret),
    ];
    for (source, kind) in kinds {
        if let Some(source) = source {
            mode = source.default_mode;
            all.extend(keys(source, kind, sources)?);
        }
    }
    if let Some(source) = &volume.downward_api {
        mode = source.default_mode;
        all.extend(fields(pod, source, &at, sources)?);
    }
    if let Some(projected) = &volume.projected {
        mode = projected.default_mode;
        for source in &projected.sources {
            if let Some(source) = &source.config_map {
                all.extend(keys(source, Kind::ConfigMap, sources)?);
            }
            if let Some(source) = &source.secret {
                all.extend(keys(source, Kind::Secret, sources)?);
            }
            if let Some(source) = &source.downward_api {
                all.extend(fields(pod, source, &at, sources)?);
            }
            if let Some(source) = &source.service_account_token {
                all.push(token(source, &at, sources)?);
            }
        }
    }
    Ok((all, mode.unwrap_or(MODE)))
}

/// What a configMap or secret shows.
fn keys(
    source: &FileSource,
    kind: Kind,
    sources: &Sources,
) -> Result<Vec<Content>, Untranslatable> {
    let Some(mut data) = env::data(sources, &source.name, source.optional, kind)? else {
        return Ok(Vec::new());
    };
    if source.items.is_empty() {
        let all = data.into_iter().map(|(path, bytes)| Content {
            path,
            bytes,
            mode: None,
        });
        return Ok(all.collect());
    }
    let mut chosen = Vec::new();
    for item in &source.items {
        match data.remove(&item.key) {
            Some(bytes) => chosen.push(Content {
                path: item.path.clone(),
                bytes,
                mode: item.mode,
            }),
            None if source.optional => {}
            None => {
                let what = format!("{} references non-existent key {}", source.name, item.key);
                return Err(Untranslatable::NotReady(NotReady { what }));
            }
        }
    }
    Ok(chosen)
}

/// What the downward API shows of the pod itself.
fn fields(
    pod: &Pod,
    source: &FileSource,
    at: &str,
    sources: &Sources,
) -> Result<Vec<Content>, Untranslatable> {
    let items = source.items.iter().map(|item| {
        Ok(Content {
            path: item.path.clone(),
            bytes: field(pod, item, at, sources)?.into_bytes(),
            mode: item.mode,
        })
    });
    items.collect()
}

fn field(
    pod: &Pod,
    item: &KeyToPath,
    at: &str,
    sources: &Sources,
) -> Result<String, Untranslatable> {
    if let Some(of) = &item.resource_field_ref {
        let text = |key: &str| of.get(key).and_then(Value::as_str).unwrap_or_default();
        let mut containers = pod.spec.containers.iter();
        let container = containers.find(|one| one.name == text("containerName"));
        let unknown = || unsupported(at, "a resourceFieldRef names no container of the pod");
        let container = container.ok_or_else(unknown)?;
        return env::resource_field(container, text("resource"), &of["divisor"], at);
    }
    let path = item.field_ref.as_ref().map(|of| &of.field_path[..]);
    let path = path.unwrap_or_default();
    let lines = |map: &std::collections::BTreeMap<String, String>| {
        let lines = map.iter().map(|(key, value)| format!("{key}={value:?}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    match path {
        "metadata.labels" => Ok(lines(&pod.metadata.labels)),
        "metadata.annotations" => Ok(lines(&pod.metadata.annotations)),
        path => match env::by_field(pod, path, at, sources)? {
            env::Found::Text(text) => Ok(text),
            env::Found::Late(_) | env::Found::Nothing => {
                Err(unsupported(at, &format!("fieldRef {path}")))
            }
        },
    }
}

fn token(source: &TokenSource, at: &str, sources: &Sources) -> Result<Content, Untranslatable> {
    let mut tokens = sources.tokens.iter();
    let (_, token) = tokens
        .find(|(of, _)| of == source)
        .ok_or_else(|| unsupported(at, "this provider has no tokens of service accounts"))?;
    Ok(Content {
        path: source.path.clone(),
        bytes: token.clone().into_bytes(),
        mode: None,
    })
}

/// The files under a mount.
fn mounted(
    mount: &VolumeMount,
    contents: Vec<Content>,
    default_mode: u32,
    budget: &Budget,
) -> Result<Vec<File>, Untranslatable> {
    let mount_path = mount.mount_path.trim_end_matches('/');
    let mut files = Vec::new();
    for Content { path, bytes, mode } in contents {
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
            mode: Some(mode.unwrap_or(default_mode)),
            ..File::default()
        });
    }
    Ok(files)
}
