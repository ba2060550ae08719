//! Environment of a container: the Services, `envFrom`, then `env`, each later one winning, with
//! `$(VAR)` expanded against what stands before it.
//!
//! A value that is known only when the machine exists (the pod's address) becomes an `env_from` of
//! the machine; it cannot be expanded into other values, and asking for that is refused.

pub(super) mod services;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use types::machine::FieldRef;

use super::budget::Budget;
use super::pod::{Container, EnvVarSource, KeyRef, Pod, SourceRef};
use super::quantity::milli_of;
use super::translate::{NotReady, Sources, Untranslatable, unsupported};

/// What a container's variables come to.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    pub(crate) env: BTreeMap<String, String>,
    /// Those whose value is known only in the machine.
    pub(crate) late: BTreeMap<String, FieldRef>,
}

/// Reads all variables of `container`.
///
/// # Errors
/// If a configMap, secret or key is missing, or a source is not supported.
pub(crate) fn resolve(
    pod: &Pod,
    container: &Container,
    at: &str,
    sources: &Sources,
    budget: &Budget,
) -> Result<Environment, Untranslatable> {
    let mut environment = Environment::default();
    for (name, value) in services::variables(pod, &sources.services) {
        budget.take(name.len() + value.len(), &format!("{at}.env"))?;
        environment.set(name, value);
    }
    for (index, source) in container.env_from.iter().enumerate() {
        let field = format!("{at}.envFrom[{index}]");
        let maps = bulk(sources, source.config_map_ref.as_ref(), Kind::ConfigMap)?;
        let secrets = bulk(sources, source.secret_ref.as_ref(), Kind::Secret)?;
        for (key, value) in maps.into_iter().chain(secrets) {
            let name = format!("{}{key}", source.prefix);
            budget.take(name.len() + value.len(), &field)?;
            environment.set(name, value);
        }
    }
    for (index, variable) in container.env.iter().enumerate() {
        let field = format!("{at}.env[{index}]");
        match &variable.value_from {
            None => {
                let text = variable.value.as_deref().unwrap_or_default();
                let value = environment.expand(text, &field, budget)?;
                environment.set(variable.name.clone(), value);
            }
            Some(source) => match value_from(pod, container, source, &field, sources)? {
                Found::Text(value) => {
                    budget.take(value.len(), &field)?;
                    environment.set(variable.name.clone(), value);
                }
                Found::Late(field_ref) => environment.set_late(variable.name.clone(), field_ref),
                Found::Nothing => {}
            },
        }
    }
    Ok(environment)
}

/// Where a value comes from.
pub(crate) enum Found {
    Text(String),
    Late(FieldRef),
    Nothing,
}

fn value_from(
    pod: &Pod,
    container: &Container,
    source: &EnvVarSource,
    field: &str,
    sources: &Sources,
) -> Result<Found, Untranslatable> {
    Ok(match source {
        EnvVarSource::ConfigMapKeyRef(key) => by_key(sources, key, Kind::ConfigMap)?,
        EnvVarSource::SecretKeyRef(key) => by_key(sources, key, Kind::Secret)?,
        EnvVarSource::FieldRef { field_path } => by_field(pod, field_path, field, sources)?,
        EnvVarSource::ResourceFieldRef {
            container_name,
            resource,
            divisor,
        } => {
            let own = container_name.is_empty() || *container_name == container.name;
            let of = if own {
                container
            } else {
                let mut all = pod.spec.containers.iter();
                all.find(|other| other.name == *container_name)
                    .ok_or_else(|| {
                        unsupported(field, &format!("there is no container {container_name}"))
                    })?
            };
            Found::Text(resource_field(of, resource, divisor, field)?)
        }
        EnvVarSource::FileKeyRef {} => {
            return Err(unsupported(field, "variables from files of a volume"));
        }
    })
}

