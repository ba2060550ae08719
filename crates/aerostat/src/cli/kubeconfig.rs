//! Kubeconfig files: lists of clusters, users and contexts by name, and which context is in use
//! (kubernetes.io/docs/reference/config-api/kubeconfig.v1).

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use serde_json::{Map, Value, json};
use types::cluster::ClusterName;

use crate::files::write_whole;

const LISTS: [&str; 3] = ["clusters", "users", "contexts"];

/// What a merge did.
#[derive(Debug)]
pub(super) struct Merged {
    /// The file as it was before.
    pub(super) kept: Option<PathBuf>,
}

/// The name of a cluster's entries.
pub(super) fn entry_name(cluster: &ClusterName) -> String {
    if cluster.is_default() {
        "aerostat".to_owned()
    } else {
        format!("aerostat-{cluster}")
    }
}

/// The kubeconfig with entries that bear the cluster's name, so that several can stand together.
pub(super) fn named(text: &str, cluster: &ClusterName) -> anyhow::Result<String> {
    let mut config = parse(text).context("the host's kubeconfig cannot be read")?;
    let name = entry_name(cluster);
    let user = format!("{name}-admin");
    for (list, new) in [("clusters", &name), ("users", &user), ("contexts", &name)] {
        for entry in config[list].as_array_mut().into_iter().flatten() {
            entry["name"] = new.as_str().into();
        }
    }
    for context in config["contexts"].as_array_mut().into_iter().flatten() {
        context["context"]["cluster"] = name.as_str().into();
        context["context"]["user"] = user.as_str().into();
    }
    config["current-context"] = name.into();
    written(&config)
}

/// The file that kubectl changes: the first of `$KUBECONFIG`, else `~/.kube/config`.
pub(super) fn users_file() -> anyhow::Result<PathBuf> {
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    if let Some(first) = std::env::split_paths(&listed).find(|path| !path.as_os_str().is_empty()) {
        return Ok(first);
    }
    let home = std::env::var_os("HOME").context("HOME is not set; set KUBECONFIG to a file")?;
    Ok(PathBuf::from(home).join(".kube/config"))
}

/// Puts the entries of `named` into the file at `path` and uses its context. The file as it was is
/// kept beside it.
pub(super) fn merge_into(path: &Path, named: &str) -> anyhow::Result<Merged> {
    let shown = path.display();
    let present = match fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error).with_context(|| format!("cannot read {shown}")),
    };
    let merged = merge(present.as_deref().unwrap_or_default(), named)
        .with_context(|| format!("{shown} stays as it is"))?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let kept = match present {
        Some(text) => {
            let mut kept = path.as_os_str().to_owned();
            kept.push(".before-aerostat");
            let kept = PathBuf::from(kept);
            write_whole(&kept, 0o600, text.as_bytes())
                .with_context(|| format!("cannot write {}", kept.display()))?;
            Some(kept)
        }
        None => None,
    };
    write_whole(path, 0o600, merged.as_bytes()).with_context(|| format!("cannot write {shown}"))?;
    Ok(Merged { kept })
}

fn merge(present: &str, new: &str) -> anyhow::Result<String> {
    let mut present = parse(present)?;
    let new = parse(new)?;
    for list in LISTS {
        let additions = new[list].as_array().cloned().unwrap_or_default();
        let Some(entries) = present[list].as_array_mut() else {
            bail!("its {list} are not a list");
        };
        entries.retain(|entry| additions.iter().all(|new| new["name"] != entry["name"]));
        entries.extend(additions);
    }
    present["current-context"] = new["current-context"].clone();
    written(&present)
}

/// As YAML with keys and certificates on one line each, as everybody else writes them.
fn written(config: &Value) -> anyhow::Result<String> {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    Ok(serde_saphyr::to_string_with_options(config, options)?)
}

/// A kubeconfig with all its lists; nothing is an empty one.
fn parse(text: &str) -> anyhow::Result<Value> {
    let parsed: Value = if text.trim().is_empty() {
        Value::Null
    } else {
        serde_saphyr::from_str(text)?
    };
    let mut config = match parsed {
        Value::Null => Map::new(),
        Value::Object(map) => map,
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            bail!("it is no kubeconfig")
        }
    };
    config.entry("apiVersion").or_insert(json!("v1"));
    config.entry("kind").or_insert(json!("Config"));
    for list in LISTS {
        let entries = config.entry(list).or_insert(json!([]));
        if entries.is_null() {
            *entries = json!([]);
        }
    }
    Ok(Value::Object(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "apiVersion: v1
kind: Config
clusters:
- name: aerostat
  cluster: {server: https://127.0.0.1:6443}
users:
- name: aerostat-admin
  user: {client-key-data: eA==}
contexts:
- name: aerostat
  context: {cluster: aerostat, user: aerostat-admin}
current-context: aerostat
";

    #[test]
    fn several_clusters_stand_together_and_others_entries_stay() {
        let team = named(OURS, &"team".parse().unwrap()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(".kube/config");
        assert!(merge_into(&path, OURS).unwrap().kept.is_none());
        let other = fs::read_to_string(&path)
            .unwrap()
            .replace("https://127.0.0.1:6443", "https://old");
        fs::write(&path, &other).unwrap();
        for text in [team.as_str(), OURS, team.as_str()] {
            merge_into(&path, text).unwrap();
        }
        let config = parse(&fs::read_to_string(&path).unwrap()).unwrap();
        let names = |list: &str| -> Vec<_> {
            let entries = config[list].as_array().unwrap();
            entries.iter().map(|entry| entry["name"].clone()).collect()
        };
        assert_eq!(names("contexts"), ["aerostat", "aerostat-team"]);
        assert_eq!(names("users"), ["aerostat-admin", "aerostat-team-admin"]);
        assert_eq!(config["current-context"], "aerostat-team");
        assert_eq!(config["contexts"][1]["context"]["cluster"], "aerostat-team");
        assert!(!fs::read_to_string(&path).unwrap().contains("https://old"));
    }

    #[test]
    fn a_file_that_is_no_kubeconfig_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        for text in ["- a list", "clusters: 7", "{unclosed"] {
            fs::write(&path, text).unwrap();
            assert!(merge_into(&path, OURS).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
