//! Why packets were dropped, and how many for each reason.

use std::sync::atomic::{AtomicU64, Ordering};

use gotatun::noise::errors::WireGuardError as Protocol;

/// Why the engine dropped a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// No IP packet or WireGuard message, or one that contradicts itself.
    Malformed,
    /// An inner packet that is not IPv6.
    NotIpv6,
    /// The source is not one that the sender may use.
    ForeignSource,
    /// The destination is not one that the receiver has.
    ForeignDestination,
    /// Source and destination are of different networks.
    OtherNetwork,
    /// No such peer here.
    UnknownPeer,
    /// More unknown keys at a time than are looked up.
    Crowded,
    /// It is not known where the peer is.
    NoEndpoint,
    /// A message for a session that does not exist (any more).
    NoSession,
    /// A wrong mac1, or a handshake that does not decrypt.
    BadHandshake,
    /// A message that does not authenticate.
    BadTag,
    /// A message or handshake that has been seen before.
    Replayed,
    /// The network refused a datagram.
    SendFailed,
    /// The TUN device refused a packet.
    TunFailed,
}

impl DropReason {
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::NotIpv6,
        Self::ForeignSource,
        Self::ForeignDestination,
        Self::OtherNetwork,
        Self::UnknownPeer,
        Self::Crowded,
        Self::NoEndpoint,
        Self::NoSession,
        Self::BadHandshake,
        Self::BadTag,
        Self::Replayed,
        Self::SendFailed,
        Self::TunFailed,
    ];

    /// A stable word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotIpv6 => "not_ipv6",
            Self::ForeignSource => "foreign_source",
            Self::ForeignDestination => "foreign_destination",
            Self::OtherNetwork => "other_network",
            Self::UnknownPeer => "unknown_peer",
            Self::Crowded => "crowded",
            Self::NoEndpoint => "no_endpoint",
            Self::NoSession => "no_session",
            Self::BadHandshake => "bad_handshake",
            Self::BadTag => "bad_tag",
            Self::Replayed => "replayed",
            Self::SendFailed => "send_failed",
            Self::TunFailed => "tun_failed",
        }
    }
}

/// Dropped packets by reason, since the engine started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drops([u64; DropReason::ALL.len()]);

impl Drops {
    pub fn of(&self, reason: DropReason) -> u64 {
        self.0[reason as usize]
    }

    pub fn iter(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL
            .into_iter()
            .map(|reason| (reason, self.of(reason)))
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters([AtomicU64; DropReason::ALL.len()]);

impl Counters {
    pub(super) fn add(&self, reason: DropReason, packets: usize) {
        let packets = u64::try_from(packets).unwrap_or(u64::MAX);
        self.0[reason as usize].fetch_add(packets, Ordering::Relaxed);
    }

    pub(super) fn snapshot(&self) -> Drops {
        Drops(std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed)))
    }
}

/// What gotatun's refusal of a message means.
pub(super) fn reason(error: &Protocol) -> DropReason {
    match error {
        Protocol::InvalidMac | Protocol::WrongKey => DropReason::BadHandshake,
        Protocol::InvalidAeadTag => DropReason::BadTag,
        Protocol::WrongTai64nTimestamp | Protocol::InvalidCounter | Protocol::DuplicateCounter => {
            DropReason::Replayed
        }
        Protocol::NoCurrentSession
        | Protocol::ConnectionExpired
        | Protocol::WrongIndex
        | Protocol::UnexpectedPacket => DropReason::NoSession,
        Protocol::DestinationBufferTooSmall
        | Protocol::IncorrectPacketLength
        | Protocol::WrongPacketType
        | Protocol::InvalidTai64nTimestamp
        | Protocol::InvalidPacket
        | Protocol::LockFailed => DropReason::Malformed,
    }
}

/// In a handshake a wrong tag is a wrong key.
pub(super) fn handshake_reason(error: &Protocol) -> DropReason {
    match reason(error) {
        DropReason::BadTag => DropReason::BadHandshake,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let counters = Counters::default();
        for (number, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, number);
            counters.add(reason, number);
        }
        for (number, (_, count)) in counters.snapshot().iter().enumerate() {
            assert_eq!(usize::try_from(count).unwrap(), number);
        }
    }
}
