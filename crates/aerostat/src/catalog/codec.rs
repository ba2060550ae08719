//! What hosts tell each other about machines, as bytes. All numbers are big-endian.
//!
//! ```text
//! signed    kind u8 | format u8 | origin u16 | epoch u64 | version u64 | JSON | signature 64
//! page      1 | origin u16 | epoch u64 | after u64 | floor u64 | head u64 | more u8 | list
//! ask       1 | origin u16 | epoch u64 | after u64 | whole u8
//! push      1 | word u32 + bytes | page                     answer: 1 | epoch u64 | version u64
//! digest    1 | count u32 | (origin u16 | epoch u64 | version u64)*
//!             | count u32 | (age in ms u32 | length u32 | word)*
//! list      count u32 | (length u32 | statement)*
//! ```
//!
//! What is signed is passed on as the bytes that were signed, so nobody has to agree on how JSON
//! is written. The format is that of the JSON: a host that writes a newer one also says what those
//! before it can read, and a reader drops what it does not know.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::machine::Machine;
use types::{AppName, HostId, NetworkId, SixPn};

use crate::catalog::{Capacity, Entry, Position, Word};

/// One statement: a machine whose configuration the API has let in (4 MiB), and what is around it.
pub(super) const STATEMENT_BYTES_MAX: usize = 8 << 20;
/// A page stops growing here; a longer statement travels alone.
pub(super) const PAGE_BYTES_MAX: usize = 1 << 20;
/// Room for a page with the longest statement in it.
pub(super) const BODY_BYTES_MAX: usize = STATEMENT_BYTES_MAX + PAGE_BYTES_MAX + 1024;
/// A word is small.
const WORD_BYTES_MAX: usize = 4096;
/// Hosts in one digest. A fleet that grows beyond this needs digests by region.
pub(super) const DIGEST_MAX: usize = 8192;
/// Words that are passed on with one digest.
pub(super) const DIGEST_WORDS_MAX: usize = 256;

const VERSION: u8 = 1;
const FORMAT: u8 = 1;
const SIGNATURE_BYTES: usize = 64;
const HEADER_BYTES: usize = 2 + 2 + 8 + 8;
/// What is signed begins with this, so that it means nothing elsewhere.
const DOMAIN: &[u8] = b"aerostat catalog\0";

/// Bytes that are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a message of the catalog ends too early")]
    Short,
    #[error("a message of the catalog goes on after its end")]
    Long,
    #[error("a message of the catalog has version {0}")]
    Version(u8),
    #[error("a message of the catalog has {count} of {what}, above the {max} that are let in")]
    TooMany {
        what: &'static str,
        count: usize,
        max: usize,
    },
    #[error("a signed part of the catalog has kind {kind} in format {format}")]
    Kind { kind: u8, format: u8 },
    #[error("what host {origin} has signed cannot be read: {why}")]
    Content { origin: HostId, why: String },
}

/// What was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Statement,
    Word,
}

/// Signed bytes, not verified yet.
#[derive(Debug, Clone)]
pub(super) struct Signed {
    pub(super) kind: Kind,
    pub(super) origin: HostId,
    pub(super) position: Position,
    pub(super) bytes: Bytes,
}

impl Signed {
    pub(super) fn parse(bytes: Bytes) -> Result<Self, Malformed> {
        if bytes.len() < HEADER_BYTES + SIGNATURE_BYTES {
            return Err(Malformed::Short);
        }
        let mut rest = &bytes[..];
        let kind = match (rest.get_u8(), rest.get_u8()) {
            (1, FORMAT) => Kind::Statement,
            (2, FORMAT) => Kind::Word,
            (kind, format) => return Err(Malformed::Kind { kind, format }),
        };
        let max = match kind {
            Kind::Statement => STATEMENT_BYTES_MAX,
            Kind::Word => WORD_BYTES_MAX,
        };
        limit("bytes", bytes.len(), max)?;
        Ok(Self {
            kind,
            origin: HostId::new(rest.get_u16()),
            position: Position {
                epoch: rest.get_u64(),
                version: rest.get_u64(),
            },
            bytes,
        })
    }

