//! The level `restricted`: what `baseline` asks, and pods hardened as is good practice today.

use serde_json::Value;

use super::checks::{Pod, Violation, containers, distinct, plural, quoted};
use crate::object;

const VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
/// Minor versions that brought a check, or let Windows off it.
const PRIVILEGE_ESCALATION_SINCE: u32 = 8;
const SECCOMP_SINCE: u32 = 19;
const CAPABILITIES_SINCE: u32 = 22;
const RUN_AS_USER_SINCE: u32 = 23;
const WINDOWS_SINCE: u32 = 25;

pub(super) fn violations(pod: &Pod<'_>, minor: Option<u32>) -> Vec<Violation> {
    let is_since = |since: u32| minor.is_none_or(|minor| minor >= since);
    let is_let_off = pod.is_windows() && is_since(WINDOWS_SINCE);
    let mut found = Vec::new();
    if is_since(PRIVILEGE_ESCALATION_SINCE) && !is_let_off {
        found.extend(privilege_escalation(pod));
    }
    if is_since(CAPABILITIES_SINCE) && !is_let_off {
        found.extend(capabilities(pod));
    }
    found.extend(volumes(pod));
    found.extend(run_as_non_root(pod));
    if is_since(RUN_AS_USER_SINCE) {
        found.extend(run_as_user(pod));
    }
    if is_since(SECCOMP_SINCE) && !is_let_off {
        found.extend(seccomp(pod));
    }
    found
}

fn privilege_escalation(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.bad(|one| one["securityContext"]["allowPrivilegeEscalation"] != false);
    let detail = || {
        let who = containers(&names);
        format!("{who} must set securityContext.allowPrivilegeEscalation=false")
    };
    (!names.is_empty()).then(|| Violation::new("allowPrivilegeEscalation != false", detail()))
}

fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let list = |container: &Value, field: &str| -> Vec<String> {
        let all = object::items(container, &["securityContext", "capabilities", field]);
        all.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let keeps = pod.bad(|one| !list(one, "drop").iter().any(|dropped| dropped == "ALL"));
    let added = |container: &Value| -> Vec<String> {
        let mut all = list(container, "add");
        all.retain(|one| one != "NET_BIND_SERVICE");
        all
    };
    let adds = pod.bad(|container| !added(container).is_empty());
    let mut details = Vec::new();
    if !keeps.is_empty() {
        let who = containers(&keeps);
        details.push(format!(
            "{who} must set securityContext.capabilities.drop=[\"ALL\"]"
        ));
    }
    if !adds.is_empty() {
        let all: Vec<_> = pod.containers.iter().flat_map(|one| added(one)).collect();
        let all = distinct(all.iter().map(String::as_str));
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adds),
            quoted(&all)
        ));
    }
    (!details.is_empty()).then(|| Violation::new("unrestricted capabilities", details.join("; ")))
}

fn volumes(pod: &Pod<'_>) -> Option<Violation> {
    let (mut names, mut kinds) = (Vec::new(), Vec::new());
    for volume in object::items(pod.spec, &["volumes"]) {
        let sources = volume.as_object().into_iter().flatten();
        let mut sources = sources
            .map(|(key, _)| key.as_str())
            .filter(|key| *key != "name");
        let bad = sources.find(|source| !VOLUMES.contains(source));
        if let Some(bad) = bad {
            names.push(object::text(volume, &["name"]));
            kinds.push(bad);
        }
    }
    let kinds = distinct(kinds.into_iter());
    let detail = || {
        let (uses, what) = if names.len() == 1 {
            ("uses", "type")
        } else {
            ("use", "types")
        };
        let what = if kinds.len() == 1 { "type" } else { what };
        format!(
            "{} {} {uses} restricted volume {what} {}",
            plural("volume", names.len()),
            quoted(&names),
            quoted(&kinds)
        )
    };
    (!names.is_empty()).then(|| Violation::new("restricted volume types", detail()))
}

fn run_as_non_root(pod: &Pod<'_>) -> Option<Violation> {
    let of = |context: &Value| context["runAsNonRoot"].as_bool();
    let by_pod = of(pod.context);
    let says_no = pod.bad(|container| of(&container["securityContext"]) == Some(false));
    let says_nothing = pod.bad(|container| of(&container["securityContext"]).is_none());
    let mut who = Vec::new();
    if by_pod == Some(false) {
        who.push("pod".to_owned());
    }
    if !says_no.is_empty() {
        who.push(containers(&says_no));
    }
    let detail = if !who.is_empty() {
        let who = who.join(" and ");
        format!("{who} must not set securityContext.runAsNonRoot=false")
    } else if by_pod.is_none() && !says_nothing.is_empty() {
        let who = containers(&says_nothing);
        format!("pod or {who} must set securityContext.runAsNonRoot=true")
    } else {
        return None;
    };
    Some(Violation::new("runAsNonRoot != true", detail))
}

fn run_as_user(pod: &Pod<'_>) -> Option<Violation> {
    let is_root = |context: &Value| context["runAsUser"].as_i64() == Some(0);
    let mut who = Vec::new();
    if is_root(pod.context) {
        who.push("pod".to_owned());
    }
    let names = pod.bad(|container| is_root(&container["securityContext"]));
    if !names.is_empty() {
        who.push(containers(&names));
    }
    let detail = || format!("{} must not set runAsUser=0", who.join(" and "));
    (!who.is_empty()).then(|| Violation::new("runAsUser=0", detail()))
}

fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    let of = |context: &Value| object::text(context, &["seccompProfile", "type"]).to_owned();
    let is_fine = |kind: &str| matches!(kind, "RuntimeDefault" | "Localhost");
    let by_pod = of(pod.context);
    let mut who = Vec::new();
    if !by_pod.is_empty() && !is_fine(&by_pod) {
        who.push("pod".to_owned());
    }
    let is_bad = |kind: &str| !kind.is_empty() && !is_fine(kind);
    let bad = pod.bad(|container| is_bad(&of(&container["securityContext"])));
    if !bad.is_empty() {
        who.push(containers(&bad));
    }
    let says_nothing = pod.bad(|container| of(&container["securityContext"]).is_empty());
    let detail = if !who.is_empty() {
        let kinds = pod.containers.iter().map(|one| of(&one["securityContext"]));
        let kinds: Vec<_> = kinds.chain([by_pod]).filter(|kind| is_bad(kind)).collect();
        let kinds = distinct(kinds.iter().map(String::as_str));
        let who = who.join(" and ");
        format!(
            "{who} must not set securityContext.seccompProfile.type to {}",
            quoted(&kinds)
        )
    } else if by_pod.is_empty() && !says_nothing.is_empty() {
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \
             \"Localhost\"",
            containers(&says_nothing)
        )
    } else {
        return None;
    };
    Some(Violation::new("seccompProfile", detail))
}