/// A field of the pod, by its path.
///
/// # Errors
/// If it is not among those that can be had.
pub(crate) fn by_field(
    pod: &Pod,
    path: &str,
    field: &str,
    sources: &Sources,
) -> Result<Found, Untranslatable> {
    let quoted = |prefix: &str| {
        let rest = path.strip_prefix(prefix)?.strip_suffix("']")?;
        Some(rest.to_owned())
    };
    if let Some(key) = quoted("metadata.labels['") {
        let value = pod.metadata.labels.get(&key).cloned();
        return Ok(Found::Text(value.unwrap_or_default()));
    }
    if let Some(key) = quoted("metadata.annotations['") {
        let value = pod.metadata.annotations.get(&key).cloned();
        return Ok(Found::Text(value.unwrap_or_default()));
    }
    Ok(match path {
        "metadata.name" => Found::Text(pod.metadata.name.clone()),
        "metadata.namespace" => Found::Text(pod.metadata.namespace.clone()),
        "metadata.uid" => Found::Text(pod.metadata.uid.clone()),
        "spec.nodeName" => Found::Text(pod.spec.node_name.clone()),
        "spec.serviceAccountName" => Found::Text(pod.spec.service_account_name.clone()),
        "status.hostIP" | "status.hostIPs" => Found::Text(sources.host_ip.clone()),
        "status.podIP" | "status.podIPs" => Found::Late(FieldRef::PrivateIp),
        other => return Err(unsupported(field, &format!("fieldRef {other}"))),
    })
}

/// Limit or request of a container in units of `divisor`, rounded up.
pub(crate) fn resource_field(
    container: &Container,
    resource: &str,
    divisor: &Value,
    field: &str,
) -> Result<String, Untranslatable> {
    let (kind, name) = resource.split_once('.').unwrap_or((resource, ""));
    let of = match kind {
        "limits" => &container.resources.limits,
        "requests" => &container.resources.requests,
        _ => return Err(unsupported(field, &format!("resourceFieldRef {resource}"))),
    };
    let Some(milli) = of.get(name).and_then(milli_of) else {
        // Kubernetes answers with what the node has; a machine's size is not known yet here.
        return Err(unsupported(
            field,
            &format!(
                "{resource} of container {}, which sets none",
                container.name
            ),
        ));
    };
    let divisor_milli = milli_of(divisor).filter(|milli| *milli > 0).unwrap_or(1000);
    Ok(milli.div_ceil(divisor_milli).to_string())
}

/// What a configMap or secret holds.
pub(crate) type Data = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    ConfigMap,
    Secret,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// The bytes of every key of a configMap or secret; `None` if it is optional and missing.
///
/// # Errors
/// If it is missing and not optional.
pub(crate) fn data(
    sources: &Sources,
    name: &str,
    optional: bool,
    kind: Kind,
) -> Result<Option<Data>, Untranslatable> {
    let objects = match kind {
        Kind::ConfigMap => &sources.config_maps,
        Kind::Secret => &sources.secrets,
    };
    let Some(object) = objects.get(name) else {
        return if optional {
            Ok(None)
        } else {
            let what = format!("{} \"{name}\" not found", kind.word());
            Err(Untranslatable::NotReady(NotReady { what }))
        };
    };
    let member = |key: &str| object.get(key).and_then(Value::as_object);
    let mut found = BTreeMap::new();
    for (key, value) in member("data").into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let bytes = match kind {
            Kind::ConfigMap => text.as_bytes().to_vec(),
            Kind::Secret => decode(text, name, key)?,
        };
        found.insert(key.clone(), bytes);
    }
    for (key, value) in member("binaryData").into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        found.insert(key.clone(), decode(text, name, key)?);
    }
    Ok(Some(found))
}

fn decode(text: &str, name: &str, key: &str) -> Result<Vec<u8>, Untranslatable> {
    STANDARD.decode(text).map_err(|_| {
        let what = format!("key {key} of {name} is not base64");
        Untranslatable::NotReady(NotReady { what })
    })
}

fn bulk(
    sources: &Sources,
    source: Option<&SourceRef>,
    kind: Kind,
) -> Result<BTreeMap<String, String>, Untranslatable> {
    let Some(source) = source else {
        return Ok(BTreeMap::new());
    };
    let found = data(sources, &source.name, source.optional, kind)?.unwrap_or_default();
    Ok(found
        .into_iter()
        .filter_map(|(key, bytes)| Some((key, text(bytes)?)))
        .collect())
}

