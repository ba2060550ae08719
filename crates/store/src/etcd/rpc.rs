//! Calls to etcd: one connection at a time, the next endpoint when it fails, a deadline on each.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use prost::Message;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Status, Streaming};
use tonic_prost::ProstCodec;

use super::proto;
use crate::config::EtcdConfig;
use crate::error::{EtcdError, OpenError};

/// A page of a list, or the events of a busy moment: objects are at most 1.5 MiB each.
const ANSWER_BYTES_MAX: usize = 1 << 30;
const CONNECT_MAX: Duration = Duration::from_secs(3);
/// A connection that answers no ping for so long is given up, watch included.
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_MAX: Duration = Duration::from_secs(5);

const RANGE: &str = "/etcdserverpb.KV/Range";
const PUT: &str = "/etcdserverpb.KV/Put";
const DELETE_RANGE: &str = "/etcdserverpb.KV/DeleteRange";
const TXN: &str = "/etcdserverpb.KV/Txn";
const COMPACT: &str = "/etcdserverpb.KV/Compact";
const LEASE_GRANT: &str = "/etcdserverpb.Lease/LeaseGrant";
const WATCH: &str = "/etcdserverpb.Watch/Watch";

#[derive(Clone)]
pub(super) struct Client {
    channels: Arc<[Channel]>,
    current: Arc<AtomicUsize>,
    timeout: Duration,
}

impl Client {
    /// Connects when the first call is made. Must be called on a tokio runtime.
    pub(super) fn new(config: &EtcdConfig) -> Result<Self, OpenError> {
        let tls = config.tls.as_ref().map(tls).transpose()?;
        let channels = config.endpoints.iter().map(|text| {
            let bad = |source| OpenError::Endpoint {
                endpoint: text.clone(),
                source,
            };
            let mut endpoint = Endpoint::from_shared(text.clone())
                .map_err(bad)?
                .connect_timeout(CONNECT_MAX)
                .http2_keep_alive_interval(PING_EVERY)
                .keep_alive_timeout(PING_MAX)
                .keep_alive_while_idle(true)
                .tcp_nodelay(true);
            if let Some(tls) = &tls {
                endpoint = endpoint.tls_config(tls.clone()).map_err(bad)?;
            }
            Ok(endpoint.connect_lazy())
        });
        let channels: Arc<[Channel]> = channels.collect::<Result<_, OpenError>>()?;
        if channels.is_empty() {
            return Err(OpenError::NoEndpoint);
        }
        Ok(Self {
            channels,
            current: Arc::default(),
            timeout: config.call_timeout,
        })
    }

    /// Bounds a conversation of several messages.
    pub(super) async fn in_time<T>(
        &self,
        talk: impl Future<Output = Result<T, EtcdError>>,
    ) -> Result<T, EtcdError> {
        let late = |_| EtcdError::Timeout {
            after_ms: self.timeout.as_millis(),
        };
        tokio::time::timeout(self.timeout, talk)
            .await
            .map_err(late)?
    }

    fn grpc(&self) -> (usize, Grpc<Channel>) {
        let index = self.current.load(Ordering::Relaxed) % self.channels.len();
        let grpc = Grpc::new(self.channels[index].clone());
        (index, grpc.max_decoding_message_size(ANSWER_BYTES_MAX))
    }

    /// Later calls go to the next endpoint, unless somebody has moved on already.
    fn leave(&self, index: usize) {
        let next = (index + 1) % self.channels.len();
        let _ = self
            .current
            .compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    async fn once<Q, A>(&self, path: &'static str, request: Q) -> Result<A, EtcdError>
    where
        Q: Message + Send + 'static,
        A: Message + Default + Send + 'static,
    {
        let (index, mut grpc) = self.grpc();
        let call = async {
            grpc.ready()
                .await
                .map_err(|error| Status::from_error(Box::new(error)))?;
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(
                Request::new(request),
                PathAndQuery::from_static(path),
                codec,
            )
            .await
        };
        match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                if status.code() == Code::Unavailable {
                    self.leave(index);
                }
                Err(refusal(&status))
            }
            Err(_) => {
                self.leave(index);
                Err(EtcdError::Timeout {
                    after_ms: self.timeout.as_millis(),
                })
            }
        }
    }

