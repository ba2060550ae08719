//! Between hickory's server, which speaks the protocol, and our answers.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use hickory_server::net::runtime::Time;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::{
    Edns, Header, HeaderCounts, Message, Metadata, OpCode, ResponseCode,
};
use hickory_server::proto::rr::rdata::{AAAA, SOA, SRV, TXT};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tracing::debug;
use types::NetworkId;
use types::sixpn::network_of;

use super::Names;
use super::answer::{Answer, answer};
use super::forward::{Forwarder, Transport, UDP_BYTES_MAX};
use super::offered::Location;
use super::question::{Question, Zone};

/// How long an answer may be kept, in seconds; also that there is none. Machines come and go.
const TTL_S: u32 = 5;

pub(crate) struct Handler {
    names: Arc<dyn Names>,
    forwarder: Forwarder,
}

/// What goes back to the one who asks.
struct Reply {
    metadata: Metadata,
    answers: Vec<Record>,
    authorities: Vec<Record>,
    additionals: Vec<Record>,
}

impl Reply {
    fn empty(request: &Metadata, code: ResponseCode) -> Self {
        let mut metadata = Metadata::response_from_request(request);
        metadata.recursion_available = true;
        metadata.response_code = code;
        Self {
            metadata,
            answers: vec![],
            authorities: vec![],
            additionals: vec![],
        }
    }
}

impl Handler {
    pub(crate) fn new(names: Arc<dyn Names>, forwarder: Forwarder) -> Self {
        Self { names, forwarder }
    }

    /// `only`: nobody but this network is answered.
    async fn reply(&self, request: &Request, only: Option<NetworkId>) -> Reply {
        let metadata = &request.metadata;
        let refuse = |code| Reply::empty(metadata, code);
        if metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        let Ok(info) = request.request_info() else {
            return refuse(ResponseCode::FormErr);
        };
        let query = info.query.original();
        if query.query_class() != DNSClass::IN {
            return refuse(ResponseCode::Refused);
        }
        let IpAddr::V6(source) = request.src().ip() else {
            return refuse(ResponseCode::Refused);
        };
        let network = network_of(source).filter(|of| only.is_none_or(|only| only == *of));
        let Some(network) = network else {
            return refuse(ResponseCode::Refused);
        };
        let question = Question::read(query.name().iter());
        match &question {
            Question::Foreign => {
                let transport = transport(request.protocol());
                let message = self.forwarder.ask(network, query, transport).await;
                foreign(metadata, message)
            }
            Question::Unknown(zone) | Question::Apex(zone) | Question::Service { zone, .. } => {
                let answer = answer(&*self.names, network, &question, query.query_type());
                own(metadata, query.name(), *zone, answer)
            }
            Question::Internal(_) => {
                let answer = answer(&*self.names, network, &question, query.query_type());
                own(metadata, query.name(), Zone::Internal, answer)
            }
        }
    }
}

fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Udp => Transport::Udp,
        _ => Transport::Tcp,
    }
}

/// A reply that says what another resolver said, if one did.
fn foreign(request: &Metadata, message: Option<Message>) -> Reply {
    let Some(message) = message else {
        return Reply::empty(request, ResponseCode::ServFail);
    };
    let mut reply = Reply::empty(request, message.metadata.response_code);
    reply.metadata.truncation = message.metadata.truncation;
    reply.answers = message.answers;
    reply.authorities = message.authorities;
    reply.additionals = message.additionals;
    reply
}

/// A reply about a name of ours. Without records, the zone's SOA says how long that holds (RFC
/// 2308).
fn own(request: &Metadata, name: &Name, zone: Zone, answer: Answer) -> Reply {
    let mut reply = Reply::empty(request, ResponseCode::NoError);
    reply.metadata.authoritative = true;
    let record = |data| Record::from_rdata(name.clone(), TTL_S, data);
    match answer {
        Answer::Addresses(addresses) => {
            let data = addresses
                .into_iter()
                .map(|address| RData::AAAA(AAAA(address)));
            reply.answers = data.map(record).collect();
        }
        Answer::Text(strings) => reply.answers = vec![record(RData::TXT(TXT::new(strings)))],
        Answer::Located(locations) => {
            for Location {
                port,
                target,
                addresses,
            } in locations
            {
                // A name that is too long to be asked for is no use to anybody.
                let Ok(target) = Name::from_ascii(format!("{target}.")) else {
                    continue;
                };
                reply
                    .additionals
                    .extend(addresses.into_iter().map(|address| {
                        Record::from_rdata(target.clone(), TTL_S, RData::AAAA(AAAA(address)))
                    }));
                reply
                    .answers
                    .push(record(RData::SRV(SRV::new(0, 100, port, target))));
            }
        }
        Answer::NoData => reply.authorities = soa(zone),
        Answer::NoName => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.authorities = soa(zone);
        }
    }
    reply
}

fn soa(zone: Zone) -> Vec<Record> {
    let apex = Name::from_labels(zone.labels().iter().map(|label| label.as_bytes()));
    let record = apex.and_then(|apex| {
        let server = apex.clone().prepend_label("ns")?;
        let person = apex.clone().prepend_label("hostmaster")?;
        // Nobody transfers the zone, so serial and intervals say nothing; only the last counts.
        let data = SOA::new(server, person, 1, 3600, 600, 86400, TTL_S);
        Ok(Record::from_rdata(apex, TTL_S, RData::SOA(data)))
    });
    record.into_iter().collect()
}

/// One of the addresses at which the handler is asked.
pub(crate) struct Resolver {
    pub(crate) handler: Arc<Handler>,
    /// Whom it answers; everybody at `fdaa::3`, which is the same for all networks.
    pub(crate) only: Option<NetworkId>,
}

#[async_trait]
impl RequestHandler for Resolver {
    async fn handle_request<R: ResponseHandler, T: Time>(
        &self,
        request: &Request,
        mut response: R,
    ) -> ResponseInfo {
        let reply = self.handler.reply(request, self.only).await;
        let edns = request.edns.as_ref().map(|asked| {
            let mut edns = Edns::new();
            edns.set_max_payload(asked.max_payload().min(UDP_BYTES_MAX));
            edns
        });
        let mut builder = MessageResponseBuilder::from_message_request(request);
        if let Some(edns) = &edns {
            builder.edns(edns);
        }
        let metadata = reply.metadata;
        let message = builder.build(
            metadata,
            &reply.answers,
            &reply.authorities,
            std::iter::empty(),
            &reply.additionals,
        );
        response
            .send_response(message)
            .await
            .unwrap_or_else(|error| {
                debug!(%error, "cannot answer");
                Header {
                    metadata,
                    counts: HeaderCounts::default(),
                }
                .into()
            })
    }
}
