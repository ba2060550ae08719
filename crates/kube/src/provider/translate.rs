//! Pod → machine configuration: a pure function.
//!
//! A pod is one machine; each container of the pod is a container of the machine, and init
//! containers are containers that the others depend on. What a machine cannot do yet is refused by
//! name (`Unsupported`), also when nobody has heard of the field: a pod that runs differently from
//! what was asked for is worse than one that does not run. Accepted without an effect are only
//! fields that another part carries out (scheduling, admission, readiness gates) or that ask for
//! what every machine has anyway.
//!
//! Three things differ from a kubelet and are the same for every pod: the service account's token
//! volume is not mounted, `imagePullPolicy` is left to the Machines API (which resolves a tag when
//! a machine is created), and files of configMap and secret volumes are written once, when the
//! machine starts.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};
use types::machine::{
    ContainerConfig, DependsOn, DependsOnCondition, Dns, Duration, File, Guest, IsolationClass,
    MachineConfig, Restart, RestartPolicy, StopConfig,
};

use super::env::{self, Kind};
use super::pod::{Container, FileSource, Pod, PodRestart, SecurityContext, VolumeMount};
use super::quantity::milli_of;

/// Metadata of a machine that is a pod.
pub(crate) const POD_NAME: &str = "kubernetes.io/pod-name";
pub(crate) const POD_NAMESPACE: &str = "kubernetes.io/pod-namespace";
pub(crate) const POD_UID: &str = "kubernetes.io/pod-uid";

/// Size of a machine whose pod asks for nothing, and the least that any pod gets: kernel and
/// supervision need their part of it.
const MEMORY_MIB_MIN: u128 = 256;

/// What a pod refers to, fetched before it is translated.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Value>,
    pub(crate) secrets: BTreeMap<String, Value>,
    /// Handler of the pod's RuntimeClass.
    pub(crate) runtime_handler: Option<String>,
    /// Address of the node.
    pub(crate) host_ip: String,
}

/// Why a pod has no machine configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Untranslatable {
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    #[error(transparent)]
    NotReady(#[from] NotReady),
}

/// The pod asks for something that machines cannot do yet. Waiting does not help.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} is not supported: {why}")]
pub(crate) struct Unsupported {
    pub(crate) field: String,
    pub(crate) why: String,
}

/// Something that the pod refers to is missing or unusable, and may become usable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub(crate) struct NotReady {
    pub(crate) what: String,
}

pub(crate) fn unsupported(field: &str, why: &str) -> Untranslatable {
    Untranslatable::Unsupported(Unsupported {
        field: field.to_owned(),
        why: why.to_owned(),
    })
}

/// Names of what a pod refers to in its namespace.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct References {
    pub(crate) config_maps: Vec<String>,
    pub(crate) secrets: Vec<String>,
}

/// What has to be fetched before `translate`.
pub(crate) fn references(pod: &Pod) -> References {
    use super::pod::EnvVarSource::{ConfigMapKeyRef, SecretKeyRef};
    let mut found = References::default();
    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
        for source in &container.env_from {
            let names = source.config_map_ref.iter().map(|r| r.name.clone());
            found.config_maps.extend(names);
            let names = source.secret_ref.iter().map(|r| r.name.clone());
            found.secrets.extend(names);
        }
        for variable in &container.env {
            match &variable.value_from {
                Some(ConfigMapKeyRef(key)) => found.config_maps.push(key.name.clone()),
                Some(SecretKeyRef(key)) => found.secrets.push(key.name.clone()),
                Some(_) | None => {}
            }
        }
    }
    for volume in &pod.spec.volumes {
        let names = volume.config_map.iter().map(|s| s.name.clone());
        found.config_maps.extend(names);
        found
            .secrets
            .extend(volume.secret.iter().map(|s| s.name.clone()));
    }
    for names in [&mut found.config_maps, &mut found.secrets] {
        names.sort();
        names.dedup();
    }
    found
}

