//! `aerostat machine list`, and the table of machines.

use std::collections::BTreeMap;

use clap::Args;
use client::MachineFilter;
use types::SixPn;
use types::machine::{Health, Machine, MachineState};

use super::InApp;
use super::find::{Found, inventory};
use super::wait::state;
use crate::cli::output::{self, Format, Table};
use crate::cli::{Context, complete};

#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    scope: InApp,
    /// Only those in one of these states
    #[arg(short, long, value_parser = state, value_delimiter = ',', add = complete::states())]
    state: Vec<MachineState>,
    /// Only those of this region
    #[arg(short, long)]
    region: Option<String>,
    /// Only those with this metadata; may be repeated
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = super::config::pair)]
    metadata: Vec<(String, String)>,
    /// Also those that were destroyed and are remembered
    #[arg(long)]
    destroyed: bool,
    /// Only ids: the same as -o name
    #[arg(short, long)]
    quiet: bool,
}

impl List {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let filter = MachineFilter {
            states: self.state,
            region: self.region,
            metadata: self.metadata.into_iter().collect::<BTreeMap<_, _>>(),
            include_deleted: self.destroyed,
        };
        let is_filtered = !filter.states.is_empty()
            || filter.region.is_some()
            || !filter.metadata.is_empty()
            || self.scope.app.is_some();
        let list = inventory(&context.client()?, self.scope.app.as_ref(), &filter).await?;
        let format = match self.quiet {
            true => Format::Name,
            false => context.format,
        };
        let first = match is_filtered {
            true => "there are no such machines; `aerostat machine list` shows all that there are",
            false => {
                "there are no machines yet; the first one: aerostat machine run localhost/hello:1"
            }
        };
        output::print_list(
            format,
            &list,
            || table(context, &list),
            || ids(&list),
            first,
        )
    }
}

pub(super) fn ids(list: &[Found]) -> Vec<String> {
    let ids = list.iter().map(|found| found.machine.id.to_string());
    ids.collect()
}

pub(super) fn table(context: &Context, list: &[Found]) -> Table {
    let heading = [
        "ID", "NAME", "APP", "STATE", "CLASS", "IMAGE", "ADDRESS", "AGE",
    ];
    let wide = [
        "SIZE", "REGION", "HOST", "CHECKS", "RESTARTS", "VERSION", "UPDATED",
    ];
    let mut table = Table::new(&heading).wide(&wide);
    for Found { app, machine } in list {
        let image = image(machine);
        let image = match context.format {
            Format::Wide => image,
            Format::Table | Format::Json | Format::Yaml | Format::Name => short_image(image),
        };
        table.row([
            machine.id.to_string(),
            machine.name.clone(),
            app.to_string(),
            state_shown(machine),
            machine.isolation.to_string(),
            image.to_owned(),
            machine.private_ip.clone(),
            context.time(machine.created_at),
            size(machine),
            machine.region.clone(),
            host(machine),
            checks(machine),
            restarts(machine).to_string(),
            machine.version.to_string(),
            machine.updated_at.to_string(),
        ]);
    }
    table
}

/// The image of the machine, or of its first container.
pub(super) fn image(machine: &Machine) -> &str {
    match machine.config.containers.first() {
        Some(container) if machine.config.image.is_empty() => &container.image,
        Some(_) | None => &machine.config.image,
    }
}

/// Without what goes without saying.
fn short_image(image: &str) -> &str {
    let short = image.strip_prefix("docker.io/").unwrap_or(image);
    short.strip_prefix("library/").unwrap_or(short)
}

/// The state; of a machine whose host is not heard of, the last that it was known in.
pub(super) fn state_shown(machine: &Machine) -> String {
    let mut text = machine.state.to_string();
    let mut remarks = Vec::new();
    if !["ok", ""].contains(&machine.host_status.as_str()) {
        remarks.push(format!("host {}", machine.host_status));
    }
    let failing = machine.checks.iter();
    let failing = failing.filter(|check| check.status == Health::Critical);
    match failing.count() {
        0 => {}
        1 => remarks.push("a check fails".to_owned()),
        some => remarks.push(format!("{some} checks fail")),
    }
    if machine.cordoned {
        remarks.push("cordoned".to_owned());
    }
    if !remarks.is_empty() {
        text.push_str(&format!(" ({})", remarks.join(", ")));
    }
    text
}

pub(super) fn size(machine: &Machine) -> String {
    let guest = machine.config.guest.clone().unwrap_or_default();
    let memory = output::size(u64::from(guest.memory_mb) << 20);
    format!("{} {} cpu, {memory}", guest.cpus, guest.cpu_kind)
}

/// The host, as in addresses.
pub(super) fn host(machine: &Machine) -> String {
    let address = machine.private_ip.parse().ok().and_then(SixPn::from_addr);
    address.map_or_else(|| "-".to_owned(), |address| address.host.to_string())
}

fn checks(machine: &Machine) -> String {
    if machine.checks.is_empty() {
        return "-".to_owned();
    }
    let passing = machine.checks.iter();
    let passing = passing.filter(|check| check.status == Health::Passing);
    format!("{}/{}", passing.count(), machine.checks.len())
}

/// Restarts since somebody last asked for something.
pub(super) fn restarts(machine: &Machine) -> u32 {
    let of_machine = machine
        .events
        .first()
        .and_then(|event| event.request.as_ref())
        .map_or(0, |request| request.restart_count);
    let of_containers = machine.containers.iter().map(|c| c.restart_count).sum();
    of_machine.max(of_containers)
}

#[cfg(test)]
mod tests {
    use super::super::find::tests::found;
    use super::*;

    #[test]
    fn a_table_of_machines_says_what_matters() {
        let mut list = [found("shop", "abc0000000000a", "web")];
        let machine = &mut list[0].machine;
        assert_eq!(state_shown(machine), "started");
        assert_eq!(host(machine), "0002");
        assert_eq!(size(machine), "1 shared cpu, 256 MiB");
        assert_eq!(short_image(image(machine)), "nginx:1.27");
        machine.cordoned = true;
        machine.host_status = "unreachable".into();
        assert_eq!(state_shown(machine), "started (host unreachable, cordoned)");
    }
}
