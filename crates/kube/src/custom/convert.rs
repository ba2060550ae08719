//! Conversion between the versions of a custom kind: by name alone, or by its webhook.

use std::time::Duration;

use futures::future::BoxFuture;
use serde_json::{Value, json};

use crate::egress::{Client, Endpoint, client_config};
use crate::object::{self, text};
use crate::status::Status;

/// Upstream's bound for a webhook's answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Objects in one question. A list of many is asked about in parts, which keeps questions and
/// answers under the size of a request.
const OBJECTS_MAX: usize = 100;

/// How objects get from one version to another.
#[derive(Debug)]
pub(crate) enum Conversion {
    /// All versions have the same fields.
    None,
    Webhook(Webhook),
}

#[derive(Debug)]
pub(crate) struct Webhook {
    client: Client,
    /// Where it is and its path there, or what is wrong with that.
    endpoint: Result<(Endpoint, String), String>,
    /// Of `ConversionReview`.
    review_version: &'static str,
    kind: String,
}

impl Conversion {
    pub(crate) fn parse(spec: &Value, client: &Client) -> Self {
        let conversion = &spec["conversion"];
        if text(conversion, &["strategy"]) != "Webhook" {
            return Self::None;
        }
        let webhook = &conversion["webhook"];
        let versions = object::items(webhook, &["conversionReviewVersions"]);
        let known = |version: &Value| match version.as_str() {
            Some("v1") => Some("v1"),
            Some("v1beta1") => Some("v1beta1"),
            Some(_) | None => None,
        };
        Self::Webhook(Webhook {
            client: client.clone(),
            endpoint: client_config(&webhook["clientConfig"]),
            review_version: versions.iter().find_map(known).unwrap_or("v1"),
            kind: text(spec, &["names", "kind"]).to_owned(),
        })
    }

    /// Objects of any version, in `wanted`. Boxed, because every read and write would hold the
    /// future of a request else.
    pub(crate) fn convert<'a>(
        &'a self,
        objects: Vec<Value>,
        wanted: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Value>, Status>> {
        let is_other = |object: &Value| text(object, &["apiVersion"]) != wanted;
        match self {
            Self::None => {
                let objects = objects.into_iter().map(|object| named(object, wanted));
                let objects = objects.collect();
                Box::pin(std::future::ready(Ok(objects)))
            }
            Self::Webhook(_) if !objects.iter().any(is_other) => {
                Box::pin(std::future::ready(Ok(objects)))
            }
            Self::Webhook(webhook) => Box::pin(webhook.convert_all(objects, wanted)),
        }
    }
}

fn named(mut object: Value, wanted: &str) -> Value {
    object["apiVersion"] = wanted.into();
    object
}

impl Webhook {
    async fn convert_all(
        &self,
        mut objects: Vec<Value>,
        wanted: &str,
    ) -> Result<Vec<Value>, Status> {
        let others: Vec<_> = objects
            .iter()
            .enumerate()
            .filter(|(_, object)| text(object, &["apiVersion"]) != wanted)
            .map(|(index, _)| index)
            .collect();
        for part in others.chunks(OBJECTS_MAX) {
            let given: Vec<_> = part.iter().map(|index| objects[*index].clone()).collect();
            let from = text(&given[0], &["apiVersion"]).to_owned();
            let converted = self.ask(&given, wanted).await.map_err(|why| {
                Status::internal(format!(
                    "conversion webhook for {from}, Kind={} failed: {why}",
                    self.kind
                ))
            })?;
            for (index, object) in part.iter().zip(converted) {
                objects[*index] = object;
            }
        }
        Ok(objects)
    }

    async fn ask(&self, given: &[Value], wanted: &str) -> Result<Vec<Value>, String> {
        let (endpoint, path) = self.endpoint.as_ref().map_err(Clone::clone)?;
        let uid = uuid::Uuid::new_v4().to_string();
        let review = json!({
            "kind": "ConversionReview",
            "apiVersion": format!("apiextensions.k8s.io/{}", self.review_version),
            "request": {"uid": uid, "desiredAPIVersion": wanted, "objects": given},
        });
        let body = review.to_string().into();
        let answer = self.client.post(endpoint, path, body, TIMEOUT).await;
        let url = format!("https://{}{path}?timeout=30s", endpoint.address.authority());
        let answer = answer.map_err(|error| format!("Post {url:?}: {error}"))?;
        if answer.code != 200 {
            let code = answer.code;
            return Err(format!("the server answered with code {code}"));
        }
        let answer: Value = serde_json::from_slice(&answer.body)
            .map_err(|error| format!("the answer is not valid JSON: {error}"))?;
        check(&answer, &uid, given, wanted)
    }
}

