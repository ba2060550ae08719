//! PodSecurity: the Pod Security Standards, by labels of the namespace.
//!
//! `enforce` refuses pods; `audit` and `warn` also look at the pod templates of workloads, so that
//! somebody hears of it before the controller's pods are refused.

mod baseline;
mod checks;
mod restricted;

use serde_json::Value;

use self::checks::{Pod, Violation};
use crate::admission::state::PodSecurityConfig;
use crate::admission::{Attributes, Operation};
use crate::api::Selector;
use crate::object;
use crate::resource::{NAMESPACES, PODS};
use crate::status::{Cause, Status};

const PREFIX: &str = "pod-security.kubernetes.io/";
/// Pods of a namespace that are looked at when its level is raised, as upstream.
const PODS_MAX: usize = 3000;
/// Warnings that one change of a namespace causes.
const WARNINGS_MAX: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Privileged,
    Baseline,
    Restricted,
}

impl Level {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "privileged" => Some(Level::Privileged),
            "baseline" => Some(Level::Baseline),
            "restricted" => Some(Level::Restricted),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Level::Privileged => "privileged",
            Level::Baseline => "baseline",
            Level::Restricted => "restricted",
        }
    }
}

/// A level as of a version of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Policy {
    level: Level,
    /// Minor version; none for the latest.
    minor: Option<u32>,
}

impl std::fmt::Display for Policy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "{}:v1.{minor}", self.level.as_str()),
            None => write!(f, "{}:latest", self.level.as_str()),
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
struct Policies {
    enforce: Policy,
    audit: Policy,
    warn: Policy,
}

pub(super) async fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    if !matches!(attributes.operation, Operation::Create | Operation::Update) {
        return Ok(());
    }
    if attributes.is_object(&NAMESPACES) {
        return namespace(attributes).await;
    }
    if let Some(spec) = template(attributes) {
        return pods(attributes, spec);
    }
    Ok(())
}

/// Where the specification of pods is in the object.
fn template<'a>(attributes: &'a Attributes<'_>) -> Option<&'a [&'static str]> {
    let resource = (attributes.resource.group, attributes.resource.plural);
    if resource == ("", "pods") {
        let is_looked_at = matches!(
            attributes.subresource,
            None | Some("ephemeralcontainers" | "resize")
        );
        return is_looked_at.then_some(&[]);
    }
    if attributes.subresource.is_some() {
        return None;
    }
    match resource {
        ("", "podtemplates") => Some(&["template"]),
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets")
        | ("batch", "jobs") => Some(&["spec", "template"]),
        ("batch", "cronjobs") => Some(&["spec", "jobTemplate", "spec", "template"]),
        _ => None,
    }
}

fn pods(attributes: &Attributes<'_>, template: &[&str]) -> Result<(), Status> {
    let Some(pod) = object::at(&attributes.object, template) else {
        return Ok(());
    };
    let state = attributes.state();
    let config = &state.config.pod_security;
    let namespace = attributes.namespace.unwrap_or_default();
    let is_pod = attributes.resource.is(&PODS);
    if is_exempt(attributes, config, namespace, pod) || (is_pod && is_unchanged(attributes)) {
        return Ok(());
    }
    let Some(namespace) = state.namespaces.get(attributes.api, None, namespace) else {
        return Ok(());
    };
    let (policies, _) = Policies::of(&namespace, config);
    let pod = Pod::new(pod);
    if is_pod {
        let api = attributes.api;
        let enforced = policies.enforce.to_string();
        api.annotate(&format!("{PREFIX}enforce-policy"), &enforced);
        let found = violations(&policies.enforce, &pod);
        if !found.is_empty() {
            let why = format!("violates PodSecurity {enforced:?}: {}", text(&found));
            return Err(Status::forbidden(&PODS, &attributes.name, &why));
        }
    }
    let found = violations(&policies.audit, &pod);
    if !found.is_empty() {
        let would = would(&policies.audit, &found);
        attributes
            .api
            .annotate(&format!("{PREFIX}audit-violations"), &would);
    }
    // Nobody is warned of what is refused anyway or has just been looked at.
    let found = violations(&policies.warn, &pod);
    if !found.is_empty() {
        attributes.api.warn(would(&policies.warn, &found));
    }
    Ok(())
}

fn would(policy: &Policy, found: &[Violation]) -> String {
    format!(
        "would violate PodSecurity {:?}: {}",
        policy.to_string(),
        text(found)
    )
}

