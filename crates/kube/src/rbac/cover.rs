//! Whether some rules allow everything that others do. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::rule::Rule;

const ALL: &str = "*";

/// The parts of `wanted` that `held` does not allow; empty if it allows all of them. Each part has
/// one verb, and one group and resource (and name), or one path.
pub(crate) fn missing(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let parts = wanted.iter().flat_map(broken_down);
    parts
        .filter(|part| !held.iter().any(|rule| covers(rule, part)))
        .collect()
}

fn broken_down(rule: &Rule) -> Vec<Rule> {
    let mut parts = Vec::new();
    for verb in &rule.verbs {
        let one = |text: &String| vec![text.clone()];
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let part = Rule {
                    verbs: one(verb),
                    api_groups: one(group),
                    resources: one(resource),
                    ..Rule::default()
                };
                if rule.resource_names.is_empty() {
                    parts.push(part.clone());
                }
                parts.extend(rule.resource_names.iter().map(|name| Rule {
                    resource_names: one(name),
                    ..part.clone()
                }));
            }
        }
        parts.extend(rule.non_resource_urls.iter().map(|path| Rule {
            verbs: one(verb),
            non_resource_urls: one(path),
            ..Rule::default()
        }));
    }
    parts
}

fn covers(rule: &Rule, part: &Rule) -> bool {
    let has = |held: &[String], wanted: &[String]| {
        held.iter().any(|one| one == ALL) || wanted.iter().all(|one| held.contains(one))
    };
    let resources = || {
        has(&rule.resources, &part.resources)
            || part.resources.iter().all(|wanted| {
                let Some((_, below)) = wanted.split_once('/') else {
                    return false;
                };
                rule.resources
                    .iter()
                    .any(|held| *held == format!("*/{below}"))
            })
    };
    let names = || {
        rule.resource_names.is_empty()
            || (!part.resource_names.is_empty()
                && part
                    .resource_names
                    .iter()
                    .all(|name| rule.resource_names.contains(name)))
    };
    let paths = || {
        part.non_resource_urls.iter().all(|wanted| {
            let covered = |held: &String| match held.strip_suffix('*') {
                Some(prefix) => wanted.starts_with(prefix),
                None => held == wanted,
            };
            rule.non_resource_urls.iter().any(covered)
        })
    };
    has(&rule.verbs, &part.verbs)
        && has(&rule.api_groups, &part.api_groups)
        && resources()
        && names()
        && paths()
}

/// Parts of rules as upstream lists them: those that differ in their verbs only are one line.
pub(crate) fn described(parts: &[Rule]) -> String {
    let mut compact = BTreeMap::<_, Vec<&str>>::new();
    for part in parts {
        let about = (
            &part.api_groups,
            &part.resources,
            &part.non_resource_urls,
            &part.resource_names,
        );
        let verbs = compact.entry(about).or_default();
        for verb in &part.verbs {
            if !verbs.contains(&verb.as_str()) {
                verbs.push(verb);
            }
        }
    }
    let lines = compact.into_iter().map(|(about, verbs)| {
        let (groups, resources, urls, names) = about;
        let lists = [
            ("APIGroups", groups),
            ("Resources", resources),
            ("NonResourceURLs", urls),
            ("ResourceNames", names),
        ];
        let mut fields: Vec<_> = lists
            .into_iter()
            .filter(|(_, list)| !list.is_empty())
            .map(|(field, list)| format!("{field}:{}", quoted(list)))
            .collect();
        fields.push(format!("Verbs:{}", quoted(&verbs)));
        format!("{{{}}}", fields.join(", "))
    });
    let lines: BTreeSet<_> = lines.collect();
    lines.into_iter().collect::<Vec<_>>().join("\n")
}

/// As Go prints a list of strings.
pub(crate) fn quoted(list: &[impl AsRef<str>]) -> String {
    let all: Vec<_> = list
        .iter()
        .map(|one| format!("{:?}", one.as_ref()))
        .collect();
    format!("[{}]", all.join(" "))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::{Value, json};

    use super::*;

    fn rules(value: Value) -> Vec<Rule> {
        Vec::<Rule>::deserialize(value).expect("rules")
    }

    #[test]
    fn rules_may_be_covered_by_several_others_together() {
        let held = rules(json!([
            {"verbs": ["get"], "apiGroups": [""], "resources": ["pods", "secrets"]},
            {"verbs": ["list"], "apiGroups": ["*"], "resources": ["*"]},
            {"verbs": ["get"], "apiGroups": ["apps"], "resources": ["*/scale"]},
            {"verbs": ["*"], "nonResourceURLs": ["/metrics/*"]},
        ]));
        let covered = rules(json!([
            {"verbs": ["get", "list"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"]},
            {"verbs": ["get"], "apiGroups": ["apps"], "resources": ["deployments/scale"]},
            {"verbs": ["get"], "nonResourceURLs": ["/metrics/a"]},
        ]));
        assert_eq!(missing(&held, &covered), []);
        let wanted = rules(json!([
            {"verbs": ["get", "delete", "watch"], "apiGroups": [""], "resources": ["pods"]},
            {"verbs": ["get"], "apiGroups": [""], "resources": ["*"]},
            {"verbs": ["get"], "nonResourceURLs": ["/metrics"]},
        ]));
        assert_eq!(
            described(&missing(&held, &wanted)),
            "{APIGroups:[\"\"], Resources:[\"*\"], Verbs:[\"get\"]}\n\
             {APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\" \"watch\"]}\n\
             {NonResourceURLs:[\"/metrics\"], Verbs:[\"get\"]}"
        );
    }

    #[test]
    fn a_rule_for_one_name_does_not_cover_all() {
        let one = rules(
            json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"],
            "resourceNames": ["a"]}]),
        );
        let all = rules(json!([{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}]));
        assert_eq!(missing(&one, &all).len(), 1);
        assert_eq!(missing(&all, &one).len(), 1);
    }
}
