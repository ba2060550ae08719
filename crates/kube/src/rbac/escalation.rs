//! Nobody gives away what they do not have: the check of writes of roles and bindings.
//!
//! Who may `escalate` roles, or `bind` a role, is let through; members of `system:masters` may
//! everything.

use serde_json::Value;

use super::cover::{described, missing, quoted};
use super::request::Request;
use super::rule::Rule;
use crate::api::Api;
use crate::object;
use crate::resource::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES, Resource};
use crate::status::Status;

const GROUP: &str = "rbac.authorization.k8s.io";

/// 403 (or 404 for a role that is not there) if the caller of `api` may not store `new` in place
/// of `old`.
pub(crate) fn check(
    api: &Api,
    resource: &Resource,
    namespace: Option<&str>,
    old: Option<&Value>,
    new: &Value,
) -> Result<(), Status> {
    if resource.group != GROUP || api.caller().user.is_master() {
        return Ok(());
    }
    let namespace = namespace.unwrap_or_default();
    let changed = |field: &str| old.is_none_or(|old| old.get(field) != new.get(field));
    if resource.is(&ROLES) || resource.is(&CLUSTER_ROLES) {
        let aggregates = new
            .get("aggregationRule")
            .is_some_and(|rule| !rule.is_null());
        if (changed("rules") || changed("aggregationRule"))
            && !may(api, "escalate", resource, namespace, object::name(new))
        {
            if aggregates && changed("aggregationRule") {
                holds_everything(api, resource, new)?;
            }
            holds(api, resource, namespace, new, &Rule::all_of(new))?;
        }
    } else if (resource.is(&ROLE_BINDINGS) || resource.is(&CLUSTER_ROLE_BINDINGS))
        && (changed("subjects") || changed("roleRef"))
    {
        return check_binding(api, resource, namespace, new);
    }
    Ok(())
}

fn check_binding(
    api: &Api,
    resource: &Resource,
    namespace: &str,
    binding: &Value,
) -> Result<(), Status> {
    let role = object::text(binding, &["roleRef", "name"]);
    let (roles, within) = match object::text(binding, &["roleRef", "kind"]) {
        "Role" => (&ROLES, namespace),
        _ => (&CLUSTER_ROLES, ""),
    };
    if may(api, "bind", roles, namespace, role) {
        return Ok(());
    }
    let rules = api.authorizer().role(within, role);
    let rules = rules.ok_or_else(|| Status::not_found(roles, role))?;
    holds(api, resource, namespace, binding, &rules)
}

fn may(api: &Api, verb: &str, resource: &Resource, namespace: &str, name: &str) -> bool {
    let request = Request::resource(verb, GROUP, resource.plural);
    let request = request.in_namespace(namespace).named(name);
    api.may(&api.caller().user, &request)
}

/// The caller has every permission that is in `rules`.
fn holds(
    api: &Api,
    resource: &Resource,
    namespace: &str,
    object: &Value,
    rules: &[Rule],
) -> Result<(), Status> {
    let user = &api.caller().user;
    let (held, error) = api.authorizer().rules_of(user, namespace);
    let missing = missing(&held, rules);
    if missing.is_empty() {
        return Ok(());
    }
    let mut why = format!(
        "user {:?} (groups={}) is attempting to grant RBAC permissions not currently held:\n{}",
        user.name,
        quoted(&user.groups),
        described(&missing),
    );
    if let Some(error) = error {
        why = format!("{why}; resolution errors: [{error}]");
    }
    Err(Status::forbidden(resource, object::name(object), &why))
}

/// A role that gathers others can become anything.
fn holds_everything(api: &Api, resource: &Resource, role: &Value) -> Result<(), Status> {
    let all = || vec!["*".to_owned()];
    let everything = [
        Rule {
            verbs: all(),
            api_groups: all(),
            resources: all(),
            ..Rule::default()
        },
        Rule {
            verbs: all(),
            non_resource_urls: all(),
            ..Rule::default()
        },
    ];
    let (held, _) = api.authorizer().rules_of(&api.caller().user, "");
    if missing(&held, &everything).is_empty() {
        return Ok(());
    }
    let why = "must have cluster-admin privileges to use an aggregationRule";
    Err(Status::forbidden(resource, object::name(role), why))
}
