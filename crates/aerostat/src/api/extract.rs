//! Reading requests: bodies, queries, and which app and machine a path names.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use types::{AppName, MachineId};

use super::Api;
use super::error::ApiError;
use super::members;
use crate::catalog::Entry;
use crate::directory;

/// Largest body of a request: the largest configuration that `worker::check` lets through, and a
/// little more.
const BODY_BYTES_MAX: usize = 4 << 20;

/// A JSON body, every member of which is read or refused by name. An absent one is read as `{}`:
/// Fly's clients leave out what has only defaults.
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned + JsonSchema + 'static> FromRequest<Api> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Api) -> Result<Self, ApiError> {
        let bytes = bytes_of(request).await?;
        // First: what is there and wrong is told before what nobody knows.
        let body = read(&bytes)?;
        if !bytes.is_empty() {
            members::check_body::<T>(&read(&bytes)?)?;
        }
        Ok(Self(body))
    }
}

/// A JSON body of a protocol in which whoever answers takes what it knows: GraphQL's.
pub(super) struct Loose<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Loose<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Api) -> Result<Self, ApiError> {
        read(&bytes_of(request).await?).map(Self)
    }
}

/// A body with the configuration of a machine, every member of which is read or refused by name.
pub(super) struct Configured<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Api> for Configured<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Api) -> Result<Self, ApiError> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Config {
            config: serde_json::Value,
        }
        let bytes = bytes_of(request).await?;
        // First: what is there and wrong is told before what nobody knows.
        let body = read(&bytes)?;
        let Config { config } = read(&bytes)?;
        members::check_config(&config)?;
        Ok(Self(body))
    }
}

async fn bytes_of(request: Request) -> Result<Bytes, ApiError> {
    let bytes = to_bytes(request.into_body(), BODY_BYTES_MAX).await;
    bytes.map_err(|_| ApiError::BodyTooLarge {
        bytes_max: BODY_BYTES_MAX,
    })
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let text: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    let mut reader = serde_json::Deserializer::from_slice(text);
    let body = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        // Which member, so that nobody has to count columns.
        let path = error.path().to_string();
        // A question mark is a member whose name could not be read.
        let path: String = path
            .trim_end_matches(['.', '?'])
            .chars()
            .take(200)
            .collect();
        let path = match path.as_str() {
            "" => path,
            path => format!("{path}: "),
        };
        ApiError::bad(format!("cannot read the body: {path}{}", error.inner()))
    })?;
    let end = reader.end();
    end.map_err(|error| ApiError::bad(format!("cannot read the body: {error}")))?;
    Ok(body)
}

/// The pairs of a query, in their order.
pub(super) struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(
            form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        ))
    }
}

impl Query {
    /// The first value; an empty one counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self
            .0
            .iter()
            .find(|(key, value)| key == name && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let found = self.0.iter().filter(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).collect()
    }

    /// Values that may be repeated or separated by commas.
    pub(super) fn csv(&self, name: &str) -> Vec<&str> {
        let found = self.0.iter().filter(|(key, _)| key == name);
        found
            .flat_map(|(_, value)| value.split(','))
            .filter(|text| !text.is_empty())
            .collect()
    }

    /// Names without a value. Fly's client writes a list of states so: `?started,stopped`.
    pub(super) fn bare(&self) -> impl Iterator<Item = &str> {
        let bare = self.0.iter().filter(|(_, value)| value.is_empty());
        bare.flat_map(|(key, _)| key.split(','))
            .filter(|word| !word.is_empty())
    }

    /// `metadata.{key}=value` pairs, for the prefix `metadata.`.
    pub(super) fn with_prefix<'a>(
        &'a self,
        prefix: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.0.iter();
        pairs.filter_map(move |(key, value)| Some((key.strip_prefix(prefix)?, value.as_str())))
    }

    /// `true`, or the name alone.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self
            .0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
        {
            None | Some("false" | "0") => Ok(false),
            Some("true" | "1" | "") => Ok(true),
            Some(_) => Err(ApiError::bad(format!("{name} must be true or false"))),
        }
    }

    pub(super) fn parse<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, ApiError> {
        let value = self.get(name).map(str::parse).transpose();
        value.map_err(|_| ApiError::bad(format!("{name} must be {what}")))
    }
}