/// The machine that `pod` is.
///
/// # Errors
/// If the pod needs what machines do not have, or refers to what does not exist.
pub(crate) fn translate(pod: &Pod, sources: &Sources) -> Result<MachineConfig, Untranslatable> {
    check_spec(pod)?;
    let restart = restarts(pod.spec.restart_policy);
    let stop = stop(pod)?;
    let mut containers = Vec::new();
    let mut previous: Option<&str> = None;
    for (index, init) in pod.spec.init_containers.iter().enumerate() {
        let at = format!("spec.initContainers[{index}]");
        if init.restart_policy.is_some() {
            let why = "sidecar containers are not built yet";
            return Err(unsupported(&format!("{at}.restartPolicy"), why));
        }
        let mut config = container(pod, init, &at, sources)?;
        config.restart = Some(init_restarts(pod.spec.restart_policy));
        config.stop = Some(stop.clone());
        config.depends_on.extend(previous.map(after_success));
        previous = Some(&init.name);
        containers.push(config);
    }
    for (index, main) in pod.spec.containers.iter().enumerate() {
        let at = format!("spec.containers[{index}]");
        let mut config = container(pod, main, &at, sources)?;
        config.restart = Some(restart.clone());
        config.stop = Some(stop.clone());
        config.depends_on.extend(previous.map(after_success));
        containers.push(config);
    }
    Ok(MachineConfig {
        guest: Some(guest(pod)?),
        isolation: isolation(sources)?,
        metadata: BTreeMap::from([
            (POD_NAME.to_owned(), pod.metadata.name.clone()),
            (POD_NAMESPACE.to_owned(), pod.metadata.namespace.clone()),
            (POD_UID.to_owned(), pod.metadata.uid.clone()),
        ]),
        // Containers are restarted inside the machine; the provider decides about the machine.
        restart: Some(Restart {
            policy: RestartPolicy::No,
            max_retries: None,
        }),
        stop_config: Some(stop),
        dns: dns(pod)?,
        containers,
        ..MachineConfig::default()
    })
}

fn stop(pod: &Pod) -> Result<StopConfig, Untranslatable> {
    /// What the Machines API allows.
    const STOP_TIMEOUT_S_MAX: u64 = 300;
    let grace_s = pod.spec.termination_grace_period_seconds;
    let grace_s = grace_s.unwrap_or(super::pod::GRACE_S_DEFAULT);
    if grace_s > STOP_TIMEOUT_S_MAX {
        let why = format!("a machine has at most {STOP_TIMEOUT_S_MAX} s to stop");
        return Err(unsupported("spec.terminationGracePeriodSeconds", &why));
    }
    Ok(StopConfig {
        signal: Some("SIGTERM".into()),
        timeout: Some(Duration(std::time::Duration::from_secs(grace_s))),
    })
}

fn after_success(name: &str) -> DependsOn {
    DependsOn {
        name: name.to_owned(),
        condition: DependsOnCondition::ExitedSuccessfully,
    }
}

fn restarts(policy: PodRestart) -> Restart {
    let (policy, max_retries) = match policy {
        PodRestart::Always => (RestartPolicy::Always, None),
        // Kubernetes knows no limit; `None` would stand for ten.
        PodRestart::OnFailure => (RestartPolicy::OnFailure, Some(u32::MAX)),
        PodRestart::Never => (RestartPolicy::No, None),
    };
    Restart {
        policy,
        max_retries,
    }
}

/// An init container is done when it succeeds; only `Never` makes its failure final.
fn init_restarts(policy: PodRestart) -> Restart {
    match policy {
        PodRestart::Always | PodRestart::OnFailure => restarts(PodRestart::OnFailure),
        PodRestart::Never => restarts(PodRestart::Never),
    }
}

fn isolation(sources: &Sources) -> Result<Option<IsolationClass>, Untranslatable> {
    let Some(handler) = &sources.runtime_handler else {
        return Ok(None);
    };
    match handler.parse() {
        Ok(class) => Ok(Some(class)),
        Err(types::machine::UnknownIsolationClass(_)) => {
            let why = format!("no isolation class is named {handler}");
            Err(unsupported("spec.runtimeClassName", &why))
        }
    }
}

