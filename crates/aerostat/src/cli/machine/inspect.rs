//! What goes on inside machines: `ps` and `stats`.

use std::time::Duration;

use clap::Args;
use client::{Client, MachineFilter};
use serde::Serialize;
use types::MachineId;
use types::api::ProcessStat;
use types::guest::Statistics;
use types::machine::MachineState;

use super::InApp;
use super::find::{Found, One, inventory, pick};
use crate::cli::output::{self, Table, size};
use crate::cli::{Context, Reported, complete, report};

/// Between two looks at the processor time, from which its share comes.
const SAMPLE: Duration = Duration::from_millis(500);
/// Clock ticks in a second, as Linux counts processor time (`USER_HZ`).
const TICKS: u64 = 100;

#[derive(Debug, Args)]
pub(in crate::cli) struct Ps {
    #[command(flatten)]
    one: One,
    /// Only this container
    #[arg(short, long)]
    container: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct Stats {
    /// Machines [default: all that run]
    #[arg(value_name = "MACHINE", add = complete::machines())]
    machines: Vec<String>,
    #[command(flatten)]
    scope: InApp,
}

/// What one machine uses.
#[derive(Debug, Serialize)]
struct Usage {
    machine: MachineId,
    name: String,
    /// Processors that are busy now, 1.0 being one whole.
    cpus: f64,
    #[serde(flatten)]
    statistics: Statistics,
}

impl Ps {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let found = self.one.find(&client).await?;
        let mut list = client.processes(&found.app, &found.machine.id).await?;
        if let Some(container) = &self.container {
            list.retain(|process| process.container == *container);
        }
        let names = || list.iter().map(|process| process.pid.to_string()).collect();
        output::print(context.format, &list, || processes(&list), names)
    }
}

fn processes(list: &[ProcessStat]) -> Table {
    let heading = [
        "PID",
        "CONTAINER",
        "CPU TIME",
        "MEMORY",
        "RUNS FOR",
        "COMMAND",
    ];
    let mut table = Table::new(&heading).wide(&["DIRECTORY", "LISTENS"]);
    for process in list {
        let listens = process.listen_sockets.iter();
        let listens = listens.map(|socket| format!("{}/{}", socket.address, socket.proto));
        table.row([
            process.pid.to_string(),
            process.container.clone(),
            cpu_time(process.cpu),
            size(process.rss),
            output::age(i64::try_from(process.rtime * 1000).unwrap_or(i64::MAX), 0),
            process.command.clone(),
            process.directory.clone(),
            listens.collect::<Vec<_>>().join(","),
        ]);
    }
    table
}

/// Minutes, seconds and hundredths, as top(1) writes it.
fn cpu_time(ticks: u64) -> String {
    let seconds = ticks / TICKS;
    format!("{}:{:02}.{:02}", seconds / 60, seconds % 60, ticks % TICKS)
}

impl Stats {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let client = context.client()?;
        let app = self.scope.app.as_ref();
        let all = inventory(&client, app, &MachineFilter::default()).await?;
        let found: Vec<Found> = match self.machines.is_empty() {
            true => all
                .into_iter()
                .filter(|found| found.machine.state == MachineState::Started)
                .collect(),
            false => self
                .machines
                .iter()
                .map(|wanted| pick(wanted, &all).cloned())
                .collect::<Result<_, _>>()?,
        };
        let (list, worst) = usage(&client, &found).await;
        let names = || list.iter().map(|usage| usage.machine.to_string()).collect();
        if worst > 0 && list.is_empty() {
            return Err(Reported(worst).into());
        }
        let first = "no machine runs; `aerostat machine list` shows those that there are";
        output::print_list(context.format, &list, || usages(&list), names, first)?;
        match worst {
            0 => Ok(()),
            code => Err(Reported(code).into()),
        }
    }
}

/// Looks twice, so that there is a share of the processors to show. A machine that cannot be
/// asked is reported; also the worst exit code comes back.
async fn usage(client: &Client, found: &[Found]) -> (Vec<Usage>, u8) {
    let ask = async || {
        let asked = found
            .iter()
            .map(|found| client.statistics(&found.app, &found.machine.id));
        let begun = std::time::Instant::now();
        (begun, futures::future::join_all(asked).await)
    };
    let (first_at, first) = ask().await;
    if first.iter().any(Result::is_ok) {
        tokio::time::sleep(SAMPLE).await;
    }
    let (second_at, second) = ask().await;
    let elapsed = (second_at - first_at).as_secs_f64();
    let (mut list, mut worst) = (Vec::new(), 0);
    for ((found, first), second) in found.iter().zip(first).zip(second) {
        match (first, second) {
            (Ok(first), Ok(statistics)) => {
                let busy = Duration::from_nanos(statistics.cpu_ns.saturating_sub(first.cpu_ns));
                list.push(Usage {
                    machine: found.machine.id.clone(),
                    name: found.machine.name.clone(),
                    cpus: busy.as_secs_f64() / elapsed,
                    statistics,
                });
            }
            (Err(error), _) | (_, Err(error)) => {
                let name = &found.machine.name;
                worst = worst.max(report(&anyhow::Error::from(error).context(name.clone())));
            }
        }
    }
    (list, worst)
}

fn usages(list: &[Usage]) -> Table {
    let heading = [
        "ID",
        "NAME",
        "CPU",
        "MEMORY",
        "LIMIT",
        "NET IN",
        "NET OUT",
        "DISK READ",
        "DISK WRITTEN",
        "PROCESSES",
    ];
    let mut table = Table::new(&heading).wide(&["CPU TIME", "CONTAINERS"]);
    for usage in list {
        let Usage {
            machine,
            name,
            cpus,
            statistics,
        } = usage;
        let containers = statistics.containers.iter().map(|(name, container)| {
            let memory = size(container.memory_bytes);
            format!("{name}: {memory}, {} processes", container.processes)
        });
        table.row([
            machine.to_string(),
            name.clone(),
            format!("{:.1} %", cpus * 100.0),
            size(statistics.memory_bytes),
            size(statistics.memory_limit_bytes),
            size(statistics.network_receive_bytes),
            size(statistics.network_send_bytes),
            size(statistics.disk_read_bytes),
            size(statistics.disk_write_bytes),
            statistics.processes.to_string(),
            format!("{:.2?}", Duration::from_nanos(statistics.cpu_ns)),
            containers.collect::<Vec<_>>().join("; "),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_reads_as_in_top() {
        assert_eq!(cpu_time(0), "0:00.00");
        assert_eq!(cpu_time(6_123), "1:01.23");
    }
}
