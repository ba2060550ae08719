//! A pod without a machine gets one, or a status that says what stands in the way.

use std::time::Duration;

use client::Error;
use serde_json::Value;
use tracing::{debug, info};
use types::api::CreateMachine;

use super::super::env::services::is_api_server;
use super::super::pod::Pod;
use super::super::status::Problem;
use super::super::tokens;
use super::super::translate::{
    NotReady, Sources, Unsupported, Untranslatable, references, translate,
};
use super::{Context, Failure, Memory, current, write_status};
use crate::api::Selector;
use crate::controllers::events::News;
use crate::controllers::queue::Outcome;
use crate::object;
use crate::resource::{CONFIG_MAPS, RUNTIME_CLASSES, Resource, SECRETS, SERVICES};
use crate::services::kubernetes;
use crate::status::Status;

/// Makes the machine of a pod that has none.
pub(super) async fn create(
    context: &Context,
    current: &Value,
    pod: &Pod,
    memory: &mut Memory,
) -> Result<Outcome, Failure> {
    let sources = match sources(context, pod).await? {
        Ok(sources) => sources,
        Err(NotReady { what }) => {
            return blocked(context, current, Problem::Config(what), memory).await;
        }
    };
    let config = match translate(pod, &sources) {
        Ok(config) => config,
        Err(Untranslatable::Unsupported(refused)) => {
            return unsupported(context, current, refused, memory).await;
        }
        Err(Untranslatable::NotReady(NotReady { what })) => {
            return blocked(context, current, Problem::Config(what), memory).await;
        }
    };
    let body = CreateMachine {
        name: pod.metadata.uid.clone(),
        region: context.config.region.clone(),
        config,
        ..CreateMachine::default()
    };
    let machine = context.client.ensure_machine(&context.config.app, &body);
    let machine = match machine.await {
        Ok(machine) => machine,
        Err(error) => {
            let problem = create_problem(&error, memory.problem.as_ref());
            return blocked(context, current, problem, memory).await;
        }
    };
    memory.problem = None;
    memory.tokens.made(pod);
    info!(machine = %machine.id, namespace = pod.metadata.namespace, pod = pod.metadata.name,
        "machine created");
    for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
        let message = format!("Pulling image \"{}\"", container.image);
        let news = News::normal("Pulling", message);
        context.recorder.tell(current, news).await;
    }
    memory.seen = Some(machine);
    // What the machine is now is news for the next look.
    Ok(Outcome::After(Duration::ZERO))
}

/// What an answer of the Machines API means for a pod.
fn create_problem(error: &Error, before: Option<&Problem>) -> Problem {
    let message = error.to_string();
    let code = error.code().unwrap_or_default();
    // `image_not_found`, `registry_unreachable`, …
    if code.starts_with("image_") || code.starts_with("registry_") {
        let again = matches!(before, Some(Problem::Image { .. }));
        return Problem::Image { message, again };
    }
    Problem::Create {
        reason: code.to_owned(),
        message,
    }
}

/// The specification of a pod does not change, so there is nothing to wait for.
async fn unsupported(
    context: &Context,
    current: &Value,
    refused: Unsupported,
    memory: &mut Memory,
) -> Result<Outcome, Failure> {
    let message = refused.to_string();
    let problem = Problem::Unsupported(message.clone());
    if memory.problem.as_ref() != Some(&problem) {
        memory.problem = Some(problem);
        let news = News::warning("ProviderUnsupported", message);
        context.recorder.tell(current, news).await;
        write_problem(context, current, memory).await?;
    }
    Ok(Outcome::Done)
}

/// Writes the status with the problem in it. The pod is read again, because its status may have
/// been written a moment ago.
async fn write_problem(context: &Context, stored: &Value, memory: &Memory) -> Result<(), Failure> {
    let Some(current) = current(context, stored).await? else {
        return Ok(());
    };
    let pod = Pod::read(&current).map_err(|source| Failure::Pod { source })?;
    write_status(context, &current, &pod, None, memory).await?;
    Ok(())
}

/// Something stands in the way that may go away.
async fn blocked(
    context: &Context,
    current: &Value,
    problem: Problem,
    memory: &mut Memory,
) -> Result<Outcome, Failure> {
    debug!(pod = object::name(current), ?problem, "pod blocked");
    if let Some(news) = blocked_news(&problem) {
        context.recorder.tell(current, news).await;
    }
    if memory.problem.as_ref() != Some(&problem) {
        memory.problem = Some(problem);
        write_problem(context, current, memory).await?;
    }
    Ok(Outcome::Failed)
}

