//! Services by their names, found without a walk over all of them.

use std::collections::HashMap;
use std::sync::Arc;

use types::NetworkId;
use types::service::Service;

use super::question::Zone;

/// The services of one moment, by network and name.
#[derive(Debug, Default)]
pub(super) struct Services {
    services: Arc<Vec<Service>>,
    /// Lower-case names without a final dot, and the place of each in `services`.
    by_name: HashMap<NetworkId, HashMap<String, usize>>,
}

impl Services {
    pub(super) fn new(services: Arc<Vec<Service>>) -> Self {
        let mut by_name: HashMap<NetworkId, HashMap<String, usize>> = HashMap::new();
        // Own names go before those that a service wishes for: nobody takes another's name.
        for name_of in [own_names, app_names, wished_names] {
            for (index, name) in name_of(&services) {
                let names = by_name.entry(services[index].network_id).or_default();
                names.entry(name.to_ascii_lowercase()).or_insert(index);
            }
        }
        Self { services, by_name }
    }

    /// Whether these are those of `services`.
    pub(super) fn are(&self, services: &Arc<Vec<Service>>) -> bool {
        Arc::ptr_eq(&self.services, services)
    }

    /// The service with this lower-case name, as `network` sees it.
    pub(super) fn get(&self, network: NetworkId, name: &str) -> Option<&Service> {
        let index = self.by_name.get(&network)?.get(name)?;
        self.services.get(*index)
    }
}

/// `<service>.svc.<app>.flycast`
fn own_names(services: &[Service]) -> Vec<(usize, String)> {
    let names = services.iter().enumerate();
    names
        .map(|(index, service)| {
            (
                index,
                format!("{}.svc.{}.flycast", service.name, service.app),
            )
        })
        .collect()
}

/// `<app>.flycast`, if the app has one service.
fn app_names(services: &[Service]) -> Vec<(usize, String)> {
    let mut of_app: HashMap<_, Vec<usize>> = HashMap::new();
    for (index, service) in services.iter().enumerate() {
        let key = (service.network_id, &service.app);
        of_app.entry(key).or_default().push(index);
    }
    let only = of_app.into_iter().filter_map(|((_, app), indices)| {
        let [index] = indices[..] else { return None };
        Some((index, format!("{app}.flycast")))
    });
    only.collect()
}

/// Names outside of the zones that services may have are never looked up.
fn wished_names(services: &[Service]) -> Vec<(usize, String)> {
    let all = services.iter().enumerate().flat_map(|(index, service)| {
        let names = service.spec.dns_names.iter();
        names.map(move |name| (index, name.trim_end_matches('.').to_owned()))
    });
    all.filter(|(_, name)| Zone::of_services(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::service::ServiceSpec;

    fn service(app: &str, name: &str, network: u32, dns_names: &[&str]) -> Service {
        Service {
            name: name.to_owned(),
            app: app.parse().unwrap(),
            network_id: NetworkId::try_from(network).unwrap(),
            vip: None,
            spec: ServiceSpec {
                dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
                ..ServiceSpec::default()
            },
        }
    }

    fn found(services: &Services, network: u32, name: &str) -> Option<String> {
        let service = services.get(NetworkId::try_from(network).unwrap(), name)?;
        Some(format!("{}/{}", service.app, service.name))
    }

    #[test]
    fn a_service_is_found_by_its_own_name_its_apps_and_those_it_wishes_for() {
        let name = "web.default.svc.cluster.local";
        let all = vec![
            service("web", "http", 7, &[name, "Other.flycast."]),
            service("db", "a", 7, &[]),
            service("db", "b", 7, &[]),
        ];
        let services = Services::new(Arc::new(all));
        let web = Some("web/http".to_owned());
        for name in ["http.svc.web.flycast", "web.flycast", name, "other.flycast"] {
            assert_eq!(found(&services, 7, name), web, "{name}");
            assert_eq!(found(&services, 8, name), None, "{name}");
        }
        let b = Some("db/b".to_owned());
        assert_eq!(found(&services, 7, "b.svc.db.flycast"), b);
        assert_eq!(found(&services, 7, "db.flycast"), None);
    }

    #[test]
    fn a_wish_takes_nobodys_name_and_none_outside_of_the_zones_of_services() {
        let wishes = [
            "http.svc.web.flycast",
            "web.flycast",
            "example.com",
            "web.internal",
        ];
        let all = vec![
            service("thief", "a", 7, &wishes),
            service("web", "http", 7, &[]),
        ];
        let services = Services::new(Arc::new(all));
        for name in &wishes[..2] {
            assert_eq!(found(&services, 7, name), Some("web/http".to_owned()));
        }
        for name in &wishes[2..] {
            assert_eq!(found(&services, 7, name), None);
        }
    }
}
