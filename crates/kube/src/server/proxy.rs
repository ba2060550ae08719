//! `pods/<name>/proxy` and `services/<name>/proxy`: the same request, asked of a pod.
//!
//! A name says more than whose it is: `[scheme:]name[:port]`, with the name or number of a port
//! for Services. As upstream, HTTPS asks for no certificate that anybody knows.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use serde_json::{Value, json};

use super::body::Body;
use super::query::Query;
use super::router::Target;
use super::{Server, relay, respond, verbs};
use crate::admission::{self, Attributes, Operation};
use crate::api::{Api, DryRun, User};
use crate::egress::Way;
use crate::object;
use crate::resource::{PODS, Resource, SERVICES};
use crate::status::Status;

/// Whether it is such a request.
pub(super) fn is_proxy(target: &Target) -> bool {
    let subresource = target.subresource.as_deref().unwrap_or_default();
    let first = subresource.split('/').next();
    let is_of = matches!(target.resource.as_str(), "pods" | "services");
    first == Some("proxy") && is_of && target.group.is_empty() && target.namespace.is_some()
}

pub(super) async fn handle(
    server: &Arc<Server>,
    user: &Arc<User>,
    target: &Target,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let (api, notes) = &verbs::calling(server, user, query, &request);
    let answer = answer(server, api, target, request).await;
    Ok(respond::noted(answer, notes))
}

async fn answer(
    server: &Arc<Server>,
    api: &Api,
    target: &Target,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Status> {
    let whole = target.name.as_deref().unwrap_or_default();
    let asked = Asked::parse(whole)?;
    let is_pod = target.resource == "pods";
    let (resource, kind) = if is_pod {
        (&PODS, "PodProxyOptions")
    } else {
        (&SERVICES, "ServiceProxyOptions")
    };
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let found = api.get(resource, Some(namespace), asked.name).await?;
    let path = below(request.uri(), whole);
    admit(api, resource, kind, &found, &path).await?;
    let way = if is_pod {
        Way::Pod(of_pod(&found, asked.port)?)
    } else {
        Way::Service {
            namespace,
            name: asked.name,
            port: of_service(&found, asked.port)?,
        }
    };
    let upgrade = relay::upgrade(&mut request);
    let authority = match way {
        Way::Pod(address) => address.to_string(),
        Way::Service { name, port, .. } => format!("{name}.{namespace}.svc:{port}"),
    };
    let (mut parts, body) = request.into_parts();
    parts.uri = path.parse().map_err(|_| bad(&path))?;
    parts.version = hyper::Version::HTTP_11;
    // Who asks has proved it to us, and to nobody else.
    parts.headers.remove(AUTHORIZATION);
    if upgrade.is_none() {
        for header in relay::hop_by_hop() {
            parts.headers.remove(header);
        }
    }
    let host = HeaderValue::from_str(&authority).map_err(|_| bad(&authority))?;
    parts.headers.insert(HOST, host);
    let asked = (asked.is_https, Request::from_parts(parts, body));
    let response = server.api.egress().pass(&way, asked.0, asked.1).await;
    let response = response
        .map_err(|error| Status::unavailable(format!("error trying to reach service: {error}")))?;
    Ok(relay::answer(server, response, upgrade))
}

fn bad(what: &str) -> Status {
    Status::bad_request(format!("invalid request {what:?}"))
}

/// What a name asks for.
#[derive(Debug, PartialEq, Eq)]
struct Asked<'a> {
    is_https: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Asked<'a> {
    fn parse(whole: &'a str) -> Result<Self, Status> {
        let parts: Vec<_> = whole.split(':').collect();
        let (scheme, name, port) = match parts[..] {
            [name] => ("", name, ""),
            [name, port] => ("", name, port),
            [scheme, name, port] => (scheme, name, port),
            _ => return Err(bad(whole)),
        };
        let is_https = match scheme {
            "" | "http" => false,
            "https" => true,
            _ => return Err(bad(whole)),
        };
        Ok(Self {
            is_https,
            name,
            port,
        })
    }
}

