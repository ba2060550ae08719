//! The command tree as a whole: groups of the first page of help, an example for every command
//! ([`examples`]), the list of commands, and `docs/cli.md`, which is made from it.

use clap::{Command, CommandFactory as _};
use serde::Serialize;

use super::output::{self, Table};
use super::{Cli, Context};

mod examples;

/// The first page of help, by subject. A command that is in none is shown under the last.
const GROUPS: &[(&str, &[&str])] = &[
    ("Begin", &["up", "down", "doctor", "env"]),
    (
        "Machines",
        &["machine", "app", "image", "volume", "secret", "service"],
    ),
    (
        "Hosts and networks",
        &[
            "host",
            "join",
            "mesh",
            "wireguard",
            "kernel",
            "k8s",
            "serve",
            "kubernetes",
        ],
    ),
    (
        "Access and this tool",
        &["token", "context", "completion", "commands"],
    ),
];

const AFTER_HELP: &str = "\
First steps:
  aerostat up                              start everything on this host
  aerostat machine run localhost/hello:1   a first machine
  aerostat machine list
  aerostat machine why NAME                explains what it does, and why

Exit codes:
  0  done
  1  refused: understood and declined, or there is no such thing
  2  wrong usage, or a failure
  exec, console and attach end with the exit code of the program; Ctrl-C is 130

Environment:
  AEROSTAT_APP        app of machine commands
  AEROSTAT_CONTEXT    host to speak to, of `aerostat context list`
  AEROSTAT_API_URL    Machines API to speak to, with AEROSTAT_API_TOKEN
  FLY_FLAPS_BASE_URL  the same for Fly's tools, with FLY_API_TOKEN
  NO_COLOR            no colours";

/// Every command, with what all of them share.
pub(super) fn command() -> Command {
    let mut command = Cli::command().after_help(AFTER_HELP);
    let template = template(&command);
    command = command.help_template(template);
    with_examples(command, "")
}

fn with_examples(command: Command, path: &str) -> Command {
    command.mut_subcommands(|sub| {
        let path = join(path, sub.get_name());
        let given = sub.get_after_help().is_some();
        let sub = match examples::of(&path) {
            Some(lines) if !given => sub.after_help(format!("Examples:\n{lines}")),
            Some(_) | None => sub,
        };
        with_examples(sub, &path)
    })
}

fn join(path: &str, name: &str) -> String {
    match path {
        "" => name.to_owned(),
        path => format!("{path} {name}"),
    }
}

/// Clap has one list of subcommands; a newcomer looks for a subject.
fn template(command: &Command) -> String {
    let heading = |text: &str| format!("\x1b[1m\x1b[4m{text}:\x1b[0m\n");
    let mut text = "{about-with-newline}\n{usage-heading} {usage}\n\n".to_owned();
    let mut listed: Vec<&str> = Vec::new();
    let last = GROUPS.len() - 1;
    for (number, (group, names)) in GROUPS.iter().enumerate() {
        let mut found: Vec<&Command> = names
            .iter()
            .filter_map(|name| command.find_subcommand(name))
            .collect();
        listed.extend(found.iter().map(|sub| sub.get_name()));
        if number == last {
            let rest = command.get_subcommands();
            found
                .extend(rest.filter(|sub| !sub.is_hide_set() && !listed.contains(&sub.get_name())));
        }
        text += &heading(group);
        for sub in found {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            text += &format!("  \x1b[1m{:<11}\x1b[0m {about}\n", sub.get_name());
        }
        text.push('\n');
    }
    text + "\x1b[1m\x1b[4mOptions:\x1b[0m\n{options}{after-help}"
}

/// One command of the list.
#[derive(Debug, Serialize)]
struct Row {
    command: String,
    about: String,
    /// Names of what it takes, in order.
    arguments: Vec<String>,
    /// Whether it only leads to others.
    group: bool,
}

/// `aerostat commands`
pub(super) fn list(context: &Context) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    visit(&built(), "", &mut |path, command| {
        let arguments = command.get_positionals();
        rows.push(Row {
            command: path.to_owned(),
            about: about(command),
            arguments: arguments.map(|arg| arg.get_id().to_string()).collect(),
            group: command.has_subcommands(),
        });
    });
    let table = || {
        let mut table = Table::new(&["COMMAND", "WHAT IT DOES"]);
        for row in rows.iter().filter(|row| !row.group) {
            table.row([row.command.clone(), row.about.clone()]);
        }
        table
    };
    let names = || rows.iter().map(|row| row.command.clone()).collect();
    output::print(context.format, &rows, table, names)
}

fn about(command: &Command) -> String {
    command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// The tree with everything that clap adds to it.
fn built() -> Command {
    let mut command = command();
    command.build();
    command
}

/// Calls `see` with each visible command below this one, and its path.
fn visit(command: &Command, path: &str, see: &mut dyn FnMut(&str, &Command)) {
    for sub in command.get_subcommands() {
        if sub.is_hide_set() || sub.get_name() == "help" {
            continue;
        }
        let path = join(path, sub.get_name());
        see(&path, sub);
        visit(sub, &path, see);
    }
}

#[cfg(test)]
mod tests;
