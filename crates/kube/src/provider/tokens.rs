//! Tokens of service accounts in the volumes of pods: asked for when a machine is made, written
//! anew before they end.
//!
//! ```text
//!   create ── request each ── files of the machine ── due at 80 % of their time
//!      due, or a container began again with the old one ── request ── put_files, renamed into place
//! ```
//!
//! As the kubelet's, a token is bound to its pod and ends with it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tracing::{debug, warn};
use types::VersionId;
use types::machine::{ContainerState, Machine, MachineState};

use super::pod::{Container, Pod, TokenSource};
use super::sync::{Context, Failure};
use crate::controllers::queue::Outcome;
use crate::status::Status;

/// Upstream's default of `expirationSeconds`.
const LIFETIME_S: u32 = 3600;
/// Of which token a file holds when it is written anew.
const DUE_PERCENT: u32 = 80;
/// No token is kept for longer, however long it is good.
const AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// Time before a token that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// What is known of the tokens of a pod.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// When they are to be written next; `None`: nobody knows what the machine has.
    due: Option<Instant>,
    /// The runs of the containers that have them.
    runs: Option<Runs>,
}

/// Boot, and how often each container began again in it.
type Runs = (VersionId, Vec<u32>);

impl Tokens {
    /// The machine was just made with new tokens.
    pub(super) fn made(&mut self, pod: &Pod) {
        self.due = Some(Instant::now() + lifetime(pod));
        self.runs = None;
    }
}

/// The tokens that the pod's volumes hold, each once.
pub(super) fn sources(pod: &Pod) -> Vec<&TokenSource> {
    let projected = pod.spec.volumes.iter().filter_map(|v| v.projected.as_ref());
    let sources = projected.flat_map(|projected| &projected.sources);
    let mut found = Vec::new();
    for token in sources.filter_map(|source| source.service_account_token.as_ref()) {
        if !found.contains(&token) {
            found.push(token);
        }
    }
    found
}

/// How long the shortest-lived token stays in its file.
fn lifetime(pod: &Pod) -> Duration {
    let all = sources(pod).into_iter();
    let shortest = all.map(|token| token.expiration_seconds.unwrap_or(LIFETIME_S));
    let whole = Duration::from_secs(shortest.min().unwrap_or(LIFETIME_S).into());
    (whole * DUE_PERCENT / 100).min(AGE_MAX)
}

/// New tokens for a pod's volumes; none if there is nobody who signs them.
pub(super) fn request(context: &Context, pod: &Pod) -> Result<Vec<(TokenSource, String)>, Status> {
    let Some(identity) = &context.config.identity else {
        return Ok(Vec::new());
    };
    let metadata = &pod.metadata;
    let account = match pod.spec.service_account_name.as_str() {
        "" => "default",
        name => name,
    };
    let one = |source: &TokenSource| {
        let audiences: Vec<_> = Some(&source.audience)
            .filter(|audience| !audience.is_empty())
            .into_iter()
            .collect();
        let request = json!({"spec": {
            "audiences": audiences,
            "expirationSeconds": source.expiration_seconds.unwrap_or(LIFETIME_S),
            "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": metadata.name,
                "uid": metadata.uid},
        }});
        let now = Timestamp::now();
        let answer =
            identity.request_token(&context.api, &metadata.namespace, account, &request, now)?;
        let token = crate::object::text(&answer, &["status", "token"]);
        Ok((source.clone(), token.to_owned()))
    };
    sources(pod).into_iter().map(one).collect()
}

/// Writes new tokens into a machine that runs, when it is time, and says when to come again.
pub(super) async fn keep(
    context: &Context,
    pod: &Pod,
    machine: &Machine,
    tokens: &mut Tokens,
) -> Outcome {
    let is_running = machine.state == MachineState::Started;
    if context.config.identity.is_none() || !is_running || sources(pod).is_empty() {
        return Outcome::Done;
    }
    let restarts = machine.containers.iter().map(|one| one.restart_count);
    let runs = (machine.instance_id.clone(), restarts.collect());
    let has_begun_again = tokens.runs.as_ref().is_some_and(|before| *before != runs);
    // What the machine was made with is still good in the first run of its containers.
    let now = Instant::now();
    let is_due = has_begun_again || tokens.due.is_none_or(|due| due <= now);
    if is_due {
        if let Err(error) = write(context, pod, machine).await {
            let error = types::chain(&error);
            warn!(machine = %machine.id, error, "tokens of a pod not written");
            return Outcome::After(RETRY);
        }
        debug!(machine = %machine.id, "tokens of a pod written");
        tokens.due = Some(now + lifetime(pod));
    }
    tokens.runs = Some(runs);
    let due = tokens.due.unwrap_or(now);
    Outcome::After(due.saturating_duration_since(now))
}

