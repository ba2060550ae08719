//! Answers to questions about our own names. Pure.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use hickory_server::proto::rr::RecordType;
use types::NetworkId;
use types::sixpn::network_resolver;

use super::offered::{Location, of_service};
use super::question::{Internal, Question};
use super::{Named, Names};

/// The longest string in a TXT record, in bytes (RFC 1035 section 3.3).
const TXT_STRING_BYTES_MAX: usize = 255;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    Addresses(Vec<Ipv6Addr>),
    /// The strings of one TXT record.
    Text(Vec<String>),
    /// SRV records.
    Located(Vec<Location>),
    /// The name exists, but has nothing of the type asked for.
    NoData,
    NoName,
}

/// What `question` has for records of type `kind`, as `network` sees it.
pub(crate) fn answer(
    names: &dyn Names,
    network: NetworkId,
    question: &Question,
    kind: RecordType,
) -> Answer {
    let known = match question {
        Question::Apex(_) => return Answer::NoData,
        Question::Foreign | Question::Unknown(_) => None,
        Question::Internal(internal) => known(names, network, internal),
        Question::Service { name, .. } => of_service(names, network, name),
    };
    match known {
        None => Answer::NoName,
        Some(Known::Addresses(addresses)) if wants(kind, RecordType::AAAA) => {
            match addresses.is_empty() {
                true => Answer::NoData,
                false => Answer::Addresses(addresses),
            }
        }
        Some(Known::Text(text)) if wants(kind, RecordType::TXT) => Answer::Text(strings(&text)),
        Some(Known::Located(at)) if wants(kind, RecordType::SRV) => match at.is_empty() {
            true => Answer::NoData,
            false => Answer::Located(at),
        },
        Some(Known::Addresses(_) | Known::Text(_) | Known::Located(_)) => Answer::NoData,
    }
}

fn wants(asked: RecordType, has: RecordType) -> bool {
    asked == has || asked == RecordType::ANY
}

/// What a name that exists has.
pub(super) enum Known {
    Addresses(Vec<Ipv6Addr>),
    Text(String),
    Located(Vec<Location>),
}

fn known(names: &dyn Names, network: NetworkId, internal: &Internal) -> Option<Known> {
    let of_app = |app| {
        let machines = names.app(network, app);
        (!machines.is_empty()).then_some(machines)
    };
    Some(match internal {
        Internal::App(app) => addresses(&of_app(app)?),
        Internal::Region { region, app } => {
            let mut machines = of_app(app)?;
            machines.retain(|machine| machine.region == *region);
            (!machines.is_empty()).then(|| addresses(&machines))?
        }
        Internal::Machine { id, app } => {
            let machine = names.machine(network, id)?;
            (machine.app == *app).then(|| addresses(&[machine]))?
        }
        Internal::MachinesOf(app) => {
            let machines = of_app(app)?;
            Known::Text(join(
                machines.iter().map(|m| format!("{} {}", m.id, m.region)),
                ",",
            ))
        }
        Internal::RegionsOf(app) => {
            let regions: BTreeSet<String> = of_app(app)?.into_iter().map(|m| m.region).collect();
            Known::Text(join(regions.into_iter(), ","))
        }
        Internal::Apps => {
            let apps: BTreeSet<String> = names
                .all(network)
                .into_iter()
                .map(|machine| machine.app.into())
                .collect();
            Known::Text(join(apps.into_iter(), ","))
        }
        Internal::Api => Known::Addresses(vec![network_resolver(network)]),
        Internal::Instances => {
            let machines = names.all(network);
            Known::Text(join(machines.iter().map(instance), ";"))
        }
    })
}

fn instance(machine: &Named) -> String {
    let Named {
        id,
        app,
        region,
        address,
    } = machine;
    format!("instance={id},app={app},ip={address},region={region}")
}

fn addresses(machines: &[Named]) -> Known {
    Known::Addresses(machines.iter().map(|machine| machine.address).collect())
}

fn join(items: impl Iterator<Item = String>, separator: &str) -> String {
    items.collect::<Vec<_>>().join(separator)
}

/// Cuts `text`, which is ASCII, into the strings of a TXT record; one even if it is empty.
fn strings(text: &str) -> Vec<String> {
    let bytes = text.as_bytes();
    let cut = bytes.chunks(TXT_STRING_BYTES_MAX);
    let mut strings: Vec<String> = cut
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect();
    if strings.is_empty() {
        strings.push(String::new());
    }
    strings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::tests::{FakeNames, named, other, ours};

    fn ask(name: &str, network: NetworkId, kind: RecordType) -> Answer {
        let question = Question::read(name.split('.').map(str::as_bytes));
        answer(&FakeNames::default(), network, &question, kind)
    }

    #[test]
    fn an_app_leads_to_all_of_its_machines_and_only_for_its_network() {
        let expected = vec![named(1).address, named(2).address];
        for name in ["web.internal", "global.web.internal"] {
            let addresses = Answer::Addresses(expected.clone());
            assert_eq!(ask(name, ours(), RecordType::AAAA), addresses);
            assert_eq!(ask(name, other(), RecordType::AAAA), Answer::NoName);
            assert_eq!(ask(name, ours(), RecordType::A), Answer::NoData);
        }
    }

    #[test]
    fn a_region_or_an_id_leads_to_some() {
        let first = Answer::Addresses(vec![named(1).address]);
        let id = named(1).id;
        let name = format!("{id}.vm.web.internal");
        assert_eq!(ask(&name, ours(), RecordType::AAAA), first);
        assert_eq!(ask(&name, other(), RecordType::AAAA), Answer::NoName);
        let name = format!("{id}.vm.other.internal");
        assert_eq!(ask(&name, ours(), RecordType::AAAA), Answer::NoName);
        assert_eq!(ask("fra.web.internal", ours(), RecordType::AAAA), first);
        assert_eq!(
            ask("ams.web.internal", ours(), RecordType::AAAA),
            Answer::NoName
        );
    }

    #[test]
    fn the_machines_api_is_at_the_networks_resolver() {
        let expected = Answer::Addresses(vec!["fdaa:0:7::3".parse().unwrap()]);
        assert_eq!(ask("_api.internal", ours(), RecordType::AAAA), expected);
    }

    #[test]
    fn texts_list_what_there_is() {
        let text = |text: &str| Answer::Text(vec![text.to_owned()]);
        assert_eq!(ask("_apps.internal", ours(), RecordType::TXT), text("web"));
        assert_eq!(
            ask("_apps.internal", other(), RecordType::TXT),
            text("secret")
        );
        assert_eq!(
            ask("regions.web.internal", ours(), RecordType::TXT),
            text("fra,iad")
        );
        let expected = "00000000000001 fra,00000000000002 iad";
        assert_eq!(
            ask("vms.web.internal", ours(), RecordType::TXT),
            text(expected)
        );
        let expected = "instance=00000000000001,app=web,ip=fdaa:0:7:a7b:2:1:1:2,region=fra;\
                        instance=00000000000002,app=web,ip=fdaa:0:7:a7b:2:1:2:2,region=iad";
        assert_eq!(
            ask("_instances.internal", ours(), RecordType::TXT),
            text(expected)
        );
    }

    #[test]
    fn a_long_text_is_cut_into_strings_that_fit() {
        let text = "x".repeat(TXT_STRING_BYTES_MAX * 2 + 1);
        let strings = strings(&text);
        assert_eq!(
            strings.iter().map(String::len).collect::<Vec<_>>(),
            [255, 255, 1]
        );
        assert_eq!(strings.concat(), text);
    }
}
