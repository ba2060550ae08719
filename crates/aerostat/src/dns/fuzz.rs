//! What a fuzzer calls: packets of machines, from their bytes to the answer.

use std::net::Ipv6Addr;

use hickory_server::proto::op::Message;
use hickory_server::proto::rr::Name;
use types::{AppName, MachineId, NetworkId};

use super::answer::{Answer, answer};
use super::question::{Question, Zone};
use super::{Named, Names};

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
}

/// Reads `data` as a DNS message and answers its questions.
///
/// # Panics
/// If a name of ours would be asked of somebody else, or whatever a fuzzer is to find.
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
        if let Answer::Text(strings) = answer {
            assert!(strings.iter().all(|text| text.len() <= 255));
        }
    }
}