    /// What the signature is over, and the signature.
    pub(super) fn message(&self) -> (Vec<u8>, &[u8]) {
        let (said, signature) = self.bytes.split_at(self.bytes.len() - SIGNATURE_BYTES);
        ([DOMAIN, said].concat(), signature)
    }

    fn json(&self) -> &[u8] {
        &self.bytes[HEADER_BYTES..self.bytes.len() - SIGNATURE_BYTES]
    }

    fn content<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Malformed> {
        serde_json::from_slice(self.json()).map_err(|error| self.wrong(error.to_string()))
    }

    fn wrong(&self, why: String) -> Malformed {
        Malformed::Content {
            origin: self.origin,
            why,
        }
    }

    /// The machine that it is about.
    pub(super) fn entry(&self) -> Result<Entry, Malformed> {
        if self.kind != Kind::Statement {
            return Err(self.wrong("it is no statement".to_owned()));
        }
        let body: Body = self.content()?;
        let mut machine = body.machine;
        let address = machine.private_ip.parse().ok().and_then(SixPn::from_addr);
        if address.is_some_and(|a| a.host != self.origin || a.network != body.network) {
            return Err(self.wrong("its address is not the host's to give".to_owned()));
        }
        machine.revision = self.position.version;
        Ok(Entry {
            host: self.origin,
            app: body.app,
            network: body.network,
            machine,
        })
    }

    pub(super) fn word(&self) -> Result<Word, Malformed> {
        if self.kind != Kind::Word {
            return Err(self.wrong("it is no word".to_owned()));
        }
        let body: WordBody = self.content()?;
        Ok(Word {
            origin: self.origin,
            region: body.region,
            at: body.at,
            position: self.position,
            said: body.said,
            capacity: body.capacity,
        })
    }
}

#[derive(Serialize, Deserialize)]
struct Body {
    app: AppName,
    network: NetworkId,
    machine: Machine,
}

#[derive(Serialize)]
struct BodyOf<'a> {
    app: &'a AppName,
    network: NetworkId,
    machine: &'a Machine,
}

#[derive(Serialize, Deserialize)]
struct WordBody {
    region: String,
    at: Timestamp,
    said: u64,
    #[serde(default)]
    capacity: Capacity,
}

/// A machine as other hosts are told of it: what its containers find in their environment and
/// files is nobody's business there, and statements are kept on many disks.
fn for_others(machine: &Machine) -> Machine {
    let mut config = machine.config.without_contents();
    config.withheld |= config != machine.config;
    Machine {
        config,
        ..machine.clone()
    }
}

/// Signs what `entry` says, less what is not for others.
pub(super) fn sign_entry(entry: &Entry, epoch: u64, sign: &dyn Fn(&[u8]) -> Vec<u8>) -> Bytes {
    let position = Position {
        epoch,
        version: entry.machine.revision,
    };
    let body = BodyOf {
        app: &entry.app,
        network: entry.network,
        machine: &for_others(&entry.machine),
    };
    signed(1, entry.host, position, &body, sign)
}

pub(super) fn sign_word(word: &Word, sign: &dyn Fn(&[u8]) -> Vec<u8>) -> Bytes {
    let body = WordBody {
        region: word.region.clone(),
        at: word.at,
        said: word.said,
        capacity: word.capacity,
    };
    signed(2, word.origin, word.position, &body, sign)
}

fn signed(
    kind: u8,
    origin: HostId,
    position: Position,
    body: &impl Serialize,
    sign: &dyn Fn(&[u8]) -> Vec<u8>,
) -> Bytes {
    let mut bytes = DOMAIN.to_vec();
    bytes.put_slice(&[kind, FORMAT]);
    bytes.put_u16(origin.number());
    bytes.put_u64(position.epoch);
    bytes.put_u64(position.version);
    // Our own types: maps with string keys and no failing serialisers.
    serde_json::to_writer(&mut bytes, body).expect("a statement is JSON");
    let signature = sign(&bytes);
    debug_assert_eq!(signature.len(), SIGNATURE_BYTES, "ed25519");
    bytes.extend_from_slice(&signature);
    Bytes::from(bytes).slice(DOMAIN.len()..)
}

