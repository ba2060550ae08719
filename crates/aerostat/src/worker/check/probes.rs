//! Checks of machines and of containers, as they are asked for and as the guest makes them.
//!
//! The defaults of a machine's checks are Fly's (15 s, 2 s, 1 s of grace, the first failure
//! counts); those of a container's are Kubernetes' (10 s, 3 failures in a row).

use std::collections::BTreeSet;
use std::time::Duration;

use types::IsolationClass;
use types::guest::{CheckSpec, Probe, ProbeTls};
use types::machine::{Check, CheckHeader, CheckMeaning, CheckType, HealthCheck, HttpProbe};

use super::checked::MachineCheck;
use super::words::{check_name, check_words};
use super::{Checked, CheckedConfig, invalid, unbuilt};

/// Checks of one machine with those of its containers. Each is a row of what the machine shows.
const CHECKS_MAX: usize = 64;
const INTERVAL_MIN: Duration = Duration::from_secs(1);
const INTERVAL_MAX: Duration = Duration::from_secs(24 * 3600);
const TIMEOUT_MIN: Duration = Duration::from_millis(1);
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
const GRACE_MAX: Duration = Duration::from_secs(3600);
const THRESHOLD_MAX: u32 = 100;
/// Bytes of a path, of a method, of a header.
const TEXT_MAX: usize = 4096;

const INTERVAL: Duration = Duration::from_secs(15);
const TIMEOUT: Duration = Duration::from_secs(2);
const GRACE: Duration = Duration::from_secs(1);
const CONTAINER_INTERVAL_S: u32 = 10;
const CONTAINER_TIMEOUT_S: u32 = 2;
const CONTAINER_FAILURES: u32 = 3;

/// Checks all of them, as they were asked for and as they come out.
pub(super) fn check(checked: &CheckedConfig) -> Checked {
    let config = checked.as_given();
    for (name, check) in &config.checks {
        check_machine(&format!("config.checks.{name}"), name, check)?;
    }
    for (index, container) in config.containers.iter().enumerate() {
        let mut names = BTreeSet::new();
        for (number, health) in container.healthchecks.iter().enumerate() {
            let field = format!("config.containers[{index}].healthchecks[{number}]");
            check_container(&field, health)?;
            if !names.insert(health.name.as_str()) {
                let reason = format!("another one is named `{}`", health.name);
                invalid(format!("{field}.name"), reason)?;
            }
        }
    }
    let all = checked.checks();
    if all.len() > CHECKS_MAX {
        let reason = format!("at most {CHECKS_MAX} are possible, with those of containers");
        invalid("config.checks", reason)?;
    }
    Ok(())
}

fn check_machine(field: &str, name: &str, check: &Check) -> Checked {
    let at = |member: &str| format!("{field}.{member}");
    unbuilt(field, &check.other)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
    if !(1..=100).contains(&name.len()) || !name.bytes().all(plain) {
        let reason = "a check's name must be 1 to 100 letters, digits, dashes, dots, underscores";
        invalid("config.checks", reason)?;
    }
    check_port(&at("port"), check.port.unwrap_or_default())?;
    match check.meaning {
        None | Some(CheckMeaning::Informational | CheckMeaning::Readiness) => {}
        Some(CheckMeaning::Liveness) => invalid(
            at("kind"),
            "must be informational or readiness; liveness is for healthchecks of containers",
        )?,
    }
    check_time(
        &at("interval"),
        check.interval.map(|d| d.0),
        INTERVAL_MIN,
        INTERVAL_MAX,
    )?;
    check_time(
        &at("timeout"),
        check.timeout.map(|d| d.0),
        TIMEOUT_MIN,
        TIMEOUT_MAX,
    )?;
    let grace = check.grace_period.map(|d| d.0);
    check_time(&at("grace_period"), grace, Duration::ZERO, GRACE_MAX)?;
    let is_http = match check.kind {
        CheckType::Tcp => false,
        CheckType::Http => true,
    };
    for (member, is_there) in [
        ("method", check.method.is_some()),
        ("path", check.path.is_some()),
        ("protocol", check.protocol.is_some()),
        ("tls_skip_verify", check.tls_skip_verify == Some(true)),
        (
            "tls_server_name",
            check.tls_server_name.as_deref().unwrap_or_default() != "",
        ),
        ("headers", !check.headers.is_empty()),
    ] {
        if is_there && !is_http {
            invalid(at(member), "belongs to checks of type http")?;
        }
    }
    Tls::of_check(check).check(field, "protocol")?;
    check_request(
        field,
        check.method.as_deref(),
        check.path.as_deref(),
        &check.headers,
    )
}