fn text(found: &[Violation]) -> String {
    let texts = found.iter().map(|one| match one.detail.as_str() {
        "" => one.reason.to_owned(),
        detail => format!("{} ({detail})", one.reason),
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn is_exempt(
    attributes: &Attributes<'_>,
    config: &PodSecurityConfig,
    namespace: &str,
    pod: &Value,
) -> bool {
    let holds = |list: &[String], name: &str| list.iter().any(|one| one == name);
    let user = &attributes.api.caller().user.name;
    let class = object::text(pod, &["spec", "runtimeClassName"]);
    let exemption = if holds(&config.exempt_namespaces, namespace) {
        "namespace"
    } else if holds(&config.exempt_users, user) {
        "user"
    } else if holds(&config.exempt_runtime_classes, class) {
        "runtimeClass"
    } else {
        return false;
    };
    attributes
        .api
        .annotate(&format!("{PREFIX}exempt"), exemption);
    true
}

/// Whether an update leaves alone what the standards look at: a pod that was let in stays.
fn is_unchanged(attributes: &Attributes<'_>) -> bool {
    let Some(old) = attributes.old else {
        return false;
    };
    let part = |pod: &Value| (pod["spec"].clone(), pod["metadata"]["annotations"].clone());
    attributes.operation == Operation::Update && part(old) == part(&attributes.object)
}

fn violations(policy: &Policy, pod: &Pod<'_>) -> Vec<Violation> {
    match policy.level {
        Level::Privileged => Vec::new(),
        Level::Baseline => baseline::violations(pod, policy.minor, false),
        Level::Restricted => {
            let mut found = baseline::violations(pod, policy.minor, true);
            found.extend(restricted::violations(pod, policy.minor));
            found
        }
    }
}

impl Policies {
    /// What the labels say, and what is wrong with them. A label that cannot be read is taken for
    /// the strictest.
    fn of(namespace: &Value, config: &PodSecurityConfig) -> (Self, Vec<Cause>) {
        let mut causes = Vec::new();
        let mut policy = |mode: &str, default: &str| {
            let label = format!("{PREFIX}{mode}");
            let field = |label: &str| format!("metadata.labels[{label}]");
            let level = match object::label(namespace, &label) {
                None => Level::parse(default).unwrap_or(Level::Restricted),
                Some(text) => Level::parse(text).unwrap_or_else(|| {
                    let why = "must be one of privileged, baseline, restricted";
                    causes.push(Cause::invalid(field(&label), &text.into(), why));
                    Level::Restricted
                }),
            };
            let label = format!("{PREFIX}{mode}-version");
            let minor = match object::label(namespace, &label) {
                None | Some("latest") => None,
                Some(text) => match text.strip_prefix("v1.").map(str::parse) {
                    Some(Ok(minor)) => Some(minor),
                    Some(Err(_)) | None => {
                        let why = "must be \"latest\" or \"v1.x\"";
                        causes.push(Cause::invalid(field(&label), &text.into(), why));
                        None
                    }
                },
            };
            Policy { level, minor }
        };
        let policies = Self {
            enforce: policy("enforce", &config.enforce),
            audit: policy("audit", &config.audit),
            warn: policy("warn", &config.warn),
        };
        (policies, causes)
    }
}

/// The labels of a namespace can be read, and whoever raises its level hears what is in the way.
async fn namespace(attributes: &Attributes<'_>) -> Result<(), Status> {
    let config = &attributes.state().config.pod_security;
    let (new, causes) = Policies::of(&attributes.object, config);
    if !causes.is_empty() {
        let is_new_fault = match attributes.old {
            None => true,
            Some(old) => Policies::of(old, config).1 != causes,
        };
        if is_new_fault {
            return Err(Status::invalid(&NAMESPACES, &attributes.name, causes));
        }
    }
    let Some(old) = attributes.old else {
        return Ok(());
    };
    let (old, _) = Policies::of(old, config);
    let is_raised = new.enforce != old.enforce && new.enforce.level > Level::Privileged;
    let is_exempt = config.exempt_namespaces.contains(&attributes.name);
    if is_raised && !is_exempt && new.enforce.level >= old.enforce.level {
        warn_of_pods(attributes, &new.enforce).await;
    }
    Ok(())
}

async fn warn_of_pods(attributes: &Attributes<'_>, policy: &Policy) {
    let api = attributes.api;
    let list = crate::api::ListOptions {
        selector: Selector::default(),
        limit: PODS_MAX,
        ..crate::api::ListOptions::default()
    };
    let Ok(list) = api.list_with(&PODS, Some(&attributes.name), &list).await else {
        return;
    };
    // Pods that break the same rules are told of in one line.
    let mut faults: Vec<(String, String, usize)> = Vec::new();
    for pod in &list.items {
        let found = violations(policy, &Pod::new(pod));
        if found.is_empty() {
            continue;
        }
        let reasons: Vec<_> = found.iter().map(|one| one.reason).collect();
        let reasons = reasons.join(", ");
        match faults.iter_mut().find(|(_, known, _)| *known == reasons) {
            Some((_, _, more)) => *more += 1,
            None => faults.push((object::name(pod).to_owned(), reasons, 0)),
        }
    }
    if faults.is_empty() {
        return;
    }
    let (name, policy) = (&attributes.name, policy.to_string());
    api.warn(format!(
        "existing pods in namespace {name:?} violate the new PodSecurity enforce level {policy:?}"
    ));
    for (pod, reasons, more) in faults.into_iter().take(WARNINGS_MAX) {
        api.warn(match more {
            0 => format!("{pod}: {reasons}"),
            1 => format!("{pod} (and 1 other pod): {reasons}"),
            more => format!("{pod} (and {more} other pods): {reasons}"),
        });
    }
}

#[cfg(test)]
mod tests;