/// The sum of the containers, or the largest init container if that is more: init containers run
/// one after the other, before the others.
fn guest(pod: &Pod) -> Result<Guest, Untranslatable> {
    let cpu_milli = total(pod, "cpu", 0)?;
    let memory_milli = total(pod, "memory", (MEMORY_MIB_MIN << 20) * 1000)?;
    let memory_mib = (memory_milli / 1000).div_ceil(1 << 20).max(MEMORY_MIB_MIN);
    let too_much = |_| unsupported("spec.containers[].resources", "larger than any machine");
    Ok(Guest {
        cpus: u32::try_from(cpu_milli.div_ceil(1000).max(1)).map_err(too_much)?,
        memory_mb: u32::try_from(memory_mib).map_err(too_much)?,
        ..Guest::default()
    })
}

/// `unset` counts once if any container asks for nothing, so that it does not live on what the
/// others asked for.
fn total(pod: &Pod, resource: &str, unset: u128) -> Result<u128, Untranslatable> {
    let of = |container: &Container| -> Result<Option<u128>, Untranslatable> {
        let resources = &container.resources;
        let asked = resources
            .limits
            .get(resource)
            .or_else(|| resources.requests.get(resource));
        let Some(quantity) = asked else {
            return Ok(None);
        };
        let field = format!("resources.{resource} of container {}", container.name);
        let milli = milli_of(quantity)
            .ok_or_else(|| unsupported(&field, &format!("{quantity} is not a quantity")))?;
        Ok(Some(milli))
    };
    let mut sum = 0u128;
    let mut any_unset = false;
    for container in &pod.spec.containers {
        match of(container)? {
            Some(milli) => sum = sum.saturating_add(milli),
            None => any_unset = true,
        }
    }
    if any_unset {
        sum = sum.saturating_add(unset);
    }
    for container in &pod.spec.init_containers {
        sum = sum.max(of(container)?.unwrap_or(unset));
    }
    Ok(sum)
}

fn dns(pod: &Pod) -> Result<Dns, Untranslatable> {
    let text = |key: &str| pod.spec.other.get(key).and_then(Value::as_str);
    let cluster = match text("dnsPolicy").unwrap_or("ClusterFirst") {
        "ClusterFirst" | "ClusterFirstWithHostNet" => true,
        "Default" | "None" => false,
        other => return Err(unsupported("spec.dnsPolicy", other)),
    };
    let mut dns = Dns {
        hostname: if pod.spec.hostname.is_empty() {
            // A host name has at most 63 characters, a pod's name up to 253.
            let cut: String = pod.metadata.name.chars().take(63).collect();
            cut.trim_end_matches(['-', '.']).to_owned()
        } else {
            pod.spec.hostname.clone()
        },
        ..Dns::default()
    };
    if cluster {
        let namespace = &pod.metadata.namespace;
        dns.searches = vec![
            format!("{namespace}.svc.cluster.local"),
            "svc.cluster.local".into(),
            "cluster.local".into(),
        ];
    }
    let Some(config) = pod.spec.other.get("dnsConfig").and_then(Value::as_object) else {
        return Ok(dns);
    };
    for (key, value) in config.iter().filter(|(_, value)| !is_empty(value)) {
        let texts = value.as_array().into_iter().flatten();
        let texts = texts.filter_map(Value::as_str).map(str::to_owned);
        match key.as_str() {
            "nameservers" => dns.nameservers.extend(texts),
            "searches" => dns.searches.extend(texts),
            other => {
                let field = format!("spec.dnsConfig.{other}");
                return Err(unsupported(&field, "machines have no resolver options yet"));
            }
        }
    }
    Ok(dns)
}

