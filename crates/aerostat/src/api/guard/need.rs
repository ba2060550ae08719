//! What a request needs to be allowed, by its method and path alone. Pure.
//!
//! What is not in this table needs `admin` over the whole fleet, so that a path that somebody adds
//! and forgets here is closed, not open.

use axum::http::Method;
use types::token::Verb;
use types::{AppName, MachineId, OrgSlug};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Need {
    /// Anybody may ask.
    Nothing,
    /// Any valid token; the handler asks for more where it knows more.
    Token,
    App {
        verb: Verb,
        app: AppName,
        machine: Option<MachineId>,
    },
    Org {
        verb: Verb,
        org: OrgSlug,
    },
    /// To see something of it; the lists show what the caller may see.
    OrgLists {
        org: OrgSlug,
    },
    Fleet(Verb),
    /// The path names something that cannot be.
    NoSuchThing,
}

/// Segments of a path that this table looks at.
const NAMES_MAX: usize = 6;

/// What stands behind a machine's id and runs or copies something inside it.
const EXEC: [&str; 4] = ["exec", "attach", "files", "copy"];

pub(super) fn need(method: &Method, path: &str, query: &str) -> Need {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let verb = match *method {
        Method::GET | Method::HEAD => Verb::Read,
        _ => Verb::Write,
    };
    // The router reads escapes in the names of a path, and this table does not: `%77eb` is the app
    // `web` there. No name that decides anything here needs one.
    if segments
        .iter()
        .take(NAMES_MAX)
        .any(|name| name.contains('%'))
    {
        return Need::Fleet(Verb::Admin);
    }
    match segments.as_slice() {
        ["health"] | ["v1", "health"] => Need::Nothing,
        ["graphql"] | ["v1", "apps" | "tokens" | "postgres" | "openapi.json"] => Need::Token,
        ["v1", "platform" | "postgres" | "tokens", ..] | ["api", ..] => Need::Token,
        ["v1", "apps", app, rest @ ..] => app.parse().map_or(Need::NoSuchThing, |app| {
            of_app(method, app, rest, verb, query)
        }),
        ["v1", "orgs", org, rest @ ..] => {
            let verb = match rest {
                ["wireguard", ..] => Verb::Admin,
                _ => verb,
            };
            org.parse().map_or(Need::NoSuchThing, |org| match rest {
                ["machines" | "volumes"] if verb == Verb::Read => Need::OrgLists { org },
                _ => Need::Org { verb, org },
            })
        }
        _ => Need::Fleet(Verb::Admin),
    }
}

fn of_app(method: &Method, app: AppName, rest: &[&str], verb: Verb, query: &str) -> Need {
    let (verb, machine) = match rest {
        ["machines", id, rest @ ..] if !id.is_empty() => {
            let Ok(id) = id.parse::<MachineId>() else {
                return Need::NoSuchThing;
            };
            let runs = rest.first().is_some_and(|first| EXEC.contains(first));
            (if runs { Verb::Exec } else { verb }, Some(id))
        }
        ["deploy_token"] => (Verb::Admin, None),
        ["secrets", ..] if shows_values(method, query) => (Verb::Secrets, None),
        _ => (verb, None),
    };
    Need::App { verb, app, machine }
}

fn shows_values(method: &Method, query: &str) -> bool {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    let asked = pairs.any(|(name, value)| name == "show_secrets" && value != "false");
    asked && matches!(*method, Method::GET | Method::HEAD)
}

