//! Which machine is meant: by id, by name, by the beginning of an id, or as `app/name`.

use clap::Args;
use client::{Client, MachineFilter};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;
use types::machine::Machine;
use types::{AppName, MachineId};

use super::InApp;
use crate::cli::{Refused, complete, confirm};

/// Apps that are asked for their machines at a time.
const APPS_AT_ONCE: usize = 8;
/// Fewer digits of an id than this name nothing: names of machines are often short.
const PREFIX_MIN: usize = 3;

/// A machine, and the app that it is of.
#[derive(Debug, Clone, Serialize)]
pub(in crate::cli) struct Found {
    pub(super) app: AppName,
    #[serde(flatten)]
    pub(super) machine: Machine,
}

/// One machine of the command line.
#[derive(Debug, Args)]
pub(in crate::cli) struct One {
    /// Id, name, beginning of the id, or APP/NAME
    #[arg(add = complete::machines())]
    pub(super) machine: String,
    #[command(flatten)]
    pub(super) scope: InApp,
}

/// Several machines of the command line.
#[derive(Debug, Args)]
pub(in crate::cli) struct Many {
    /// Ids, names, beginnings of ids, or APP/NAME
    #[arg(required_unless_present = "all", value_name = "MACHINE", add = complete::machines())]
    pub(super) machines: Vec<String>,
    /// Every machine of the app, or of every app if none is named
    #[arg(long, conflicts_with = "machines")]
    pub(super) all: bool,
    /// With --all: do not ask
    #[arg(short, long)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) scope: InApp,
}

/// Every machine of one app, or of all of them, by app and name.
pub(super) async fn inventory(
    client: &Client,
    app: Option<&AppName>,
    filter: &MachineFilter,
) -> Result<Vec<Found>, client::Error> {
    let apps = match app {
        Some(app) => vec![app.clone()],
        None => {
            let list = client.apps(None).await?.apps;
            list.into_iter().map(|app| app.name).collect()
        }
    };
    let lists = stream::iter(apps).map(|name| async move {
        match client.machines(&name, filter).await {
            // It has gone since it was listed.
            Err(error) if error.is_not_found() && app.is_none() => Ok((name, Vec::new())),
            answer => answer.map(|list| (name, list.machines)),
        }
    });
    let lists: Vec<_> = lists.buffered(APPS_AT_ONCE).try_collect().await?;
    let mut found: Vec<_> = lists
        .into_iter()
        .flat_map(|(app, machines)| {
            machines.into_iter().map(move |machine| Found {
                app: app.clone(),
                machine,
            })
        })
        .collect();
    found.sort_by(|a, b| {
        let key = |found: &Found| (found.app.to_string(), found.machine.name.clone());
        key(a).cmp(&key(b))
    });
    Ok(found)
}

impl One {
    pub(super) async fn find(&self, client: &Client) -> anyhow::Result<Found> {
        let app = self.scope.app.as_ref();
        if let (Some(app), Ok(id)) = (app, self.machine.parse::<MachineId>()) {
            let machine = client.machine(app, &id).await?;
            return Ok(Found {
                app: app.clone(),
                machine,
            });
        }
        let all = inventory(client, app, &MachineFilter::default()).await?;
        Ok(pick(&self.machine, &all)?.clone())
    }

    /// Also one that has been destroyed, as long as it is remembered.
    pub(super) async fn find_past(&self, client: &Client) -> anyhow::Result<Found> {
        let missing = match self.find(client).await {
            Err(error) if error.is::<Refused>() => error,
            found => return found,
        };
        let filter = MachineFilter {
            include_deleted: true,
            ..MachineFilter::default()
        };
        let all = inventory(client, self.scope.app.as_ref(), &filter).await?;
        pick(&self.machine, &all).cloned().map_err(|_| missing)
    }
}

impl Many {
    /// Whether the command line may mean more than one.
    pub(super) fn is_plural(&self) -> bool {
        self.all || self.machines.len() > 1
    }

    /// The machines, each once, in the order in which they were named. `verb` is for the question
    /// that `--all` asks.
    pub(super) async fn find(&self, client: &Client, verb: &str) -> anyhow::Result<Vec<Found>> {
        if let ([machine], Some(_)) = (&self.machines[..], &self.scope.app) {
            let scope = InApp {
                app: self.scope.app.clone(),
            };
            let machine = machine.clone();
            return Ok(vec![One { machine, scope }.find(client).await?]);
        }
        let app = self.scope.app.as_ref();
        let all = inventory(client, app, &MachineFilter::default()).await?;
        if self.all {
            let of = app.map_or_else(|| "all apps".into(), |app| format!("app {app}"));
            if !all.is_empty() {
                let question = format!("{verb} all {} machines of {of}?", all.len());
                confirm(&question, self.yes)?;
            }
            return Ok(all);
        }
        let mut found: Vec<Found> = Vec::new();
        for wanted in &self.machines {
            let one = pick(wanted, &all)?;
            if !found.iter().any(|f| f.machine.id == one.machine.id) {
                found.push(one.clone());
            }
        }
        Ok(found)
    }
}

