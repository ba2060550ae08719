//! Typed identifiers. Two of them can never be swapped by accident, and each can only be made
//! from text that is well formed.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Text that is not a well-formed identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid {kind}: {rule}")]
pub struct InvalidId {
    pub kind: &'static str,
    pub text: String,
    pub rule: &'static str,
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $rule:literal, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    let text = text.chars().take(80).collect();
                    Err(InvalidId { kind: $kind, text, rule: $rule })
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// A machine: 14 lower-case hexadecimal digits.
    MachineId,
    "machine id",
    "14 lower-case hexadecimal digits",
    |t| t.len() == 14 && t.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
);
text_id!(
    /// One version of a machine's configuration: a ULID, 26 characters.
    VersionId,
    "machine version",
    "26 characters of Crockford's base32",
    |t| t.len() == 26 && t.bytes().all(|b| b.is_ascii_alphanumeric())
);
text_id!(
    /// The name of an app; also a DNS label.
    AppName,
    "app name",
    "1 to 63 lower-case letters, digits and dashes, beginning with a letter or digit and not \
     ending with a dash",
    is_dns_label
);
text_id!(
    /// The slug of an organisation; also a DNS label.
    OrgSlug,
    "organisation slug",
    "1 to 63 lower-case letters, digits and dashes, beginning with a letter or digit and not \
     ending with a dash",
    is_dns_label
);

text_id!(
    /// A volume: `vol_` and 16 lower-case letters and digits, the first four of which are the
    /// number of its host, so that every host knows whom to ask.
    VolumeId,
    "volume id",
    "`vol_` and 16 lower-case letters and digits",
    |t| t.strip_prefix("vol_").is_some_and(is_base36)
);
text_id!(
    /// A snapshot of a volume: `vs_`, and then as [`VolumeId`].
    SnapshotId,
    "snapshot id",
    "`vs_` and 16 lower-case letters and digits",
    |t| t.strip_prefix("vs_").is_some_and(is_base36)
);

fn is_base36(text: &str) -> bool {
    text.len() == 16
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && u16::from_str_radix(&text[..4], 36).is_ok()
}

/// 16 digits of base 36: the host's number, and twelve out of `bits`.
fn of_host(host: HostId, mut bits: u64) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut number = u64::from(host.number());
    let mut text = [b'0'; 16];
    for (index, digit) in text.iter_mut().rev().enumerate() {
        let rest = if index < 12 { &mut bits } else { &mut number };
        *digit = DIGITS[usize::try_from(*rest % 36).unwrap_or(0)];
        *rest /= 36;
    }
    text.iter().copied().map(char::from).collect()
}

fn host_of(digits: &str) -> HostId {
    // Every id has been checked when it was made.
    HostId::new(u16::from_str_radix(&digits[..4], 36).unwrap_or_default())
}

impl VolumeId {
    /// A volume of `host`.
    pub fn new(host: HostId, random: u64) -> Self {
        Self(format!("vol_{}", of_host(host, random)))
    }

    /// The host that has it on its disk.
    pub fn host(&self) -> HostId {
        host_of(&self.0["vol_".len()..])
    }
}

impl SnapshotId {
    /// A snapshot of a volume of `host`.
    pub fn new(host: HostId, random: u64) -> Self {
        Self(format!("vs_{}", of_host(host, random)))
    }

    /// The host that has it on its disk.
    pub fn host(&self) -> HostId {
        host_of(&self.0["vs_".len()..])
    }
}

fn is_dns_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl MachineId {
    /// The id made of the low 56 bits of `bits`.
    pub fn from_bits(bits: u64) -> Self {
        Self(format!("{:014x}", bits & 0x00ff_ffff_ffff_ffff))
    }
}

/// One run of a machine. A machine has many; they are numbered from 1.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct BootId(pub u64);

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A host of the fleet: `0x0a7b` and 16 bits of its own.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct HostId(u32);

impl HostId {
    const PREFIX: u32 = 0x0a7b_0000;

    /// The host with this number. Numbers 0 and 1 are never given out.
    pub fn new(number: u16) -> Self {
        Self(Self::PREFIX | u32::from(number))
    }

    /// The 32 bits as they stand in an address; `None` if they do not name a host.
    pub fn from_bits(bits: u32) -> Option<Self> {
        (bits & 0xffff_0000 == Self::PREFIX).then_some(Self(bits))
    }

    pub fn bits(self) -> u32 {
        self.0
    }

    /// The 16 bits that are this host's own.
    pub fn number(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// Four hexadecimal digits: the host's number without the common prefix. Used in names of what
/// the host keeps in the kernel (`aero-0002`).
impl fmt::Display for HostId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}", self.0 & 0xffff)
    }
}

/// A private network. Ids lie below `0x0a7b0000` (so that they never collide with host ids when
/// the two fields are swapped) and are never reused. 0 is the host plane.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "u32", into = "u32")]
pub struct NetworkId(u32);

impl NetworkId {
    /// The network of the hosts themselves.
    pub const HOST_PLANE: Self = Self(0);
}

impl TryFrom<u32> for NetworkId {
    type Error = InvalidId;
    fn try_from(bits: u32) -> Result<Self, InvalidId> {
        if bits < HostId::PREFIX {
            Ok(Self(bits))
        } else {
            let text = format!("{bits:#x}");
            Err(InvalidId {
                kind: "network id",
                text,
                rule: "a number below 0x0a7b0000",
            })
        }
    }
}

impl From<NetworkId> for u32 {
    fn from(id: NetworkId) -> u32 {
        id.0
    }
}

impl fmt::Display for NetworkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_is_not_theirs() {
        assert!("0123456789abcd".parse::<MachineId>().is_ok());
        assert!("0123456789ABCD".parse::<MachineId>().is_err());
        assert!("../../etc/pass".parse::<MachineId>().is_err());
        assert!("web-1".parse::<AppName>().is_ok());
        assert!("-web".parse::<AppName>().is_err());
        assert!("web.internal".parse::<AppName>().is_err());
        assert!(NetworkId::try_from(0x0a7b_0000).is_err());
        assert_eq!(HostId::from_bits(0x0a7b_0002), Some(HostId::new(2)));
        assert_eq!(HostId::from_bits(2), None);
        assert!(serde_json::from_str::<MachineId>("\"x\"").is_err());
    }

    #[test]
    fn a_volume_s_id_names_its_host() {
        for number in [0, 2, 35, 4095, u16::MAX] {
            let host = HostId::new(number);
            let id = VolumeId::new(host, u64::MAX);
            assert_eq!(id.host(), host, "{id}");
            assert_eq!(id.as_str().parse::<VolumeId>().unwrap(), id);
            assert_eq!(SnapshotId::new(host, 7).host(), host);
        }
        assert_eq!(
            VolumeId::new(HostId::new(2), 35).as_str(),
            "vol_000200000000000z"
        );
        for wrong in [
            "vol_",
            "vol_000200000000000Z",
            "vol_zzzz000000000000",
            "vs_0002",
        ] {
            assert!(wrong.parse::<VolumeId>().is_err(), "{wrong}");
        }
    }
}
