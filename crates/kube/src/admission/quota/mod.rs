//! ResourceQuota: what a namespace may use, reserved before it is used.
//!
//! A write adds its usage to `status.used` of every quota that counts it, by compare-and-swap, and
//! is refused where that would pass `status.hard`. Two writes at once therefore cannot both take
//! the last place. A write that fails after all gives back what it reserved; what was deleted, the
//! quota controller finds.

mod scopes;
mod usage;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};

pub(crate) use self::scopes::selects;
pub(crate) use self::usage::of as usage;
use super::amounts::{self, Amounts};
use super::{Attributes, Operation};
use crate::api::{Api, DryRun, Swap};
use crate::object;
use crate::resource::{EVENTS, PERSISTENT_VOLUME_CLAIMS, PODS, RESOURCE_QUOTAS, SERVICES};
use crate::status::Status;

/// Attempts to reserve against other API servers; within one, reservations take turns.
const ATTEMPTS: usize = 16;
/// Namespaces whose reservations may go on at the same time.
const LANES: usize = 64;

/// Makes reservations of one namespace take turns, so that they do not fail each other.
#[derive(Debug)]
pub(crate) struct Reserving([Mutex<()>; LANES]);

impl Default for Reserving {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Mutex::new(())))
    }
}

impl Reserving {
    async fn lane(&self, namespace: &str) -> MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        namespace.hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % LANES as u64).unwrap_or(0);
        self.0[lane].lock().await
    }
}

/// What a write holds of quotas. Given back when it is dropped without [`Reservation::keep`].
#[derive(Debug, Default)]
pub(crate) struct Reservation {
    held: Vec<(Arc<str>, Amounts)>,
    api: Option<Api>,
}

impl Reservation {
    pub(crate) fn keep(mut self) {
        self.held.clear();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let (held, api) = (std::mem::take(&mut self.held), self.api.take());
        let (false, Some(api)) = (held.is_empty(), api) else {
            return;
        };
        // Without a runtime the process ends, and the quota controller counts anew at the next
        // start.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                for (key, amounts) in held {
                    give_back(&api, &key, &amounts).await;
                }
            });
        }
    }
}

/// Reserves what the write adds.
pub(super) async fn reserve(attributes: &Attributes<'_>) -> Result<Reservation, Status> {
    let Some(namespace) = attributes.namespace.filter(|_| concerns(attributes)) else {
        return Ok(Reservation::default());
    };
    let api = attributes.api;
    let prefix = RESOURCE_QUOTAS.prefix(Some(namespace));
    if api.stored(&prefix).is_empty() {
        return Ok(Reservation::default());
    }
    let state = attributes.state();
    let _turn = state.reserving.lane(namespace).await;
    let mut reservation = Reservation {
        held: Vec::new(),
        api: Some(api.clone()),
    };
    // All are asked before the first is changed, so that a refusal leaves nothing to give back.
    for (key, _) in api.stored(&prefix) {
        ask(attributes, &key)?;
    }
    if attributes.dry_run == DryRun::All {
        return Ok(reservation);
    }
    for (key, _) in api.stored(&prefix) {
        if let Some(added) = take(attributes, &key).await? {
            reservation.held.push((key, added));
        }
    }
    Ok(reservation)
}

/// Whether quotas look at this write.
fn concerns(attributes: &Attributes<'_>) -> bool {
    let resource = attributes.resource;
    match (attributes.operation, attributes.subresource) {
        (Operation::Create, None) => !resource.is(&EVENTS),
        (Operation::Update, None) => {
            resource.is(&SERVICES) || resource.is(&PERSISTENT_VOLUME_CLAIMS)
        }
        (Operation::Update, Some("resize")) => resource.is(&PODS),
        (Operation::Create | Operation::Update, Some(_))
        | (Operation::Delete | Operation::Connect, _) => false,
    }
}

/// A quota with what the write adds to it; none if the quota does not care.
struct Asked {
    rev: u64,
    quota: Value,
    added: Amounts,
}

