//! Which requests a webhook or a policy is about: rules, selectors, and the other forms of a
//! resource that the rules may name.

use serde_json::Value;

use super::attributes::Attributes;
use crate::label_selector;
use crate::object;
use crate::resource::{
    MUTATING_ADMISSION_POLICIES, MUTATING_ADMISSION_POLICY_BINDINGS,
    MUTATING_WEBHOOK_CONFIGURATIONS, NAMESPACES, Resource, Row, VALIDATING_ADMISSION_POLICIES,
    VALIDATING_ADMISSION_POLICY_BINDINGS, VALIDATING_WEBHOOK_CONFIGURATIONS,
};

/// What no webhook or policy may have a say in, lest a bad one keeps itself from being removed.
const EXEMPT: [&Resource; 6] = [
    &VALIDATING_WEBHOOK_CONFIGURATIONS,
    &MUTATING_WEBHOOK_CONFIGURATIONS,
    &VALIDATING_ADMISSION_POLICIES,
    &VALIDATING_ADMISSION_POLICY_BINDINGS,
    &MUTATING_ADMISSION_POLICIES,
    &MUTATING_ADMISSION_POLICY_BINDINGS,
];

/// One rule: operations on resources.
#[derive(Debug)]
struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    /// With subresource, which is empty for the resource itself.
    resources: Vec<(String, String)>,
    scope: String,
    /// Only these objects, if there are any.
    names: Vec<String>,
}

/// Which requests are meant.
#[derive(Debug)]
pub(crate) struct Selection {
    rules: Vec<Rule>,
    excluded: Vec<Rule>,
    /// Whether another form of the same resource is meant too.
    equivalent: bool,
    namespaces: Value,
    objects: Value,
}

/// In which form the request is shown: as it came (none), or as another row.
#[derive(Debug, Clone)]
pub(crate) struct Form(pub(crate) Option<Row>);

impl Rule {
    fn new(rule: &Value) -> Self {
        let texts = |field: &str| -> Vec<String> {
            let all = object::items(rule, &[field])
                .iter()
                .filter_map(Value::as_str);
            all.map(str::to_owned).collect()
        };
        let resources = texts("resources");
        let split = resources.iter().map(|one| match one.split_once('/') {
            Some((resource, subresource)) => (resource.to_owned(), subresource.to_owned()),
            None => (one.clone(), String::new()),
        });
        Self {
            operations: texts("operations"),
            groups: texts("apiGroups"),
            versions: texts("apiVersions"),
            resources: split.collect(),
            scope: object::text(rule, &["scope"]).to_owned(),
            names: texts("resourceNames"),
        }
    }

    fn all(list: &[Value]) -> Vec<Self> {
        list.iter().map(Self::new).collect()
    }

    /// Whether the rule is about the request, were its resource `resource`.
    fn is_about(&self, attributes: &Attributes<'_>, resource: &Resource) -> bool {
        let holds = |list: &[String], text: &str| list.iter().any(|one| one == "*" || one == text);
        let subresource = attributes.subresource.unwrap_or_default();
        holds(&self.operations, attributes.operation.as_str())
            && holds(&self.groups, resource.group)
            && holds(&self.versions, resource.version)
            && self.resources.iter().any(|(plural, sub)| {
                (plural == "*" || plural == resource.plural) && (sub == "*" || sub == subresource)
            })
            && self.is_in_scope(attributes)
            && (self.names.is_empty() || self.names.contains(&attributes.name))
    }

    fn is_in_scope(&self, attributes: &Attributes<'_>) -> bool {
        let is_cluster = attributes.namespace.is_none();
        match self.scope.as_str() {
            "Namespaced" => !is_cluster,
            "Cluster" => is_cluster,
            _ => true,
        }
    }
}

impl Selection {
    /// Of a webhook.
    pub(crate) fn of_webhook(webhook: &Value) -> Self {
        Self {
            rules: Rule::all(object::items(webhook, &["rules"])),
            excluded: Vec::new(),
            equivalent: webhook["matchPolicy"] != "Exact",
            namespaces: webhook["namespaceSelector"].clone(),
            objects: webhook["objectSelector"].clone(),
        }
    }