/// What the answer of a webhook has to be.
fn check(answer: &Value, uid: &str, given: &[Value], wanted: &str) -> Result<Vec<Value>, String> {
    let response = answer.get("response").ok_or("no response provided")?;
    if text(response, &["uid"]) != uid {
        let found = text(response, &["uid"]);
        return Err(format!("expected response.uid={uid:?}, got {found:?}"));
    }
    if text(response, &["result", "status"]) != "Success" {
        let why = match text(response, &["result", "message"]) {
            "" => "no message provided",
            why => why,
        };
        return Err(why.to_owned());
    }
    let converted = object::items(response, &["convertedObjects"]);
    if converted.len() != given.len() {
        return Err(format!(
            "expected {} converted objects, got {}",
            given.len(),
            converted.len()
        ));
    }
    let pairs = given.iter().zip(converted).enumerate();
    let checked = pairs.map(|(index, (before, after))| {
        restore(before, after, wanted)
            .map_err(|why| format!("invalid converted object at index {index}: {why}"))
    });
    checked.collect()
}

/// A webhook may change labels and annotations; all other metadata stays.
fn restore(before: &Value, after: &Value, wanted: &str) -> Result<Value, String> {
    let version = text(after, &["apiVersion"]);
    if version != wanted {
        return Err(format!(
            "invalid groupVersion (expected {wanted}, received {version})"
        ));
    }
    let (kind, expected) = (text(after, &["kind"]), text(before, &["kind"]));
    if kind != expected {
        return Err(format!(
            "invalid kind (expected {expected}, received {kind})"
        ));
    }
    for (what, found, expected) in [
        ("name", object::name(after), object::name(before)),
        (
            "namespace",
            object::namespace(after).unwrap_or_default(),
            object::namespace(before).unwrap_or_default(),
        ),
        ("UID", object::uid(after), object::uid(before)),
    ] {
        if found != expected {
            return Err(format!(
                "must have the same {what}: {found:?} and {expected:?}"
            ));
        }
    }
    let mut object = after.clone();
    let mut meta = before["metadata"].clone();
    for field in ["labels", "annotations"] {
        match after["metadata"].get(field) {
            Some(value) => meta[field] = value.clone(),
            None => drop(meta.as_object_mut().and_then(|meta| meta.remove(field))),
        }
    }
    object["metadata"] = meta;
    Ok(object)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(version: &str) -> Value {
        json!({"apiVersion": format!("ex.com/{version}"), "kind": "Foo",
            "metadata": {"name": "a", "uid": "u", "labels": {"x": "1"}}})
    }

    #[test]
    fn an_answer_has_to_fit_its_question() {
        let mut converted = object("v2");
        converted["metadata"]["labels"]["x"] = "2".into();
        converted["metadata"]["finalizers"] = json!(["mine"]);
        let answer = json!({"response": {"uid": "q", "result": {"status": "Success"},
            "convertedObjects": [converted]}});
        let given = [object("v1")];
        let found = check(&answer, "q", &given, "ex.com/v2").expect("fits");
        assert_eq!(found[0]["metadata"]["labels"]["x"], "2");
        assert!(found[0]["metadata"].get("finalizers").is_none());
        let wrong = |answer: &Value, uid: &str, wanted: &str| {
            check(answer, uid, &given, wanted).expect_err("refused")
        };
        assert_eq!(
            wrong(&answer, "p", "ex.com/v2"),
            "expected response.uid=\"p\", got \"q\""
        );
        assert!(wrong(&answer, "q", "ex.com/v3").contains("invalid groupVersion"));
        let failed = json!({"response": {"uid": "q", "result": {"status": "Failed",
            "message": "no way"}}});
        assert_eq!(wrong(&failed, "q", "ex.com/v2"), "no way");
    }
}
