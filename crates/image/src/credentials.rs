//! Registry credentials, where `docker login` and `podman login` leave them.
//!
//! ```text
//! credHelpers[registry] ─┐
//! credsStore ────────────┼─ docker-credential-<name> get ─┐
//! auths[registry/path]   │                                ├─ Credentials
//! auths[registry] ───────┴────────────────────────────────┘
//! ```
//!
//! The file is read for every pull, so that a login counts at once. No secret of it reaches an
//! error or a log: parse errors carry a place and not the text, which is why none of them has the
//! parser's own error as its source.

mod helper;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use types::ImageRef;

use crate::registry::Credentials;

/// A login takes a hundred bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The user name that stands for an OAuth refresh token.
const IDENTITY_TOKEN_USER: &str = "<token>";
/// What Docker Hub is called in these files.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
const DOCKER_HUB: &str = "docker.io";

/// A file of registry credentials in Docker's format.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialsFile {
    path: PathBuf,
    absent: Absent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absent {
    /// Then there are no credentials.
    IsFine,
    IsAnError,
}

/// Why a registry's credentials could not be had. Never says what they are.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    #[error("cannot read registry credentials {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("registry credentials {path} are not valid: line {line}, column {column}")]
    Malformed {
        path: PathBuf,
        line: usize,
        column: usize,
    },
    #[error("the credentials for registry {registry} in {path} cannot be used: {why}")]
    Entry {
        path: PathBuf,
        registry: String,
        why: &'static str,
    },
    #[error(
        "the credentials for registry {registry} are kept by `docker-credential-{helper}` ({path} \
         says so), which {why}"
    )]
    Helper {
        path: PathBuf,
        registry: String,
        helper: String,
        why: String,
    },
}

impl CredentialsFile {
    /// A file that somebody named; if it is not there, pulls fail and say so.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            absent: Absent::IsAnError,
        }
    }

    /// The file of the user that this process runs as, `$DOCKER_CONFIG/config.json` or
    /// `~/.docker/config.json`; it may be absent. `None` for a user without a home.
    pub fn of_user() -> Option<Self> {
        let folder = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty());
        let folder = match folder {
            Some(folder) => PathBuf::from(folder),
            None => std::env::home_dir()?.join(".docker"),
        };
        Some(Self {
            path: folder.join("config.json"),
            absent: Absent::IsFine,
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to show to the registry of `reference`.
    pub(crate) async fn find(
        &self,
        reference: &ImageRef,
    ) -> Result<Option<Credentials>, CredentialsError> {
        let Some(text) = self.read()? else {
            return Ok(None);
        };
        let file: Document =
            serde_json::from_slice(&text).map_err(|error| CredentialsError::Malformed {
                path: self.path.clone(),
                line: error.line(),
                column: error.column(),
            })?;
        let registry = reference.registry.as_str();
        if let Some(helper) = file.helper(registry) {
            return helper::get(helper, registry, &self.path).await;
        }
        match file.login(registry, &reference.repository) {
            Some(login) => login.credentials().map_err(|why| CredentialsError::Entry {
                path: self.path.clone(),
                registry: registry.to_owned(),
                why,
            }),
            None => Ok(None),
        }
    }

    fn read(&self) -> Result<Option<Vec<u8>>, CredentialsError> {
        let read = || {
            let mut text = Vec::new();
            let file = File::open(&self.path)?;
            file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text)?;
            if text.len() as u64 > FILE_BYTES_MAX {
                return Err(io::Error::other("it is larger than 1 MiB"));
            }
            Ok(text)
        };
        match read() {
            Ok(text) => Ok(Some(text)),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && self.absent == Absent::IsFine =>
            {
                Ok(None)
            }
            Err(source) => Err(CredentialsError::Read {
                path: self.path.clone(),
                source,
            }),
        }
    }
}

/// The parts of the file that are about registries.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Document {
    auths: BTreeMap<String, Login>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

/// What is kept of one login; `{}` where a helper keeps the rest.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
}

impl Document {
    fn helper(&self, registry: &str) -> Option<&str> {
        self.cred_helpers
            .iter()
            .find(|(key, _)| Scope::of(key).covers(registry, ""))
            .map(|(_, helper)| helper)
            .or(self.creds_store.as_ref())
            .filter(|helper| !helper.is_empty())
            .map(String::as_str)
    }

    /// The login whose key fits best: podman keeps them by repository too.
    fn login(&self, registry: &str, repository: &str) -> Option<&Login> {
        self.auths
            .iter()
            .map(|(key, login)| (Scope::of(key), login))
            .filter(|(scope, _)| scope.covers(registry, repository))
            .max_by_key(|(scope, _)| scope.path.len())
            .map(|(_, login)| login)
    }
}

/// What a key of the file is about: `host`, `host:port/team/app`, or `https://host/v1/` of old.
#[derive(Debug, PartialEq, Eq)]
struct Scope<'a> {
    registry: &'a str,
    path: &'a str,
}

impl<'a> Scope<'a> {
    fn of(key: &'a str) -> Self {
        let url = key
            .strip_prefix("https://")
            .or_else(|| key.strip_prefix("http://"));
        let (host, path) = url
            .unwrap_or(key)
            .split_once('/')
            .unwrap_or((url.unwrap_or(key), ""));
        let registry = match host {
            "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB,
            other => other,
        };
        let path = path.trim_end_matches('/');
        // The path of a URL is that of the API, not of a repository.
        let path = match (url, path) {
            (Some(_), _) | (None, "v1" | "v2") => "",
            (None, path) => path,
        };
        Self { registry, path }
    }

    fn covers(&self, registry: &str, repository: &str) -> bool {
        let below = |rest: &str| rest.is_empty() || rest.starts_with('/');
        self.registry == registry
            && (self.path.is_empty() || repository.strip_prefix(self.path).is_some_and(below))
    }
}

impl Login {
    fn credentials(&self) -> Result<Option<Credentials>, &'static str> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credentials::Token(self.registrytoken.clone())));
        }
        if !self.identitytoken.is_empty() {
            return Err(IDENTITY_TOKEN);
        }
        if self.auth.is_empty() {
            return match (self.username.as_str(), self.password.as_str()) {
                ("", "") => Ok(None),
                (username, password) => password_of(username, password).map(Some),
            };
        }
        let decoded = LENIENT
            .decode(self.auth.trim())
            .map_err(|_| "`auth` is not base64")?;
        let text = String::from_utf8(decoded).map_err(|_| "`auth` is not UTF-8 in base64")?;
        // Docker pads with zero bytes that its own reader takes off.
        let text = text.trim_end_matches('\0');
        let (username, password) = text
            .split_once(':')
            .ok_or("`auth` is not `user:password` in base64")?;
        password_of(username, password).map(Some)
    }
}

const IDENTITY_TOKEN: &str =
    "it is an identity token, which is not supported; log in with a password or an access token";

/// Both alphabets' padding habits occur.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn password_of(username: &str, password: &str) -> Result<Credentials, &'static str> {
    match username {
        IDENTITY_TOKEN_USER => Err(IDENTITY_TOKEN),
        "" => Err("the user name is empty"),
        username => Ok(Credentials::Password {
            username: username.to_owned(),
            password: password.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests;
