//! Options of a request, from its query and body.

use serde_json::Value;

use super::codec::Body;
use super::query::Query;
use crate::api::{
    DeleteOptions, DryRun, FieldValidation, ListOptions, Preconditions, Propagation, Selector,
    WriteOptions,
};
use crate::object;
use crate::resource::Resource;
use crate::status::{Cause, Status};

pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// The options of a create, an update or a patch, whose upstream name is `kind`.
pub(super) fn write(query: &Query, kind: &'static str) -> Result<WriteOptions, Status> {
    let validation = match query.get("fieldValidation") {
        "" | "Warn" => FieldValidation::Warn,
        "Strict" => FieldValidation::Strict,
        "Ignore" => FieldValidation::Ignore,
        other => {
            let value = Value::from(other);
            let supported = ["", "Ignore", "Strict", "Warn"];
            let cause = Cause::not_supported("fieldValidation", &value, &supported);
            return Err(options_invalid(kind, vec![cause]));
        }
    };
    check_manager(query.get("fieldManager"), kind)?;
    Ok(WriteOptions {
        dry_run: dry_run(query.all("dryRun"), kind)?,
        validation,
        force: query.flag("force"),
    })
}

/// Upstream's rules for names of managers.
fn check_manager(name: &str, kind: &'static str) -> Result<(), Status> {
    const MANAGER_BYTES_MAX: usize = 128;
    let cause = if name.len() > MANAGER_BYTES_MAX {
        Cause::too_long("fieldManager", MANAGER_BYTES_MAX)
    } else if let Some((at, bad)) = name.char_indices().find(|(_, one)| one.is_control()) {
        let why = format!(
            "invalid character U+{:04X} (at position {at})",
            u32::from(bad)
        );
        Cause::invalid("fieldManager", &Value::from(name), &why)
    } else {
        return Ok(());
    };
    Err(options_invalid(kind, vec![cause]))
}

fn dry_run<'a>(
    values: impl Iterator<Item = &'a str>,
    kind: &'static str,
) -> Result<DryRun, Status> {
    let values: Vec<_> = values.filter(|value| !value.is_empty()).collect();
    if values.iter().any(|value| *value != "All") {
        let cause = Cause::not_supported("dryRun", &Value::from(values), &["All"]);
        return Err(options_invalid(kind, vec![cause]));
    }
    Ok(match values[..] {
        [] => DryRun::No,
        [..] => DryRun::All,
    })
}

pub(super) fn selector(resource: &Resource, query: &Query) -> Result<Selector, Status> {
    Selector::parse(
        resource,
        query.get("labelSelector"),
        query.get("fieldSelector"),
    )
}

pub(super) fn list(
    resource: &Resource,
    query: &Query,
    current_rev: u64,
) -> Result<ListOptions, Status> {
    check_match(query, false)?;
    query.integer("timeoutSeconds")?;
    // Upstream takes a negative limit for none.
    let limit = usize::try_from(query.integer("limit")?.unwrap_or(0)).unwrap_or(0);
    let continue_token = Some(query.get("continue").to_owned()).filter(|token| !token.is_empty());
    let rev = check_revision(query, current_rev)?;
    if rev.is_some() && continue_token.is_some() {
        let why = "specifying resource version is not allowed when using continue";
        return Err(Status::bad_request(why));
    }
    let is_exact = query.get("resourceVersionMatch") == "Exact";
    let at_rev = rev.filter(|_| is_exact && continue_token.is_none());
    Ok(ListOptions {
        selector: selector(resource, query)?,
        limit,
        continue_token,
        at_rev,
    })
}

