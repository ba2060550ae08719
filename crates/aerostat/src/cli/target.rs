//! Which Machines API a command speaks to, the first of these that is there:
//!
//! 1. `--context`, or `AEROSTAT_CONTEXT`: a host of `aerostat context list`;
//! 2. `AEROSTAT_API_URL`, with the token in `AEROSTAT_API_TOKEN`;
//! 3. the host whose directories `--run-dir` or `AEROSTAT_RUN_DIR` names;
//! 4. `FLY_FLAPS_BASE_URL`, with the token in `FLY_API_TOKEN` or `FLY_ACCESS_TOKEN`;
//! 5. the context that `aerostat context use` chose;
//! 6. the host that this runs on.

use std::path::PathBuf;

use client::Client;

use super::contexts::Contexts;
use crate::config::Paths;

const RUN_DIR: &str = "/run/aerostat";

/// What a command speaks to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Socket(PathBuf),
    Url { url: String, token: String },
}

/// What was said on the command line and in the environment.
#[derive(Debug, Default)]
struct Said<'a> {
    context: Option<&'a str>,
    run_dir: PathBuf,
}

/// The API that `paths` and the environment name.
pub(super) fn of_paths(paths: &Paths, context: Option<&str>) -> anyhow::Result<Client> {
    let said = Said {
        context,
        run_dir: paths.run_dir.clone(),
    };
    connect(&said)
}

/// The API that the environment alone names: a shell that completes has no flags yet.
pub(super) fn of_environment() -> anyhow::Result<Client> {
    let run_dir = std::env::var_os("AEROSTAT_RUN_DIR").unwrap_or_else(|| RUN_DIR.into());
    let context = std::env::var("AEROSTAT_CONTEXT").ok();
    let said = Said {
        context: context.as_deref(),
        run_dir: run_dir.into(),
    };
    connect(&said)
}

fn connect(said: &Said<'_>) -> anyhow::Result<Client> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    match choose(said, &variable, &Contexts::load)? {
        Target::Socket(path) => Ok(Client::unix(path)),
        Target::Url { url, token } => Ok(Client::tcp(&url, token)?),
    }
}

fn choose(
    said: &Said<'_>,
    variable: &dyn Fn(&str) -> Option<String>,
    contexts: &dyn Fn() -> anyhow::Result<Contexts>,
) -> anyhow::Result<Target> {
    let socket = Target::Socket(said.run_dir.join("api.sock"));
    if let Some(name) = said.context {
        let contexts = contexts()?;
        let (url, token) = contexts.get(name)?;
        return Ok(Target::Url { url, token });
    }
    if let Some(url) = variable("AEROSTAT_API_URL") {
        let token = variable("AEROSTAT_API_TOKEN").unwrap_or_default();
        return Ok(Target::Url { url, token });
    }
    if said.run_dir.as_os_str() != RUN_DIR {
        return Ok(socket);
    }
    if let Some(url) = variable("FLY_FLAPS_BASE_URL") {
        let token = variable("FLY_API_TOKEN").or_else(|| variable("FLY_ACCESS_TOKEN"));
        let token = token.unwrap_or_default();
        return Ok(Target::Url { url, token });
    }
    match contexts()?.current()? {
        Some((url, token)) => Ok(Target::Url { url, token }),
        None => Ok(socket),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn chosen(said: &Said<'_>, variables: &[(&str, &str)]) -> Target {
        let variables: BTreeMap<_, _> = variables.iter().copied().collect();
        let variable = |name: &str| variables.get(name).map(|&value| value.to_owned());
        choose(said, &variable, &|| Ok(Contexts::default())).unwrap()
    }

    #[test]
    fn what_is_said_closest_counts() {
        let here = Said {
            context: None,
            run_dir: RUN_DIR.into(),
        };
        let socket = Target::Socket("/run/aerostat/api.sock".into());
        assert_eq!(chosen(&here, &[]), socket);
        let fly = [
            ("FLY_FLAPS_BASE_URL", "http://fly:1"),
            ("FLY_API_TOKEN", "t"),
        ];
        let url = |url: &str, token: &str| Target::Url {
            url: url.into(),
            token: token.into(),
        };
        assert_eq!(chosen(&here, &fly), url("http://fly:1", "t"));
        let ours = [fly[0], ("AEROSTAT_API_URL", "http://ours:1")];
        assert_eq!(chosen(&here, &ours), url("http://ours:1", ""));
        let there = Said {
            context: None,
            run_dir: "/tmp/run".into(),
        };
        let socket = Target::Socket("/tmp/run/api.sock".into());
        assert_eq!(
            chosen(&there, &fly),
            socket,
            "a named host beats Fly's variables"
        );
    }
}
