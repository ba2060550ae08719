//! Membership datagrams: a fixed layout, all numbers big-endian.
//!
//! ```text
//! header    version 1 | sender 12, incarnation | receiver 12 | kind 1, its fields
//! identity  host number u16, life u64, renewal u16     member  identity, incarnation u16, state u8
//! ```

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Identity, Member, Message, State};
use types::HostId;

const VERSION: u8 = 1;

/// A host in one of its lives. Its address is the host itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub(super) host: HostId,
    /// Grows with each start of the host.
    pub(super) number: u64,
    /// Grows when the host learns that it was counted out.
    pub(super) renewal: u16,
}

impl Life {
    fn order(&self) -> (u64, u16) {
        (self.number, self.renewal)
    }
}

impl PartialEq for Life {
    fn eq(&self, other: &Self) -> bool {
        (self.host, self.order()) == (other.host, other.order())
    }
}

impl Eq for Life {}

impl Identity for Life {
    type Addr = HostId;

    /// The next renewals skip numbers, more each time: a host that was reinstalled with a clock
    /// that is behind has to overtake its former self, and each step costs a round trip.
    fn renew(&self) -> Option<Self> {
        let renewal = self.renewal.saturating_add(1);
        let number = self.number.saturating_add(1 << renewal.min(40));
        Some(Self {
            host: self.host,
            number,
            renewal,
        })
    }

    fn addr(&self) -> HostId {
        self.host
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.order() > adversary.order()
    }
}

/// Bytes that are no membership datagram of a version that is known here.
#[derive(Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a membership datagram ends too early")]
    Short,
    #[error("a membership datagram has version {0}")]
    Version(u8),
    #[error("a membership datagram has an unknown {what} {value}")]
    Unknown { what: &'static str, value: u8 },
    #[error("a membership datagram has grown too long")]
    Long,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Wire;

const LIFE_BYTES: usize = 12;
const MEMBER_BYTES: usize = LIFE_BYTES + 3;
/// The longest message names one more host and a probe.
const HEADER_BYTES_MAX: usize = 1 + LIFE_BYTES + 2 + LIFE_BYTES + 1 + LIFE_BYTES + 1;

fn put_life(life: &Life, buf: &mut impl BufMut) {
    buf.put_u16(life.host.number());
    buf.put_u64(life.number);
    buf.put_u16(life.renewal);
}

fn life(buf: &mut impl Buf) -> Result<Life, Malformed> {
    if buf.remaining() < LIFE_BYTES {
        return Err(Malformed::Short);
    }
    Ok(Life {
        host: HostId::new(buf.get_u16()),
        number: buf.get_u64(),
        renewal: buf.get_u16(),
    })
}

fn byte(buf: &mut impl Buf) -> Result<u8, Malformed> {
    buf.try_get_u8().map_err(|_| Malformed::Short)
}

fn short(buf: &mut impl Buf) -> Result<u16, Malformed> {
    buf.try_get_u16().map_err(|_| Malformed::Short)
}

/// The host that a datagram says it comes from.
pub(super) fn sender(datagram: &[u8]) -> Option<HostId> {
    let (version, mut rest) = datagram.split_first()?;
    (*version == VERSION)
        .then(|| rest.try_get_u16().ok())?
        .map(HostId::new)
}

impl Codec<Life> for Wire {
    type Error = Malformed;

    fn encode_header(
        &mut self,
        header: &Header<Life>,
        mut buf: impl BufMut,
    ) -> Result<(), Malformed> {
        if buf.remaining_mut() < HEADER_BYTES_MAX {
            return Err(Malformed::Long);
        }
        buf.put_u8(VERSION);
        put_life(&header.src, &mut buf);
        buf.put_u16(header.src_incarnation);
        put_life(&header.dst, &mut buf);
        match &header.message {
            Message::Ping(number) => buf.put_slice(&[0, *number]),
            Message::Ack(number) => buf.put_slice(&[1, *number]),
            Message::PingReq {
                target,
                probe_number,
            } => put_indirect(2, target, *probe_number, &mut buf),
            Message::IndirectPing {
                origin,
                probe_number,
            } => put_indirect(3, origin, *probe_number, &mut buf),
            Message::IndirectAck {
                target,
                probe_number,
            } => put_indirect(4, target, *probe_number, &mut buf),
            Message::ForwardedAck {
                origin,
                probe_number,
            } => put_indirect(5, origin, *probe_number, &mut buf),
            Message::Announce => buf.put_u8(6),
            Message::Feed => buf.put_u8(7),
            Message::Gossip => buf.put_u8(8),
            Message::Broadcast => buf.put_u8(9),
            Message::TurnUndead => buf.put_u8(10),
        }
        Ok(())
    }

    fn decode_header(&mut self, mut buf: impl Buf) -> Result<Header<Life>, Malformed> {
        match byte(&mut buf)? {
            VERSION => {}
            other => return Err(Malformed::Version(other)),
        }
        Ok(Header {
            src: life(&mut buf)?,
            src_incarnation: short(&mut buf)?,
            dst: life(&mut buf)?,
            message: message(&mut buf)?,
        })
    }

    fn encode_member(
        &mut self,
        member: &Member<Life>,
        mut buf: impl BufMut,
    ) -> Result<(), Malformed> {
        if buf.remaining_mut() < MEMBER_BYTES {
            return Err(Malformed::Long);
        }
        put_life(member.id(), &mut buf);
        buf.put_u16(member.incarnation());
        buf.put_u8(match member.state() {
            State::Alive => 0,
            State::Suspect => 1,
            State::Down => 2,
        });
        Ok(())
    }

    fn decode_member(&mut self, mut buf: impl Buf) -> Result<Member<Life>, Malformed> {
        let (id, incarnation) = (life(&mut buf)?, short(&mut buf)?);
        let state = match byte(&mut buf)? {
            0 => State::Alive,
            1 => State::Suspect,
            2 => State::Down,
            value => {
                return Err(Malformed::Unknown {
                    what: "state",
                    value,
                });
            }
        };
        Ok(Member::new(id, incarnation, state))
    }
}

fn put_indirect(kind: u8, other: &Life, probe_number: u8, buf: &mut impl BufMut) {
    buf.put_u8(kind);
    put_life(other, buf);
    buf.put_u8(probe_number);
}

fn message(buf: &mut impl Buf) -> Result<Message<Life>, Malformed> {
    Ok(match byte(buf)? {
        0 => Message::Ping(byte(buf)?),
        1 => Message::Ack(byte(buf)?),
        2 => Message::PingReq {
            target: life(buf)?,
            probe_number: byte(buf)?,
        },
        3 => Message::IndirectPing {
            origin: life(buf)?,
            probe_number: byte(buf)?,
        },
        4 => Message::IndirectAck {
            target: life(buf)?,
            probe_number: byte(buf)?,
        },
        5 => Message::ForwardedAck {
            origin: life(buf)?,
            probe_number: byte(buf)?,
        },
        6 => Message::Announce,
        7 => Message::Feed,
        8 => Message::Gossip,
        9 => Message::Broadcast,
        10 => Message::TurnUndead,
        value => {
            return Err(Malformed::Unknown {
                what: "message",
                value,
            });
        }
    })
}
