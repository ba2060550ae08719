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

pub(super) fn write(query: &Query) -> Result<WriteOptions, Status> {
    let validation = match query.get("fieldValidation") {
        "" | "Warn" => FieldValidation::Warn,
        "Strict" => FieldValidation::Strict,
        "Ignore" => FieldValidation::Ignore,
        other => {
            let value = Value::from(other);
            let supported = ["Ignore", "Warn", "Strict"];
            let cause = Cause::not_supported("fieldValidation", &value, &supported);
            return Err(Status::invalid_kind(
                "meta.k8s.io",
                "CreateOptions",
                "",
                vec![cause],
            ));
        }
    };
    check_manager(query.get("fieldManager"))?;
    Ok(WriteOptions {
        dry_run: dry_run(query.all("dryRun"))?,
        validation,
        force: query.flag("force"),
    })
}

/// Upstream's rules for names of managers.
fn check_manager(name: &str) -> Result<(), Status> {
    const MANAGER_BYTES_MAX: usize = 128;
    let cause = if name.len() > MANAGER_BYTES_MAX {
        Cause::too_long("fieldManager", MANAGER_BYTES_MAX)
    } else if name.chars().any(char::is_control) {
        let why = "should only contain printable characters";
        Cause::invalid("fieldManager", &Value::from(name), why)
    } else {
        return Ok(());
    };
    let causes = vec![cause];
    Err(Status::invalid_kind(
        "meta.k8s.io",
        "PatchOptions",
        "",
        causes,
    ))
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>) -> Result<DryRun, Status> {
    let mut dry_run = DryRun::No;
    for value in values.filter(|value| !value.is_empty()) {
        if value != "All" {
            let cause = Cause::not_supported("dryRun", &Value::from(value), &["All"]);
            return Err(Status::invalid_kind(
                "meta.k8s.io",
                "CreateOptions",
                "",
                vec![cause],
            ));
        }
        dry_run = DryRun::All;
    }
    Ok(dry_run)
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
    let limit = usize::try_from(query.number("limit")?.unwrap_or(0)).unwrap_or(usize::MAX);
    let continue_token = Some(query.get("continue").to_owned()).filter(|token| !token.is_empty());
    let rev = check_revision(query, current_rev)?;
    let is_exact = query.get("resourceVersionMatch") == "Exact";
    let at_rev = rev.filter(|_| is_exact && continue_token.is_none());
    Ok(ListOptions {
        selector: selector(resource, query)?,
        limit,
        continue_token,
        at_rev,
    })
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
            let why = "strconv.ParseUint: parsing: invalid syntax";
            let cause = Cause::invalid("resourceVersion", &Value::from(text), why);
            Status::invalid_kind("meta.k8s.io", "ListOptions", "", vec![cause])
        }),
    }
}

/// The body wins over the query where both speak.
pub(super) fn delete(query: &Query, body: &Body) -> Result<DeleteOptions, Status> {
    let given = if body.bytes.is_empty() {
        Value::Null
    } else {
        body.object(DELETE_OPTIONS)?
    };
    let from_body = object::items(&given, &["dryRun"])
        .iter()
        .filter_map(Value::as_str);
    let in_query = query
        .number("gracePeriodSeconds")?
        .and_then(|grace| i64::try_from(grace).ok());
    let text = |path: &[&str]| {
        object::at(&given, path)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let policy = match text(&["propagationPolicy"]) {
        Some(policy) => Some(policy),
        None => Some(query.get("propagationPolicy").to_owned()).filter(|one| !one.is_empty()),
    };
    let propagation = match policy.as_deref() {
        Some("Background") => Some(Propagation::Background),
        Some("Foreground") => Some(Propagation::Foreground),
        Some("Orphan") => Some(Propagation::Orphan),
        Some(other) => {
            let supported = ["Foreground", "Background", "Orphan"];
            let cause = Cause::not_supported("propagationPolicy", &Value::from(other), &supported);
            return Err(Status::invalid_kind(
                "meta.k8s.io",
                "DeleteOptions",
                "",
                vec![cause],
            ));
        }
        None if given["orphanDependents"] == true => Some(Propagation::Orphan),
        None => None,
    };
    Ok(DeleteOptions {
        propagation,
        grace_period_s: given["gracePeriodSeconds"].as_i64().or(in_query),
        preconditions: Preconditions {
            uid: text(&["preconditions", "uid"]),
            resource_version: text(&["preconditions", "resourceVersion"]),
        },
        dry_run: dry_run(query.all("dryRun").chain(from_body))?,
    })
}
