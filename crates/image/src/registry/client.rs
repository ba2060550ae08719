//! The conversation with one registry about one image.
//!
//! `oci-client` does the authentication dance (challenge, token service, token cache) and
//! streams blobs. Manifests are fetched here, because they must be bounded and the status must
//! reach the user; `oci-client` reads them whole, however long.

use std::fs::File;
use std::time::Duration;

use futures::StreamExt;
use oci_client::client::{BlobResponse, ClientConfig, ClientProtocol, SizedStream};
use oci_client::errors::{DigestError, OciDistributionError};
use oci_client::secrets::RegistryAuth;
use oci_client::{Reference, RegistryOperation};
use tokio::io::AsyncWriteExt;
use tracing::warn;
use types::ImageRef;

use super::{Credentials, PullError, PullOptions, Shown};
use crate::credentials::CredentialsFile;
use crate::digest::{Digest, Hasher};
use crate::error::{ImageError, printable};
use crate::layout::check_document;
use crate::manifest::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, MANIFEST_BYTES_MAX, OCI_INDEX, OCI_MANIFEST,
};
use crate::store::Part;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two pieces of an answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
const USER_AGENT: &str = concat!("aerostat/", env!("CARGO_PKG_VERSION"));

pub(super) struct Registry {
    oci: oci_client::Client,
    http: reqwest::Client,
    auth: RegistryAuth,
    shown: Shown,
    /// What the registry's token service gave for this image.
    token: Option<String>,
    scheme: &'static str,
    target: Reference,
    /// What was asked for; a mirror is asked for it under its own name.
    reference: ImageRef,
    endpoint: String,
}

impl Registry {
    pub(super) async fn connect(
        endpoint: &str,
        reference: &ImageRef,
        options: &PullOptions,
    ) -> Result<Self, PullError> {
        let plain = options.plain_http_registries.iter().any(|r| r == endpoint);
        let asked = ImageRef {
            registry: endpoint.to_owned(),
            ..reference.clone()
        };
        let config = ClientConfig {
            protocol: if plain {
                ClientProtocol::Http
            } else {
                ClientProtocol::Https
            },
            connect_timeout: Some(CONNECT_TIMEOUT),
            read_timeout: Some(READ_TIMEOUT),
            user_agent: USER_AGENT,
            platform_resolver: None,
            ..ClientConfig::default()
        };
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .user_agent(USER_AGENT)
            .build();
        let (auth, shown) = introduce(&asked, options).await?;
        let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| {
            let registry = endpoint.to_owned();
            let reference = Box::new(reference.clone());
            PullError::Unreachable {
                reference,
                registry,
                source,
            }
        };
        let mut registry = Self {
            oci: oci_client::Client::try_from(config).map_err(|e| unreachable(e.into()))?,
            http: http.map_err(|e| unreachable(e.into()))?,
            auth,
            shown,
            token: None,
            scheme: if plain { "http" } else { "https" },
            target: target(&asked),
            reference: reference.clone(),
            endpoint: endpoint.to_owned(),
        };
        let operation = RegistryOperation::Pull;
        let token = registry
            .oci
            .auth(&registry.target, &registry.auth, operation)
            .await;
        registry.token = token.map_err(|error| registry.explain(error, "a token"))?;
        Ok(registry)
    }