/// Rows of one host in the order of their versions: all there are after `after` up to the last one
/// of the page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) origin: HostId,
    pub(super) epoch: u64,
    pub(super) after: u64,
    /// Ends of machines up to here are no longer in anybody's page.
    pub(super) floor: u64,
    /// How far the sender could go on.
    pub(super) head: u64,
    /// Whether there are more rows up to `head`.
    pub(super) more: bool,
    pub(super) statements: Vec<Bytes>,
}

/// Asks for a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) origin: HostId,
    pub(super) after: Position,
    /// The asker reads all rows from the beginning and needs no ends of machines.
    pub(super) whole: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Digest {
    pub(super) positions: Vec<(HostId, Position)>,
    pub(super) words: Vec<(Duration, Bytes)>,
}

impl Page {
    pub(super) fn encode(&self, into: &mut Vec<u8>) {
        into.put_u8(VERSION);
        into.put_u16(self.origin.number());
        for number in [self.epoch, self.after, self.floor, self.head] {
            into.put_u64(number);
        }
        into.put_u8(self.more.into());
        into.put_u32(length(self.statements.len()));
        for statement in &self.statements {
            put_bytes(into, statement);
        }
    }

    fn take(from: &mut Reader) -> Result<Self, Malformed> {
        from.version()?;
        let mut page = Self {
            origin: from.host()?,
            epoch: from.u64()?,
            after: from.u64()?,
            floor: from.u64()?,
            head: from.u64()?,
            more: from.u8()? != 0,
            statements: Vec::new(),
        };
        for _ in 0..from.u32()? {
            page.statements.push(from.bytes(STATEMENT_BYTES_MAX)?);
        }
        Ok(page)
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        let page = Self::take(&mut from)?;
        from.end(page)
    }
}

/// A page of the sender's own rows, and its word.
pub(super) fn encode_push(word: &Bytes, page: &Page) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    put_bytes(&mut bytes, word);
    page.encode(&mut bytes);
    bytes
}

pub(super) fn decode_push(bytes: Bytes) -> Result<(Bytes, Page), Malformed> {
    let mut from = Reader(bytes);
    from.version()?;
    let push = (from.bytes(WORD_BYTES_MAX)?, Page::take(&mut from)?);
    from.end(push)
}

pub(super) fn encode_position(position: Position) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    put_position(&mut bytes, position);
    bytes
}

pub(super) fn decode_position(bytes: Bytes) -> Result<Position, Malformed> {
    let mut from = Reader(bytes);
    from.version()?;
    let position = from.position()?;
    from.end(position)
}

impl Ask {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.put_u16(self.origin.number());
        put_position(&mut bytes, self.after);
        bytes.put_u8(self.whole.into());
        bytes
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        from.version()?;
        let ask = Self {
            origin: from.host()?,
            after: from.position()?,
            whole: from.u8()? != 0,
        };
        from.end(ask)
    }
}

impl Digest {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.put_u32(length(self.positions.len()));
        for (host, position) in &self.positions {
            bytes.put_u16(host.number());
            put_position(&mut bytes, *position);
        }
        bytes.put_u32(length(self.words.len()));
        for (age, word) in &self.words {
            bytes.put_u32(u32::try_from(age.as_millis()).unwrap_or(u32::MAX));
            put_bytes(&mut bytes, word);
        }
        bytes
    }

    pub(super) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut from = Reader(bytes);
        from.version()?;
        let mut digest = Self::default();
        for _ in 0..from.count("hosts", DIGEST_MAX)? {
            digest.positions.push((from.host()?, from.position()?));
        }
        for _ in 0..from.count("words", DIGEST_WORDS_MAX)? {
            let age = Duration::from_millis(from.u32()?.into());
            digest.words.push((age, from.bytes(WORD_BYTES_MAX)?));
        }
        from.end(digest)
    }
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("a message is far below 4 GiB")
}