async fn write(context: &Context, pod: &Pod, machine: &Machine) -> Result<(), Failure> {
    let tokens = request(context, pod)?;
    // One that begins again later is news, and gets them then.
    let runs = |name: &str| {
        let mut all = machine.containers.iter();
        all.any(|one| one.name == name && one.state == ContainerState::Started)
    };
    for container in pod.spec.containers.iter().filter(|one| runs(&one.name)) {
        for (directory, files) in places(pod, container, &tokens) {
            let archive = archive(&files).map_err(|source| Failure::Archive { source })?;
            let archive = futures::stream::iter([Ok(Bytes::from(archive))]);
            let (app, id) = (&context.config.app, &machine.id);
            let name = Some(container.name.as_str());
            let put = context.client.put_files(app, id, name, &directory, archive);
            put.await?;
        }
    }
    Ok(())
}

/// A token and the mode of its file.
type TokenFile<'a> = (&'a str, u32);

/// Where a container has tokens: directory → path below it → token. As with the kubelet, what is
/// mounted by `subPath` stays as it was.
fn places<'a>(
    pod: &Pod,
    container: &Container,
    tokens: &'a [(TokenSource, String)],
) -> BTreeMap<String, BTreeMap<String, TokenFile<'a>>> {
    let mut places: BTreeMap<String, BTreeMap<String, TokenFile<'a>>> = BTreeMap::new();
    let mounts = container.volume_mounts.iter();
    for mount in mounts.filter(|mount| mount.sub_path.is_empty()) {
        let mut volumes = pod.spec.volumes.iter();
        let volume = volumes.find(|volume| volume.name == mount.name);
        let Some(projected) = volume.and_then(|volume| volume.projected.as_ref()) else {
            continue;
        };
        let mode = projected.default_mode.unwrap_or(0o644);
        for source in &projected.sources {
            let Some(wanted) = &source.service_account_token else {
                continue;
            };
            if let Some((_, token)) = tokens.iter().find(|(of, _)| of == wanted) {
                let files = places.entry(mount.mount_path.clone()).or_default();
                files.insert(wanted.path.clone(), (token, mode));
            }
        }
    }
    places
}

fn archive(files: &BTreeMap<String, TokenFile<'_>>) -> std::io::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, (token, mode)) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(token.len() as u64);
        header.set_mode(*mode);
        let now = u64::try_from(Timestamp::now().as_second());
        header.set_mtime(now.unwrap_or_default());
        archive.append_data(&mut header, path, token.as_bytes())?;
    }
    archive.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Pod {
        let token = |audience: &str, seconds: u32, path: &str| {
            json!({"serviceAccountToken": {"audience": audience,
                "expirationSeconds": seconds, "path": path}})
        };
        let sources = json!([token("", 3607, "token"), token("vault", 600, "vault/token"),
            {"configMap": {"name": "kube-root-ca.crt"}}]);
        let mount = |path: &str| json!({"name": "access", "mountPath": path});
        let pod = json!({"spec": {
            "volumes": [{"name": "access", "projected": {"sources": sources, "defaultMode": 288}}],
            "containers": [{"name": "a", "volumeMounts": [mount("/run/a"),
                {"name": "access", "mountPath": "/token", "subPath": "token"}]},
                {"name": "b"}]}});
        Pod::read(&pod).unwrap()
    }

    #[test]
    fn the_token_that_ends_first_says_when_they_are_written() {
        assert_eq!(lifetime(&pod()), Duration::from_secs(480));
        assert_eq!(lifetime(&Pod::default()), Duration::from_secs(2880));
    }

    #[test]
    fn tokens_are_written_where_they_are_mounted_whole() {
        let pod = pod();
        let named = |source: &&TokenSource| ((*source).clone(), source.audience.clone() + "!");
        let tokens: Vec<_> = sources(&pod).iter().map(named).collect();
        let found = places(&pod, &pod.spec.containers[0], &tokens);
        let files = BTreeMap::from([
            ("token".to_owned(), ("!", 0o440)),
            ("vault/token".to_owned(), ("vault!", 0o440)),
        ]);
        assert_eq!(found, BTreeMap::from([("/run/a".to_owned(), files)]));
        assert!(places(&pod, &pod.spec.containers[1], &tokens).is_empty());
        let archive = archive(&found["/run/a"]).unwrap();
        let mut archive = tar::Archive::new(&archive[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let entry = entry.unwrap();
            (
                entry.path().unwrap().display().to_string(),
                entry.header().mode().unwrap(),
            )
        });
        let entries: Vec<_> = entries.collect();
        assert_eq!(
            entries,
            [
                ("token".to_owned(), 0o440),
                ("vault/token".to_owned(), 0o440)
            ]
        );
    }
}
