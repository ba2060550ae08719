//! Where others are, as objects say it: the `clientConfig` of webhooks, and the services of
//! aggregated APIs.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::Uri;
use serde_json::Value;

use super::{Address, Endpoint, Trust};
use crate::object;

/// Where HTTPS is, unless it is said.
const PORT: u16 = 443;

/// Where a `clientConfig` points to, and path and query there; else what is wrong with it.
pub(crate) fn client_config(config: &Value) -> Result<(Endpoint, String), String> {
    let trust = trust(config)?;
    let service = &config["service"];
    if service.is_object() {
        let path = match object::text(service, &["path"]) {
            path if path.starts_with('/') => path.to_owned(),
            path => format!("/{path}"),
        };
        let address = self::service(service)?;
        return Ok((Endpoint { address, trust }, path));
    }
    let url = object::text(config, &["url"]);
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("parse {url:?}: {error}"))?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
    let host = host.ok_or_else(|| format!("{url:?} is no URL of https"))?;
    let address = Address::Host {
        host: host.to_owned(),
        port: uri.port_u16().unwrap_or(PORT),
    };
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok((Endpoint { address, trust }, path.to_owned()))
}

/// Where the server of an APIService is.
pub(crate) fn api_service(spec: &Value) -> Result<Endpoint, String> {
    let address = service(&spec["service"])?;
    let trust = if spec["insecureSkipTLSVerify"] == true {
        Trust::Anyone
    } else {
        trust(spec)?
    };
    Ok(Endpoint { address, trust })
}

fn service(service: &Value) -> Result<Address, String> {
    let text = |field: &str| object::text(service, &[field]).to_owned();
    let port = service["port"].as_u64().unwrap_or(PORT.into());
    Ok(Address::Service {
        namespace: text("namespace"),
        name: text("name"),
        port: u16::try_from(port).map_err(|_| format!("invalid port {port}"))?,
    })
}

/// Whom a `caBundle` trusts; the authorities of this host, if there is none.
fn trust(config: &Value) -> Result<Trust, String> {
    let bundle = object::text(config, &["caBundle"]);
    if bundle.is_empty() {
        return Ok(Trust::System);
    }
    let pem = BASE64_STANDARD.decode(bundle);
    let pem = pem.map_err(|error| format!("caBundle cannot be read: {error}"))?;
    Ok(Trust::Bundle(Arc::from(pem)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(config: &Value) -> (String, String, Trust) {
        let (endpoint, path) = client_config(config).expect("fine");
        (endpoint.address.authority(), path, endpoint.trust)
    }

    #[test]
    fn a_webhook_is_where_its_url_or_its_service_is() {
        let url = json!({"url": "https://example.com:8443/a?b=c"});
        let expected = ("example.com:8443".into(), "/a?b=c".into(), Trust::System);
        assert_eq!(found(&url), expected);
        let service = json!({"namespace": "n", "name": "s", "path": "/x"});
        let service = json!({"service": service, "caBundle": "YQ=="});
        let bundle = Trust::Bundle(Arc::from(*b"a"));
        assert_eq!(found(&service), ("s.n.svc:443".into(), "/x".into(), bundle));
        for wrong in [
            json!({"url": "http://example.com"}),
            json!({"url": ""}),
            json!({"service": {"name": "s", "port": 70_000}}),
            json!({"url": "https://example.com", "caBundle": "!"}),
        ] {
            client_config(&wrong).expect_err("refused");
        }
    }

    #[test]
    fn an_api_service_may_do_without_a_known_certificate() {
        let mut spec = json!({"service": {"namespace": "n", "name": "s"}, "caBundle": "!",
            "insecureSkipTLSVerify": true});
        assert_eq!(api_service(&spec).expect("fine").trust, Trust::Anyone);
        spec["insecureSkipTLSVerify"] = false.into();
        api_service(&spec).expect_err("the bundle cannot be read");
    }
}