fn put_bytes(into: &mut Vec<u8>, bytes: &[u8]) {
    into.put_u32(length(bytes.len()));
    into.extend_from_slice(bytes);
}

fn put_position(into: &mut Vec<u8>, position: Position) {
    into.put_u64(position.epoch);
    into.put_u64(position.version);
}

fn limit(what: &'static str, count: usize, max: usize) -> Result<(), Malformed> {
    if count > max {
        return Err(Malformed::TooMany { what, count, max });
    }
    Ok(())
}

/// Reads from the front.
struct Reader(Bytes);

impl Reader {
    fn u8(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed::Short)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32().map_err(|_| Malformed::Short)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64().map_err(|_| Malformed::Short)
    }

    fn host(&mut self) -> Result<HostId, Malformed> {
        let number = self.0.try_get_u16().map_err(|_| Malformed::Short)?;
        Ok(HostId::new(number))
    }

    fn position(&mut self) -> Result<Position, Malformed> {
        Ok(Position {
            epoch: self.u64()?,
            version: self.u64()?,
        })
    }

    fn version(&mut self) -> Result<(), Malformed> {
        match self.u8()? {
            VERSION => Ok(()),
            other => Err(Malformed::Version(other)),
        }
    }

    fn count(&mut self, what: &'static str, max: usize) -> Result<usize, Malformed> {
        let count = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        limit(what, count, max)?;
        Ok(count)
    }

    fn bytes(&mut self, max: usize) -> Result<Bytes, Malformed> {
        let length = self.count("bytes", max)?;
        if self.0.len() < length {
            return Err(Malformed::Short);
        }
        Ok(self.0.split_to(length))
    }

    fn end<T>(self, read: T) -> Result<T, Malformed> {
        if self.0.is_empty() {
            Ok(read)
        } else {
            Err(Malformed::Long)
        }
    }
}

/// What a fuzzer calls: a message of any kind.
///
/// # Panics
/// If what can be read is not written the same way, or whatever a fuzzer is to find.
#[doc(hidden)]
pub fn fuzz_catalog(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else {
        return;
    };
    let bytes = Bytes::copy_from_slice(data);
    match kind % 5 {
        0 => {
            if let Ok((word, page)) = decode_push(bytes) {
                let again = decode_push(encode_push(&word, &page).into());
                assert_eq!(again, Ok((word.clone(), page.clone())));
                page.statements
                    .into_iter()
                    .chain([word])
                    .for_each(fuzz_signed);
            }
        }
        1 => {
            if let Ok(ask) = Ask::decode(bytes) {
                assert_eq!(Ask::decode(ask.encode().into()), Ok(ask));
            }
        }
        2 => {
            if let Ok(digest) = Digest::decode(bytes) {
                assert_eq!(digest.encode(), data);
                let words = digest.words.into_iter();
                words.for_each(|(_, word)| fuzz_signed(word));
            }
        }
        3 => drop(decode_position(bytes)),
        _ => fuzz_signed(bytes),
    }
}

fn fuzz_signed(bytes: Bytes) {
    let Ok(signed) = Signed::parse(bytes) else {
        return;
    };
    let sign = |_: &[u8]| vec![7; SIGNATURE_BYTES];
    if let Ok(entry) = signed.entry() {
        let again = Signed::parse(sign_entry(&entry, signed.position.epoch, &sign));
        if let Ok(again) = again {
            assert_eq!(again.entry().map(|e| e.machine.id), Ok(entry.machine.id));
        }
    }
    if let Ok(word) = signed.word() {
        let again = Signed::parse(sign_word(&word, &sign));
        // Text that was escaped may have become longer than what is let in.
        if let Ok(again) = again {
            assert_eq!(again.word(), Ok(word));
        }
    }
}