    /// Of the `matchConstraints` of a policy or the `matchResources` of a binding.
    pub(crate) fn of_policy(constraints: &Value) -> Self {
        Self {
            rules: Rule::all(object::items(constraints, &["resourceRules"])),
            excluded: Rule::all(object::items(constraints, &["excludeResourceRules"])),
            equivalent: constraints["matchPolicy"] != "Exact",
            namespaces: constraints["namespaceSelector"].clone(),
            objects: constraints["objectSelector"].clone(),
        }
    }

    /// Whether it names no resources, as a binding may.
    pub(crate) fn has_no_rules(&self) -> bool {
        self.rules.is_empty()
    }

    /// In which form the request is meant, if it is.
    pub(crate) fn selects(&self, attributes: &Attributes<'_>) -> Option<Form> {
        if EXEMPT.iter().any(|exempt| attributes.resource.is(exempt)) {
            return None;
        }
        if self.form(&self.excluded, attributes).is_some() {
            return None;
        }
        let form = self.form(&self.rules, attributes)?;
        (self.is_namespace(attributes) && self.is_object(attributes)).then_some(form)
    }

    /// [`Selection::selects`] for a selection that need not have rules.
    pub(crate) fn allows(&self, attributes: &Attributes<'_>) -> bool {
        if self.has_no_rules() {
            self.form(&self.excluded, attributes).is_none()
                && self.is_namespace(attributes)
                && self.is_object(attributes)
        } else {
            self.selects(attributes).is_some()
        }
    }

    fn form(&self, rules: &[Rule], attributes: &Attributes<'_>) -> Option<Form> {
        let resource = attributes.resource;
        if rules.iter().any(|rule| rule.is_about(attributes, resource)) {
            return Some(Form(None));
        }
        if !self.equivalent || rules.is_empty() {
            return None;
        }
        let snapshot = attributes.api.resources().snapshot();
        let other = snapshot.rows().iter().find(|row| {
            is_form_of(row, resource) && rules.iter().any(|rule| rule.is_about(attributes, row))
        });
        other.map(|row| Form(Some(row.clone())))
    }

    /// Whether the namespace of the object is selected; of cluster objects only namespaces are
    /// asked, and by their own labels.
    fn is_namespace(&self, attributes: &Attributes<'_>) -> bool {
        if label_selector::is_empty(&self.namespaces) {
            return true;
        }
        if attributes.resource.is(&NAMESPACES) {
            let namespace = match &attributes.object {
                Value::Object(_) if attributes.subresource.is_none() => &attributes.object,
                _ => attributes.old.unwrap_or(&Value::Null),
            };
            return label_selector::matches(&self.namespaces, labels(namespace));
        }
        let Some(namespace) = attributes.namespace else {
            return true;
        };
        let namespaces = &attributes.state().namespaces;
        let found = namespaces.get(attributes.api, None, namespace);
        found.is_some_and(|found| label_selector::matches(&self.namespaces, labels(&found)))
    }

    /// Whether the object is selected as it is or as it was.
    fn is_object(&self, attributes: &Attributes<'_>) -> bool {
        label_selector::is_empty(&self.objects)
            || [Some(&attributes.object), attributes.old]
                .into_iter()
                .flatten()
                .any(|object| {
                    object["metadata"].is_object()
                        && label_selector::matches(&self.objects, labels(object))
                })
    }
}

fn labels(object: &Value) -> &Value {
    &object["metadata"]["labels"]
}

/// Whether two rows are the same resource under two names.
fn is_form_of(row: &Resource, other: &Resource) -> bool {
    let stored = |one: &Resource| {
        let stored = one.stored_as;
        stored.map_or((one.group, one.plural), |stored| {
            (stored.group, stored.plural)
        })
    };
    stored(row) == stored(other) && (row.group, row.version) != (other.group, other.version)
}