    /// The manifest that the reference names, or another of the same repository, checked.
    pub(super) async fn manifest(
        &self,
        digest: Option<&Digest>,
    ) -> Result<(Digest, Vec<u8>), PullError> {
        let expected = match (digest, &self.reference.digest) {
            (Some(digest), _) => Some(*digest),
            (None, Some(text)) => Some(text.parse().map_err(|_| self.not_found(400))?),
            (None, None) => None,
        };
        let tag = self.reference.tag.as_deref().unwrap_or("latest");
        let name = expected.map_or_else(|| tag.to_owned(), |digest| digest.to_string());
        let url = format!(
            "{}://{}/v2/{}/manifests/{name}",
            self.scheme,
            self.target.resolve_registry(),
            self.target.repository(),
        );
        let accept = [OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST].join(", ");
        let request = self.http.get(url).header(reqwest::header::ACCEPT, accept);
        let request = match (&self.token, &self.auth) {
            (Some(token), _) => request.bearer_auth(token),
            (None, RegistryAuth::Basic(user, password)) => request.basic_auth(user, Some(password)),
            (None, RegistryAuth::Anonymous | RegistryAuth::Bearer(_)) => request,
        };
        let mut answer = request
            .send()
            .await
            .map_err(|error| self.unreachable(error))?;
        match answer.status().as_u16() {
            200 => {}
            status @ 404 => return Err(self.not_found(status)),
            status @ (401 | 403) => return Err(self.unauthorized(format!("answered {status}"))),
            status => return Err(self.failed("the manifest", status.to_string())),
        }
        let mut bytes = Vec::new();
        while let Some(piece) = answer
            .chunk()
            .await
            .map_err(|error| self.unreachable(error))?
        {
            bytes.extend_from_slice(&piece);
            let (length, bytes_max) = (bytes.len() as u64, MANIFEST_BYTES_MAX);
            if length > bytes_max {
                let what = "the manifest".to_owned();
                return Err(ImageError::TooLarge {
                    what,
                    bytes: length,
                    bytes_max,
                }
                .into());
            }
        }
        let actual = Digest::of(&bytes);
        if let Some(expected) = expected.filter(|expected| *expected != actual) {
            let what = "the manifest".to_owned();
            return Err(ImageError::DigestMismatch {
                what,
                expected,
                actual,
            }
            .into());
        }
        Ok((actual, bytes))
    }

    /// A small blob in memory, checked.
    pub(super) async fn document(
        &self,
        descriptor: &Descriptor,
        what: &str,
        bytes_max: u64,
    ) -> Result<Vec<u8>, PullError> {
        let what = format!("the {what} ({})", descriptor.digest);
        if descriptor.size > bytes_max {
            return Err(ImageError::TooLarge {
                what,
                bytes: descriptor.size,
                bytes_max,
            }
            .into());
        }
        let mut stream = self.blob(descriptor, &what, 0).await?.1;
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                // The check below names the digests.
                Err(error) if is_digest_error(&error) => break,
                Err(error) => return Err(self.unreachable(error)),
            }
            if bytes.len() as u64 > descriptor.size {
                break;
            }
        }
        check_document(&bytes, descriptor, what)?;
        Ok(bytes)
    }

    /// Downloads what is missing of a layer and checks the whole. `hasher` has seen what is there,
    /// `file` appends to it.
    pub(super) async fn download(
        &self,
        layer: &Descriptor,
        name: &str,
        part: &Part,
        (mut hasher, file): (Hasher, File),
        report: &(impl Fn(u64) + Sync),
    ) -> Result<(), PullError> {
        const BUFFER_BYTES: usize = 1 << 20;
        let store = || ImageError::io(format!("store {name}"));
        if hasher.bytes < layer.size {
            let (from, mut stream) = self.blob(layer, name, hasher.bytes).await?;
            if from != hasher.bytes {
                part.restart().map_err(store())?;
                hasher = Hasher::new();
            }
            let mut out =
                tokio::io::BufWriter::with_capacity(BUFFER_BYTES, tokio::fs::File::from_std(file));
            report(hasher.bytes);
            while let Some(piece) = stream.next().await {
                let piece = match piece {
                    Ok(piece) => piece,
                    Err(error) if is_digest_error(&error) => break,
                    Err(error) => {
                        // What came until now is what the next try goes on from.
                        out.flush().await.map_err(store())?;
                        return Err(self.unreachable(error));
                    }
                };
                hasher.update(&piece);
                if hasher.bytes > layer.size {
                    break;
                }
                out.write_all(&piece).await.map_err(store())?;
                report(hasher.bytes);
            }
            out.flush().await.map_err(store())?;
        }
        if hasher.bytes != layer.size {
            return Err(ImageError::SizeMismatch {
                what: name.to_owned(),
                expected: layer.size,
                actual: hasher.bytes,
            }
            .into());
        }
        let actual = hasher.finish();
        if actual != layer.digest {
            return Err(ImageError::DigestMismatch {
                what: name.to_owned(),
                expected: layer.digest,
                actual,
            }
            .into());
        }
        Ok(())
    }

    /// A blob from `offset` on, or from its beginning if the registry cannot do that; says which.
    ///
    /// Only the digest is passed on: a descriptor's own `urls` would let a manifest send this
    /// host to addresses of its author's choice.
    async fn blob(
        &self,
        descriptor: &Descriptor,
        what: &str,
        offset: u64,
    ) -> Result<(u64, SizedStream), PullError> {
        let digest = descriptor.digest.to_string();
        if offset > 0 {
            let rest =
                self.oci
                    .pull_blob_stream_partial(&self.target, digest.as_str(), offset, None);
            // A registry that knows no ranges may answer with anything.
            match rest.await {
                Ok(BlobResponse::Partial(stream)) => return Ok((offset, stream)),
                Ok(BlobResponse::Full(stream)) => return Ok((0, stream)),
                Err(error) => match self.explain(error, what) {
                    error @ PullError::Unreachable { .. } => return Err(error),
                    error => warn!(
                        error = types::chain(&error),
                        "no part of a layer, asking for all of it"
                    ),
                },
            }
        }
        let stream = self
            .oci
            .pull_blob_stream(&self.target, digest.as_str())
            .await;
        Ok((0, stream.map_err(|error| self.explain(error, what))?))
    }

    fn explain(&self, error: OciDistributionError, what: &str) -> PullError {
        use OciDistributionError as E;
        match error {
            E::AuthenticationFailure(_) | E::UnauthorizedError { .. } => {
                self.unauthorized("said no".to_owned())
            }
            E::RequestError(error) => self.unreachable(error),
            E::IoError(error) => self.unreachable(error),
            E::ServerError { code, .. } => self.failed(what, code.to_string()),
            // The rest, from another crate and growing, is about answers that make no sense.
            other => self.failed(what, other.to_string().chars().take(300).collect()),
        }
    }

    fn about(&self) -> (Box<ImageRef>, String) {
        (Box::new(self.reference.clone()), self.endpoint.clone())
    }

    fn unauthorized(&self, answer: String) -> PullError {
        let (reference, registry) = self.about();
        PullError::Unauthorized {
            reference,
            registry,
            answer,
            shown: self.shown.clone(),
        }
    }

    fn not_found(&self, status: u16) -> PullError {
        let (reference, registry) = self.about();
        PullError::NotFound {
            reference,
            registry,
            status,
        }
    }

    fn failed(&self, what: &str, answer: String) -> PullError {
        let (registry, what) = (self.reference.registry.clone(), what.to_owned());
        PullError::Registry {
            registry,
            what,
            answer,
        }
    }

    fn unreachable(
        &self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> PullError {
        let (reference, registry) = self.about();
        PullError::Unreachable {
            reference,
            registry,
            source: source.into(),
        }
    }
}

