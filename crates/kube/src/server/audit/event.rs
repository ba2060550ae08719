//! One event: `audit.k8s.io/v1 Event`.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::policy::{Level, Stage};
use crate::identity::User;
use crate::rbac::{Asked, Request};
use crate::time;

/// What is known of a request when it arrives and is let in.
#[derive(Debug)]
pub(super) struct About {
    pub(super) id: String,
    pub(super) level: Level,
    pub(super) uri: String,
    pub(super) user: User,
    /// In whose name it is done, if it is somebody else's.
    pub(super) acting: Option<User>,
    pub(super) source: Option<String>,
    pub(super) agent: String,
    pub(super) asked: Request,
    pub(super) version: String,
    pub(super) received: Timestamp,
}

/// A moment of a request, as it is written. It becomes text in the writer's thread.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) about: Arc<About>,
    pub(super) stage: Stage,
    pub(super) at: Timestamp,
    pub(super) code: Option<u16>,
    pub(super) request: Option<Value>,
    /// The body of the answer.
    pub(super) response: Option<Bytes>,
    pub(super) annotations: BTreeMap<String, String>,
}

impl Event {
    pub(super) fn to_json(&self) -> Value {
        let about = &self.about;
        let level = match about.level {
            Level::None => "None",
            Level::Metadata => "Metadata",
            Level::Request => "Request",
            Level::RequestResponse => "RequestResponse",
        };
        let stage = match self.stage {
            Stage::RequestReceived => "RequestReceived",
            Stage::ResponseStarted => "ResponseStarted",
            Stage::ResponseComplete => "ResponseComplete",
            Stage::Panic => "Panic",
        };
        let mut event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": level,
            "auditID": about.id, "stage": stage, "requestURI": about.uri,
            "verb": about.asked.verb, "user": about.user.to_json(),
        });
        let mut put = |field: &str, value: Value| event[field] = value;
        if let Some(acting) = &about.acting {
            put("impersonatedUser", acting.to_json());
        }
        if let Some(source) = &about.source {
            put("sourceIPs", json!([source]));
        }
        if !about.agent.is_empty() {
            put("userAgent", about.agent.as_str().into());
        }
        if let Some(reference) = self.reference() {
            put("objectRef", reference);
        }
        let answer: Option<Value> = self
            .response
            .as_ref()
            .and_then(|body| serde_json::from_slice(body).ok());
        if let Some(code) = self.code {
            put("responseStatus", status(code, answer.as_ref()));
        }
        if let (Some(request), true) = (&self.request, about.level >= Level::Request) {
            put("requestObject", request.clone());
        }
        if let (Some(answer), true) = (answer, about.level >= Level::RequestResponse) {
            put("responseObject", answer);
        }
        put(
            "requestReceivedTimestamp",
            time::micros(about.received).into(),
        );
        put("stageTimestamp", time::micros(self.at).into());
        if !self.annotations.is_empty() {
            put("annotations", json!(self.annotations));
        }
        event
    }

    fn reference(&self) -> Option<Value> {
        let Asked::Resource {
            group,
            resource,
            subresource,
            namespace,
            name,
        } = &self.about.asked.asked
        else {
            return None;
        };
        let fields = [
            ("resource", resource),
            ("namespace", namespace),
            ("name", name),
            ("apiGroup", group),
            ("apiVersion", &self.about.version),
            ("subresource", subresource),
        ];
        let fields = fields.into_iter().filter(|(_, value)| !value.is_empty());
        let fields = fields.map(|(field, value)| (field.to_owned(), value.as_str().into()));
        Some(fields.collect::<Map<_, _>>().into())
    }

    #[cfg(test)]
    pub(super) fn example() -> Self {
        Self {
            about: Arc::new(About {
                id: "1".into(),
                level: Level::Metadata,
                uri: "/api/v1/pods".into(),
                user: User::anonymous(),
                acting: None,
                source: None,
                agent: String::new(),
                asked: Request::resource("list", "", "pods"),
                version: "v1".into(),
                received: Timestamp::UNIX_EPOCH,
            }),
            stage: Stage::ResponseComplete,
            at: Timestamp::UNIX_EPOCH,
            code: Some(200),
            request: None,
            response: None,
            annotations: BTreeMap::new(),
        }
    }
}

/// `responseStatus`: what a refusal says, without what an object is.
fn status(code: u16, answer: Option<&Value>) -> Value {
    let mut status = json!({"metadata": {}, "code": code});
    if let Some(answer) = answer.filter(|answer| answer["kind"] == "Status") {
        for field in ["status", "message", "reason", "details"] {
            if let Some(value) = answer.get(field) {
                status[field] = value.clone();
            }
        }
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_of_metadata_has_no_bodies() {
        let mut event = Event::example();
        let refusal = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden"});
        event.request = Some(json!({"secret": 1}));
        event.response = Some(refusal.to_string().into());
        event.code = Some(403);
        let json = event.to_json();
        assert_eq!(json["responseStatus"]["reason"], "Forbidden");
        assert_eq!(
            json["objectRef"],
            json!({"resource": "pods", "apiVersion": "v1"})
        );
        assert!(json.get("requestObject").is_none() && json.get("responseObject").is_none());
        assert_eq!(
            json["requestReceivedTimestamp"],
            "1970-01-01T00:00:00.000000Z"
        );
    }
}