/// What another host may ask over the host plane: what the handlers here send on to the owner of a
/// machine or volume, and to the directory's host.
pub(super) fn is_for_hosts(path: &str) -> bool {
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    match segments.as_slice() {
        ["v1", "apps", _, kind, ..] => {
            ["machines", "volumes", "secrets", "deploy_token"].contains(kind)
        }
        ["v1", "hosts" | "tokens" | "secrets", ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: &str, path: &str) -> Need {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        need(&method.parse().unwrap(), path, query)
    }

    fn web(verb: Verb, machine: Option<&str>) -> Need {
        Need::App {
            verb,
            app: "web".parse().unwrap(),
            machine: machine.map(|id| id.parse().unwrap()),
        }
    }

    #[test]
    fn each_path_needs_what_it_does() {
        let id = "0123456789abcd";
        let at = |rest: &str| format!("/v1/apps/web/machines/{id}{rest}");
        let admin = Need::Fleet(Verb::Admin);
        let org = |verb| Need::Org {
            verb,
            org: "personal".parse().unwrap(),
        };
        for (method, path, needs) in [
            ("GET", "/v1/health".into(), Need::Nothing),
            ("GET", "/v1/apps".into(), Need::Token),
            ("POST", "/v1/apps".into(), Need::Token),
            ("GET", "/v1/apps/web".into(), web(Verb::Read, None)),
            ("DELETE", "/v1/apps/web".into(), web(Verb::Write, None)),
            (
                "POST",
                "/v1/apps/web/machines".into(),
                web(Verb::Write, None),
            ),
            ("GET", at(""), web(Verb::Read, Some(id))),
            ("GET", at("/logs"), web(Verb::Read, Some(id))),
            ("POST", at("/stop"), web(Verb::Write, Some(id))),
            ("POST", at("/exec"), web(Verb::Exec, Some(id))),
            ("GET", at("/exec/stream"), web(Verb::Exec, Some(id))),
            ("GET", at("/attach"), web(Verb::Exec, Some(id))),
            ("GET", "/v1/apps/web/secrets".into(), web(Verb::Read, None)),
            (
                "POST",
                "/v1/apps/web/secrets".into(),
                web(Verb::Write, None),
            ),
            (
                "GET",
                "/v1/apps/web/secrets/A?show_secrets=true".into(),
                web(Verb::Secrets, None),
            ),
            (
                "GET",
                "/v1/apps/web/secrets?show_secrets".into(),
                web(Verb::Secrets, None),
            ),
            (
                "GET",
                "/v1/apps/web/secrets?show_secrets=false".into(),
                web(Verb::Read, None),
            ),
            (
                "POST",
                "/v1/apps/web/deploy_token".into(),
                web(Verb::Admin, None),
            ),
            (
                "GET",
                "/v1/orgs/personal/wireguard/peers".into(),
                org(Verb::Admin),
            ),
            ("GET", "/v1/hosts".into(), admin.clone()),
            ("GET", "/v1/images".into(), admin.clone()),
            ("POST", "/v1/secrets/rotate_key".into(), admin.clone()),
            ("GET", "/v1/mesh".into(), admin.clone()),
            ("GET", "/v1/something/new".into(), admin.clone()),
            ("GET", "/".into(), admin),
            ("GET", "/v1/tokens/current".into(), Need::Token),
            ("GET", "/v1/platform/regions".into(), Need::Token),
        ] {
            assert_eq!(ask(method, &path), needs, "{method} {path}");
        }
    }

    #[test]
    fn lists_of_an_organisation_show_what_the_caller_may_see() {
        let org: OrgSlug = "personal".parse().unwrap();
        let lists = Need::OrgLists { org: org.clone() };
        assert_eq!(ask("GET", "/v1/orgs/personal/machines?watch=true"), lists);
        assert_eq!(ask("GET", "/v1/orgs/personal/volumes"), lists);
        let verb = Verb::Write;
        let changes = Need::Org { verb, org };
        assert_eq!(ask("POST", "/v1/orgs/personal/machines"), changes);
    }

    #[test]
    fn a_name_that_is_written_with_escapes_is_closed() {
        for path in [
            "/v1/apps/%77eb",
            "/v1/apps/%77eb/machines",
            "/v1/apps/web/machines/%30123456789abcd",
            "/v1/orgs/%61cme/machines",
        ] {
            assert_eq!(ask("GET", path), Need::Fleet(Verb::Admin), "{path}");
        }
    }

    #[test]
    fn hosts_ask_each_other_for_machines_and_the_authority_for_the_rest() {
        for path in [
            "/v1/apps/web/machines",
            "/v1/apps/web/machines/0123456789abcd/exec/stream",
            "/v1/apps/web/secrets/A",
            "/v1/hosts/tokens",
            "/v1/tokens",
        ] {
            assert!(is_for_hosts(path), "{path}");
        }
        for path in [
            "/v1/apps",
            "/v1/apps/web",
            "/v1/images",
            "/graphql",
            "/v1/orgs/personal",
        ] {
            assert!(!is_for_hosts(path), "{path}");
        }
    }
}
