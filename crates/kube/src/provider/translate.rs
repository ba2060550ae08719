//! Pod → machine configuration: a pure function.
//!
//! A pod is one machine; each container of the pod is a container of the machine, and init
//! containers are containers that the others depend on. What a machine cannot do yet is refused by
//! name (`Unsupported`), also when nobody has heard of the field: a pod that runs differently from
//! what was asked for is worse than one that does not run. Accepted without an effect are only
//! fields that another part carries out (scheduling, admission, readiness gates) or that ask for
//! what every machine has anyway.
//!
//! Two things differ from a kubelet and are the same for every pod: `imagePullPolicy` is left to
//! the Machines API (which resolves a tag when a machine is created), and files of volumes are
//! written once, when a container starts. Only tokens are written anew before they end (`tokens`).

mod files;
mod refuse;
mod size;

use std::collections::BTreeMap;

use serde_json::Value;
use types::machine::{
    ContainerConfig, DependsOn, DependsOnCondition, Dns, DnsOption, Duration, EnvFrom,
    IsolationClass, MachineConfig, Restart, RestartPolicy, StopConfig,
};

use super::budget::Budget;
use super::env;
use super::pod::{Container, Pod, PodRestart, SecurityContext, TokenSource};

/// Metadata of a machine that is a pod.
pub(crate) const POD_NAME: &str = "kubernetes.io/pod-name";
pub(crate) const POD_NAMESPACE: &str = "kubernetes.io/pod-namespace";
pub(crate) const POD_UID: &str = "kubernetes.io/pod-uid";
/// Metadata of the Machines API: machines of one group are replicas of each other.
const PROCESS_GROUP: &str = "fly_process_group";

/// What a pod refers to, fetched before it is translated.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    pub(crate) config_maps: BTreeMap<String, Value>,
    pub(crate) secrets: BTreeMap<String, Value>,
    /// Handler of the pod's RuntimeClass.
    pub(crate) runtime_handler: Option<String>,
    /// Address of the node.
    pub(crate) host_ip: String,
    /// Services whose addresses the pod finds in its environment.
    pub(crate) services: Vec<Value>,
    /// Tokens of the pod's service account, for those of its volumes that hold one.
    pub(crate) tokens: Vec<(TokenSource, String)>,
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
        let projected = volume.projected.iter().flat_map(|p| &p.sources);
        let maps = projected.clone().filter_map(|s| s.config_map.as_ref());
        let maps = volume.config_map.iter().chain(maps);
        found.config_maps.extend(maps.map(|s| s.name.clone()));
        let secrets = projected.filter_map(|s| s.secret.as_ref());
        let secrets = volume.secret.iter().chain(secrets);
        found.secrets.extend(secrets.map(|s| s.name.clone()));
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
    refuse::spec(pod)?;
    let budget = Budget::of_a_pod();
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
        let mut config = container(pod, init, &at, sources, &budget)?;
        config.restart = Some(init_restarts(pod.spec.restart_policy));
        config.stop = Some(stop.clone());
        config.depends_on.extend(previous.map(after_success));
        previous = Some(&init.name);
        containers.push(config);
    }
    for (index, main) in pod.spec.containers.iter().enumerate() {
        let at = format!("spec.containers[{index}]");
        let mut config = container(pod, main, &at, sources, &budget)?;
        config.restart = Some(restart.clone());
        config.stop = Some(stop.clone());
        config.depends_on.extend(previous.map(after_success));
        containers.push(config);
    }
    Ok(MachineConfig {
        guest: Some(size::guest(pod)?),
        isolation: isolation(sources)?,
        metadata: metadata(pod),
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

/// Who the machine is. Those of one controller are replicas, which placement spreads over hosts.
fn metadata(pod: &Pod) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        (POD_NAME.to_owned(), pod.metadata.name.clone()),
        (POD_NAMESPACE.to_owned(), pod.metadata.namespace.clone()),
        (POD_UID.to_owned(), pod.metadata.uid.clone()),
    ]);
    let group = pod.metadata.controller().unwrap_or(&pod.metadata.uid);
    metadata.insert(PROCESS_GROUP.to_owned(), group.to_owned());
    metadata
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
    for (key, value) in config.iter().filter(|(_, value)| !refuse::is_empty(value)) {
        let texts = value.as_array().into_iter().flatten();
        let texts = texts.filter_map(Value::as_str).map(str::to_owned);
        match key.as_str() {
            "nameservers" => dns.nameservers.extend(texts),
            "searches" => dns.searches.extend(texts),
            "options" => dns
                .options
                .extend(value.as_array().into_iter().flatten().map(option)),
            other => {
                let field = format!("spec.dnsConfig.{other}");
                return Err(unsupported(&field, "machines know nothing like it"));
            }
        }
    }
    if cluster && !dns.nameservers.is_empty() {
        // The pod's own come after the cluster's.
        dns.nameservers
            .insert(0, types::sixpn::RESOLVER.to_string());
    }
    Ok(dns)
}

fn option(option: &Value) -> DnsOption {
    let text = |key: &str| option.get(key).and_then(Value::as_str);
    let text = |key: &str| text(key).unwrap_or_default().to_owned();
    DnsOption {
        name: text("name"),
        value: text("value"),
    }
}

fn container(
    pod: &Pod,
    container: &Container,
    at: &str,
    sources: &Sources,
    budget: &Budget,
) -> Result<ContainerConfig, Untranslatable> {
    refuse::container(container, at)?;
    let environment = env::resolve(pod, container, at, sources, budget)?;
    let expand = |words: &[String], member: &str| -> Result<Vec<String>, Untranslatable> {
        let field = format!("{at}.{member}");
        let expanded = words
            .iter()
            .map(|word| environment.expand(word, &field, budget));
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
    let late = environment.late.into_iter();
    let late = late.map(|(env_var, field_ref)| EnvFrom { env_var, field_ref });
    Ok(ContainerConfig {
        name: container.name.clone(),
        image: container.image.clone(),
        exec,
        cmd,
        user,
        env: environment.env,
        env_from: late.collect(),
        files: files::of(pod, container, at, sources, budget)?,
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

#[cfg(test)]
mod tests;