/// The machine that `wanted` names: an id beats a name, and a name the beginning of an id.
pub(super) fn pick<'a>(wanted: &str, all: &'a [Found]) -> Result<&'a Found, Refused> {
    let (app, name) = match wanted.split_once('/') {
        Some((app, name)) => (Some(app), name),
        None => (None, wanted),
    };
    let in_app = || {
        all.iter()
            .filter(move |found| app.is_none_or(|app| found.app.as_str() == app))
    };
    let ways: [&dyn Fn(&Found) -> bool; 3] = [
        &|found| found.machine.id.as_str() == name,
        &|found| found.machine.name == name,
        &|found| name.len() >= PREFIX_MIN && found.machine.id.as_str().starts_with(name),
    ];
    for way in ways {
        let found: Vec<_> = in_app().filter(|found| way(found)).collect();
        match found[..] {
            [] => {}
            [one] => return Ok(one),
            _ => return Err(ambiguous(wanted, &found)),
        }
    }
    let near = in_app().find(|found| is_near(name, &found.machine.name));
    let hint = match near {
        Some(found) => format!("did you mean `{}`?", found.machine.name),
        None => "`aerostat machine list` shows those that there are".to_owned(),
    };
    Err(Refused(format!("there is no machine `{wanted}`; {hint}")))
}

fn ambiguous(wanted: &str, found: &[&Found]) -> Refused {
    let list = found.iter().map(|found| {
        let (app, machine) = (&found.app, &found.machine);
        format!("  {}   {app}/{}", machine.id, machine.name)
    });
    Refused(format!(
        "`{wanted}` may be any of {}; say which by its id or as APP/NAME:\n{}",
        found.len(),
        list.collect::<Vec<_>>().join("\n")
    ))
}

/// Whether `a` is `b` with at most two letters wrong, or a part of it.
fn is_near(a: &str, b: &str) -> bool {
    if a.len() >= PREFIX_MIN && b.contains(a) {
        return true;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()] <= 2 && a.chars().count() > 3
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(crate) fn found(app: &str, id: &str, name: &str) -> Found {
        let machine = json!({
            "id": id, "name": name, "state": "started", "region": "local",
            "instance_id": "01KAKS00000000000000000001", "version": "01KAKS00000000000000000001",
            "private_ip": "fdaa:0:22b7:a7b:2:0:3:2", "created_at": "2026-11-21T10:00:00Z",
            "updated_at": "2026-11-21T10:00:00Z",
            "config": {"image": "docker.io/library/nginx:1.27", "guest": {"cpus": 1, "memory_mb": 256}},
            "image_ref": {"registry": "docker.io", "repository": "library/nginx", "tag": "1.27",
                          "digest": "sha256:0123456789abcdef0123"},
            "host_status": "ok", "isolation": "container",
        });
        Found {
            app: app.parse().unwrap(),
            machine: serde_json::from_value(machine).unwrap(),
        }
    }

    #[test]
    fn a_machine_goes_by_id_name_beginning_or_app_and_name() {
        let all = [
            found("shop", "abc0000000000a", "web"),
            found("blog", "abc1110000000b", "web"),
            found("blog", "d0000000000000", "abc"),
        ];
        let id = |wanted| pick(wanted, &all).map(|found| found.machine.id.to_string());
        assert_eq!(id("abc0000000000a").unwrap(), "abc0000000000a");
        assert_eq!(id("blog/web").unwrap(), "abc1110000000b");
        assert_eq!(
            id("abc").unwrap(),
            "d0000000000000",
            "a name beats a prefix"
        );
        assert_eq!(id("abc1").unwrap(), "abc1110000000b");
        assert!(id("web").unwrap_err().0.contains("shop/web"));
        assert!(id("abcd").unwrap_err().0.contains("there is no machine"));
        assert!(id("d0").is_err(), "two digits are no prefix");
    }

    #[test]
    fn a_mistyped_name_is_answered_with_the_likely_one() {
        let all = [found("shop", "abc0000000000a", "server")];
        let text = pick("sevrer", &all).unwrap_err().0;
        assert_eq!(text, "there is no machine `sevrer`; did you mean `server`?");
        let text = pick("database", &all).unwrap_err().0;
        assert!(text.contains("aerostat machine list"), "{text}");
    }
}
