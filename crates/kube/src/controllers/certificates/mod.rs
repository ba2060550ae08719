//! CertificateSigningRequests: who is approved by itself, what is signed, and what is forgotten.

mod request;

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::request::{Request, Signer};
use super::hands::Hands;
use super::pods::{condition, has_condition, number};
use super::queue::Outcome;
use super::reconcile::Controller;
use super::watches::{Changed, Watches};
use crate::api::Api;
use crate::object;
use crate::pki::Pki;
use crate::resource::{CERTIFICATE_SIGNING_REQUESTS, Resource};
use crate::status::Status;
use crate::time;

/// How long requests are kept, by upstream's times.
const PENDING_KEPT: SignedDuration = SignedDuration::from_hours(24);
const DECIDED_KEPT: SignedDuration = SignedDuration::from_hours(1);

pub(super) struct Certificates {
    hands: Hands,
    pki: Arc<Pki>,
}

impl Certificates {
    pub(super) fn new(api: &Api, watches: &Watches, pki: Arc<Pki>) -> Self {
        let hands = Hands::new(api, watches, "certificate-controller");
        Self { hands, pki }
    }
}

/// What to do with a request as it is.
#[derive(Debug, PartialEq)]
enum Step {
    Nothing,
    Approve,
    Sign,
    Refuse(String),
    Forget,
}

fn step(csr: &Value, now: Timestamp) -> (Step, Option<Duration>) {
    let left = left(csr, now);
    if left == Some(Duration::ZERO) {
        return (Step::Forget, None);
    }
    let is_over = has_condition(csr, "Denied") || has_condition(csr, "Failed");
    let is_signed = !object::text(csr, &["status", "certificate"]).is_empty();
    let signer = Signer::named(object::text(csr, &["spec", "signerName"]));
    let (Some(signer), false, false) = (signer, is_over, is_signed) else {
        return (Step::Nothing, left);
    };
    let request = Request::parse(csr);
    let step = match (has_condition(csr, "Approved"), request) {
        (true, Ok(request)) => match signer.fault(csr, &request) {
            None => Step::Sign,
            Some(why) => Step::Refuse(why),
        },
        (true, Err(why)) => Step::Refuse(why),
        (false, Ok(request)) if is_own_of_node(csr, signer, &request) => Step::Approve,
        (false, Ok(_) | Err(_)) => Step::Nothing,
    };
    (step, left)
}

/// A node asks for its own client certificate, in the name that it has already.
fn is_own_of_node(csr: &Value, signer: Signer, request: &Request) -> bool {
    let groups = object::items(csr, &["spec", "groups"]);
    signer == Signer::KubeletClient
        && groups.iter().any(|group| group == "system:nodes")
        && csr["spec"]["username"] == request.common_name.as_str()
        && signer.fault(csr, request).is_none()
}

/// How long it is still kept; none if for good.
fn left(csr: &Value, now: Timestamp) -> Option<Duration> {
    let since = |kind: &str| {
        let found = condition(csr, kind)?;
        time::parse(object::text(found, &["lastUpdateTime"]))
            .or_else(|| time::parse(object::text(found, &["lastTransitionTime"])))
    };
    let made = object::meta(csr, "creationTimestamp").and_then(time::parse);
    let is_signed = !object::text(csr, &["status", "certificate"]).is_empty();
    let end = match (since("Approved"), since("Denied"), since("Failed")) {
        (_, Some(at), _) | (_, _, Some(at)) => Some(at + DECIDED_KEPT),
        (Some(at), None, None) if is_signed => Some(at + DECIDED_KEPT),
        _ => made.map(|made| made + PENDING_KEPT),
    };
    let left = end?.duration_since(now);
    Some(Duration::try_from(left).unwrap_or(Duration::ZERO))
}

fn with_condition(csr: &Value, kind: &str, reason: &str, message: &str, now: Timestamp) -> Value {
    let mut csr = csr.clone();
    let at = time::seconds(now);
    let mut all = object::items(&csr, &["status", "conditions"]).to_vec();
    all.push(
        json!({"type": kind, "status": "True", "reason": reason, "message": message,
        "lastUpdateTime": at, "lastTransitionTime": at}),
    );
    object::map_mut(&mut csr, "status").insert("conditions".into(), all.into());
    csr
}

impl Controller for Certificates {
    const NAME: &'static str = "certificates";
    const WATCHED: &'static [&'static Resource] = &[&CERTIFICATE_SIGNING_REQUESTS];

    fn concerns(&self, changed: &Changed) -> Vec<String> {
        vec![changed.key()]
    }

    async fn sync(&self, at: &str) -> Result<Outcome, Status> {
        let hands = &self.hands;
        let Some(csr) = hands.known.get(&CERTIFICATE_SIGNING_REQUESTS, at) else {
            return Ok(Outcome::Done);
        };
        let now = Timestamp::now();
        let (step, left) = step(&csr, now);
        let is_approval = step == Step::Approve;
        let changed = match step {
            Step::Nothing => None,
            Step::Forget => {
                hands.delete(&CERTIFICATE_SIGNING_REQUESTS, &csr).await?;
                return Ok(Outcome::Done);
            }
            Step::Approve => {
                let why = "Auto approving self kubelet client certificate after \
                           SubjectAccessReview.";
                Some(with_condition(&csr, "Approved", "AutoApproved", why, now))
            }
            Step::Refuse(why) => {
                let reason = "SignerValidationFailure";
                Some(with_condition(&csr, "Failed", reason, &why, now))
            }
            Step::Sign => Some(self.signed(&csr, now)),
        };
        if let Some(changed) = changed {
            if is_approval {
                let written = hands.api.update_approval(changed).await?;
                hands.known.wrote(&CERTIFICATE_SIGNING_REQUESTS, &written);
                return Ok(left.map_or(Outcome::Done, Outcome::After));
            }
            let status = changed["status"].clone();
            hands
                .update_status(&CERTIFICATE_SIGNING_REQUESTS, &csr, status)
                .await?;
        }
        Ok(left.map_or(Outcome::Done, Outcome::After))
    }
}

impl Certificates {
    fn signed(&self, csr: &Value, now: Timestamp) -> Value {
        let asked_s = number(csr, &["spec", "expirationSeconds"]);
        let usages = object::items(csr, &["spec", "usages"]).iter();
        let usages: Vec<_> = usages.filter_map(Value::as_str).collect();
        let pem = request::pem(csr).unwrap_or_default();
        match self.pki.sign_request(&pem, &usages, asked_s, now) {
            Ok(certificate) => {
                let mut csr = csr.clone();
                let text = BASE64_STANDARD.encode(certificate);
                object::map_mut(&mut csr, "status").insert("certificate".into(), text.into());
                csr
            }
            Err(error) => {
                let why = format!("error signing certificate: {error}");
                with_condition(csr, "Failed", "SigningError", &why, now)
            }
        }
    }
}

#[cfg(test)]
mod tests;
