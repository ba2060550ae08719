//! What a name asks for. Pure.

use types::{AppName, MachineId};

/// A name, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    /// Not ours: somebody else's to answer.
    Foreign,
    /// In the zone, which is ours, but not the form of any name in it.
    Unknown(Zone),
    /// The zone's own name.
    Apex(Zone),
    Internal(Internal),
    /// In a zone of services: the whole name, in lower case and without a final dot. It may be a
    /// service's, or belong to one of its backends or ports.
    Service {
        zone: Zone,
        name: String,
    },
}

/// Zones that are never asked of anybody else: what is private to the fleet must not leak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    Internal,
    Flycast,
    ClusterLocal,
    /// Names of 6PN addresses.
    Reverse,
}

/// A name below `.internal`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Internal {
    /// `<app>.internal`, `global.<app>.internal`
    App(AppName),
    /// `<region>.<app>.internal`
    Region { region: String, app: AppName },
    /// `<id>.vm.<app>.internal`
    Machine { id: MachineId, app: AppName },
    /// `vms.<app>.internal`
    MachinesOf(AppName),
    /// `regions.<app>.internal`
    RegionsOf(AppName),
    /// `_apps.internal`
    Apps,
    /// `_instances.internal`
    Instances,
    /// `_api.internal`
    Api,
}

impl Zone {
    pub(super) const ALL: [Self; 4] = [
        Self::Internal,
        Self::Flycast,
        Self::ClusterLocal,
        Self::Reverse,
    ];

    /// Labels of the zone's name.
    pub(crate) fn labels(self) -> &'static [&'static str] {
        match self {
            Self::Internal => &["internal"],
            Self::Flycast => &["flycast"],
            Self::ClusterLocal => &["cluster", "local"],
            Self::Reverse => &["a", "a", "d", "f", "ip6", "arpa"],
        }
    }

    /// Whether services may have the lower-case or mixed name `name`, without a final dot.
    pub(super) fn of_services(name: &str) -> bool {
        let labels = name.split('.').map(str::as_bytes);
        matches!(Question::read(labels), Question::Service { .. })
    }
}

impl Question {
    /// Reads a name, given as its labels without the root; bytes as they came, in any case.
    pub(crate) fn read<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Self {
        let labels: Vec<String> = labels
            .map(|label| String::from_utf8_lossy(label).to_ascii_lowercase())
            .collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        for zone in Zone::ALL {
            let Some(below) = labels.strip_suffix(zone.labels()) else {
                continue;
            };
            return match (below, zone) {
                ([], _) => Self::Apex(zone),
                (below, Zone::Internal) => {
                    internal(below).map_or(Self::Unknown(zone), Self::Internal)
                }
                (_, Zone::Flycast | Zone::ClusterLocal) if labels.iter().all(|l| is_plain(l)) => {
                    let name = labels.join(".");
                    Self::Service { zone, name }
                }
                (_, Zone::Flycast | Zone::ClusterLocal | Zone::Reverse) => Self::Unknown(zone),
            };
        }
        Self::Foreign
    }
}

/// Whether the label is of the characters that names of services have. What would have to be
/// escaped in a name's text could make two names look the same.
fn is_plain(label: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !label.is_empty() && label.bytes().all(is_plain)
}

fn internal(below: &[&str]) -> Option<Internal> {
    let app = |name: &str| name.parse::<AppName>().ok();
    Some(match *below {
        ["_apps"] => Internal::Apps,
        ["_instances"] => Internal::Instances,
        ["_api"] => Internal::Api,
        [name] | ["global", name] => Internal::App(app(name)?),
        ["vms", name] => Internal::MachinesOf(app(name)?),
        ["regions", name] => Internal::RegionsOf(app(name)?),
        [region, name] => Internal::Region {
            region: region.to_owned(),
            app: app(name)?,
        },
        [id, "vm", name] => Internal::Machine {
            id: id.parse().ok()?,
            app: app(name)?,
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(name: &str) -> Question {
        Question::read(
            name.split('.')
                .filter(|label| !label.is_empty())
                .map(str::as_bytes),
        )
    }

    fn app(name: &str) -> AppName {
        name.parse().unwrap()
    }

    #[test]
    fn every_name_below_internal_has_its_meaning() {
        let web = || app("web");
        let id: MachineId = "0123456789abcd".parse().unwrap();
        let region = "fra".to_owned();
        for (name, meaning) in [
            ("web.internal", Internal::App(web())),
            ("WEB.Internal", Internal::App(web())),
            ("global.web.internal", Internal::App(web())),
            ("fra.web.internal", Internal::Region { region, app: web() }),
            (
                "0123456789abcd.vm.web.internal",
                Internal::Machine { id, app: web() },
            ),
            ("vms.web.internal", Internal::MachinesOf(web())),
            ("regions.web.internal", Internal::RegionsOf(web())),
            ("_apps.internal", Internal::Apps),
            ("_instances.internal", Internal::Instances),
            ("_api.internal", Internal::Api),
        ] {
            assert_eq!(read(name), Question::Internal(meaning), "{name}");
        }
    }

    #[test]
    fn what_has_no_meaning_stays_in_its_zone() {
        for name in [
            "-.internal",
            "x.vm.web.internal",
            "a.b.c.d.internal",
            "_x.internal",
        ] {
            assert_eq!(read(name), Question::Unknown(Zone::Internal), "{name}");
        }
        assert_eq!(read("internal"), Question::Apex(Zone::Internal));
        let dotted = [&b"a.b"[..], b"flycast"].into_iter();
        assert_eq!(Question::read(dotted), Question::Unknown(Zone::Flycast));
        let escaped = [&b"a\\b*"[..], b"flycast"].into_iter();
        assert_eq!(Question::read(escaped), Question::Unknown(Zone::Flycast));
        let foreign = [&[0xff][..], b"cluster", b"local"].into_iter();
        assert_eq!(
            Question::read(foreign),
            Question::Unknown(Zone::ClusterLocal)
        );
        assert_eq!(
            read("2.0.a.a.d.f.ip6.arpa"),
            Question::Unknown(Zone::Reverse)
        );
    }

    #[test]
    fn names_in_the_zones_of_services_are_kept_whole() {
        for (asked, name, zone) in [
            ("Web.Flycast", "web.flycast", Zone::Flycast),
            (
                "_http._tcp.web.default.svc.cluster.local",
                "_http._tcp.web.default.svc.cluster.local",
                Zone::ClusterLocal,
            ),
        ] {
            let name = name.to_owned();
            assert_eq!(read(asked), Question::Service { zone, name });
        }
        assert!(Zone::of_services("a.cluster.local"));
        for name in ["flycast", "web.internal", "example.com", ""] {
            assert!(!Zone::of_services(name), "{name}");
        }
    }

    #[test]
    fn other_names_are_foreign() {
        for name in [
            "",
            "example.com",
            "internal.example.com",
            "xinternal",
            "b.a.d.f.ip6.arpa",
        ] {
            assert_eq!(read(name), Question::Foreign, "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_a_name(labels: Vec<Vec<u8>>, zone in 0_usize..4) {
            let zone = Zone::ALL[zone];
            let below = labels.iter().map(Vec::as_slice);
            let question = Question::read(below.chain(zone.labels().iter().map(|l| l.as_bytes())));
            prop_assert_ne!(question, Question::Foreign);
            Question::read(labels.iter().map(Vec::as_slice));
        }
    }
}
