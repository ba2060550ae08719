//! One look at one uid: writes what is, then takes the next step.

mod create;

use std::sync::Arc;
use std::time::{Duration, Instant};

use client::{Client, Error};
use jiff::Timestamp;
use serde_json::{Value, json};
use tracing::{debug, info, warn};
use types::api::StopMachine;
use types::machine::{Machine, MachineState};

use super::life::{self, Step, Wanted};
use super::mirror::Subject;
use super::pod::Pod;
use super::silence::{self, Silence};
use super::status::{self, Observed, Problem};
use super::tokens::{self, Tokens};
use super::translate::{POD_NAME, POD_NAMESPACE};
use super::{MACHINE_APP_ANNOTATION, MACHINE_ID_ANNOTATION, ProviderConfig};
use crate::api::{Api, DeleteOptions, Part, Patch};
use crate::controllers::events::{News, Recorder};
use crate::controllers::queue::Outcome;
use crate::object;
use crate::resource::PODS;
use crate::status::Status;

/// How much longer than its grace a machine may take to stop before it is destroyed as it is.
const STOP_OVERTIME: Duration = Duration::from_secs(30);
/// Back-off between boots of a machine that ends by itself, as the kubelet has it for containers:
/// 10 s, doubled up to 5 min, forgotten after 10 min of running.
const START_BACK_OFF_MIN: Duration = Duration::from_secs(10);
const START_BACK_OFF_MAX: Duration = Duration::from_secs(300);
const START_BACK_OFF_FORGOTTEN: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) api: Api,
    pub(crate) client: Client,
    pub(crate) config: Arc<ProviderConfig>,
    pub(crate) recorder: Recorder,
}

/// What is known of a uid beyond the two lists. Losing it costs an event or a wait at most.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    problem: Option<Problem>,
    starts: u32,
    started_at: Option<Instant>,
    /// The grace of the stop that was sent.
    stop_grace: Option<Duration>,
    pub(super) silence: Silence,
    tokens: Tokens,
    /// A machine that an answer showed.
    pub(crate) seen: Option<Machine>,
}

/// Why a sync did not come to its end. Tried again with back-off.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Api(#[from] Status),
    #[error(transparent)]
    Machines(#[from] Error),
    #[error("cannot read the pod")]
    Pod { source: serde_json::Error },
    #[error("cannot pack files for the machine")]
    Archive { source: std::io::Error },
}

pub(crate) async fn sync(context: &Context, subject: &Subject, memory: &mut Memory) -> Outcome {
    let result = match (&subject.pod, &subject.machine) {
        (Some(pod), machine) => present(context, pod, machine.as_deref(), memory).await,
        (None, Some(machine)) => orphan(context, subject, machine).await,
        (None, None) => Ok(Outcome::Done),
    };
    let result = match result {
        Ok(outcome) => give_up(context, subject).await.map(|()| outcome),
        Err(failure) => Err(failure),
    };
    match result {
        Ok(outcome) => {
            memory.silence.answered();
            outcome
        }
        Err(Failure::Machines(error)) if silence::is_unanswered(&error) => {
            debug!(uid = subject.uid, "the machine's host did not answer");
            memory.silence.unanswered()
        }
        // Somebody else wrote the pod meanwhile, which is news that is on its way.
        Err(Failure::Api(status)) if status.is_conflict() => {
            Outcome::After(Duration::from_millis(50))
        }
        Err(error) => {
            warn!(uid = subject.uid, error = %types::chain(&error), "pod not synced");
            Outcome::Failed
        }
    }
}

/// A machine whose pod is not there. It is destroyed, once the API confirms that no pod of its uid
/// exists: the copy at hand shows only the pods of this node.
async fn orphan(
    context: &Context,
    subject: &Subject,
    machine: &Machine,
) -> Result<Outcome, Failure> {
    // When a silent host is back, that is news of its machines.
    if machine.state == MachineState::Destroying || silence::is_silent(machine) {
        return Ok(Outcome::Done);
    }
    let text = |key: &str| machine.config.metadata.get(key).map_or("", String::as_str);
    let (namespace, name) = (text(POD_NAMESPACE), text(POD_NAME));
    match context.api.get(&PODS, Some(namespace), name).await {
        Ok(pod) if object::uid(&pod) == subject.uid => return Ok(Outcome::Done),
        Ok(_) => {}
        Err(status) if status.is_not_found() => {}
        Err(status) => return Err(status.into()),
    }
    destroy(context, machine).await?;
    info!(machine = %machine.id, namespace, pod = name, "machine of a deleted pod destroyed");
    Ok(Outcome::Done)
}

