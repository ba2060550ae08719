//! Bodies in, representations out.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response};
use serde_json::{Map, Value};

use super::audit::Recorder;
use crate::api::Given;
use crate::schema;
use crate::status::Status;
use crate::strict::{self, Form, Read, Text};
use crate::yaml;

/// Upstream's bound.
const BODY_BYTES_MAX: usize = 3 * 1024 * 1024;
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
pub(super) const AVAILABLE: &str =
    "application/json, application/yaml, application/json;stream=watch";
const YAML: &str = "application/yaml";

/// A body and what it says it is.
#[derive(Default)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// Media type without parameters, lowercase; empty if the client does not say.
    pub(super) media_type: String,
    /// Who wants to know what is in it.
    recorder: Option<Recorder>,
}

pub(super) async fn read(request: Request<Incoming>) -> Result<Body, Status> {
    let media_type = header(&request, CONTENT_TYPE)
        .split(';')
        .next()
        .unwrap_or_default();
    let media_type = media_type.trim().to_lowercase();
    let recorder = request.extensions().get::<Recorder>().cloned();
    let limited = Limited::new(request.into_body(), BODY_BYTES_MAX);
    let collected = limited.collect().await.map_err(|error| {
        if error.is::<http_body_util::LengthLimitError>() {
            Status::request_too_large(BODY_BYTES_MAX)
        } else {
            Status::bad_request(format!("the body of the request was not received: {error}"))
        }
    })?;
    Ok(Body {
        bytes: collected.to_bytes(),
        media_type,
        recorder,
    })
}

pub(super) fn header<B>(request: &Request<B>, name: hyper::header::HeaderName) -> &str {
    request
        .headers()
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

impl Body {
    /// The object in the body; `type_name` is what protobuf is decoded as.
    pub(super) fn object(&self, type_name: &str) -> Result<Value, Status> {
        self.given(type_name).map(|given| given.object)
    }

    /// [`Body::object`] with the text it was read from.
    pub(super) fn given(&self, type_name: &str) -> Result<Given, Status> {
        match self.media_type.as_str() {
            // A struct is read into; the fields of a custom resource are a map.
            "" | "application/json" if type_name.is_empty() => self.json_as::<false>(),
            "" | "application/json" => self.json_as::<true>(),
            // Custom resources have no protobuf form.
            PROTOBUF if !type_name.is_empty() => {
                let schema = schema::type_named(type_name)
                    .ok_or_else(|| Status::internal(format!("{type_name} has no schema")))?;
                let object = schema::protobuf::decode(schema.get(), &self.bytes);
                self.recorded(object.map_err(|error| Status::bad_request(error.to_string())))
                    .map(Given::from)
            }
            "application/yaml" => self.yaml(),
            _ => Err(Status::unsupported_media_type(&format!(
                "application/json, application/yaml, {PROTOBUF}"
            ))),
        }
    }

    fn recorded(&self, object: Result<Value, Status>) -> Result<Value, Status> {
        if let (Some(recorder), Ok(object)) = (&self.recorder, &object) {
            recorder.put(object);
        }
        object
    }

    /// What stands twice is gone when YAML has become JSON, so nothing is merged.
    fn yaml(&self) -> Result<Given, Status> {
        let read = yaml::read::<false>(&self.bytes).map_err(|error| {
            Status::bad_request(format!(
                "the body of the request is not valid YAML: {error}"
            ))
        })?;
        self.told(read, Form::Yaml)
    }

    fn told<const MERGE: bool>(&self, read: Read<MERGE>, form: Form) -> Result<Given, Status> {
        let object = self.recorded(Ok(read.value))?;
        let text = Text {
            bytes: self.bytes.clone(),
            form,
            is_repeated: read.is_repeated,
        };
        let text = Some(text);
        Ok(Given { object, text })
    }

    /// What a server-side apply wants, in YAML.
    pub(super) fn wanted(&self) -> Result<Given, Status> {
        let mut read = yaml::read::<false>(&self.bytes)
            .map_err(|error| Status::bad_request(format!("error decoding patch: {error}")))?;
        match read.value {
            // Nothing is wanted of nothing.
            Value::Null => read.value = Value::Object(Map::new()),
            Value::Object(_) => {}
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(Status::bad_request("error decoding patch: it is not a map"));
            }
        }
        self.told(read, Form::Yaml)
    }

    /// A patch in JSON.
    pub(super) fn json(&self) -> Result<Given, Status> {
        self.json_as::<false>()
    }

    fn json_as<const MERGE: bool>(&self) -> Result<Given, Status> {
        let read = strict::from_json::<MERGE>(&self.bytes).map_err(|error| {
            Status::bad_request(format!(
                "the body of the request is not valid JSON: {error}"
            ))
        })?;
        self.told(read, Form::Json)
    }
}