fn container(
    pod: &Pod,
    container: &Container,
    at: &str,
    sources: &Sources,
) -> Result<ContainerConfig, Untranslatable> {
    check_container(container, at)?;
    let environment = env::resolve(pod, container, at, sources)?;
    let expand = |words: &[String], member: &str| -> Result<Vec<String>, Untranslatable> {
        let field = format!("{at}.{member}");
        let expanded = words.iter().map(|word| environment.expand(word, &field));
        expanded.collect()
    };
    let (exec, cmd) = if container.command.is_empty() {
        (Vec::new(), expand(&container.args, "args")?)
    } else {
        // A pod's command replaces the image's entry point and its default arguments.
        let mut exec = expand(&container.command, "command")?;
        exec.extend(expand(&container.args, "args")?);
        (exec, Vec::new())
    };
    let user = user(&pod.spec.security_context, &container.security_context, at)?;
    let working_dir = (!container.working_dir.is_empty()).then(|| container.working_dir.clone());
    Ok(ContainerConfig {
        name: container.name.clone(),
        image: container.image.clone(),
        exec,
        cmd,
        user,
        env: environment.env,
        env_from: environment.env_from,
        files: files(pod, container, at, sources)?,
        tty: container.tty,
        stdin: container.stdin,
        working_dir,
        ..ContainerConfig::default()
    })
}

/// `uid` or `uid:gid`; a container's own settings win over the pod's.
fn user(
    pod: &SecurityContext,
    own: &SecurityContext,
    at: &str,
) -> Result<Option<String>, Untranslatable> {
    let user = own.run_as_user.or(pod.run_as_user);
    let group = own.run_as_group.or(pod.run_as_group);
    if own.run_as_non_root.or(pod.run_as_non_root) == Some(true) {
        match user {
            Some(0) => {
                let what = format!("{at}: runAsUser 0 breaks the pod's own runAsNonRoot");
                return Err(Untranslatable::NotReady(NotReady { what }));
            }
            Some(_) => {}
            None => {
                let field = format!("{at}.securityContext.runAsNonRoot");
                let why = "the image's user is not checked yet; set runAsUser as well";
                return Err(unsupported(&field, why));
            }
        }
    }
    match (user, group) {
        (Some(user), Some(group)) => Ok(Some(format!("{user}:{group}"))),
        (Some(user), None) => Ok(Some(user.to_string())),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let field = format!("{at}.securityContext.runAsGroup");
            Err(unsupported(&field, "it needs runAsUser beside it"))
        }
    }
}

fn files(
    pod: &Pod,
    container: &Container,
    at: &str,
    sources: &Sources,
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
        refuse_others(&field, &mount.other, &accepted)?;
        if let Some(source) = &volume.config_map {
            files.extend(mounted(mount, source, Kind::ConfigMap, sources)?);
        } else if let Some(source) = &volume.secret {
            files.extend(mounted(mount, source, Kind::Secret, sources)?);
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
        files.push(File {
            guest_path,
            raw_value: Some(STANDARD.encode(bytes)),
            mode: Some(mode.or(source.default_mode).unwrap_or(0o644)),
            ..File::default()
        });
    }
    Ok(files)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(set) => !set,
        Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// Refuses every member that says something and is not in `accepted`.
fn refuse_others(
    at: &str,
    other: &Map<String, Value>,
    accepted: &[&str],
) -> Result<(), Untranslatable> {
    let refused = other
        .iter()
        .find(|(key, value)| !is_empty(value) && !accepted.contains(&key.as_str()));
    match refused {
        Some((key, _)) => Err(unsupported(&format!("{at}.{key}"), why_not(key))),
        None => Ok(()),
    }
}

/// What to tell about a field that is refused.
fn why_not(field: &str) -> &'static str {
    match field {
        "livenessProbe" | "readinessProbe" | "startupProbe" => "probes are not built yet",
        "lifecycle" => "lifecycle hooks are not built yet",
        "ephemeralContainers" => "ephemeral containers are not built yet",
        "hostNetwork" | "hostPID" | "hostIPC" => "a pod is a machine of its own, without a host",
        "shareProcessNamespace" => "containers of a machine do not share processes yet",
        "activeDeadlineSeconds" => "deadlines of pods are not built yet",
        "imagePullSecrets" => "credentials for registries are not built yet",
        "hostAliases" => "entries in /etc/hosts are not built yet",
        "volumeDevices" | "persistentVolumeClaim" | "ephemeral" => "volumes are not built yet",
        "emptyDir" | "projected" | "downwardAPI" | "image" => {
            "this kind of volume is not built yet"
        }
        "hostPath" => "a machine has no host to take files from",
        "privileged" => "machines do not give containers the guest's devices yet",
        "capabilities"
        | "seccompProfile"
        | "readOnlyRootFilesystem"
        | "procMount"
        | "allowPrivilegeEscalation"
        | "appArmorProfile"
        | "seLinuxOptions" => {
            "containers of a machine run without this restriction, and leaving it out silently \
             would be worse"
        }
        _ => "machines cannot do this yet",
    }
}