/// What the registry is shown, and what is said about that in an error.
async fn introduce(
    reference: &ImageRef,
    options: &PullOptions,
) -> Result<(RegistryAuth, Shown), PullError> {
    let path = |file: &CredentialsFile| file.path().to_owned();
    let (credentials, file) = match (&options.credentials, &options.credentials_file) {
        (Some(credentials), _) => (Some(credentials.clone()), None),
        (None, Some(file)) => (file.find(reference).await?, Some(path(file))),
        (None, None) => (None, None),
    };
    Ok(match credentials {
        None => (RegistryAuth::Anonymous, Shown::Nothing { file }),
        Some(Credentials::Password { username, password }) => {
            let name = printable(username.as_bytes());
            let auth = RegistryAuth::Basic(username, password);
            (auth, Shown::User { name, file })
        }
        Some(Credentials::Token(token)) => (RegistryAuth::Bearer(token), Shown::Token { file }),
    })
}

fn is_digest_error(error: &std::io::Error) -> bool {
    error
        .get_ref()
        .is_some_and(|inner| inner.is::<DigestError>())
}

fn target(reference: &ImageRef) -> Reference {
    let (registry, repository) = (reference.registry.clone(), reference.repository.clone());
    match (&reference.tag, &reference.digest) {
        (_, Some(digest)) => Reference::with_digest(registry, repository, digest.clone()),
        (Some(tag), None) => Reference::with_tag(registry, repository, tag.clone()),
        (None, None) => Reference::with_tag(registry, repository, "latest".to_owned()),
    }
}
