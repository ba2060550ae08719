//! Mutating and validating webhooks: others have their say.
//!
//! Mutating ones are asked one after the other, in the order of their configurations' names, and
//! each sees what those before it changed. Validating ones are asked all at once.

mod call;
mod config;
mod review;

use std::sync::Arc;

use serde_json::Value;

use self::call::{Called, call};
pub(crate) use self::config::Configuration;
use self::config::Webhook;
pub(crate) use self::review::request;
use super::{Attributes, forms};
use crate::status::Status;

/// A webhook that was asked, and the object that it left.
pub(super) struct Asked {
    configuration: Arc<Configuration>,
    index: usize,
    left: Value,
}

/// What a round of mutating webhooks did.
#[derive(Default)]
pub(super) struct Round {
    pub(super) is_changed: bool,
    /// Those that want to be asked again if the object changes after them.
    pub(super) reinvocable: Vec<Asked>,
}

/// Asks every mutating webhook.
pub(super) async fn mutate(attributes: &mut Attributes<'_>) -> Result<Round, Status> {
    let mut round = Round::default();
    let configurations = attributes.state().mutating.all(attributes.api, None);
    for configuration in configurations {
        for (index, webhook) in configuration.webhooks.iter().enumerate() {
            let at = Place::new(&configuration, index, 0);
            let Some(is_changed) = ask(attributes, webhook, &at).await? else {
                continue;
            };
            round.is_changed |= is_changed;
            if webhook.is_reinvoked {
                round.reinvocable.push(Asked {
                    configuration: configuration.clone(),
                    index,
                    left: attributes.object.clone(),
                });
            }
        }
    }
    Ok(round)
}

/// Asks those again after whom the object has changed.
pub(super) async fn mutate_again(
    attributes: &mut Attributes<'_>,
    asked: Vec<Asked>,
) -> Result<(), Status> {
    for one in asked {
        if one.left != attributes.object {
            let webhook = &one.configuration.webhooks[one.index];
            let at = Place::new(&one.configuration, one.index, 1);
            ask(attributes, webhook, &at).await?;
        }
    }
    Ok(())
}

/// Asks every validating webhook; the first refusal in their order counts.
pub(super) async fn validate(attributes: &Attributes<'_>) -> Result<(), Status> {
    let configurations = attributes.state().validating.all(attributes.api, None);
    let mut calls = Vec::new();
    for configuration in &configurations {
        for (index, webhook) in configuration.webhooks.iter().enumerate() {
            let at = Place::new(configuration, index, 0);
            calls.push(async move {
                match call(attributes, webhook, &at, false).await? {
                    Called::Answered { response, .. } => match response.denial {
                        Some(denial) => Err(denial),
                        None => Ok(()),
                    },
                    Called::NotAsked => Ok(()),
                }
            });
        }
    }
    if calls.is_empty() {
        return Ok(());
    }
    futures::future::join_all(calls).await.into_iter().collect()
}

/// Asks one mutating webhook and does what it says. None if it was not to be asked, else whether
/// the object is another one now.
async fn ask(
    attributes: &mut Attributes<'_>,
    webhook: &Webhook,
    at: &Place<'_>,
) -> Result<Option<bool>, Status> {
    let (response, form) = match call(attributes, webhook, at, true).await? {
        Called::NotAsked => return Ok(None),
        Called::Answered { response, form } => (response, form),
    };
    if let Some(denial) = response.denial {
        return Err(denial);
    }
    let is_changed = match &response.patch {
        None => false,
        Some(patch) => {
            let shown = forms::shown(attributes, &form, &attributes.object).await?;
            let row = form.0.as_deref().unwrap_or(attributes.resource);
            let patched = patch.apply(row, &shown).map_err(|error| {
                let name = &webhook.name;
                let why =
                    format!("admission webhook {name:?} attempted to modify the object: {error}");
                Status::internal(why)
            })?;
            let before = attributes.object.clone();
            forms::take(attributes, &form, patched).await?;
            attributes.object != before
        }
    };
    let note = serde_json::json!({"configuration": at.configuration, "webhook": webhook.name,
        "mutated": is_changed});
    let key = format!("mutation.webhook.admission.k8s.io/{}", at.name());
    attributes.api.annotate(&key, &note.to_string());
    Ok(Some(is_changed))
}

/// Which webhook of which configuration, for audit annotations.
struct Place<'a> {
    configuration: &'a str,
    index: usize,
    round: usize,
}

impl<'a> Place<'a> {
    fn new(configuration: &'a Configuration, index: usize, round: usize) -> Self {
        Self {
            configuration: &configuration.name,
            index,
            round,
        }
    }

    fn name(&self) -> String {
        format!("round_{}_index_{}", self.round, self.index)
    }
}
