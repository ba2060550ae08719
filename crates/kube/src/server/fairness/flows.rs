//! FlowSchemas and PriorityLevelConfigurations: to which flow a request belongs. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use crate::fresh::View;
use crate::identity::{User, service_account_of};
use crate::object;
use crate::rbac::{Asked, Request};

const ALL: &str = "*";

/// What the store holds, parsed.
#[derive(Debug, Clone, Default)]
pub(super) struct Flows {
    schemas: BTreeMap<String, Arc<Schema>>,
    levels: BTreeMap<String, Arc<Level>>,
    /// In the order in which they are asked.
    order: Vec<Arc<Schema>>,
    /// The sum of all levels' shares.
    shares: u32,
}

#[derive(Debug)]
pub(super) struct Schema {
    pub(super) name: String,
    pub(super) uid: String,
    precedence: i64,
    level: String,
    /// What tells the flows of a schema apart.
    by: By,
    rules: Vec<Rule>,
}

#[derive(Debug, Clone, Copy)]
enum By {
    Nothing,
    User,
    Namespace,
}

#[derive(Debug)]
pub(super) struct Level {
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) limit: Limit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    Exempt,
    Limited {
        shares: u32,
        /// Requests of one flow that may wait; 0: none waits.
        queue_max: usize,
    },
}

/// The flow of a request.
#[derive(Debug)]
pub(super) struct Flow {
    pub(super) schema: Arc<Schema>,
    pub(super) level: Arc<Level>,
    pub(super) key: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Rule {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<PathRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Subject {
    kind: String,
    user: Named,
    group: Named,
    service_account: Named,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    name: String,
    namespace: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    cluster_scope: bool,
    namespaces: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

impl View for Flows {
    const PREFIX: &'static str = "/registry/flowcontrol.apiserver.k8s.io/";

    fn set(&mut self, key: &str, object: Option<&Value>) {
        let Some((plural, name)) = key
            .strip_prefix(Self::PREFIX)
            .and_then(|rest| rest.split_once('/'))
        else {
            return;
        };
        match (plural, object) {
            ("flowschemas", Some(object)) => {
                let schema = Arc::new(Schema::parse(object));
                self.schemas.insert(name.to_owned(), schema);
            }
            ("prioritylevelconfigurations", Some(object)) => {
                let level = Arc::new(Level::parse(object));
                self.levels.insert(name.to_owned(), level);
            }
            ("flowschemas", None) => drop(self.schemas.remove(name)),
            ("prioritylevelconfigurations", None) => drop(self.levels.remove(name)),
            _ => {}
        }
    }

    fn settle(&mut self) {
        self.order = self.schemas.values().cloned().collect();
        // The sort is stable: schemas of one precedence stay in the order of their names.
        self.order.sort_by_key(|schema| schema.precedence);
        let shares = self.levels.values().map(|level| match level.limit {
            Limit::Exempt => 0,
            Limit::Limited { shares, .. } => shares,
        });
        self.shares = shares.sum();
    }
}

impl Flows {
    /// The flow of a request, if any schema and its level are there.
    pub(super) fn classify(&self, user: &User, request: &Request) -> Option<Flow> {
        let matches = |schema: &&Arc<Schema>| {
            self.levels.contains_key(&schema.level)
                && schema.rules.iter().any(|rule| rule.matches(user, request))
        };
        let schema = self.order.iter().find(matches)?.clone();
        let level = self.levels.get(&schema.level)?.clone();
        let distinct = match (schema.by, &request.asked) {
            (By::User, _) => user.name.as_str(),
            (By::Namespace, Asked::Resource { namespace, .. }) => namespace,
            (By::Namespace, Asked::Path(_)) | (By::Nothing, _) => "",
        };
        let key = format!("{}/{distinct}", schema.name);
        Some(Flow { schema, level, key })
    }

    /// How many of `total` seats a level has: its share, at least one.
    pub(super) fn seats(&self, shares: u32, total: u32) -> usize {
        let part = u64::from(shares) * u64::from(total);
        let seats = part.div_ceil(u64::from(self.shares.max(1))).max(1);
        usize::try_from(seats).unwrap_or(usize::MAX)
    }
}

impl Schema {
    fn parse(object: &Value) -> Self {
        let text = |path: &[&str]| object::text(object, path).to_owned();
        let by = match object::text(object, &["spec", "distinguisherMethod", "type"]) {
            "ByUser" => By::User,
            "ByNamespace" => By::Namespace,
            _ => By::Nothing,
        };
        let rules = object::items(object, &["spec", "rules"]).iter();
        Self {
            name: object::name(object).to_owned(),
            uid: object::uid(object).to_owned(),
            precedence: object["spec"]["matchingPrecedence"]
                .as_i64()
                .unwrap_or(1000),
            level: text(&["spec", "priorityLevelConfiguration", "name"]),
            by,
            rules: rules
                .filter_map(|rule| Rule::deserialize(rule).ok())
                .collect(),
        }
    }
}

impl Level {
    fn parse(object: &Value) -> Self {
        let limited = &object["spec"]["limited"];
        let number = |value: &Value| value.as_u64().and_then(|one| u32::try_from(one).ok());
        let limit = match object::text(object, &["spec", "type"]) {
            "Exempt" => Limit::Exempt,
            _ => Limit::Limited {
                shares: number(&limited["nominalConcurrencyShares"]).unwrap_or(30),
                queue_max: match object::text(limited, &["limitResponse", "type"]) {
                    "Queue" => {
                        let length = &limited["limitResponse"]["queuing"]["queueLengthLimit"];
                        number(length).unwrap_or(50) as usize
                    }
                    _ => 0,
                },
            },
        };
        Self {
            name: object::name(object).to_owned(),
            uid: object::uid(object).to_owned(),
            limit,
        }
    }
}

impl Rule {
    fn matches(&self, user: &User, request: &Request) -> bool {
        self.subjects.iter().any(|subject| subject.matches(user))
            && match &request.asked {
                Asked::Path(path) => self.non_resource_rules.iter().any(|rule| {
                    has(&rule.verbs, &request.verb)
                        && rule
                            .urls
                            .iter()
                            .any(|pattern| match pattern.strip_suffix('*') {
                                Some(prefix) => path.starts_with(prefix),
                                None => pattern == path,
                            })
                }),
                Asked::Resource {
                    group,
                    resource,
                    subresource,
                    namespace,
                    name: _,
                } => {
                    let whole = match subresource.as_str() {
                        "" => resource.clone(),
                        part => format!("{resource}/{part}"),
                    };
                    self.resource_rules.iter().any(|rule| {
                        has(&rule.verbs, &request.verb)
                            && has(&rule.api_groups, group)
                            && has(&rule.resources, &whole)
                            && match namespace.as_str() {
                                "" => rule.cluster_scope,
                                namespace => has(&rule.namespaces, namespace),
                            }
                    })
                }
            }
    }
}

impl Subject {
    fn matches(&self, user: &User) -> bool {
        match self.kind.as_str() {
            "User" => self.user.name == ALL || self.user.name == user.name,
            "Group" => self.group.name == ALL || user.is_in(&self.group.name),
            "ServiceAccount" => {
                let Named { name, namespace } = &self.service_account;
                service_account_of(&user.name).is_some_and(|(within, one)| {
                    namespace == within && (name == ALL || name == one)
                })
            }
            _ => false,
        }
    }
}

fn has(list: &[String], one: &str) -> bool {
    list.iter().any(|entry| entry == ALL || entry == one)
}
