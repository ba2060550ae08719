//! Services of an app: a name, a VIP, ports and backends.
//!
//! A specification is checked here as a whole; behind the check it is sensible. The directory gives
//! the VIP, and every host's proxy and DNS hear of it from there.

use axum::Json;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::Deserialize;
use types::service::{
    Backend, SERVICE_BACKENDS_MAX, SERVICE_NAME_BYTES_MAX, SERVICE_PORTS_MAX, Service, ServiceList,
    ServiceSpec, Target,
};
use types::{NetworkId, SixPn};

use super::Api;
use super::error::ApiError;
use super::extract::Body;
use crate::directory::{self, Refused};

/// Names that lead to a service beside its own. Kubernetes needs one.
const DNS_NAMES_MAX: usize = 16;
/// Longest label of a DNS name, in bytes (RFC 1035 §2.3.4).
const LABEL_BYTES_MAX: usize = 63;
/// Domains in which names are given by Aerostat itself.
const OWN_DOMAINS: [&str; 2] = ["internal", "flycast"];

/// The service that the path names, which need not be there.
pub(super) struct Named {
    app: directory::App,
    name: String,
}

#[derive(Deserialize)]
struct NameInPath {
    name: String,
}

impl FromRequestParts<Api> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let app = directory::App::from_request_parts(parts, api).await?;
        let path = Path::<NameInPath>::from_request_parts(parts, api).await;
        let Path(NameInPath { name }) =
            path.map_err(|_| ApiError::bad("the path cannot be read".into()))?;
        if !is_dns_name(&name) {
            return Err(ApiError::bad(format!(
                "`{}` cannot be the name of a service: use labels of lower-case letters, digits \
                 and dashes, up to {LABEL_BYTES_MAX} characters each, with dots between them, up \
                 to {SERVICE_NAME_BYTES_MAX} in all",
                short(&name)
            )));
        }
        Ok(Self { app, name })
    }
}

/// `GET /v1/apps/{app}/services`
pub(super) async fn list(State(api): State<Api>, app: directory::App) -> Json<ServiceList> {
    let services = api.deps.directory.services(&app.name);
    Json(ServiceList { services })
}

/// `GET …/services/{name}`
pub(super) async fn get(
    State(api): State<Api>,
    Named { app, name }: Named,
) -> Result<Json<Service>, ApiError> {
    let service = api.deps.directory.service(&app.name, &name);
    let app = app.name;
    let missing = || directory::Error::from(Refused::ServiceNotFound { app, name });
    Ok(Json(service.ok_or_else(missing)?))
}

/// `PUT …/services/{name}`: makes it or replaces it.
pub(super) async fn put(
    State(api): State<Api>,
    Named { app, name }: Named,
    Body(spec): Body<ServiceSpec>,
) -> Result<Json<Service>, ApiError> {
    check(&spec, app.network_id).map_err(ApiError::bad)?;
    let service = api.deps.directory.put_service(&app.name, &name, spec).await;
    Ok(Json(service?))
}