fn blocked_news(problem: &Problem) -> Option<News> {
    let (reason, message) = match problem {
        // Told with the change of the status.
        Problem::Image { .. } => return None,
        Problem::Config(what) => ("Failed", format!("Error: {what}")),
        Problem::Create { reason, message } if reason == "insufficient_capacity" => {
            ("FailedScheduling", message.clone())
        }
        Problem::Create { message, .. }
        | Problem::Boot(message)
        | Problem::Unsupported(message) => ("FailedCreate", message.clone()),
    };
    Some(News::warning(reason, message))
}

async fn sources(context: &Context, pod: &Pod) -> Result<Result<Sources, NotReady>, Status> {
    let namespace = Some(pod.metadata.namespace.as_str());
    let needed = references(pod);
    let mut sources = Sources {
        host_ip: context.config.node.address.clone(),
        ..Sources::default()
    };
    for name in needed.config_maps {
        if let Some(found) = fetch(context, &CONFIG_MAPS, namespace, &name).await? {
            sources.config_maps.insert(name, found);
        }
    }
    for name in needed.secrets {
        if let Some(found) = fetch(context, &SECRETS, namespace, &name).await? {
            sources.secrets.insert(name, found);
        }
    }
    if let Some(class) = pod
        .spec
        .runtime_class_name
        .as_deref()
        .filter(|c| !c.is_empty())
    {
        let found = fetch(context, &RUNTIME_CLASSES, None, class).await?;
        let handler = found
            .as_ref()
            .map(|class| object::text(class, &["handler"]));
        // A class that was deleted since has no handler; its name then says what was meant.
        sources.runtime_handler = Some(handler.unwrap_or(class).to_owned());
    }
    sources.services = services(context, &pod.metadata.namespace).await?;
    sources.tokens = match tokens::request(context, pod) {
        Ok(tokens) => tokens,
        // Its service account is gone, and may come back.
        Err(status) if status.is_not_found() => {
            return Ok(Err(NotReady {
                what: status.message,
            }));
        }
        Err(status) => return Err(status),
    };
    let has_api_server = sources.services.iter().any(is_api_server);
    if !sources.tokens.is_empty() && !has_api_server {
        // A moment after the first start of a cluster.
        let what = "the Service kubernetes in namespace default is not there yet".to_owned();
        return Ok(Err(NotReady { what }));
    }
    Ok(Ok(sources))
}

/// The Services of a namespace, and the one of the API server.
async fn services(context: &Context, namespace: &str) -> Result<Vec<Value>, Status> {
    let within = Some(namespace);
    let all = Selector::default();
    let (mut services, _) = context.api.list(&SERVICES, within, &all).await?;
    if !services.iter().any(is_api_server) {
        let within = Some(kubernetes::NAMESPACE);
        services.extend(fetch(context, &SERVICES, within, kubernetes::NAME).await?);
    }
    Ok(services)
}

async fn fetch(
    context: &Context,
    resource: &Resource,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<Value>, Status> {
    match context.api.get(resource, namespace, name).await {
        Ok(object) => Ok(Some(object)),
        Err(status) if status.is_not_found() => Ok(None),
        Err(status) => Err(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use types::api::ErrorBody;

    #[test]
    fn what_the_machines_api_refuses_is_told_in_kubernetes_words() {
        let problem = |code: &str, before: Option<&Problem>| {
            let body = ErrorBody {
                error: "no".into(),
                status: code.into(),
                ..ErrorBody::default()
            };
            let body = Box::new(body);
            create_problem(&Error::Api { status: 404, body }, before)
        };
        for code in ["image_not_found", "registry_unreachable"] {
            let first = problem(code, None);
            assert!(
                matches!(first, Problem::Image { again: false, .. }),
                "{code}"
            );
            let second = problem(code, Some(&first));
            assert!(
                matches!(second, Problem::Image { again: true, .. }),
                "{code}"
            );
            assert_eq!(blocked_news(&first), None);
        }
        let reason = |code: &str| blocked_news(&problem(code, None)).map(|news| news.reason);
        assert_eq!(reason("insufficient_capacity"), Some("FailedScheduling"));
        assert_eq!(reason("isolation_not_offered"), Some("FailedCreate"));
    }
}
