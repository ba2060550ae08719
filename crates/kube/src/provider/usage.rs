//! What the machines of pods use, as the Machines API tells it.
//!
//! Nobody is asked before somebody wants to know. The use of processors is the difference of two
//! looks: with an autoscaler, which asks every fifteen seconds, the second is the first of the next
//! time; who asks out of the blue waits a second for it.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use client::{Client, MachineFilter};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::Mutex;
use tracing::debug;
use types::guest::Statistics;
use types::machine::MachineState;
use types::{AppName, MachineId};

use super::translate::POD_UID;
use crate::object;
use crate::usage::{PodUsage, Usage, Used};

/// Numbers of this age are told again.
const FRESH: Duration = Duration::from_secs(5);
/// A look that is older says nothing about now.
const STALE: Duration = Duration::from_secs(60);
/// Between the two looks of who asks out of the blue.
const PAUSE: Duration = Duration::from_secs(1);
/// A machine that does not answer holds nobody up for longer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);
/// Machines that are asked at the same time.
const ASKS_MAX: usize = 16;

/// Asks machines. Cloning is not needed: it is shared.
#[derive(Debug)]
pub struct MachineUsage {
    client: Client,
    app: AppName,
    /// By uid of the pod. Held while machines are asked, so that two who want to know at the same
    /// time ask once.
    known: Mutex<HashMap<String, Known>>,
}

/// The last look at a machine, and what it told.
#[derive(Debug, Clone)]
struct Known {
    machine: MachineId,
    look: Look,
    usage: Option<Usage>,
}

#[derive(Debug, Clone)]
struct Look {
    at: Instant,
    time: Timestamp,
    statistics: Statistics,
}

impl MachineUsage {
    /// `app`: the one that the provider makes machines in.
    pub fn new(client: Client, app: AppName) -> Self {
        Self {
            client,
            app,
            known: Mutex::default(),
        }
    }

    /// Machines that run, by the uid of their pod.
    async fn machines(&self) -> HashMap<String, MachineId> {
        let all = MachineFilter::default();
        let listed = match self.client.machines(&self.app, &all).await {
            Ok(listed) => listed,
            Err(error) => {
                debug!(%error, "machines of pods not listed");
                return HashMap::new();
            }
        };
        let running = listed.machines.into_iter();
        let running = running.filter(|machine| machine.state == MachineState::Started);
        let by_uid = running.filter_map(|machine| {
            let uid = machine.config.metadata.get(POD_UID)?.clone();
            Some((uid, machine.id))
        });
        by_uid.collect()
    }

    /// Looks at some machines, several at a time.
    async fn look(&self, machines: Vec<(String, MachineId)>) -> Vec<(String, MachineId, Look)> {
        let asked = machines.into_iter().map(async |(uid, machine)| {
            let asked = self.client.statistics(&self.app, &machine);
            let statistics = tokio::time::timeout(ASK_TIMEOUT, asked).await.ok()?;
            let statistics = statistics
                .inspect_err(|error| debug!(%machine, %error, "machine does not say what it uses"))
                .ok()?;
            let look = Look {
                at: Instant::now(),
                time: Timestamp::now(),
                statistics,
            };
            Some((uid, machine, look))
        });
        let looks = futures::stream::iter(asked).buffer_unordered(ASKS_MAX);
        looks.filter_map(async |look| look).collect().await
    }

