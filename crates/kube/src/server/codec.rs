//! Bodies in, representations out.

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{ACCEPT, CONTENT_TYPE};
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
pub(super) const AVAILABLE: &str = "application/json, application/json;stream=watch";

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
    negotiate_text(header(request, ACCEPT))
}

pub(super) fn negotiate_text(accept: &str) -> Result<Representation, Status> {
    if accept.trim().is_empty() {
        return Ok(Representation::Object);
    }
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        if !matches!(media_type, "application/json" | "application/*" | "*/*") {
            continue;
        }
        let parameter = |name: &str| {
            range
                .split(';')
                .filter_map(|part| part.trim().split_once('='))
                .find_map(|(key, value)| {
                    (key.trim() == name).then(|| value.trim().trim_matches('"'))
                })
        };
        match (parameter("as"), parameter("v")) {
            (None, _) => return Ok(Representation::Object),
            (Some("Table"), Some("v1")) => return Ok(Representation::Table),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => {
                return Ok(Representation::Partial);
            }
            // A form that we do not have; the client names others.
            (Some(_), _) => {}
        }
    }
    Err(Status::not_acceptable(AVAILABLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_is_served_wins() {
        let table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        for (accept, expected) in [
            ("", Representation::Object),
            ("application/json, */*", Representation::Object),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                Representation::Object,
            ),
            (table, Representation::Table),
            (
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
                Representation::Partial,
            ),
        ] {
            assert_eq!(
                negotiate_text(accept).expect("served"),
                expected,
                "{accept}"
            );
        }
        assert_eq!(negotiate_text("image/png").expect_err("refused").code, 406);
    }
}
