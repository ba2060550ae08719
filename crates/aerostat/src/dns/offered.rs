//! Answers to questions about services. Pure.
//!
//! ```text
//!  <service>                        its VIP; headless: its backends
//!  <hostname>.<service>             one backend of a headless one
//!  _<port>._tcp.<service>           SRV: where that port is
//! ```

use std::net::Ipv6Addr;

use types::NetworkId;
use types::service::Protocol;

use super::answer::Known;
use super::{Backend, Names, Offered};

/// What a SRV record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) port: u16,
    /// Without a final dot.
    pub(crate) target: String,
    /// Of the target.
    pub(crate) addresses: Vec<Ipv6Addr>,
}

/// What the name `name` has, as `network` sees it; `None` if it belongs to no service.
pub(super) fn of_service(names: &dyn Names, network: NetworkId, name: &str) -> Option<Known> {
    if let Some(service) = names.service(network, name) {
        return Some(Known::Addresses(service.addresses()));
    }
    let (first, rest) = name.split_once('.')?;
    if let Some(service) = names.service(network, rest) {
        let mut backends = service.backends;
        backends.retain(|backend| backend.label() == first);
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        return (!addresses.is_empty()).then_some(Known::Addresses(addresses));
    }
    let (port, (protocol, service)) = (first.strip_prefix('_')?, rest.split_once('.')?);
    let protocol = match protocol {
        "_tcp" => Protocol::Tcp,
        _ => return None,
    };
    let offered = names.service(network, service)?;
    offered.locations(port, protocol, service)
}

impl Offered {
    fn addresses(&self) -> Vec<Ipv6Addr> {
        match self.vip {
            Some(vip) => vec![vip],
            None => self.backends.iter().map(|b| b.address).collect(),
        }
    }

    /// Where the port called `port` is, if there is one; `service` is the name that was asked for.
    fn locations(&self, port: &str, protocol: Protocol, service: &str) -> Option<Known> {
        let index = self.ports.iter().position(|known| {
            known.protocol == protocol && known.name.eq_ignore_ascii_case(port)
        })?;
        let at_vip = self.vip.map(|vip| Location {
            port: self.ports[index].port,
            target: service.to_owned(),
            addresses: vec![vip],
        });
        let at_backends = self.backends.iter().filter_map(|backend| {
            Some(Location {
                port: *backend.ports.get(index)?,
                target: format!("{}.{service}", backend.label()),
                addresses: vec![backend.address],
            })
        });
        Some(Known::Located(
            at_vip.into_iter().chain(at_backends).collect(),
        ))
    }
}

impl Backend {
    /// Its hostname; or its address with dashes, as no name may have colons.
    fn label(&self) -> String {
        if !self.hostname.is_empty() {
            return self.hostname.clone();
        }
        let words = self.address.segments().map(|word| format!("{word:x}"));
        words.join("-")
    }
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::rr::RecordType;

    use super::*;
    use crate::dns::answer::{Answer, answer};
    use crate::dns::question::Question;
    use crate::dns::tests::{FakeNames, named, other, ours, vip};

    fn ask(name: &str, network: NetworkId, kind: RecordType) -> Answer {
        let question = Question::read(name.split('.').map(str::as_bytes));
        answer(&FakeNames::default(), network, &question, kind)
    }

    const WEB: &str = "web.default.svc.cluster.local";
    const HEADLESS: &str = "db.default.svc.cluster.local";

    #[test]
    fn a_service_leads_to_its_vip_for_its_own_network_only() {
        for name in [WEB, "WEB.Default.svc.cluster.LOCAL"] {
            let expected = Answer::Addresses(vec![vip()]);
            assert_eq!(ask(name, ours(), RecordType::AAAA), expected);
            assert_eq!(ask(name, ours(), RecordType::A), Answer::NoData);
            assert_eq!(ask(name, other(), RecordType::AAAA), Answer::NoName);
        }
        for name in ["x.default.svc.cluster.local", "default.svc.cluster.local"] {
            assert_eq!(ask(name, ours(), RecordType::AAAA), Answer::NoName);
        }
    }

    #[test]
    fn a_headless_service_leads_to_its_backends_and_to_each_by_its_hostname() {
        let both = Answer::Addresses(vec![named(1).address, named(2).address]);
        assert_eq!(ask(HEADLESS, ours(), RecordType::AAAA), both);
        let first = Answer::Addresses(vec![named(1).address]);
        let name = format!("db-0.{HEADLESS}");
        assert_eq!(ask(&name, ours(), RecordType::AAAA), first);
        assert_eq!(ask(&name, other(), RecordType::AAAA), Answer::NoName);
        let second = Answer::Addresses(vec![named(2).address]);
        let name = format!("fdaa-0-7-a7b-2-1-2-2.{HEADLESS}");
        assert_eq!(ask(&name, ours(), RecordType::AAAA), second);
        let nobody = format!("db-9.{HEADLESS}");
        assert_eq!(ask(&nobody, ours(), RecordType::AAAA), Answer::NoName);
        let of_vip = format!("db-0.{WEB}");
        assert_eq!(ask(&of_vip, ours(), RecordType::AAAA), Answer::NoName);
    }

    #[test]
    fn ports_are_found_by_their_names() {
        let at = |port, target: String, address| Location {
            port,
            target,
            addresses: vec![address],
        };
        let ask_port =
            |port: &str, of: &str| ask(&format!("_{port}.{of}"), ours(), RecordType::SRV);
        let web = Answer::Located(vec![at(80, WEB.to_owned(), vip())]);
        assert_eq!(ask_port("http._tcp", WEB), web);
        let backends = vec![
            at(5432, format!("db-0.{HEADLESS}"), named(1).address),
            at(
                6432,
                format!("fdaa-0-7-a7b-2-1-2-2.{HEADLESS}"),
                named(2).address,
            ),
        ];
        assert_eq!(ask_port("http._tcp", HEADLESS), Answer::Located(backends));
        assert_eq!(ask_port("http._udp", WEB), Answer::NoName);
        assert_eq!(ask_port("https._tcp", WEB), Answer::NoName);
        let name = format!("_http._tcp.{WEB}");
        assert_eq!(ask(&name, ours(), RecordType::AAAA), Answer::NoData);
        assert_eq!(ask(WEB, ours(), RecordType::SRV), Answer::NoData);
    }
}