    async fn measure(&self, pods: &[Value]) -> HashMap<String, Usage> {
        let mut known = self.known.lock().await;
        known.retain(|_, one| one.look.at.elapsed() < STALE);
        let running = self.machines().await;
        // A machine that took another's place begins anew.
        known.retain(|uid, one| running.get(uid) == Some(&one.machine));
        let wanted = |uid: &str| Some((uid.to_owned(), running.get(uid)?.clone()));
        let all: Vec<_> = pods
            .iter()
            .filter_map(|pod| wanted(object::uid(pod)))
            .collect();
        let due = |known: &HashMap<String, Known>| {
            let is_due = |uid: &String| {
                let one = known.get(uid);
                !one.is_some_and(|one| one.usage.is_some() && one.look.at.elapsed() < FRESH)
            };
            all.iter()
                .filter(|(uid, _)| is_due(uid))
                .cloned()
                .collect::<Vec<_>>()
        };
        for look in self.look(due(&known)).await {
            take(&mut known, look);
        }
        let first: Vec<_> = all
            .iter()
            .filter(|(uid, _)| known.get(uid).is_some_and(|one| one.usage.is_none()))
            .cloned()
            .collect();
        if !first.is_empty() {
            tokio::time::sleep(PAUSE).await;
            for look in self.look(first).await {
                take(&mut known, look);
            }
        }
        let usage = |uid: &str| known.get(uid)?.usage.clone();
        let told = all
            .iter()
            .filter_map(|(uid, _)| Some((uid.clone(), usage(uid)?)));
        told.collect()
    }
}

fn take(known: &mut HashMap<String, Known>, (uid, machine, look): (String, MachineId, Look)) {
    let before = known.get(&uid).map(|one| &one.look);
    let usage = before.and_then(|before| between(before, &look));
    known.insert(
        uid,
        Known {
            machine,
            look,
            usage,
        },
    );
}

/// What was used from one look to the next; none if the machine was started anew in between.
fn between(before: &Look, after: &Look) -> Option<Usage> {
    let window = after.at.checked_duration_since(before.at)?;
    let (first, second) = (&before.statistics, &after.statistics);
    let rate = |first: u64, second: u64| {
        let busy = u128::from(second.checked_sub(first)?);
        let nanos = busy * Duration::from_secs(1).as_nanos() / window.as_nanos().max(1);
        u64::try_from(nanos).ok()
    };
    rate(first.cpu_ns, second.cpu_ns)?;
    let mut containers = BTreeMap::new();
    for (name, container) in &second.containers {
        let begun = first.containers.get(name).map_or(0, |one| one.cpu_ns);
        // A container that was started anew has used what it says.
        let cpu_nanos = rate(begun, container.cpu_ns).or_else(|| rate(0, container.cpu_ns))?;
        let used = Used {
            cpu_nanos,
            memory_bytes: container.memory_bytes,
        };
        containers.insert(name.clone(), used);
    }
    Some(Usage {
        at: after.time,
        window,
        containers,
    })
}

impl PodUsage for MachineUsage {
    fn of<'a>(&'a self, pods: &'a [Value]) -> BoxFuture<'a, HashMap<String, Usage>> {
        self.measure(pods).boxed()
    }
}

#[cfg(test)]
mod tests {
    use types::guest::ContainerStatistics;

    use super::*;

    fn look(begun: Instant, second: u64, cpu_ns: u64) -> Look {
        let container = ContainerStatistics {
            cpu_ns,
            memory_bytes: 4096,
            ..ContainerStatistics::default()
        };
        Look {
            at: begun + Duration::from_secs(second),
            time: Timestamp::UNIX_EPOCH,
            statistics: Statistics {
                cpu_ns,
                containers: BTreeMap::from([("web".to_owned(), container)]),
                ..Statistics::default()
            },
        }
    }

    #[test]
    fn use_is_what_was_added_between_two_looks() {
        let begun = Instant::now();
        let first = look(begun, 0, 1_000_000_000);
        let usage = between(&first, &look(begun, 10, 6_000_000_000)).unwrap();
        assert_eq!(usage.window, Duration::from_secs(10));
        let used = Used {
            cpu_nanos: 500_000_000,
            memory_bytes: 4096,
        };
        assert_eq!(usage.containers["web"], used);
        assert_eq!(usage.sum(), used);
        // After a boot the counter begins anew, and says nothing about before.
        assert_eq!(between(&first, &look(begun, 10, 5)), None);
    }
}
