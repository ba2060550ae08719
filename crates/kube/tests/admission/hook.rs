//! A webhook server that a test tells what to answer.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Response;
use serde_json::{Value, json};

use crate::common::tls::TlsServer;

type Answer = Arc<dyn Fn(&Value) -> Value + Send + Sync>;

/// The name that the certificate is for, beside `localhost`.
const SERVICE: &str = "hook.default.svc";

pub(crate) struct Hook {
    server: TlsServer,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Hook {
    /// `answer` makes the `response` of a review of its `request`; the uid is filled in. What has
    /// a field `raw` is answered as it is, `delay_ms` after that time.
    pub(crate) async fn start(answer: impl Fn(&Value) -> Value + Send + Sync + 'static) -> Self {
        let answer: Answer = Arc::new(answer);
        let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
        let heard = asked.clone();
        let server = TlsServer::start(&["localhost", SERVICE], move |request| {
            let (heard, answer) = (heard.clone(), answer.clone());
            async move {
                let body = request.into_body().collect().await;
                let text = review(&body.expect("a body").to_bytes(), &heard, &answer).await;
                Response::new(Full::new(Bytes::from(text)))
            }
        });
        let server = server.await;
        Self { server, asked }
    }

    pub(crate) fn port(&self) -> u16 {
        self.server.port
    }

    pub(crate) fn asked(&self) -> Vec<Value> {
        self.asked.lock().expect("no panic").clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.server.connections()
    }

    /// A `clientConfig` by URL.
    pub(crate) fn by_url(&self) -> Value {
        let url = format!("https://localhost:{}/hook", self.port());
        json!({"url": url, "caBundle": self.server.bundle()})
    }

    /// A `clientConfig` by service.
    pub(crate) fn by_service(&self) -> Value {
        json!({"service": {"namespace": "default", "name": "hook", "path": "/hook"},
            "caBundle": self.server.bundle()})
    }
}

async fn review(body: &[u8], heard: &Mutex<Vec<Value>>, answer: &Answer) -> String {
    let review: Value = serde_json::from_slice(body).expect("JSON");
    let question = &review["request"];
    heard.lock().expect("no panic").push(question.clone());
    let mut response = answer(question);
    if let Some(delay) = response["delay_ms"].as_u64() {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    if let Some(raw) = response["raw"].as_str() {
        return raw.to_owned();
    }
    response["uid"] = question["uid"].clone();
    json!({"kind": "AdmissionReview", "apiVersion": review["apiVersion"], "response": response})
        .to_string()
}

/// The patch of a response.
pub(crate) fn patch(operations: &Value) -> Value {
    json!({"allowed": true, "patchType": "JSONPatch",
        "patch": BASE64_STANDARD.encode(operations.to_string())})
}
