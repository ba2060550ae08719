//! `aerostat machine status`: one machine as a page, several as a table.

use clap::Args;
use types::machine::{ContainerState, Health, Machine, RestartPolicy};

use super::find::{Found, Many};
use super::list;
use crate::cli::Context;
use crate::cli::output;
use crate::cli::style::{self, Colour, Paint};

#[derive(Debug, Args)]
pub(in crate::cli) struct Status {
    #[command(flatten)]
    many: Many,
}

impl Status {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        // Looking asks nothing of a machine: --all needs no confirmation.
        let many = Many {
            yes: true,
            ..self.many
        };
        let found = many.find(&client, "show").await?;
        match &found[..] {
            [one] if !many.is_plural() && context.format.is_table() => {
                output::write(page(context, one, Paint::stdout()).as_bytes())
            }
            [one] if !many.is_plural() => {
                let names = || list::ids(&found);
                output::print(context.format, one, || list::table(context, &found), names)
            }
            _ => output::print(
                context.format,
                &found,
                || list::table(context, &found),
                || list::ids(&found),
            ),
        }
    }
}

/// Everything about one machine, for people.
fn page(context: &Context, found: &Found, paint: Paint) -> String {
    let Found { app, machine } = found;
    let state = list::state_shown(machine);
    let coloured = match style::of_state(&state) {
        Some(colour) => paint.paint(colour, &state),
        None => state,
    };
    let since = context.ago(machine.updated_at);
    let mut text = format!(
        "{}   {coloured}   {since}\n",
        paint.paint(Colour::Bold, &machine.name)
    );
    for (key, value) in rows(context, app.as_str(), machine) {
        let value = value.replace(char::is_control, " ");
        text += &format!(
            "  {} {value}\n",
            paint.paint(Colour::Dim, &format!("{key:<11}"))
        );
    }
    text
}

fn rows(context: &Context, app: &str, machine: &Machine) -> Vec<(&'static str, String)> {
    let config = &machine.config;
    let mut rows = vec![
        ("id", machine.id.to_string()),
        ("app", app.to_owned()),
        ("image", image(machine)),
        ("class", machine.isolation.to_string()),
        ("size", list::size(machine)),
        (
            "host",
            format!("{} in region {}", list::host(machine), machine.region),
        ),
        ("address", machine.private_ip.clone()),
        ("created", context.ago(machine.created_at)),
        ("version", machine.version.to_string()),
        ("restart", restart(machine)),
    ];
    if let Some(schedule) = config.schedule {
        rows.push(("schedule", format!("{schedule:?}").to_lowercase()));
    }
    if config.auto_destroy {
        rows.push(("at its end", "destroyed".to_owned()));
    }
    for mount in &config.mounts {
        rows.push(("volume", format!("{} at {}", mount.volume, mount.path)));
    }
    for (key, value) in &config.metadata {
        rows.push(("metadata", format!("{key}={value}")));
    }
    for check in &machine.checks {
        let status = match check.status {
            Health::Passing => "passing",
            Health::Warning => "warning",
            Health::Critical => "critical",
        };
        let (name, since) = (&check.name, context.ago(check.updated_at));
        let output = check.output.trim();
        rows.push(("check", format!("{name} {status} {since}: {output}")));
    }
    for container in &machine.containers {
        let state = match container.state {
            ContainerState::Created => "created",
            ContainerState::Started => "started",
            ContainerState::Waiting => "waiting",
            ContainerState::Stopped => "stopped",
            ContainerState::Failed => "failed",
        };
        let mut value = format!("{} {state}", container.name);
        if let Some(started) = container.started_at {
            value += &format!(" {}", context.ago(started));
        }
        if container.restart_count > 0 {
            value += &format!(", restarted {} times", container.restart_count);
        }
        if !container.message.is_empty() {
            value += &format!(": {}", container.message);
        }
        rows.push(("container", value));
    }
    rows
}

fn image(machine: &Machine) -> String {
    let name = list::image(machine);
    match machine.image_ref.digest.as_str() {
        "" => name.to_owned(),
        digest => format!("{name} ({digest:.19})"),
    }
}

fn restart(machine: &Machine) -> String {
    let restart = machine.config.restart.clone().unwrap_or_default();
    let policy = match (restart.policy, restart.max_retries) {
        (RestartPolicy::No, _) => "never".to_owned(),
        (RestartPolicy::Always, None) => "always".to_owned(),
        (RestartPolicy::Always, Some(n)) => format!("always, {n} times at most"),
        (RestartPolicy::OnFailure, n) => {
            format!("on failure, {} times at most", n.unwrap_or(10))
        }
    };
    match list::restarts(machine) {
        0 => policy,
        n => format!("{policy}; {n} so far"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::find::tests::found;
    use super::*;

    #[test]
    fn a_page_tells_everything_about_a_machine() {
        let context = Context::of_tests();
        let text = page(
            &context,
            &found("shop", "abc0000000000a", "web"),
            Paint::NONE,
        );
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("web   started   "), "{text}");
        for line in [
            "  id          abc0000000000a",
            "  app         shop",
            "  image       docker.io/library/nginx:1.27 (sha256:0123456789ab)",
            "  size        1 shared cpu, 256 MiB",
            "  host        0002 in region local",
            "  restart     on failure, 10 times at most",
        ] {
            assert!(lines.contains(&line), "{line}: {text}");
        }
    }
}