    /// A call that may be made twice without harm: every endpoint is tried.
    async fn repeatable<Q, A>(&self, path: &'static str, request: Q) -> Result<A, EtcdError>
    where
        Q: Message + Clone + Send + 'static,
        A: Message + Default + Send + 'static,
    {
        let mut attempts = 1;
        loop {
            match self.once(path, request.clone()).await {
                Err(error) if error.may_pass() && attempts < self.channels.len() => attempts += 1,
                result => return result,
            }
        }
    }

    /// A call that must not be made twice: the next endpoint is tried only when no connection was
    /// made to this one.
    async fn unrepeatable<Q, A>(&self, path: &'static str, request: Q) -> Result<A, EtcdError>
    where
        Q: Message + Clone + Send + 'static,
        A: Message + Default + Send + 'static,
    {
        let mut attempts = 1;
        loop {
            match self.once(path, request.clone()).await {
                Err(EtcdError::Unreachable { .. }) if attempts < self.channels.len() => {
                    attempts += 1;
                }
                result => return result,
            }
        }
    }

    pub(super) async fn range(
        &self,
        request: proto::RangeRequest,
    ) -> Result<proto::RangeResponse, EtcdError> {
        self.repeatable(RANGE, request).await
    }

    /// For keys of the store's own, where a second write changes nothing.
    pub(super) async fn put(&self, request: proto::PutRequest) -> Result<i64, EtcdError> {
        let answer: proto::PutResponse = self.repeatable(PUT, request).await?;
        Ok(revision(answer.header.as_ref()))
    }

    pub(super) async fn txn(
        &self,
        request: proto::TxnRequest,
    ) -> Result<proto::TxnResponse, EtcdError> {
        self.unrepeatable(TXN, request).await
    }

    pub(super) async fn delete_range(
        &self,
        key: Vec<u8>,
        range_end: Vec<u8>,
    ) -> Result<(), EtcdError> {
        let request = proto::DeleteRangeRequest { key, range_end };
        self.repeatable::<_, proto::DeleteRangeResponse>(DELETE_RANGE, request)
            .await
            .map(drop)
    }

    pub(super) async fn compact(&self, revision: i64) -> Result<(), EtcdError> {
        let request = proto::CompactionRequest { revision };
        self.repeatable::<_, proto::CompactionResponse>(COMPACT, request)
            .await
            .map(drop)
    }

    pub(super) async fn grant(&self, id: i64, ttl: i64) -> Result<(), EtcdError> {
        let request = proto::LeaseGrantRequest { ttl, id };
        self.repeatable::<_, proto::LeaseGrantResponse>(LEASE_GRANT, request)
            .await
            .map(drop)
    }

    /// A watch lives until its stream is dropped or fails.
    pub(super) async fn watch(
        &self,
        create: proto::WatchCreateRequest,
    ) -> Result<Streaming<proto::WatchResponse>, EtcdError> {
        let (index, mut grpc) = self.grpc();
        let create = proto::WatchRequest {
            create: Some(create),
        };
        // Ending the request stream would end the watch.
        let requests = futures::stream::iter([create]).chain(futures::stream::pending());
        let mut request = Request::new(requests);
        // A member that lost its leader must not keep us listening to nothing.
        request.metadata_mut().insert(
            "hasleader",
            tonic::metadata::MetadataValue::from_static("true"),
        );
        let call = async {
            grpc.ready()
                .await
                .map_err(|error| Status::from_error(Box::new(error)))?;
            let codec = ProstCodec::<proto::WatchRequest, proto::WatchResponse>::default();
            grpc.streaming(request, PathAndQuery::from_static(WATCH), codec)
                .await
        };
        let opened = tokio::time::timeout(self.timeout, call).await;
        match opened {
            Ok(Ok(answer)) => Ok(answer.into_inner()),
            Ok(Err(status)) => {
                self.leave(index);
                Err(refusal(&status))
            }
            Err(_) => {
                self.leave(index);
                Err(EtcdError::Timeout {
                    after_ms: self.timeout.as_millis(),
                })
            }
        }
    }
}

fn tls(files: &crate::config::EtcdTls) -> Result<ClientTlsConfig, OpenError> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).map_err(|source| OpenError::TlsFile {
            path: path.to_owned(),
            source,
        })
    };
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&files.ca)?));
    if let Some((certificate, key)) = &files.identity {
        config = config.identity(Identity::from_pem(read(certificate)?, read(key)?));
    }
    Ok(config)
}

/// The revision of etcd at the moment of an answer.
pub(super) fn revision(header: Option<&proto::Header>) -> i64 {
    header.map_or(0, |header| header.revision)
}

pub(super) fn refusal(status: &Status) -> EtcdError {
    let message = status.message().to_owned();
    if status.code() == Code::Unavailable && never_sent(status) {
        return EtcdError::Unreachable { message };
    }
    EtcdError::Answer {
        code: status.code(),
        message,
    }
}

fn never_sent(status: &Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        let refused = error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused);
        if refused {
            return true;
        }
        cause = error.source();
    }
    false
}