fn check_spec(pod: &Pod) -> Result<(), Untranslatable> {
    let spec = &pod.spec;
    // Carried out by the scheduler, by admission or by `status`, or true of every machine.
    let accepted = [
        "affinity",
        "automountServiceAccountToken",
        "dnsConfig",
        "dnsPolicy",
        "enableServiceLinks",
        "hostUsers",
        "nodeSelector",
        "preemptionPolicy",
        "priority",
        "priorityClassName",
        "schedulerName",
        "schedulingGates",
        "serviceAccount",
        "tolerations",
        "topologySpreadConstraints",
    ];
    let mut other = spec.other.clone();
    if let Some(os) = other.remove("os")
        && os.get("name").and_then(Value::as_str) != Some("linux")
    {
        return Err(unsupported("spec.os", "machines run Linux"));
    }
    refuse_others("spec", &other, &accepted)?;
    if !spec.subdomain.is_empty() {
        let why = "names below a headless Service are not built yet";
        return Err(unsupported("spec.subdomain", why));
    }
    check_security("spec.securityContext", &spec.security_context)?;
    for volume in &spec.volumes {
        if !volume.is_service_account_token() {
            refuse_others(
                &format!("spec.volumes[{}]", volume.name),
                &volume.other,
                &[],
            )?;
            if let (None, None, true) =
                (&volume.config_map, &volume.secret, volume.other.len() == 1)
            {
                // An empty source, such as `emptyDir: {}`.
                let source = volume.other.keys().next().map_or("", String::as_str);
                let field = format!("spec.volumes[{}].{source}", volume.name);
                return Err(unsupported(&field, why_not(source)));
            }
        }
    }
    Ok(())
}

fn check_container(container: &Container, at: &str) -> Result<(), Untranslatable> {
    let accepted = [
        "imagePullPolicy",
        "ports",
        "resizePolicy",
        // Nothing collects the message yet; the defaults stand in every pod.
        "terminationMessagePath",
        "terminationMessagePolicy",
    ];
    refuse_others(at, &container.other, &accepted)?;
    let ports = container.other.get("ports").and_then(Value::as_array);
    for port in ports.into_iter().flatten() {
        if port.get("hostPort").is_some_and(|p| p.as_u64() != Some(0)) {
            let why = "a pod is a machine of its own, without a host";
            return Err(unsupported(&format!("{at}.ports[].hostPort"), why));
        }
    }
    if !container.resources.claims.is_empty() {
        let why = "devices are not built yet";
        return Err(unsupported(&format!("{at}.resources.claims"), why));
    }
    check_security(
        &format!("{at}.securityContext"),
        &container.security_context,
    )
}

fn check_security(at: &str, context: &SecurityContext) -> Result<(), Untranslatable> {
    let mut other = context.other.clone();
    if let Some(Value::Bool(false)) = other.remove("allowPrivilegeEscalation") {
        let field = format!("{at}.allowPrivilegeEscalation");
        return Err(unsupported(&field, why_not("allowPrivilegeEscalation")));
    }
    let unconfined = |profile: &Value| profile["type"] == "Unconfined";
    if other.get("seccompProfile").is_some_and(unconfined) {
        other.remove("seccompProfile");
    }
    // Only volumes that are mounted from outside have owners to change.
    refuse_others(at, &other, &["fsGroup", "fsGroupChangePolicy"])
}

#[cfg(test)]
mod tests;