fn check_container(field: &str, health: &HealthCheck) -> Checked {
    let at = |member: &str| format!("{field}.{member}");
    unbuilt(field, &health.other)?;
    check_name(&at("name"), &health.name)?;
    let seconds = |s: Option<u32>| s.map(|s| Duration::from_secs(s.into()));
    check_time(
        &at("interval"),
        seconds(health.interval),
        INTERVAL_MIN,
        INTERVAL_MAX,
    )?;
    check_time(
        &at("timeout"),
        seconds(health.timeout),
        INTERVAL_MIN,
        TIMEOUT_MAX,
    )?;
    let grace = seconds(Some(health.grace_period));
    check_time(&at("grace_period"), grace, Duration::ZERO, GRACE_MAX)?;
    for (member, threshold) in [
        ("success_threshold", health.success_threshold),
        ("failure_threshold", health.failure_threshold),
    ] {
        if threshold.is_some_and(|times| !(1..=THRESHOLD_MAX).contains(&times)) {
            invalid(at(member), format!("must be 1 to {THRESHOLD_MAX}"))?;
        }
    }
    match health.unhealthy.as_deref() {
        None | Some("" | "stop") => {}
        Some(_) => invalid(at("unhealthy"), "must be stop, or be left out")?,
    }
    match (&health.http, &health.tcp, &health.exec) {
        (Some(http), None, None) => {
            unbuilt(&at("http"), &http.other)?;
            check_port(&at("http.port"), http.port)?;
            Tls::of(http).check(&at("http"), "scheme")?;
            let (method, path) = (http.method.as_deref(), http.path.as_deref());
            check_request(&at("http"), method, path, &http.headers)
        }
        (None, Some(tcp), None) => check_port(&at("tcp.port"), tcp.port),
        (None, None, Some(exec)) if exec.command.is_empty() => invalid(
            at("exec.command"),
            "is missing: a program and its arguments",
        ),
        (None, None, Some(exec)) => check_words(&at("exec.command"), &exec.command),
        _ => invalid(field, "must have one of http, tcp and exec"),
    }
}

fn check_port(field: &str, port: u16) -> Checked {
    if port == 0 {
        invalid(field, "is missing; must be 1 to 65535")?;
    }
    Ok(())
}

fn check_time(field: &str, time: Option<Duration>, min: Duration, max: Duration) -> Checked {
    if time.is_some_and(|time| !(min..=max).contains(&time)) {
        let text = |time: Duration| String::from(types::machine::Duration(time));
        let reason = format!("must be {} to {}", text(min), text(max));
        invalid(field, reason)?;
    }
    Ok(())
}

/// What a check says of TLS.
struct Tls<'a> {
    scheme: Option<&'a str>,
    server_name: Option<&'a str>,
    skip_verify: Option<bool>,
}

impl<'a> Tls<'a> {
    fn of_check(check: &'a Check) -> Self {
        Self {
            scheme: check.protocol.as_deref(),
            server_name: check.tls_server_name.as_deref(),
            skip_verify: check.tls_skip_verify,
        }
    }

    fn of(probe: &'a HttpProbe) -> Self {
        Self {
            scheme: probe.scheme.as_deref(),
            server_name: probe.tls_server_name.as_deref(),
            skip_verify: probe.tls_skip_verify,
        }
    }

