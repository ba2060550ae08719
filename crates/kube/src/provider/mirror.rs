//! Copies of the pods that are bound to this node and of the app's machines, by uid.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use client::{Client, Error, MachineFilter};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::mpsc;
use tracing::{debug, warn};
use types::api::WatchEvent;
use types::machine::{Machine, MachineState};
use types::{AppName, MachineId};

use super::ProviderConfig;
use super::silence;
use super::translate::POD_UID;
use crate::api::{Api, Selector};
use crate::controllers::informer::{self, Change};
use crate::object;
use crate::resource::PODS;

/// Changes of machines on their way.
const CHANGES_MAX: usize = 64;
/// Time before a watch that broke is opened again.
const RETRY: Duration = Duration::from_secs(1);

/// What a machine watch brings.
#[derive(Debug)]
enum MachineChange {
    Listed(Vec<Machine>),
    Changed(Box<Machine>),
}

/// Both sides of one uid as they are known now.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) uid: String,
    pub(crate) pod: Option<Arc<Value>>,
    pub(crate) machine: Option<Arc<Machine>>,
    /// More machines of the same name. A host that fell silent before anybody knew that it had made
    /// one brings it along when it is back, and meanwhile another host has made the pod's.
    pub(crate) surplus: Vec<Arc<Machine>>,
}

#[derive(Debug)]
pub(crate) struct Mirror {
    region: String,
    pods: Option<HashMap<String, Arc<Value>>>,
    /// The pod's machine first.
    machines: Option<HashMap<String, Vec<Arc<Machine>>>>,
    /// Revisions that answers showed and the watch has not reached.
    ahead: HashMap<MachineId, u64>,
    pod_changes: mpsc::Receiver<Change>,
    machine_changes: mpsc::Receiver<MachineChange>,
}

impl Mirror {
    pub(crate) fn follow(api: &Api, client: &Client, config: &ProviderConfig) -> Self {
        let (sender, machine_changes) = mpsc::channel(CHANGES_MAX);
        let (client, app) = (client.clone(), config.app.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = feed(&client, &app, &sender) => {}
                () = sender.closed() => {}
            }
        });
        let mine = format!("spec.nodeName={}", config.node.name);
        // The field is in every schema of a pod, and a node's name holds no comma.
        let mine = Selector::fields(&PODS, &mine).unwrap_or_default();
        Self {
            region: config.region.clone(),
            pods: None,
            machines: None,
            ahead: HashMap::new(),
            pod_changes: informer::follow(api, &PODS, mine),
            machine_changes,
        }
    }

    /// Whether both sides have been listed. Before, a machine without a pod means nothing.
    pub(crate) fn is_complete(&self) -> bool {
        self.pods.is_some() && self.machines.is_some()
    }

    pub(crate) fn knows(&self, uid: &str) -> bool {
        let pod = self
            .pods
            .as_ref()
            .is_some_and(|pods| pods.contains_key(uid));
        pod || self
            .machines
            .as_ref()
            .is_some_and(|all| all.contains_key(uid))
    }

    pub(crate) fn subject(&self, uid: &str) -> Subject {
        let machines = self.machines.as_ref().and_then(|all| all.get(uid));
        let mut machines = machines.into_iter().flatten().cloned();
        Subject {
            uid: uid.to_owned(),
            pod: self.pods.as_ref().and_then(|pods| pods.get(uid).cloned()),
            machine: machines.next(),
            surplus: machines.collect(),
        }
    }

    /// Takes in what an answer showed, which may be ahead of the watch.
    pub(crate) fn saw(&mut self, machine: Machine) {
        let uid = machine.config.metadata.get(POD_UID);
        let known = uid.and_then(|uid| self.machines.as_ref()?.get(uid));
        let mut known = known.into_iter().flatten();
        if !known.any(|known| known.id == machine.id && known.revision >= machine.revision) {
            self.ahead.insert(machine.id.clone(), machine.revision);
            self.take_machine(machine);
        }
    }

    /// What the watch says last is so, even if its revision is lower: a host that was put back from
    /// a backup counts from there. Only an answer may be ahead of it.
    fn heard(&mut self, machine: Machine) -> Option<String> {
        let ahead = self.ahead.get(&machine.id);
        if ahead.is_some_and(|ahead| *ahead > machine.revision) {
            return None;
        }
        self.ahead.remove(&machine.id);
        self.take_machine(machine)
    }

    /// Waits for a change, takes it in and returns the uids that it is about.
    pub(crate) async fn changed(&mut self) -> Vec<String> {
        tokio::select! {
            change = self.pod_changes.recv() => match change {
                Some(Change::Listed(pods)) => self.list_pods(pods),
                Some(Change::Changed(pod)) => {
                    let uid = object::uid(&pod).to_owned();
                    self.pods.get_or_insert_default().insert(uid.clone(), Arc::new(pod));
                    vec![uid]
                }
                Some(Change::Deleted(pod)) => {
                    let uid = object::uid(&pod).to_owned();
                    self.pods.get_or_insert_default().remove(&uid);
                    vec![uid]
                }
                // The feeding task ended, which it does only with the process.
                None => std::future::pending().await,
            },
            change = self.machine_changes.recv() => match change {
                Some(MachineChange::Listed(machines)) => self.list_machines(machines),
                Some(MachineChange::Changed(machine)) => {
                    self.heard(*machine).into_iter().collect()
                }
                None => std::future::pending().await,
            },
        }
    }

    fn list_pods(&mut self, pods: Vec<Value>) -> Vec<String> {
        let before = self.pods.take().unwrap_or_default();
        let pods = pods.into_iter();
        let pods: HashMap<_, _> = pods
            .map(|pod| (object::uid(&pod).to_owned(), Arc::new(pod)))
            .collect();
        let uids = either(before.into_keys(), pods.keys());
        self.pods = Some(pods);
        uids
    }

    fn list_machines(&mut self, machines: Vec<Machine>) -> Vec<String> {
        let before = self.machines.take().unwrap_or_default();
        self.machines = Some(HashMap::new());
        self.ahead.clear();
        for machine in machines {
            self.take_machine(machine);
        }
        let now = self.machines.as_ref().map(HashMap::keys);
        either(before.into_keys(), now.into_iter().flatten())
    }

    /// The uid, if the machine is a pod of this region and this is news.
    fn take_machine(&mut self, machine: Machine) -> Option<String> {
        let uid = machine.config.metadata.get(POD_UID)?.clone();
        if machine.region != self.region || machine.name != uid {
            return None;
        }
        let all = self.machines.get_or_insert_default();
        let machines = all.entry(uid.clone()).or_default();
        machines.retain(|known| known.id != machine.id);
        if machine.state != MachineState::Destroyed {
            machines.push(Arc::new(machine));
            machines.sort_by_key(|machine| rank(machine));
        }
        if machines.is_empty() {
            all.remove(&uid);
        }
        Some(uid)
    }
}

