//! The level `baseline`: no known way out of the pod. In the order of upstream's checks.

use serde_json::Value;

use super::checks::{Pod, Violation, containers, distinct, plural, quoted};
use crate::object;

/// Capabilities that the usual runtimes give anyway.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
const SELINUX_TYPES: [&str; 4] = ["container_t", "container_init_t", "container_kvm_t", ""];
/// Since which minor version each is harmless.
const SYSCTLS: [(&str, u32); 11] = [
    ("kernel.shm_rmid_forced", 0),
    ("net.ipv4.ip_local_port_range", 0),
    ("net.ipv4.tcp_syncookies", 0),
    ("net.ipv4.ping_group_range", 0),
    ("net.ipv4.ip_unprivileged_port_start", 0),
    ("net.ipv4.ip_local_reserved_ports", 27),
    ("net.ipv4.tcp_keepalive_time", 29),
    ("net.ipv4.tcp_fin_timeout", 29),
    ("net.ipv4.tcp_keepalive_intvl", 29),
    ("net.ipv4.tcp_keepalive_probes", 29),
    ("net.ipv4.tcp_rmem", 32),
];
const SYSCTL_WMEM: (&str, u32) = ("net.ipv4.tcp_wmem", 32);
/// Where a probe or a hook may be sent to another host.
const HOST_PROBES_SINCE: u32 = 34;

/// `by_restricted`: the stricter forms of some checks will be made instead.
pub(super) fn violations(pod: &Pod<'_>, minor: Option<u32>, by_restricted: bool) -> Vec<Violation> {
    let is_since = |since: u32| minor.is_none_or(|minor| minor >= since);
    let mut found = Vec::new();
    found.extend(app_armor(pod));
    if !by_restricted {
        found.extend(capabilities(pod));
    }
    found.extend(host_namespaces(pod));
    if !by_restricted {
        found.extend(host_path(pod));
    }
    found.extend(host_ports(pod));
    if is_since(HOST_PROBES_SINCE) {
        found.extend(host_probes(pod));
    }
    found.extend(privileged(pod));
    found.extend(proc_mount(pod));
    found.extend(selinux(pod));
    if !by_restricted {
        found.extend(seccomp(pod));
    }
    found.extend(sysctls(pod, minor));
    found.extend(windows_host_process(pod));
    found
}

fn app_armor(pod: &Pod<'_>) -> Option<Violation> {
    const ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
    let mut bad = Vec::new();
    let kind = |context: &Value| object::text(context, &["appArmorProfile", "type"]).to_owned();
    let is_bad = |kind: &str| !matches!(kind, "" | "RuntimeDefault" | "Localhost");
    let mut values = Vec::new();
    if is_bad(&kind(pod.context)) {
        bad.push("pod".to_owned());
        values.push(kind(pod.context));
    }
    let names = pod.bad(|container| is_bad(&kind(&container["securityContext"])));
    if !names.is_empty() {
        bad.push(containers(&names));
        let all = pod
            .containers
            .iter()
            .map(|one| kind(&one["securityContext"]));
        values.extend(all.filter(|kind| is_bad(kind)));
    }
    let annotations = pod.whole["metadata"]["annotations"].as_object();
    let mut old: Vec<_> = annotations
        .into_iter()
        .flatten()
        .filter(|(key, value)| {
            let value = value.as_str().unwrap_or_default();
            let is_fine =
                matches!(value, "" | "runtime/default") || value.starts_with("localhost/");
            key.starts_with(ANNOTATION) && !is_fine
        })
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if bad.is_empty() && old.is_empty() {
        return None;
    }
    old.sort();
    let mut details = Vec::new();
    if !bad.is_empty() {
        let values = distinct(values.iter().map(String::as_str));
        details.push(format!(
            "{} must not set AppArmor profile type to {}",
            bad.join(" and "),
            quoted(&values)
        ));
    }
    if !old.is_empty() {
        details.push(format!(
            "{} {}",
            plural("annotation", old.len()),
            old.join(", ")
        ));
    }
    let reason = if details.len() == 1 && names.len() <= 1 {
        "forbidden AppArmor profile"
    } else {
        "forbidden AppArmor profiles"
    };
    Some(Violation::new(reason, details.join(" and ")))
}

fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let added = |container: &Value| -> Vec<String> {
        let path = ["securityContext", "capabilities", "add"];
        let all = object::items(container, &path)
            .iter()
            .filter_map(Value::as_str);
        all.filter(|one| !CAPABILITIES.contains(one))
            .map(str::to_owned)
            .collect()
    };
    let names = pod.bad(|container| !added(container).is_empty());
    if names.is_empty() {
        return None;
    }
    let all: Vec<_> = pod.containers.iter().flat_map(|one| added(one)).collect();
    let all = distinct(all.iter().map(String::as_str));
    let detail = format!(
        "{} must not include {} in securityContext.capabilities.add",
        containers(&names),
        quoted(&all)
    );
    Some(Violation::new("non-default capabilities", detail))
}

fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let fields = ["hostNetwork", "hostPID", "hostIPC"];
    let set = fields.iter().filter(|field| pod.spec[**field] == true);
    let set: Vec<_> = set.map(|field| format!("{field}=true")).collect();
    (!set.is_empty()).then(|| Violation::new("host namespaces", set.join(", ")))
}

fn host_path(pod: &Pod<'_>) -> Option<Violation> {
    let volumes = object::items(pod.spec, &["volumes"]).iter();
    let bad = volumes.filter(|volume| volume.get("hostPath").is_some());
    let names: Vec<_> = bad.map(|volume| object::text(volume, &["name"])).collect();
    let detail = || format!("{} {}", plural("volume", names.len()), quoted(&names));
    (!names.is_empty()).then(|| Violation::new("hostPath volumes", detail()))
}

fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let ports = |container: &Value| -> Vec<i64> {
        let all = object::items(container, &["ports"]).iter();
        let all = all.filter_map(|port| port["hostPort"].as_i64());
        all.filter(|port| *port != 0).collect()
    };
    let names = pod.bad(|container| !ports(container).is_empty());
    if names.is_empty() {
        return None;
    }
    let mut all: Vec<_> = pod.containers.iter().flat_map(|one| ports(one)).collect();
    all.sort_unstable();
    all.dedup();
    let (uses, what) = (
        if names.len() == 1 { "uses" } else { "use" },
        plural("hostPort", all.len()),
    );
    let all: Vec<_> = all.iter().map(i64::to_string).collect();
    let detail = format!("{} {uses} {what} {}", containers(&names), all.join(", "));
    Some(Violation::new("hostPort", detail))
}

fn host_probes(pod: &Pod<'_>) -> Option<Violation> {
    let handlers = [
        ["livenessProbe", ""],
        ["readinessProbe", ""],
        ["startupProbe", ""],
        ["lifecycle", "postStart"],
        ["lifecycle", "preStop"],
    ];
    let hosts = |container: &Value| -> Vec<String> {
        let handlers = handlers.iter().filter_map(|[outer, inner]| {
            let outer = container.get(outer)?;
            if inner.is_empty() {
                Some(outer)
            } else {
                outer.get(inner)
            }
        });
        let hosts = handlers.flat_map(|handler| {
            ["httpGet", "tcpSocket"].map(|kind| object::text(handler, &[kind, "host"]).to_owned())
        });
        hosts
            .filter(|host| !matches!(host.as_str(), "" | "127.0.0.1" | "::1"))
            .collect()
    };
    let names = pod.bad(|container| !hosts(container).is_empty());
    if names.is_empty() {
        return None;
    }
    let all: Vec<_> = pod.containers.iter().flat_map(|one| hosts(one)).collect();
    let all = distinct(all.iter().map(String::as_str));
    let uses = if names.len() == 1 { "uses" } else { "use" };
    let what = plural("host", all.len());
    let detail = format!(
        "{} {uses} probe or lifecycle {what} {}",
        containers(&names),
        quoted(&all)
    );
    Some(Violation::new("probe or lifecycle host", detail))
}

fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.bad(|container| container["securityContext"]["privileged"] == true);
    let detail = || {
        format!(
            "{} must not set securityContext.privileged=true",
            containers(&names)
        )
    };
    (!names.is_empty()).then(|| Violation::new("privileged", detail()))
}

fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    // In a user namespace of its own, a pod may see all of /proc.
    if pod.spec["hostUsers"] == false {
        return None;
    }
    let mount =
        |container: &Value| object::text(container, &["securityContext", "procMount"]).to_owned();
    let is_bad = |mount: &str| !matches!(mount, "" | "Default");
    let names = pod.bad(|container| is_bad(&mount(container)));
    if names.is_empty() {
        return None;
    }
    let all: Vec<_> = pod.containers.iter().map(|one| mount(one)).collect();
    let all = distinct(all.iter().map(String::as_str).filter(|mount| is_bad(mount)));
    let detail = format!(
        "{} must not set securityContext.procMount to {}",
        containers(&names),
        quoted(&all)
    );
    Some(Violation::new("procMount", detail))
}

fn selinux(pod: &Pod<'_>) -> Option<Violation> {
    let option =
        |context: &Value, field: &str| object::text(context, &["seLinuxOptions", field]).to_owned();
    let is_bad = |context: &Value| {
        !SELINUX_TYPES.contains(&option(context, "type").as_str())
            || !option(context, "user").is_empty()
            || !option(context, "role").is_empty()
    };
    let mut who = Vec::new();
    let mut contexts = Vec::new();
    if is_bad(pod.context) {
        who.push("pod".to_owned());
        contexts.push(pod.context);
    }
    let names = pod.bad(|container| is_bad(&container["securityContext"]));
    if !names.is_empty() {
        who.push(containers(&names));
        let all = pod.containers.iter().map(|one| &one["securityContext"]);
        contexts.extend(all.filter(|context| is_bad(context)));
    }
    if who.is_empty() {
        return None;
    }
    let types: Vec<_> = contexts.iter().map(|one| option(one, "type")).collect();
    let types = types
        .iter()
        .map(String::as_str)
        .filter(|one| !SELINUX_TYPES.contains(one));
    let types = distinct(types);
    let mut set = Vec::new();
    if !types.is_empty() {
        set.push(format!(
            "{} {}",
            plural("type", types.len()),
            quoted(&types)
        ));
    }
    for field in ["user", "role"] {
        if contexts
            .iter()
            .any(|context| !option(context, field).is_empty())
        {
            set.push(format!("{field} may not be set"));
        }
    }
    let detail = format!(
        "{} set forbidden securityContext.seLinuxOptions: {}",
        who.join(" and "),
        set.join("; ")
    );
    Some(Violation::new("seLinuxOptions", detail))
}

fn seccomp(pod: &Pod<'_>) -> Option<Violation> {
    let is_bad = |context: &Value| {
        let kind = object::text(context, &["seccompProfile", "type"]);
        !matches!(kind, "" | "RuntimeDefault" | "Localhost")
    };
    let mut who = Vec::new();
    if is_bad(pod.context) {
        who.push("pod".to_owned());
    }
    let names = pod.bad(|container| is_bad(&container["securityContext"]));
    if !names.is_empty() {
        who.push(containers(&names));
    }
    let detail = || {
        let who = who.join(" and ");
        format!("{who} must not set securityContext.seccompProfile.type to \"Unconfined\"")
    };
    (!who.is_empty()).then(|| Violation::new("seccompProfile", detail()))
}

fn sysctls(pod: &Pod<'_>, minor: Option<u32>) -> Option<Violation> {
    let is_fine = |name: &str| {
        let mut known = SYSCTLS.iter().chain([&SYSCTL_WMEM]);
        known.any(|(one, since)| *one == name && minor.is_none_or(|minor| minor >= *since))
    };
    let all = object::items(pod.context, &["sysctls"]).iter();
    let names = all.map(|sysctl| object::text(sysctl, &["name"]));
    let bad: Vec<_> = names.filter(|name| !is_fine(name)).collect();
    (!bad.is_empty()).then(|| Violation::new("forbidden sysctls", bad.join(", ")))
}

fn windows_host_process(pod: &Pod<'_>) -> Option<Violation> {
    let is_bad = |context: &Value| context["windowsOptions"]["hostProcess"] == true;
    let mut who = Vec::new();
    if is_bad(pod.context) {
        who.push("pod".to_owned());
    }
    let names = pod.bad(|container| is_bad(&container["securityContext"]));
    if !names.is_empty() {
        who.push(containers(&names));
    }
    let detail = || {
        let who = who.join(" and ");
        format!("{who} must not set securityContext.windowsOptions.hostProcess=true")
    };
    (!who.is_empty()).then(|| Violation::new("hostProcess", detail()))
}