    /// `member` is what the scheme is called.
    fn check(&self, field: &str, member: &str) -> Checked {
        let at = |member: &str| format!("{field}.{member}");
        let scheme = self.scheme.unwrap_or_default();
        let schemes = ["", "http", "https"];
        if !schemes
            .iter()
            .any(|known| scheme.eq_ignore_ascii_case(known))
        {
            invalid(at(member), "must be http or https")?;
        }
        let name = self.server_name.unwrap_or_default();
        let needs = format!("needs `{member}` to be https");
        if self.probe().is_none() {
            if self.skip_verify == Some(true) {
                invalid(at("tls_skip_verify"), needs.as_str())?;
            }
            if !name.is_empty() {
                invalid(at("tls_server_name"), needs)?;
            }
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
        if name.len() > 253 || !name.bytes().all(plain) {
            invalid(
                at("tls_server_name"),
                "must be a host's name or an IP address",
            )?;
        }
        Ok(())
    }

    fn probe(&self) -> Option<ProbeTls> {
        let is_https = self.scheme?.eq_ignore_ascii_case("https");
        is_https.then(|| ProbeTls {
            server_name: self.server_name.unwrap_or_default().to_owned(),
            verify: self.skip_verify != Some(true),
        })
    }
}

/// TLS would double the size of the `init` that is part of every virtual machine's memory.
pub(super) fn check_class(checked: &CheckedConfig, class: IsolationClass) -> Checked {
    match class {
        IsolationClass::Container => return Ok(()),
        IsolationClass::Microvm | IsolationClass::Emulated => {}
    }
    let is_tls =
        |check: &MachineCheck| matches!(check.spec.probe, Probe::Http { tls: Some(_), .. });
    match checked.checks().into_iter().find(is_tls) {
        Some(check) => invalid(
            format!("check {}", check.spec.name),
            format!(
                "https is checked in class container only, and this machine is of class {class}; \
                 check over http or tcp, or with a command"
            ),
        ),
        None => Ok(()),
    }
}

/// What goes into a request as it is.
fn check_request(
    field: &str,
    method: Option<&str>,
    path: Option<&str>,
    headers: &[CheckHeader],
) -> Checked {
    let at = |member: &str| format!("{field}.{member}");
    let is_token = |text: &str| {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !text.is_empty() && text.len() <= TEXT_MAX && text.bytes().all(token)
    };
    let is_line = |text: &str| text.len() <= TEXT_MAX && !text.contains(|c: char| c.is_control());
    if method.is_some_and(|method| !method.is_empty() && !is_token(method)) {
        invalid(at("method"), "must be a method of HTTP, such as GET")?;
    }
    let is_path = |path: &str| path.starts_with('/') && is_line(path) && !path.contains(' ');
    if path.is_some_and(|path| !path.is_empty() && !is_path(path)) {
        invalid(at("path"), "must begin with `/` and hold no spaces")?;
    }
    for header in headers {
        let values = header.values.iter();
        if !is_token(&header.name) || !values.clone().all(|value| is_line(value)) {
            let name = header.name.escape_default();
            invalid(
                at("headers"),
                format!("`{name}` cannot be a header of HTTP"),
            )?;
        }
    }
    Ok(())
}

/// A machine's check, as the guest makes it.
pub(super) fn of_machine(name: &str, check: &Check) -> MachineCheck {
    let port = check.port.unwrap_or_default();
    let probe = match check.kind {
        CheckType::Tcp => Probe::Tcp { port },
        CheckType::Http => http(
            port,
            check.method.as_deref(),
            check.path.as_deref(),
            &check.headers,
            Tls::of_check(check),
        ),
    };
    let ms = |given: Option<types::machine::Duration>, default: Duration| {
        millis(given.map_or(default, |given| given.0))
    };
    MachineCheck {
        spec: CheckSpec {
            name: name.to_owned(),
            container: None,
            probe,
            interval_ms: ms(check.interval, INTERVAL),
            timeout_ms: ms(check.timeout, TIMEOUT),
            grace_ms: ms(check.grace_period, GRACE),
            success_threshold: 1,
            failure_threshold: 1,
            stop_when_critical: false,
        },
        readiness: check.meaning == Some(CheckMeaning::Readiness),
    }
}

/// A container's check, as the guest makes it.
pub(super) fn of_container(container: &str, health: &HealthCheck) -> MachineCheck {
    let probe = match (&health.http, &health.tcp, &health.exec) {
        (Some(http_probe), _, _) => of_probe(http_probe),
        (None, Some(tcp), _) => Probe::Tcp { port: tcp.port },
        (None, None, exec) => Probe::Exec {
            command: exec.clone().unwrap_or_default().command,
        },
    };
    let ms = |seconds: u32| u64::from(seconds) * 1000;
    let stops = health.unhealthy.as_deref() == Some("stop");
    MachineCheck {
        spec: CheckSpec {
            name: format!("{container}/{}", health.name),
            container: Some(container.to_owned()),
            probe,
            interval_ms: ms(health.interval.unwrap_or(CONTAINER_INTERVAL_S)),
            timeout_ms: ms(health.timeout.unwrap_or(CONTAINER_TIMEOUT_S)),
            grace_ms: ms(health.grace_period),
            success_threshold: health.success_threshold.unwrap_or(1),
            failure_threshold: health.failure_threshold.unwrap_or(CONTAINER_FAILURES),
            stop_when_critical: stops || health.kind == Some(CheckMeaning::Liveness),
        },
        readiness: health.kind == Some(CheckMeaning::Readiness),
    }
}

fn of_probe(probe: &HttpProbe) -> Probe {
    let (method, path) = (probe.method.as_deref(), probe.path.as_deref());
    http(probe.port, method, path, &probe.headers, Tls::of(probe))
}

fn http(
    port: u16,
    method: Option<&str>,
    path: Option<&str>,
    headers: &[CheckHeader],
    tls: Tls<'_>,
) -> Probe {
    let or = |given: Option<&str>, default: &str| match given {
        None | Some("") => default.to_owned(),
        Some(given) => given.to_owned(),
    };
    let headers = headers.iter().flat_map(|header| {
        let values = header.values.iter();
        values.map(|value| (header.name.clone(), value.clone()))
    });
    Probe::Http {
        port,
        method: or(method, "GET"),
        path: or(path, "/"),
        headers: headers.collect(),
        tls: tls.probe(),
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