/// Destroys machines that nobody needs beside the pod's.
async fn give_up(context: &Context, subject: &Subject) -> Result<(), Failure> {
    for machine in &subject.surplus {
        // When a silent host is back, that is news of its machines.
        if machine.state == MachineState::Destroying || silence::is_silent(machine) {
            continue;
        }
        destroy(context, machine).await?;
        warn!(machine = %machine.id, uid = subject.uid, "second machine of a pod destroyed");
    }
    Ok(())
}

async fn destroy(context: &Context, machine: &Machine) -> Result<(), Failure> {
    let app = &context.config.app;
    match context.client.destroy_machine(app, &machine.id, true).await {
        Ok(_) => Ok(()),
        Err(error) if error.is_not_found() => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn present(
    context: &Context,
    stored: &Value,
    machine: Option<&Machine>,
    memory: &mut Memory,
) -> Result<Outcome, Failure> {
    let current = current(context, stored).await?;
    let Some(current) = current else {
        return Ok(Outcome::Done);
    };
    let pod = Pod::read(&current).map_err(|source| Failure::Pod { source })?;
    remember_problem(machine, memory);
    let phase = write_status(context, &current, &pod, machine, memory).await?;
    let wanted = Wanted::new(pod.metadata.deletion_timestamp.is_some(), &phase);
    if let Some(machine) = machine.filter(|machine| silence::is_silent(machine)) {
        let subject = (machine, wanted);
        return silence::endure(context, &current, &pod, subject, memory).await;
    }
    memory.silence.over();
    match life::step(wanted, machine.map(|m| m.state)) {
        Step::Nothing => match machine.filter(|_| wanted == Wanted::Running) {
            Some(machine) => Ok(tokens::keep(context, &pod, machine, &mut memory.tokens).await),
            None => Ok(Outcome::Done),
        },
        Step::Create => create::create(context, &current, &pod, memory).await,
        Step::Start => match machine {
            Some(machine) => start(context, &current, machine, memory).await,
            None => Ok(Outcome::Done),
        },
        Step::Stop => match machine {
            Some(machine) => stop(context, &current, &pod, machine, memory).await,
            None => Ok(Outcome::Done),
        },
        Step::Finish => finish(context, &pod, machine).await,
    }
}

/// What a machine says about why it does not run, or that it does.
fn remember_problem(machine: Option<&Machine>, memory: &mut Memory) {
    let Some(machine) = machine else { return };
    match machine.state {
        MachineState::Started => memory.problem = None,
        MachineState::Failed => memory.problem = Some(boot_problem(machine, memory.starts > 0)),
        // What was wrong with the last boot is true until the next one is up.
        MachineState::Starting
        | MachineState::Created
        | MachineState::Suspending
        | MachineState::Suspended
        | MachineState::Restarting
        | MachineState::Updating
        | MachineState::Stopping
        | MachineState::Stopped
        | MachineState::Destroying
        | MachineState::Destroyed => {}
    }
}

fn boot_problem(machine: &Machine, again: bool) -> Problem {
    let mut containers = machine.containers.iter();
    if let Some(container) = containers.find(|c| status::image_is_missing(c)) {
        let message = container.message.clone();
        return Problem::Image { message, again };
    }
    let mut messages = machine
        .events
        .iter()
        .filter_map(|event| event.request.as_ref());
    let message = messages.find(|request| !request.message.is_empty());
    Problem::Boot(match message {
        Some(request) => request.message.clone(),
        None => format!("machine {} has failed", machine.id),
    })
}

/// The pod as it is now; `None` if it is gone or another one has its name.
async fn current(context: &Context, stored: &Value) -> Result<Option<Value>, Status> {
    let (namespace, name) = (object::namespace(stored), object::name(stored));
    match context.api.get(&PODS, namespace, name).await {
        Ok(pod) if object::uid(&pod) == object::uid(stored) => Ok(Some(pod)),
        Ok(_) => Ok(None),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}

/// Writes the status if it has changed, tells what changed, and returns the phase.
async fn write_status(
    context: &Context,
    current: &Value,
    pod: &Pod,
    machine: Option<&Machine>,
    memory: &Memory,
) -> Result<String, Status> {
    let old = current.get("status").cloned().unwrap_or_else(|| json!({}));
    let new = status::status(&Observed {
        pod,
        old: &old,
        machine,
        problem: memory.problem.as_ref(),
        host_ip: &context.config.node.address,
        now: Timestamp::now(),
    });
    let phase = object::text(&new, &["phase"]).to_owned();
    if new != old {
        let news = life::news(&old, &new);
        let mut changed = current.clone();
        changed["status"] = new;
        let namespace = Some(pod.metadata.namespace.as_str());
        context.api.update_status(&PODS, namespace, changed).await?;
        for one in news {
            context.recorder.tell(current, one).await;
        }
    }
    if let Some(machine) = machine {
        annotate(context, current, machine).await?;
    }
    Ok(phase)
}

async fn annotate(context: &Context, current: &Value, machine: &Machine) -> Result<(), Status> {
    let id = machine.id.as_str();
    let annotated = object::at(current, &["metadata", "annotations", MACHINE_ID_ANNOTATION]);
    if annotated.and_then(Value::as_str) == Some(id) {
        return Ok(());
    }
    let patch = Patch::Merge(
        json!({"metadata": {"uid": object::uid(current), "annotations": {
            MACHINE_ID_ANNOTATION: id,
            MACHINE_APP_ANNOTATION: context.config.app.as_str(),
        }}}),
    );
    let (namespace, name) = (object::namespace(current), object::name(current));
    let patched = context
        .api
        .patch(&PODS, Part::Object, namespace, name, &patch);
    patched.await.map(drop)
}

/// Boots a machine again that ended by itself, or that never ran.
async fn start(
    context: &Context,
    current: &Value,
    machine: &Machine,
    memory: &mut Memory,
) -> Result<Outcome, Failure> {
    let since = memory.started_at.map(|at| at.elapsed());
    if since.is_some_and(|since| since > START_BACK_OFF_FORGOTTEN) {
        memory.starts = 0;
    }
    if let (Some(since), 1..) = (since, memory.starts) {
        let doubled = START_BACK_OFF_MIN.saturating_mul(1 << (memory.starts - 1).min(10));
        let wait = doubled.min(START_BACK_OFF_MAX).saturating_sub(since);
        if !wait.is_zero() {
            return Ok(Outcome::After(wait));
        }
    }
    let why = match &memory.problem {
        // The status tells about images, and a machine that has only been made has not ended.
        Some(Problem::Image { .. }) => None,
        Some(Problem::Boot(message)) => Some(message.clone()),
        Some(Problem::Unsupported(_) | Problem::Config(_) | Problem::Create { .. }) | None => {
            let ended = machine.state != MachineState::Created;
            ended.then(|| format!("it is {}", machine.state))
        }
    };
    if let Some(why) = why {
        let message = format!("Machine {} is booted again: {why}", machine.id);
        context
            .recorder
            .tell(current, News::warning("MachineEnded", message))
            .await;
    }
    memory.starts += 1;
    memory.started_at = Some(Instant::now());
    let app = &context.config.app;
    if let Err(error) = context.client.start_machine(app, &machine.id).await {
        // Shown in the status at the next look.
        memory.problem = Some(Problem::Boot(error.to_string()));
        return Err(error.into());
    }
    Ok(Outcome::Done)
}

async fn stop(
    context: &Context,
    current: &Value,
    pod: &Pod,
    machine: &Machine,
    memory: &mut Memory,
) -> Result<Outcome, Failure> {
    let grace = Duration::from_secs(pod.grace_s());
    let now = Timestamp::now();
    // The API server writes the time at which the grace is over.
    let deadline = pod.metadata.deletion_timestamp.unwrap_or(now);
    let left = Duration::try_from(deadline.duration_since(now)).unwrap_or_default();
    let overdue = Duration::try_from(now.duration_since(deadline)).unwrap_or_default();
    if overdue > STOP_OVERTIME {
        let message = "The machine did not stop in time and was destroyed";
        context
            .recorder
            .tell(current, News::warning("FailedKillPod", message))
            .await;
        destroy(context, machine).await?;
        return finish(context, pod, None).await;
    }
    if memory.stop_grace != Some(grace) {
        let body = StopMachine {
            id: None,
            signal: None,
            timeout: Some(types::machine::Duration(left.min(grace))),
        };
        context
            .client
            .stop_machine(&context.config.app, &machine.id, &body)
            .await?;
        memory.stop_grace = Some(grace);
        for container in &pod.spec.containers {
            let about = format!("spec.containers{{{}}}", container.name);
            let message = format!("Stopping container {}", container.name);
            let news = News::normal("Killing", message).about(about);
            context.recorder.tell(current, news).await;
        }
    }
    Ok(Outcome::After(
        left + STOP_OVERTIME + Duration::from_secs(1),
    ))
}

async fn finish(
    context: &Context,
    pod: &Pod,
    machine: Option<&Machine>,
) -> Result<Outcome, Failure> {
    let metadata = &pod.metadata;
    if let Some(machine) = machine {
        destroy(context, machine).await?;
    }
    let options = DeleteOptions::now().with_uid(&metadata.uid);
    let (namespace, name) = (Some(metadata.namespace.as_str()), metadata.name.as_str());
    match context.api.delete(&PODS, namespace, name, &options).await {
        Ok(_) => {}
        // Gone already, or another pod has its name.
        Err(status) if status.is_not_found() || status.is_conflict() => {}
        Err(status) => return Err(status.into()),
    }
    info!(
        namespace = metadata.namespace,
        pod = metadata.name,
        "pod deleted"
    );
    Ok(Outcome::Done)
}