/// Go's text (`1m30s`) or whole seconds.
pub(super) fn seconds(text: &str) -> Result<Duration, ApiError> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let parsed: Result<types::machine::Duration, ()> = text.parse();
    let problem = |()| ApiError::bad("timeout must be seconds, or text like 1m30s".into());
    parsed.map(|duration| duration.0).map_err(problem)
}

/// Names in a path.
#[derive(Debug, Deserialize)]
struct Names {
    app: String,
    id: Option<String>,
}

async fn names(parts: &mut Parts, api: &Api) -> Result<Names, ApiError> {
    // Routes that use this have these names in their path, so only bad escapes end here.
    let names = Path::<Names>::from_request_parts(parts, api).await;
    names
        .map(|Path(names)| names)
        .map_err(|_| ApiError::bad("the path cannot be read".into()))
}

/// The app that the path names.
impl FromRequestParts<Api> for directory::App {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        find_app(api, &names(parts, api).await?.app).await
    }
}

async fn find_app(api: &Api, name: &str) -> Result<directory::App, ApiError> {
    let missing = || ApiError::AppNotFound {
        name: name.chars().take(80).collect(),
    };
    let name: AppName = name.parse().map_err(|_| missing())?;
    Ok(api.deps.directory.app(&name).await?)
}

/// The machine that the path names; it belongs to the app that the path names.
pub(super) struct Target {
    pub(super) id: MachineId,
    /// As the catalog has it. Whoever must be right asks the worker.
    pub(super) entry: Arc<Entry>,
}

impl FromRequestParts<Api> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let names = names(parts, api).await?;
        let app = find_app(api, &names.app).await?;
        let id: MachineId = names
            .id
            .unwrap_or_default()
            .parse()
            .map_err(|_| ApiError::MachineNotFound)?;
        let entry = api
            .deps
            .catalog
            .get(&id)
            .filter(|entry| entry.app == app.name);
        Ok(Self {
            id,
            entry: entry.ok_or(ApiError::MachineNotFound)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query(
            form_urlencoded::parse(text.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    #[test]
    fn a_query_is_read_as_fly_s_clients_write_it() {
        let query = query("state=started,stopped&state=failed&metadata.a%2Fb=c&force=true&x=&n=7");
        assert_eq!(query.csv("state"), ["started", "stopped", "failed"]);
        assert_eq!(
            query.with_prefix("metadata.").collect::<Vec<_>>(),
            [("a/b", "c")]
        );
        assert!(query.flag("force").unwrap());
        assert!(!query.flag("kill").unwrap());
        assert_eq!(query.get("x"), None);
        assert_eq!(query.parse::<u32>("n", "a number").unwrap(), Some(7));
        assert!(query.parse::<u32>("force", "a number").is_err());
        assert_eq!(query.bare().collect::<Vec<_>>(), ["x"]);
    }

    #[test]
    fn what_cannot_be_read_is_named_with_what_it_may_be() {
        use types::api::CreateMachine;
        let told = |text: &str| match read::<CreateMachine>(text.as_bytes()) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        };
        for (text, starts) in [
            (
                r#"{"config": {"restart": {"policy": "sometimes"}}}"#,
                "cannot read the body: config.restart.policy: unknown variant `sometimes`, \
                 expected one of `no`, `on-failure`, `always`",
            ),
            (
                r#"{"config": {"containers": [{}, {"env": 1}]}}"#,
                "cannot read the body: config.containers[1].env: invalid type: integer",
            ),
            ("{bad", "cannot read the body: key must be a string"),
            ("{} {}", "cannot read the body: trailing characters"),
        ] {
            assert!(told(text).starts_with(starts), "{}", told(text));
        }
    }

    #[test]
    fn a_time_is_go_s_text_or_seconds() {
        assert_eq!(seconds("10").unwrap(), Duration::from_secs(10));
        assert_eq!(seconds("1m30s").unwrap(), Duration::from_secs(90));
        assert!(seconds("soon").is_err());
    }
}