/// Bytes that can stand in an environment.
fn text(bytes: Vec<u8>) -> Option<String> {
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains('\0')).then_some(text)
}

fn by_key(sources: &Sources, key: &KeyRef, kind: Kind) -> Result<Found, Untranslatable> {
    let found = data(sources, &key.name, key.optional, kind)?;
    match found.as_ref().and_then(|data| data.get(&key.key)) {
        Some(bytes) => match text(bytes.clone()) {
            Some(text) => Ok(Found::Text(text)),
            None => {
                let what = format!("key {} of {} is not text", key.key, key.name);
                Err(Untranslatable::NotReady(NotReady { what }))
            }
        },
        None if key.optional => Ok(Found::Nothing),
        None => {
            let word = kind.word();
            let what = format!("couldn't find key {} in {word} {}", key.key, key.name);
            Err(Untranslatable::NotReady(NotReady { what }))
        }
    }
}

impl Environment {
    fn set(&mut self, name: String, value: String) {
        self.late.remove(&name);
        self.env.insert(name, value);
    }

    fn set_late(&mut self, name: String, field_ref: FieldRef) {
        self.env.remove(&name);
        self.late.insert(name, field_ref);
    }

    /// `$(NAME)` becomes the variable's value, `$$` a dollar; what names no variable stays as it is.
    ///
    /// # Errors
    /// If it names a variable whose value is known only in the machine, or the text is too long.
    pub(crate) fn expand(
        &self,
        text: &str,
        field: &str,
        budget: &Budget,
    ) -> Result<String, Untranslatable> {
        budget.take(text.len(), field)?;
        let mut expanded = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            expanded.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                expanded.push('$');
                rest = after;
                continue;
            }
            let reference = rest
                .strip_prefix('(')
                .and_then(|inside| inside.split_once(')'));
            let Some((name, after)) = reference else {
                expanded.push('$');
                continue;
            };
            if self.late.contains_key(name) {
                let why = format!("$({name}) is the pod's address, known only inside the machine");
                return Err(unsupported(field, &why));
            }
            match self.env.get(name) {
                Some(value) => {
                    budget.take(value.len(), field)?;
                    expanded.push_str(value);
                }
                None => {
                    expanded.push_str("$(");
                    expanded.push_str(name);
                    expanded.push(')');
                }
            }
            rest = after;
        }
        expanded.push_str(rest);
        Ok(expanded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Environment {
        Environment {
            env: BTreeMap::from([("A".into(), "1".into()), ("B".into(), "$(A)".into())]),
            late: BTreeMap::from([("IP".into(), FieldRef::PrivateIp)]),
        }
    }

    fn expand(text: &str) -> Result<String, Untranslatable> {
        known().expand(text, "f", &Budget::of_a_pod())
    }

    #[test]
    fn references_are_expanded_once_and_dollars_escape() {
        for (text, expected) in [
            ("", ""),
            ("$(A)", "1"),
            ("x$(A)y$(A)", "x1y1"),
            ("$(B)", "$(A)"),
            ("$$(A)", "$(A)"),
            ("$$$(A)", "$1"),
            ("$(NONE)", "$(NONE)"),
            ("$(A", "$(A"),
            ("$A", "$A"),
            ("a$", "a$"),
            ("$()", "$()"),
        ] {
            assert_eq!(expand(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn variables_that_double_at_each_step_are_refused_before_they_fill_the_memory() {
        let budget = Budget::of_a_pod();
        let mut environment = known();
        let mut steps = 0;
        while let Ok(value) = environment.expand("$(A)$(A)", "f", &budget) {
            environment.set("A".into(), value);
            steps += 1;
        }
        assert_eq!(steps, 20);
    }

    #[test]
    fn the_pods_address_cannot_be_part_of_another_value() {
        assert!(expand("http://$(IP):80").is_err());
        assert_eq!(expand("$$(IP)").unwrap(), "$(IP)");
    }
}