/// Path and query behind `…/<name>/proxy`, as they were sent.
fn below(uri: &Uri, name: &str) -> String {
    let path = uri.path();
    let mark = format!("/{name}/proxy");
    let rest = path.find(&mark).map_or("", |at| &path[at + mark.len()..]);
    let rest = if rest.starts_with('/') { rest } else { "/" };
    match uri.query() {
        Some(query) => format!("{rest}?{query}"),
        None => rest.to_owned(),
    }
}

async fn admit(
    api: &Api,
    resource: &Resource,
    kind: &str,
    found: &Value,
    path: &str,
) -> Result<(), Status> {
    let mut attributes = Attributes {
        api,
        resource,
        subresource: Some("proxy"),
        namespace: object::namespace(found),
        name: object::name(found).to_owned(),
        operation: Operation::Connect,
        old: None,
        object: json!({"kind": kind, "apiVersion": "v1", "path": path}),
        dry_run: DryRun::No,
    };
    admission::connect(&mut attributes).await
}

fn of_pod(pod: &Value, port: &str) -> Result<SocketAddr, Status> {
    let ip = object::text(pod, &["status", "podIP"]).parse::<IpAddr>();
    let ip = ip.map_err(|_| Status::bad_request("address not allowed"))?;
    let port = match port {
        "" => {
            let containers = object::items(pod, &["spec", "containers"]).iter();
            let mut ports = containers.flat_map(|one| object::items(one, &["ports"]));
            let first = ports.next().and_then(|port| port["containerPort"].as_u64());
            u16::try_from(first.unwrap_or(80)).map_err(|_| bad(port))?
        }
        port => port.parse().map_err(|_| bad(port))?,
    };
    Ok(SocketAddr::new(ip, port))
}

/// The number that the Service itself has for a port.
fn of_service(service: &Value, port: &str) -> Result<u16, Status> {
    let ports = object::items(service, &["spec", "ports"]);
    let number: Option<u16> = port.parse().ok();
    let is_it = |one: &&Value| {
        object::text(one, &["name"]) == port || number.is_some_and(|number| one["port"] == number)
    };
    let found = match (port, ports) {
        ("", [only]) => Some(only),
        ("", _) => None,
        _ => ports.iter().find(is_it),
    };
    let number = found.and_then(|one| u16::try_from(one["port"].as_u64()?).ok());
    let name = object::name(service);
    number.ok_or_else(|| {
        Status::unavailable(format!(
            "no service port {port:?} found for service {name:?}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_scheme_and_port() {
        let asked = |whole| Asked::parse(whole).map(|a| (a.is_https, a.name, a.port));
        assert_eq!(asked("web"), Ok((false, "web", "")));
        assert_eq!(asked("web:http"), Ok((false, "web", "http")));
        assert_eq!(asked("https:web:443"), Ok((true, "web", "443")));
        for wrong in ["ftp:web:21", "a:b:c:d"] {
            assert!(asked(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_behind_goes_on_as_it_is() {
        let below = |path: &str| {
            let uri = format!("/api/v1/namespaces/n/pods/web:80/proxy{path}");
            below(&uri.parse().expect("a path"), "web:80")
        };
        for (path, expected) in [
            ("", "/"),
            ("/", "/"),
            ("/a/b/", "/a/b/"),
            ("/a%2Fb?c=d", "/a%2Fb?c=d"),
            ("?c=d", "/?c=d"),
        ] {
            assert_eq!(below(path), expected, "{path}");
        }
    }

    #[test]
    fn ports_are_found_by_name_by_number_or_because_there_is_one() {
        let one = json!({"metadata": {"name": "s"}, "spec": {"ports": [
            {"name": "web", "port": 80}]}});
        for port in ["", "web", "80"] {
            assert_eq!(of_service(&one, port), Ok(80), "{port}");
        }
        assert_eq!(
            of_service(&one, "81").map_err(|status| status.code),
            Err(503)
        );
        let pod = json!({"status": {"podIP": "fdaa::1"}, "spec": {"containers": [
            {}, {"ports": [{"containerPort": 8080}]}]}});
        let at = |port| of_pod(&pod, port).map(|at| at.to_string());
        assert_eq!(at("").as_deref(), Ok("[fdaa::1]:8080"));
        assert_eq!(at("9").as_deref(), Ok("[fdaa::1]:9"));
        assert!(at("http").is_err() && of_pod(&json!({}), "1").is_err());
    }
}
