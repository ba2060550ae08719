//! Variables that tell a container where Services are: the one of the API server, and those of its
//! namespace unless the pod wants none (`enableServiceLinks: false`).

use serde_json::Value;

use super::super::pod::Pod;
use crate::object;
use crate::services::kubernetes;

/// Names and values, in upstream's order: later ones win.
pub(super) fn variables(pod: &Pod, services: &[Value]) -> Vec<(String, String)> {
    let links = pod.spec.other.get("enableServiceLinks") != Some(&Value::Bool(false));
    let mut found = Vec::new();
    for service in services {
        let is_own = links && object::namespace(service) == Some(&pod.metadata.namespace);
        if is_own || is_api_server(service) {
            found.extend(of(service));
        }
    }
    found
}

/// Whether pods reach the API server by this Service.
pub(in crate::provider) fn is_api_server(service: &Value) -> bool {
    object::namespace(service) == Some(kubernetes::NAMESPACE)
        && object::name(service) == kubernetes::NAME
}

/// What is said of one Service; nothing of a headless one.
fn of(service: &Value) -> Vec<(String, String)> {
    let address = object::text(service, &["spec", "clusterIP"]);
    let ports = object::items(service, &["spec", "ports"]);
    let Some(first) = ports.first().filter(|_| !matches!(address, "" | "None")) else {
        return Vec::new();
    };
    let prefix = upper(object::name(service));
    let host = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    let number = |port: &Value| port["port"].to_string();
    let protocol = |port: &Value| match object::text(port, &["protocol"]) {
        "" => "TCP".to_owned(),
        protocol => protocol.to_owned(),
    };
    let url = |port: &Value| {
        let scheme = protocol(port).to_lowercase();
        format!("{scheme}://{host}:{}", number(port))
    };
    let mut found = vec![
        (format!("{prefix}_SERVICE_HOST"), address.to_owned()),
        (format!("{prefix}_SERVICE_PORT"), number(first)),
        (format!("{prefix}_PORT"), url(first)),
    ];
    for port in ports {
        let name = object::text(port, &["name"]);
        if !name.is_empty() {
            let key = format!("{prefix}_SERVICE_PORT_{}", upper(name));
            found.push((key, number(port)));
        }
        let link = format!("{prefix}_PORT_{}_{}", number(port), protocol(port));
        found.push((link.clone(), url(port)));
        found.push((format!("{link}_PROTO"), protocol(port).to_lowercase()));
        found.push((format!("{link}_PORT"), number(port)));
        found.push((format!("{link}_ADDR"), address.to_owned()));
    }
    found
}

fn upper(name: &str) -> String {
    name.replace('-', "_").to_uppercase()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, ports: Value) -> Value {
        json!({"metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": "fdaa:0:7:0:1::1", "ports": ports}})
    }

    #[test]
    fn a_pod_finds_the_api_server_and_the_services_of_its_namespace() {
        let services = [
            service(
                "default",
                "kubernetes",
                json!([{"name": "https", "port": 443}]),
            ),
            service("shop", "the-web", json!([{"port": 80, "protocol": "TCP"}])),
            service("other", "db", json!([{"port": 1}])),
        ];
        let mut pod = Pod::read(&json!({"metadata": {"namespace": "shop"}, "spec": {}})).unwrap();
        let all = variables(&pod, &services);
        let value = |name: &str| {
            let mut all = all.iter();
            all.find(|(key, _)| key == name)
                .map(|(_, value)| &value[..])
        };
        for (name, expected) in [
            ("KUBERNETES_SERVICE_HOST", "fdaa:0:7:0:1::1"),
            ("KUBERNETES_SERVICE_PORT", "443"),
            ("KUBERNETES_SERVICE_PORT_HTTPS", "443"),
            ("KUBERNETES_PORT_443_TCP", "tcp://[fdaa:0:7:0:1::1]:443"),
            ("THE_WEB_SERVICE_HOST", "fdaa:0:7:0:1::1"),
            ("THE_WEB_PORT_80_TCP_ADDR", "fdaa:0:7:0:1::1"),
        ] {
            assert_eq!(value(name), Some(expected), "{name}");
        }
        assert_eq!(value("DB_SERVICE_HOST"), None);
        pod.spec
            .other
            .insert("enableServiceLinks".into(), false.into());
        let fewer = variables(&pod, &services);
        assert!(
            fewer
                .iter()
                .all(|(name, _)| name.starts_with("KUBERNETES_"))
        );
        assert!(!fewer.is_empty());
    }
}