/// Which of several machines of one name is the pod's: one that can be asked and stays, then the
/// newest, because the others are those that were given up.
fn rank(machine: &Machine) -> (bool, bool, Reverse<Timestamp>, MachineId) {
    let ends = machine.state == MachineState::Destroying;
    let made = Reverse(machine.created_at);
    (silence::is_silent(machine), ends, made, machine.id.clone())
}

fn either<'a>(
    before: impl Iterator<Item = String>,
    now: impl Iterator<Item = &'a String>,
) -> Vec<String> {
    let all: HashSet<String> = before.chain(now.cloned()).collect();
    all.into_iter().collect()
}

/// Lists, then watches from there, until nobody listens.
async fn feed(client: &Client, app: &AppName, changes: &mpsc::Sender<MachineChange>) {
    let mut from = None;
    loop {
        let result = match from {
            None => list(client, app, changes).await,
            Some(revision) => watch(client, app, revision, changes).await,
        };
        match result {
            Ok(revision) => {
                if from.is_some() {
                    // A server that closes every watch at once must not keep us spinning.
                    tokio::time::sleep(RETRY).await;
                }
                from = revision;
            }
            Err(Error::Gone { from: revision }) => {
                debug!(revision, "watch of machines fell behind");
                from = None;
            }
            Err(error) => {
                warn!(%app, %error, "machines cannot be watched");
                tokio::time::sleep(RETRY).await;
                // The revisions of an API that was away may not be those from before.
                from = None;
            }
        }
        if changes.is_closed() {
            return;
        }
    }
}

async fn list(
    client: &Client,
    app: &AppName,
    changes: &mpsc::Sender<MachineChange>,
) -> Result<Option<u64>, Error> {
    let list = client.machines(app, &MachineFilter::default()).await?;
    // A closed channel is noticed by the caller.
    let _ = changes.send(MachineChange::Listed(list.machines)).await;
    Ok(Some(list.revision))
}

/// Watches until the server closes; returns the revision to go on from.
async fn watch(
    client: &Client,
    app: &AppName,
    from: u64,
    changes: &mpsc::Sender<MachineChange>,
) -> Result<Option<u64>, Error> {
    let mut watch = client.watch(app, Some(from)).await?;
    let mut last = from;
    while let Some(event) = watch.next().await {
        match event? {
            WatchEvent::Machine {
                revision, machine, ..
            } => {
                last = revision;
                if changes.send(MachineChange::Changed(machine)).await.is_err() {
                    break;
                }
            }
            WatchEvent::Bookmark { revision } => last = revision,
        }
    }
    Ok(Some(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(revision: u64, state: MachineState) -> Machine {
        let version: types::VersionId = "01ARZ3NDEKTSV4RRFFQ69G5FAV".parse().unwrap();
        let mut machine = Machine {
            id: MachineId::from_bits(7),
            name: "u".into(),
            state,
            region: "local".into(),
            instance_id: version.clone(),
            version,
            private_ip: String::new(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            config: types::machine::MachineConfig::default(),
            image_ref: types::machine::ImageIdentity::default(),
            events: Vec::new(),
            checks: Vec::new(),
            containers: Vec::new(),
            nonce: None,
            host_status: "ok".into(),
            cordoned: false,
            creation_key: None,
            isolation: types::IsolationClass::Container,
            revision,
        };
        machine.config.metadata.insert(POD_UID.into(), "u".into());
        machine
    }

    #[tokio::test]
    async fn the_watch_has_the_last_word_once_it_has_reached_what_answers_showed() {
        use MachineState::{Created, Started, Starting, Stopped};
        let (changes, machine_changes) = mpsc::channel(8);
        let (_pods, pod_changes) = mpsc::channel(8);
        let mut mirror = Mirror {
            region: "local".into(),
            pods: None,
            machines: None,
            ahead: HashMap::new(),
            pod_changes,
            machine_changes,
        };
        mirror.saw(machine(5, Starting));
        let mut now = async |revision, state| {
            let change = MachineChange::Changed(Box::new(machine(revision, state)));
            changes.send(change).await.unwrap();
            mirror.changed().await;
            mirror.subject("u").machine.map(|machine| machine.state)
        };
        assert_eq!(now(4, Created).await, Some(Starting));
        assert_eq!(now(5, Starting).await, Some(Starting));
        assert_eq!(now(9, Started).await, Some(Started));
        // Its host was put back from a backup.
        assert_eq!(now(6, Stopped).await, Some(Stopped));
        assert_eq!(now(7, MachineState::Destroyed).await, None);
    }
}
