//! LimitRanger: what containers get that ask for nothing, and how much and how little a container,
//! a pod or a claim may ask for.

use serde_json::{Value, json};

use crate::admission::amounts::{self, Amount, Amounts, Side};
use crate::admission::{Attributes, Operation};
use crate::object;
use crate::resource::{PERSISTENT_VOLUME_CLAIMS, PODS};
use crate::status::Status;

const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// One item of a LimitRange.
struct Limit {
    kind: String,
    min: Amounts,
    max: Amounts,
    ratio: Amounts,
}

pub(super) fn mutate(attributes: &mut Attributes<'_>) {
    if attributes.operation != Operation::Create || !attributes.is_object(&PODS) {
        return;
    }
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    for item in items(attributes) {
        if item["type"] == "Container" {
            // A range is complete as upstream completes it, also one that was stored otherwise.
            let mut limit = amounts::amounts(&item["max"]);
            limit.extend(amounts::amounts(&item["default"]));
            let mut request = amounts::amounts(&item["min"]);
            request.extend(limit.clone());
            request.extend(amounts::amounts(&item["defaultRequest"]));
            limits.extend(limit);
            requests.extend(request);
        }
    }
    if requests.is_empty() && limits.is_empty() {
        return;
    }
    let mut notes = Vec::new();
    for (list, what) in [
        ("containers", "container"),
        ("initContainers", "init container"),
    ] {
        let containers = object::map_mut(&mut attributes.object, "spec").get_mut(list);
        for container in containers
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            let name = object::text(container, &["name"]).to_owned();
            for (side, wanted, word) in [
                (Side::Requests, &requests, "request"),
                (Side::Limits, &limits, "limit"),
            ] {
                let set = fill(container, side, wanted);
                if !set.is_empty() {
                    notes.push(format!("{} {word} for {what} {name}", set.join(", ")));
                }
            }
        }
    }
    if !notes.is_empty() {
        let meta = object::meta_mut(&mut attributes.object);
        let annotations = meta.entry("annotations").or_insert(json!({}));
        let note = format!("LimitRanger plugin set: {}", notes.join("; "));
        annotations[ANNOTATION] = note.into();
    }
}

/// Gives a container what it does not ask for itself; tells what it got.
fn fill(container: &mut Value, side: Side, wanted: &Amounts) -> Vec<String> {
    let present = amounts::of_container(container, side);
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(name, _)| !present.contains_key(*name))
        .collect();
    for (name, amount) in &missing {
        let resources = object::ensure_at(container, "resources");
        let list = object::map_mut(resources, side.as_str());
        list.insert((*name).clone(), amount.to_string().into());
    }
    missing.into_iter().map(|(name, _)| name.clone()).collect()
}

pub(super) fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    let is_claim = attributes.is_object(&PERSISTENT_VOLUME_CLAIMS);
    let concerns = match attributes.operation {
        Operation::Create => is_claim || attributes.is_object(&PODS),
        Operation::Update => is_claim,
        Operation::Delete | Operation::Connect => false,
    };
    if !concerns {
        return Ok(());
    }
    let mut faults = Vec::new();
    for item in items(attributes) {
        let limit = Limit {
            kind: object::text(&item, &["type"]).to_owned(),
            min: amounts::amounts(&item["min"]),
            max: amounts::amounts(&item["max"]),
            ratio: amounts::amounts(&item["maxLimitRequestRatio"]),
        };
        match (limit.kind.as_str(), is_claim) {
            ("PersistentVolumeClaim", true) => limit.claim(&attributes.object, &mut faults),
            ("Container", false) => limit.containers(&attributes.object, &mut faults),
            ("Pod", false) => {
                let requests = amounts::of_pod(&attributes.object, Side::Requests);
                let limits = amounts::of_pod(&attributes.object, Side::Limits);
                limit.check(&requests, &limits, &mut faults);
            }
            _ => {}
        }
    }
    let why = match &faults[..] {
        [] => return Ok(()),
        [one] => one.clone(),
        _ => format!("[{}]", faults.join(", ")),
    };
    Err(Status::forbidden(
        attributes.resource,
        &attributes.name,
        &why,
    ))
}

fn items(attributes: &Attributes<'_>) -> Vec<Value> {
    let Some(namespace) = attributes.namespace else {
        return Vec::new();
    };
    let ranges = &attributes.state().limit_ranges;
    let ranges = ranges.all(attributes.api, Some(namespace));
    let items = ranges
        .iter()
        .flat_map(|range| object::items(range, &["spec", "limits"]));
    items.cloned().collect()
}