fn ask(attributes: &Attributes<'_>, key: &str) -> Result<Option<Asked>, Status> {
    let Some(entry) = attributes.api.stored_at(key) else {
        return Ok(None);
    };
    let Some(quota) = attributes.api.decoded(&RESOURCE_QUOTAS, &entry) else {
        return Ok(None);
    };
    let refused = |why: String| {
        let why = Status::forbidden(attributes.resource, &attributes.name, &why);
        Err(why)
    };
    let name = object::name(&quota);
    let hard = amounts::amounts(&quota["status"]["hard"]);
    let used = amounts::amounts(&quota["status"]["used"]);
    let selects = |object: &Value| selects(&quota, attributes.resource, object);
    let counts = |object: &Value| {
        let mut amounts = usage::of(attributes.resource, object);
        amounts.retain(|name, _| hard.contains_key(name));
        if selects(object) {
            amounts
        } else {
            Amounts::new()
        }
    };
    if !selects(&attributes.object) {
        return Ok(None);
    }
    if attributes.resource.is(&PODS)
        && let Some(missing) = usage::missing(&attributes.object, hard.keys().map(String::as_str))
    {
        return refused(format!("failed quota: {name}: must specify {missing}"));
    }
    let mut added = counts(&attributes.object);
    let unknown: Vec<_> = added
        .keys()
        .filter(|one| !used.contains_key(*one))
        .cloned()
        .collect();
    if !unknown.is_empty() {
        let unknown = unknown.join(",");
        return refused(format!(
            "status unknown for quota: {name}, resources: {unknown}"
        ));
    }
    if let Some(old) = attributes.old {
        for (name, before) in counts(old) {
            if let Some(amount) = added.get_mut(&name) {
                *amount = *amount - before;
            }
        }
    }
    // What shrinks is the quota controller's to find, as upstream has it.
    added.retain(|_, amount| amount.is_positive());
    if added.is_empty() {
        return Ok(None);
    }
    if let Some(why) = exceeded(&added, &used, &hard) {
        return refused(format!("exceeded quota: {name}, {why}"));
    }
    let rev = entry.rev;
    Ok(Some(Asked { rev, quota, added }))
}

/// What would be too much: `requested: a=1, used: a=2, limited: a=2`.
fn exceeded(added: &Amounts, used: &Amounts, hard: &Amounts) -> Option<String> {
    let exceeds = |name: &&String| used[*name] + added[*name] > hard[*name];
    let names: Vec<_> = added.keys().filter(exceeds).collect();
    let told = |amounts: &Amounts| {
        let all = names.iter();
        let all = all.map(|name| format!("{name}={}", amounts[*name]));
        all.collect::<Vec<_>>().join(",")
    };
    (!names.is_empty()).then(|| {
        let (added, used, hard) = (told(added), told(used), told(hard));
        format!("requested: {added}, used: {used}, limited: {hard}")
    })
}

async fn take(attributes: &Attributes<'_>, key: &str) -> Result<Option<Amounts>, Status> {
    for _ in 0..ATTEMPTS {
        let Some(asked) = ask(attributes, key)? else {
            return Ok(None);
        };
        let mut quota = asked.quota;
        let mut used = amounts::amounts(&quota["status"]["used"]);
        amounts::add(&mut used, &asked.added);
        quota["status"]["used"] = amounts::to_json(&used);
        let api = attributes.api;
        if api.swap(&RESOURCE_QUOTAS, key, asked.rev, &quota).await? == Swap::Done {
            return Ok(Some(asked.added));
        }
    }
    let why = "the quotas of the namespace changed too often; try again";
    Err(Status::conflict(attributes.resource, &attributes.name, why))
}

async fn give_back(api: &Api, key: &str, amounts: &Amounts) {
    for _ in 0..ATTEMPTS {
        let Some(entry) = api.stored_at(key) else {
            return;
        };
        let Some(mut quota) = api.decoded(&RESOURCE_QUOTAS, &entry) else {
            return;
        };
        let mut used = amounts::amounts(&quota["status"]["used"]);
        for (name, amount) in amounts {
            if let Some(present) = used.get_mut(name) {
                *present = (*present - *amount).max(amounts::Amount::ZERO);
            }
        }
        quota["status"]["used"] = amounts::to_json(&used);
        match api.swap(&RESOURCE_QUOTAS, key, entry.rev, &quota).await {
            Ok(Swap::Changed) => {}
            // Should it have failed, the quota controller counts anew.
            Ok(Swap::Done) | Err(_) => return,
        }
    }
}
