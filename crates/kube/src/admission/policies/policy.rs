//! Policies and bindings as their objects describe them, with compiled expressions.

use serde_json::Value;

use super::Code;
use crate::admission::matching::Selection;
use crate::cel::{CompileError, Expression};
use crate::object;

/// What becomes of a request that a policy has no answer for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailurePolicy {
    Fail,
    Ignore,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Deny,
    Warn,
    Audit,
}

/// An expression, or what is wrong with it.
pub(super) type Compiled = Result<Expression, CompileError>;

#[derive(Debug)]
pub(crate) struct Policy {
    pub(super) name: String,
    /// Kind of the parameters (`apiVersion`, `kind`), if the policy has some.
    pub(super) parameters: Option<(String, String)>,
    pub(super) selection: Selection,
    pub(super) conditions: Vec<(String, Compiled)>,
    pub(super) variables: Vec<(String, Compiled)>,
    pub(super) validations: Vec<Validation>,
    pub(super) annotations: Vec<(String, Compiled)>,
    /// Of a policy that changes objects.
    pub(super) mutations: Vec<Mutation>,
    /// Whether it is asked again about an object that changed after it.
    pub(super) is_reinvoked: bool,
    pub(super) failure: FailurePolicy,
}

#[derive(Debug)]
pub(super) struct Validation {
    pub(super) expression: Compiled,
    pub(super) source: String,
    pub(super) message: String,
    pub(super) message_expression: Option<Compiled>,
    pub(super) code: Code,
}

#[derive(Debug)]
pub(super) struct Mutation {
    pub(super) kind: MutationKind,
    pub(super) expression: Compiled,
}

/// What the value of a mutation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MutationKind {
    /// A part of the object.
    ApplyConfiguration,
    /// A list of operations.
    JsonPatch,
}

#[derive(Debug)]
pub(crate) struct Binding {
    pub(super) name: String,
    pub(super) policy: String,
    pub(super) selection: Selection,
    pub(super) actions: Vec<Action>,
    /// `paramRef`; null if there is none.
    pub(super) parameters: Value,
}

impl Policy {
    pub(crate) fn parse(object: Value) -> Self {
        let spec = &object["spec"];
        let kind = &spec["paramKind"];
        let text = |field: &str| object::text(kind, &[field]).to_owned();
        let failure = match object::text(spec, &["failurePolicy"]) {
            "Ignore" => FailurePolicy::Ignore,
            _ => FailurePolicy::Fail,
        };
        let validations = object::items(spec, &["validations"]).iter();
        let mutations = object::items(spec, &["mutations"]).iter();
        Self {
            name: object::name(&object).to_owned(),
            parameters: kind.is_object().then(|| (text("apiVersion"), text("kind"))),
            selection: Selection::of_policy(&spec["matchConstraints"]),
            conditions: named(spec, "matchConditions", "name", "expression"),
            variables: named(spec, "variables", "name", "expression"),
            validations: validations.map(Validation::parse).collect(),
            annotations: named(spec, "auditAnnotations", "key", "valueExpression"),
            mutations: mutations.map(Mutation::parse).collect(),
            is_reinvoked: spec["reinvocationPolicy"] == "IfNeeded",
            failure,
        }
    }
}

fn named(spec: &Value, list: &str, name: &str, expression: &str) -> Vec<(String, Compiled)> {
    let all = object::items(spec, &[list]).iter();
    all.map(|one| {
        let compiled = Expression::compile(object::text(one, &[expression]));
        (object::text(one, &[name]).to_owned(), compiled)
    })
    .collect()
}

impl Mutation {
    fn parse(mutation: &Value) -> Self {
        let (kind, part) = match object::text(mutation, &["patchType"]) {
            "JSONPatch" => (MutationKind::JsonPatch, "jsonPatch"),
            _ => (MutationKind::ApplyConfiguration, "applyConfiguration"),
        };
        let expression = Expression::compile(object::text(mutation, &[part, "expression"]));
        Self { kind, expression }
    }
}

impl Validation {
    fn parse(validation: &Value) -> Self {
        let text = |field: &str| object::text(validation, &[field]);
        let message = text("messageExpression");
        Self {
            expression: Expression::compile(text("expression")),
            source: text("expression").trim().to_owned(),
            message: text("message").trim().to_owned(),
            message_expression: (!message.is_empty()).then(|| Expression::compile(message)),
            code: Code::of(text("reason")),
        }
    }
}

impl Binding {
    pub(crate) fn parse(object: Value) -> Self {
        let spec = &object["spec"];
        let actions = object::items(spec, &["validationActions"]).iter();
        let actions = actions.filter_map(|action| match action.as_str() {
            Some("Deny") => Some(Action::Deny),
            Some("Warn") => Some(Action::Warn),
            Some("Audit") => Some(Action::Audit),
            Some(_) | None => None,
        });
        Self {
            name: object::name(&object).to_owned(),
            policy: object::text(spec, &["policyName"]).to_owned(),
            selection: Selection::of_policy(&spec["matchResources"]),
            actions: actions.collect(),
            parameters: spec["paramRef"].clone(),
        }
    }

    pub(super) fn action_names(&self) -> Vec<&'static str> {
        let names = self.actions.iter().map(|action| match action {
            Action::Deny => "Deny",
            Action::Warn => "Warn",
            Action::Audit => "Audit",
        });
        names.collect()
    }
}