impl Limit {
    fn claim(&self, claim: &Value, faults: &mut Vec<String>) {
        let requests = amounts::amounts(&claim["spec"]["resources"]["requests"]);
        let limits = amounts::amounts(&claim["spec"]["resources"]["limits"]);
        for (name, bound) in &self.min {
            faults.extend(self.too_little(name, *bound, &requests, &limits));
        }
        for (name, bound) in &self.max {
            let at = format!("maximum {name} usage per {} is {bound}", self.kind);
            match requests.get(name) {
                None => faults.push(format!("{at}.  No request is specified")),
                Some(request) if request > bound => {
                    faults.push(format!("{at}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }

    fn containers(&self, pod: &Value, faults: &mut Vec<String>) {
        for list in ["containers", "initContainers"] {
            for container in object::items(pod, &["spec", list]) {
                let requests = amounts::of_container(container, Side::Requests);
                let limits = amounts::of_container(container, Side::Limits);
                self.check(&requests, &limits, faults);
            }
        }
    }

    fn check(&self, requests: &Amounts, limits: &Amounts, faults: &mut Vec<String>) {
        for (name, bound) in &self.min {
            faults.extend(self.too_little(name, *bound, requests, limits));
        }
        for (name, bound) in &self.max {
            faults.extend(self.too_much(name, *bound, requests, limits));
        }
        for (name, bound) in &self.ratio {
            faults.extend(self.too_far(name, *bound, requests, limits));
        }
    }

    fn too_little(
        &self,
        name: &str,
        bound: Amount,
        requests: &Amounts,
        limits: &Amounts,
    ) -> Option<String> {
        let at = format!("minimum {name} usage per {} is {bound}", self.kind);
        let Some(request) = requests.get(name) else {
            return Some(format!("{at}.  No request is specified"));
        };
        if *request < bound {
            return Some(format!("{at}, but request is {request}"));
        }
        let limit = limits.get(name).filter(|limit| **limit < bound);
        limit.map(|limit| format!("{at}, but limit is {limit}"))
    }

    fn too_much(
        &self,
        name: &str,
        bound: Amount,
        requests: &Amounts,
        limits: &Amounts,
    ) -> Option<String> {
        let at = format!("maximum {name} usage per {} is {bound}", self.kind);
        let Some(limit) = limits.get(name) else {
            return Some(format!("{at}.  No limit is specified"));
        };
        if *limit > bound {
            return Some(format!("{at}, but limit is {limit}"));
        }
        let request = requests.get(name).filter(|request| **request > bound);
        request.map(|request| format!("{at}, but request is {request}"))
    }

    fn too_far(
        &self,
        name: &str,
        bound: Amount,
        requests: &Amounts,
        limits: &Amounts,
    ) -> Option<String> {
        let at = format!(
            "{name} max limit to request ratio per {} is {bound}",
            self.kind
        );
        let given = |amounts: &Amounts| amounts.get(name).copied().filter(|one| !one.is_zero());
        let Some(request) = given(requests) else {
            return Some(format!("{at}, but no request is specified or request is 0"));
        };
        let Some(limit) = given(limits) else {
            return Some(format!("{at}, but no limit is specified or limit is 0"));
        };
        let ratio = limit.ratio(request);
        let is_far = ratio > bound.ratio(Amount::count(1));
        is_far.then(|| format!("{at}, but provided ratio is {ratio:.6}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_a_range_is_told_in_upstreams_words() {
        let amounts = |pairs: &[(&str, &str)]| -> Amounts {
            let all = pairs.iter();
            all.map(|(name, text)| ((*name).to_owned(), Amount::parse(text).expect("fine")))
                .collect()
        };
        let limit = Limit {
            kind: "Container".to_owned(),
            min: amounts(&[("cpu", "100m")]),
            max: amounts(&[("memory", "1Gi")]),
            ratio: amounts(&[("cpu", "2")]),
        };
        let mut faults = Vec::new();
        let requests = amounts(&[("cpu", "50m")]);
        let limits = amounts(&[("cpu", "500m"), ("memory", "2Gi")]);
        limit.check(&requests, &limits, &mut faults);
        assert_eq!(
            faults,
            [
                "minimum cpu usage per Container is 100m, but request is 50m",
                "maximum memory usage per Container is 1Gi, but limit is 2Gi",
                "cpu max limit to request ratio per Container is 2, but provided ratio is 10.000000",
            ]
        );
        faults.clear();
        limit.check(&Amounts::new(), &Amounts::new(), &mut faults);
        assert_eq!(
            faults,
            [
                "minimum cpu usage per Container is 100m.  No request is specified",
                "maximum memory usage per Container is 1Gi.  No limit is specified",
                "cpu max limit to request ratio per Container is 2, but no request is specified or \
                 request is 0",
            ]
        );
    }
}