/// `DELETE …/services/{name}`
pub(super) async fn delete(
    State(api): State<Api>,
    Named { app, name }: Named,
) -> Result<StatusCode, ApiError> {
    api.deps.directory.delete_service(&app.name, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// What is wrong with a service of `network`, for people.
fn check(spec: &ServiceSpec, network: NetworkId) -> Result<(), String> {
    let at_most = |what: &str, count: usize, max: usize| {
        (count <= max)
            .then_some(())
            .ok_or_else(|| format!("a service has at most {max} {what}, not {count}"))
    };
    at_most("ports", spec.ports.len(), SERVICE_PORTS_MAX)?;
    at_most("backends", spec.backends.len(), SERVICE_BACKENDS_MAX)?;
    at_most("further DNS names", spec.dns_names.len(), DNS_NAMES_MAX)?;
    for (index, port) in spec.ports.iter().enumerate() {
        if port.port == 0 {
            return Err("port 0 cannot be answered".into());
        }
        if spec.ports[..index].iter().any(|p| p.port == port.port) {
            return Err(format!("port {} stands there twice", port.port));
        }
        if port.name.len() > LABEL_BYTES_MAX {
            return Err(format!("the name of port {} is too long", port.port));
        }
    }
    for (index, name) in spec.dns_names.iter().enumerate() {
        if !is_dns_name(name) {
            return Err(format!(
                "`{}` is no DNS name; write it in lower case and without a final dot",
                short(name)
            ));
        }
        let top = name.rsplit('.').next().unwrap_or_default();
        if OWN_DOMAINS.contains(&top) {
            return Err(format!("names under .{top} are given by Aerostat itself"));
        }
        if spec.dns_names[..index].contains(name) {
            return Err(format!("DNS name `{name}` stands there twice"));
        }
    }
    for backend in &spec.backends {
        check_backend(backend, spec, network)?;
    }
    Ok(())
}

fn check_backend(backend: &Backend, spec: &ServiceSpec, network: NetworkId) -> Result<(), String> {
    if let Target::Address(address) = backend.target {
        // Neither somebody else's network nor a VIP, which could lead back here.
        let inside = SixPn::from_addr(address).is_some_and(|address| address.network == network);
        if !inside {
            return Err(format!(
                "backend {address} is not an address of a machine, host or peer of the app's \
                 network, fdaa:0:{network}::/48"
            ));
        }
    }
    for (port, own) in &backend.ports {
        if !spec.ports.iter().any(|known| known.port == *port) {
            return Err(format!(
                "a backend names port {port}, which the service has not"
            ));
        }
        if *own == 0 {
            return Err(format!("port 0 of a backend cannot answer port {port}"));
        }
    }
    if !backend.hostname.is_empty() && !is_label(&backend.hostname) {
        let hostname = short(&backend.hostname);
        return Err(format!("`{hostname}` cannot be the host name of a backend"));
    }
    Ok(())
}

/// Labels with dots between them.
fn is_dns_name(text: &str) -> bool {
    text.len() <= SERVICE_NAME_BYTES_MAX && text.split('.').all(is_label)
}

/// A label as in RFC 1123, in lower case.
pub(super) fn is_label(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=LABEL_BYTES_MAX).contains(&text.len())
        && text.bytes().all(plain)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// As much of a stranger's text as a message needs.
pub(super) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(text: &str) -> String {
        let spec: ServiceSpec = serde_json::from_str(text).unwrap();
        let network = NetworkId::try_from(7).unwrap();
        check(&spec, network).expect_err(text)
    }

    #[test]
    fn a_sensible_service_passes() {
        let spec: ServiceSpec = serde_json::from_str(
            r#"{"ports": [{"port": 80, "target_port": 8080}, {"port": 443}],
                "backends": [{"machine": "0123456789abcd", "hostname": "web-0"},
                             {"address": "fdaa:0:7:a7b:2:1:1:2", "ports": {"80": 81}}],
                "dns_names": ["web.default.svc.cluster.local"]}"#,
        )
        .unwrap();
        check(&spec, NetworkId::try_from(7).unwrap()).unwrap();
    }

    #[test]
    fn what_is_wrong_with_a_service_is_said() {
        let ports = |ports: &str| problem(&format!(r#"{{"ports": [{ports}]}}"#));
        assert_eq!(ports(r#"{"port": 0}"#), "port 0 cannot be answered");
        let twice = ports(r#"{"port": 80}, {"port": 80, "target_port": 81}"#);
        assert_eq!(twice, "port 80 stands there twice");
        let many: Vec<_> = (1..=101).map(|n| format!(r#"{{"port": {n}}}"#)).collect();
        assert_eq!(
            ports(&many.join(",")),
            "a service has at most 100 ports, not 101"
        );
        // Another network, the VIP of a service, the world.
        for address in ["fdaa:0:8:a7b:2:1:1:2", "fdaa:0:7:0:1::1", "2001:db8::1"] {
            let text = problem(&format!(r#"{{"backends": [{{"address": "{address}"}}]}}"#));
            assert!(text.contains("fdaa:0:7::/48"), "{text}");
        }
        let machine = r#""machine": "0123456789abcd""#;
        for backend in [r#""ports": {"80": 81}"#, r#""hostname": "a.b""#] {
            problem(&format!(r#"{{"backends": [{{{machine}, {backend}}}]}}"#));
        }
        let names = |name: &str| problem(&format!(r#"{{"dns_names": ["{name}"]}}"#));
        assert!(names("db.internal").contains("under .internal"));
        assert!(names("web.flycast").contains("under .flycast"));
        for name in ["", "a..b", "a.", "A", "-a", "a_b", &"a".repeat(64)] {
            names(name);
        }
        let backend = format!("{{{machine}}}");
        let many = vec![backend; SERVICE_BACKENDS_MAX + 1].join(",");
        problem(&format!(r#"{{"backends": [{many}]}}"#));
    }
}