/// How `resourceVersion`, `resourceVersionMatch` and `sendInitialEvents` go together.
pub(super) fn check_match(query: &Query, is_watch: bool) -> Result<(), Status> {
    const AT: &str = "resourceVersionMatch";
    let given = query.get(AT);
    let sends_initial = query
        .all("sendInitialEvents")
        .any(|value| !value.is_empty());
    let mut causes = Vec::new();
    let mut forbid = |at: &str, why: &str| causes.push(Cause::forbidden(at, why));
    if is_watch && sends_initial && given != "NotOlderThan" {
        let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        forbid(AT, why);
    }
    if !given.is_empty() {
        if is_watch && !sends_initial {
            let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is \
                       provided";
            forbid(AT, why);
        } else if !is_watch && query.get("resourceVersion").is_empty() {
            let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            forbid(AT, why);
        }
        if !query.get("continue").is_empty() {
            forbid(
                AT,
                "resourceVersionMatch is forbidden when continue is provided",
            );
        }
        let supported: &[&str] = if is_watch {
            &["NotOlderThan"]
        } else {
            &["Exact", "NotOlderThan", ""]
        };
        if !supported.contains(&given) {
            causes.push(Cause::not_supported(AT, &Value::from(given), supported));
        }
        if !is_watch && given == "Exact" && query.get("resourceVersion") == "0" {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            causes.push(Cause::forbidden(AT, why));
        }
    }
    if !is_watch && sends_initial {
        let why = "sendInitialEvents is forbidden for list";
        causes.push(Cause::forbidden("sendInitialEvents", why));
    }
    if causes.is_empty() {
        return Ok(());
    }
    Err(options_invalid("ListOptions", causes))
}

fn options_invalid(kind: &'static str, causes: Vec<Cause>) -> Status {
    Status::invalid_kind("meta.k8s.io", kind, "", causes)
}

/// [`revision`], which must not be in the future.
pub(super) fn check_revision(query: &Query, current_rev: u64) -> Result<Option<u64>, Status> {
    match revision(query)? {
        Some(rev) if rev > current_rev => Err(Status::too_large(rev, current_rev)),
        rev => Ok(rev),
    }
}

/// `resourceVersion`; 0 and none mean that any is fine.
pub(super) fn revision(query: &Query) -> Result<Option<u64>, Status> {
    match query.get("resourceVersion") {
        "" | "0" => Ok(None),
        text => text.parse().map(Some).map_err(|_| {
            Status::bad_request(format!(
                "invalid resource version: resourceVersion: Invalid value: {text:?}: \
                 strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))
        }),
    }
}

/// The body wins over the query where both speak.
pub(super) fn delete(query: &Query, body: &Body) -> Result<DeleteOptions, Status> {
    const KIND: &str = "DeleteOptions";
    let given = if body.bytes.is_empty() {
        Value::Null
    } else {
        body.object(DELETE_OPTIONS)?
    };
    let given_kind = object::text(&given, &["kind"]);
    if !given_kind.is_empty() && given_kind != KIND {
        let version = object::text(&given, &["apiVersion"]);
        let why = format!("no kind {given_kind:?} is registered for version {version:?}");
        return Err(Status::bad_request(why));
    }
    if !given.is_object() && !given.is_null() {
        return Err(Status::bad_request(
            "couldn't get version/kind; the body is not an object",
        ));
    }
    let from_body = object::items(&given, &["dryRun"])
        .iter()
        .filter_map(Value::as_str);
    let in_query = query.integer("gracePeriodSeconds")?;
    let text = |path: &[&str]| {
        object::at(&given, path)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let policy = match text(&["propagationPolicy"]) {
        Some(policy) => Some(policy),
        None => Some(query.get("propagationPolicy").to_owned()).filter(|one| !one.is_empty()),
    };
    let orphans = match &given["orphanDependents"] {
        Value::Bool(orphans) => Some(*orphans),
        _ if !query.get("orphanDependents").is_empty() => Some(query.flag("orphanDependents")),
        _ => None,
    };
    let invalid = |cause| Err(options_invalid(KIND, vec![cause]));
    let at = "propagationPolicy";
    let propagation = match (policy.as_deref(), orphans) {
        (Some(policy), Some(_)) => {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            return invalid(Cause::invalid(at, &Value::from(policy), why));
        }
        (Some("Background"), None) => Some(Propagation::Background),
        (Some("Foreground"), None) => Some(Propagation::Foreground),
        (Some("Orphan"), None) => Some(Propagation::Orphan),
        (Some(other), None) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            return invalid(Cause::not_supported(at, &Value::from(other), &supported));
        }
        (None, Some(true)) => Some(Propagation::Orphan),
        (None, Some(false)) => Some(Propagation::Background),
        (None, None) => None,
    };
    Ok(DeleteOptions {
        propagation,
        grace_period_s: given["gracePeriodSeconds"].as_i64().or(in_query),
        preconditions: Preconditions {
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
        },
        dry_run: dry_run(query.all("dryRun").chain(from_body), KIND)?,
    })
}
