//! Acting as somebody else: the `Impersonate-*` headers, and what one must be allowed for them.

use std::collections::BTreeMap;

use hyper::HeaderMap;
use hyper::header::HeaderName;

use super::{
    ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED, User, service_account_groups, service_account_of,
};
use crate::rbac::Request;
use crate::status::Status;

const USER: HeaderName = HeaderName::from_static("impersonate-user");
const UID: HeaderName = HeaderName::from_static("impersonate-uid");
const GROUP: HeaderName = HeaderName::from_static("impersonate-group");
const EXTRA_PREFIX: &str = "impersonate-extra-";
/// Each costs a question to the authorizer.
const PARTS_MAX: usize = 256;

/// What the headers of a request ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Impersonation {
    pub(crate) user: User,
    /// Each must be allowed to the one who asks, in this order.
    pub(crate) needs: Vec<Request>,
}

/// Reads the headers; `None` if they ask for nobody. 400 if they ask for parts of nobody.
pub(crate) fn impersonation(headers: &HeaderMap) -> Result<Option<Impersonation>, Status> {
    let name = header(headers, &USER)?;
    let uid = header(headers, &UID)?;
    let mut groups = Vec::new();
    for value in headers.get_all(&GROUP) {
        groups.push(text(value)?);
    }
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix(EXTRA_PREFIX) {
            extra.entry(unescaped(key)).or_default().push(text(value)?);
        }
    }
    let parts = groups.len() + extra.values().map(Vec::len).sum::<usize>();
    if parts > PARTS_MAX {
        return Err(Status::bad_request(format!(
            "more than {PARTS_MAX} groups and extra values to impersonate"
        )));
    }
    let Some(name) = name.filter(|name| !name.is_empty()) else {
        if parts > 0 || uid.is_some() {
            let why = "requested groups, uid or extra without impersonating a user";
            return Err(Status::internal(why));
        }
        return Ok(None);
    };
    let needs = needs(&name, uid.as_deref(), &groups, &extra);
    let user = User {
        groups: groups_of(&name, groups),
        name,
        uid: uid.unwrap_or_default(),
        extra,
    };
    Ok(Some(Impersonation { user, needs }))
}

fn needs(
    name: &str,
    uid: Option<&str>,
    groups: &[String],
    extra: &BTreeMap<String, Vec<String>>,
) -> Vec<Request> {
    let ask = |group: &str, resource: &str| Request::resource("impersonate", group, resource);
    let mut needs = vec![match service_account_of(name) {
        Some((namespace, account)) => ask("", "serviceaccounts")
            .in_namespace(namespace)
            .named(account),
        None => ask("", "users").named(name),
    }];
    needs.extend(groups.iter().map(|group| ask("", "groups").named(group)));
    let authentication = "authentication.k8s.io";
    needs.extend(uid.map(|uid| ask(authentication, "uids").named(uid)));
    for (key, values) in extra {
        let extras = || ask(authentication, "userextras").below(key);
        needs.extend(values.iter().map(|value| extras().named(value)));
    }
    needs
}

/// The groups that come with being somebody.
fn groups_of(name: &str, mut groups: Vec<String>) -> Vec<String> {
    if let (Some((namespace, _)), true) = (service_account_of(name), groups.is_empty()) {
        groups = service_account_groups(namespace);
    }
    let has = |group: &str| groups.iter().any(|one| one == group);
    let is_told = has(AUTHENTICATED) || has(UNAUTHENTICATED);
    match name {
        _ if is_told => {}
        ANONYMOUS => groups.push(UNAUTHENTICATED.into()),
        _ => groups.push(AUTHENTICATED.into()),
    }
    groups
}

fn header(headers: &HeaderMap, name: &HeaderName) -> Result<Option<String>, Status> {
    headers.get(name).map(text).transpose()
}

fn text(value: &hyper::header::HeaderValue) -> Result<String, Status> {
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_| Status::bad_request("an Impersonate header is not UTF-8"))?;
    Ok(text.to_owned())
}

/// Keys of extra fields are escaped as in URLs, for the slashes in them.
fn unescaped(key: &str) -> String {
    let pair = format!("{}=", key.replace('+', "%2B"));
    let parsed = form_urlencoded::parse(pair.as_bytes()).next();
    parsed.map_or_else(String::new, |(key, _)| key.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn each_part_of_somebody_is_asked_for() {
        let asked = impersonation(&headers(&[
            ("impersonate-user", "alice"),
            ("impersonate-group", "dev"),
            ("impersonate-group", "ops"),
            ("impersonate-uid", "7"),
            ("impersonate-extra-acme.com%2fproject", "x"),
        ]));
        let asked = asked.expect("reads").expect("somebody");
        assert_eq!(asked.user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(asked.user.extra["acme.com/project"], ["x"]);
        let ask = |group: &str, resource: &str| Request::resource("impersonate", group, resource);
        let authentication = "authentication.k8s.io";
        let expected = [
            ask("", "users").named("alice"),
            ask("", "groups").named("dev"),
            ask("", "groups").named("ops"),
            ask(authentication, "uids").named("7"),
            ask(authentication, "userextras")
                .below("acme.com/project")
                .named("x"),
        ];
        assert_eq!(asked.needs, expected);
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let name = "system:serviceaccount:team:bot";
        let asked = impersonation(&headers(&[("impersonate-user", name)]));
        let asked = asked.expect("reads").expect("somebody");
        assert_eq!(asked.user, User::service_account("team", "bot"));
        let needs = Request::resource("impersonate", "", "serviceaccounts");
        assert_eq!(asked.needs, [needs.in_namespace("team").named("bot")]);
        let anonymous = impersonation(&headers(&[("impersonate-user", ANONYMOUS)]));
        let anonymous = anonymous.expect("reads").expect("somebody");
        assert_eq!(anonymous.user, User::anonymous());
    }

    #[test]
    fn groups_of_nobody_are_an_error() {
        assert!(impersonation(&headers(&[("impersonate-group", "dev")])).is_err());
        assert_eq!(impersonation(&headers(&[])).expect("reads"), None);
    }
}
