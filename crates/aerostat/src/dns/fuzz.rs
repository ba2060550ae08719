//! What a fuzzer calls: packets of machines, from their bytes to the answer.

use std::net::Ipv6Addr;

use hickory_server::proto::op::Message;
use hickory_server::proto::rr::Name;
use types::service::{Protocol, ServicePort};
use types::sixpn::vip;
use types::{AppName, MachineId, NetworkId};

use super::answer::{Answer, answer};
use super::question::{Question, Zone};
use super::{Backend, Named, Names, Offered};

/// A fleet in which every app and every machine exists.
struct Everything;

impl Everything {
    fn named(id: MachineId, app: AppName) -> Named {
        Named {
            id,
            app,
            region: "fra".into(),
            address: Ipv6Addr::LOCALHOST,
        }
    }

    fn id() -> MachineId {
        "0123456789abcd".parse().expect("a machine's id")
    }
}

impl Names for Everything {
    fn app(&self, _: NetworkId, app: &AppName) -> Vec<Named> {
        vec![Self::named(Self::id(), app.clone())]
    }

    fn machine(&self, _: NetworkId, id: &MachineId) -> Option<Named> {
        Some(Self::named(id.clone(), "web".parse().expect("a name")))
    }

    fn all(&self, network: NetworkId) -> Vec<Named> {
        self.machine(network, &Self::id()).into_iter().collect()
    }

    /// Names of four labels are services with a VIP, of five headless ones.
    fn service(&self, network: NetworkId, name: &str) -> Option<Offered> {
        let port = ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            target_port: 0,
        };
        let backend = Backend {
            address: Ipv6Addr::LOCALHOST,
            hostname: "db-0".into(),
            ports: vec![80],
        };
        let (vip, backends) = match name.split('.').count() {
            4 => (Some(vip(network, 1)), vec![]),
            5 => (None, vec![backend]),
            _ => return None,
        };
        Some(Offered {
            vip,
            ports: vec![port],
            backends,
        })
    }
}

/// Reads `data` as a DNS message and answers its questions.
///
/// # Panics
/// If a name of ours would be asked of somebody else, a service is found for a name that is not
/// its own, or whatever a fuzzer is to find.
#[doc(hidden)]
pub fn fuzz_query(data: &[u8]) {
    let network = NetworkId::try_from(1).expect("small");
    let Ok(message) = Message::from_vec(data) else {
        return;
    };
    for query in &message.queries {
        let name = query.name();
        let question = Question::read(name.iter());
        for zone in Zone::ALL {
            let apex = zone.labels().iter().map(|label| label.as_bytes());
            let apex = Name::from_labels(apex).expect("short");
            let is_ours = apex.zone_of(name);
            assert!(!(is_ours && question == Question::Foreign), "{name} leaks");
        }
        let answer = answer(&Everything, network, &question, query.query_type());
        match answer {
            Answer::Text(strings) => assert!(strings.iter().all(|text| text.len() <= 255)),
            Answer::Located(locations) => {
                let asked = name.to_ascii().to_lowercase();
                for location in locations {
                    let (_, service) = location.target.split_once("db-0.").unwrap_or_default();
                    let is_own = asked.contains(&location.target) || asked.contains(service);
                    assert!(is_own, "{name} leads to {}", location.target);
                }
            }
            Answer::Addresses(_) | Answer::NoData | Answer::NoName => {}
        }
    }
}