/// How the client wants objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Representation {
    Object,
    Table,
    /// Only the metadata.
    Partial,
}

/// The first representation of `Accept` that is served.
pub(super) fn negotiate(request: &Request<Incoming>) -> Result<Representation, Status> {
    negotiate_text(header(request, ACCEPT)).map(|(representation, _)| representation)
}

/// [`negotiate`] for a stream, which is in JSON.
pub(super) fn negotiate_watch(request: &Request<Incoming>) -> Result<Representation, Status> {
    match negotiate_text(header(request, ACCEPT))? {
        (representation, Encoding::Json) => Ok(representation),
        (_, Encoding::Yaml) => Err(Status {
            message: "only the following media types are accepted: application/json;stream=watch"
                .to_owned(),
            ..Status::not_acceptable(AVAILABLE)
        }),
    }
}

/// Whether the answer is wanted in YAML.
pub(super) fn wants_yaml(request: &Request<Incoming>) -> bool {
    let accept = header(request, ACCEPT);
    accept.contains(YAML) && matches!(negotiate_text(accept), Ok((_, Encoding::Yaml)))
}

/// How objects are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Json,
    Yaml,
}

pub(super) fn negotiate_text(accept: &str) -> Result<(Representation, Encoding), Status> {
    if accept.trim().is_empty() {
        return Ok((Representation::Object, Encoding::Json));
    }
    let mut ranges: Vec<_> = accept.split(',').collect();
    // What is wanted most is looked at first, and of equals the first.
    if accept.contains("q=") {
        ranges.sort_by(|one, other| quality(other).total_cmp(&quality(one)));
    }
    for range in ranges {
        let encoding = match range.split(';').next().unwrap_or_default().trim() {
            "application/json" | "application/*" | "*/*" => Encoding::Json,
            YAML => Encoding::Yaml,
            _ => continue,
        };
        let served = match (parameter(range, "as"), parameter(range, "v")) {
            (None, _) => Representation::Object,
            (Some("Table"), Some("v1")) => Representation::Table,
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => {
                Representation::Partial
            }
            // A form that we do not have; the client names others.
            (Some(_), _) => continue,
        };
        return Ok((served, encoding));
    }
    Err(Status::not_acceptable(AVAILABLE))
}

fn parameter<'a>(range: &'a str, name: &str) -> Option<&'a str> {
    let mut pairs = range
        .split(';')
        .filter_map(|part| part.trim().split_once('='));
    pairs.find_map(|(key, value)| (key.trim() == name).then(|| value.trim().trim_matches('"')))
}

fn quality(range: &str) -> f32 {
    let quality = parameter(range, "q").and_then(|quality| quality.parse().ok());
    quality.unwrap_or(1.0)
}

/// An answer in YAML, if it is an object in JSON.
pub(super) async fn in_yaml(response: Response<super::body::Body>) -> Response<super::body::Body> {
    let (mut parts, body) = response.into_parts();
    let is_json = parts
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind == "application/json");
    if !is_json {
        return Response::from_parts(parts, body);
    }
    let read = body.collect().await.ok().and_then(|read| {
        let value: Value = serde_json::from_slice(&read.to_bytes()).ok()?;
        serde_saphyr::to_string(&value).ok()
    });
    let Some(text) = read else {
        let status = Status::internal("the answer cannot be written in YAML");
        return super::respond::status(&status);
    };
    parts
        .headers
        .insert(CONTENT_TYPE, HeaderValue::from_static(YAML));
    parts.headers.remove(CONTENT_LENGTH);
    Response::from_parts(parts, super::body::full(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_is_served_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        use Encoding::{Json, Yaml};
        for (accept, expected, encoding) in [
            ("", Representation::Object, Json),
            ("application/json, */*", Representation::Object, Json),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Representation::Object,
                Json,
            ),
            (table, Representation::Table, Json),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Representation::Partial,
                Json,
            ),
            ("application/yaml", Representation::Object, Yaml),
            (
                "application/json;q=0.1,application/yaml;q=0.9",
                Representation::Object,
                Yaml,
            ),
            (
                "application/yaml;as=Table;v=v1;g=meta.k8s.io",
                Representation::Table,
                Yaml,
            ),
        ] {
            assert_eq!(
                negotiate_text(accept).expect("served"),
                (expected, encoding),
                "{accept}"
            );
        }
        assert_eq!(negotiate_text("image/png").expect_err("refused").code, 406);
    }
}
