//! What a failed pod means for its Job, and which successes are enough. Pure.

use serde_json::Value;

use super::indexes::{self, Indexes};
use super::pod::completions;
use crate::object;

/// What a failed pod means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It counts towards the back-off limit.
    Counts,
    /// It does not.
    Ignored,
    /// Its index has failed.
    FailsIndex,
    /// The whole Job has failed; why.
    FailsJob(String),
}

/// By the first rule of the pod failure policy that matches.
pub(super) fn meaning(job: &Value, pod: &Value) -> Meaning {
    let rules = object::items(job, &["spec", "podFailurePolicy", "rules"]);
    for (number, rule) in rules.iter().enumerate() {
        let action = object::text(rule, &["action"]);
        let Some(why) = matches(rule, pod) else {
            continue;
        };
        return match action {
            "Ignore" => Meaning::Ignored,
            "FailIndex" => Meaning::FailsIndex,
            "FailJob" => {
                Meaning::FailsJob(format!("{why} matching {action} rule at index {number}"))
            }
            _ => Meaning::Counts,
        };
    }
    Meaning::Counts
}

/// What of the pod the rule matches.
fn matches(rule: &Value, pod: &Value) -> Option<String> {
    let namespace = object::namespace(pod).unwrap_or_default();
    let name = object::name(pod);
    if let Some(codes) = rule.get("onExitCodes").filter(|codes| codes.is_object()) {
        let (container, code) = exit_code(codes, pod)?;
        return Some(format!(
            "Container {container} for pod {namespace}/{name} failed with exit code {code}"
        ));
    }
    let patterns = object::items(rule, &["onPodConditions"]).iter();
    let conditions = object::items(pod, &["status", "conditions"]);
    for pattern in patterns {
        let wanted = match object::text(pattern, &["status"]) {
            "" => "True",
            status => status,
        };
        let is_it = |one: &&Value| one["type"] == pattern["type"] && one["status"] == wanted;
        if let Some(condition) = conditions.iter().find(is_it) {
            let kind = object::text(condition, &["type"]);
            return Some(format!("Pod {namespace}/{name} has condition {kind}"));
        }
    }
    None
}

/// The first container that ended with a code that the rule is about.
fn exit_code<'a>(codes: &Value, pod: &'a Value) -> Option<(&'a str, i64)> {
    let mains = object::items(pod, &["status", "containerStatuses"]).iter();
    let inits = object::items(pod, &["status", "initContainerStatuses"]).iter();
    let only = object::text(codes, &["containerName"]);
    let values = object::items(codes, &["values"]);
    let is_in = object::text(codes, &["operator"]) == "In";
    mains.chain(inits).find_map(|status| {
        let name = object::text(status, &["name"]);
        let code = object::at(status, &["state", "terminated", "exitCode"])?.as_i64()?;
        let is_meant = only.is_empty() || only == name;
        let matches = values.iter().any(|value| *value == code) == is_in;
        (code != 0 && is_meant && matches).then_some((name, code))
    })
}

/// The first rule of the success policy that the successes meet.
pub(super) fn success_rule(job: &Value, succeeded: &Indexes) -> Option<usize> {
    let rules = object::items(job, &["spec", "successPolicy", "rules"]).iter();
    let end = completions(job).unwrap_or(0);
    let count_of = |indexes: &Indexes| i64::try_from(indexes.len()).unwrap_or(i64::MAX);
    rules.into_iter().position(|rule| {
        let enough = rule["succeededCount"].as_i64();
        match rule["succeededIndexes"].as_str() {
            Some(text) => {
                let wanted = indexes::parse(text, end);
                let enough = enough.unwrap_or(count_of(&wanted));
                count_of(&(&wanted & succeeded)) >= enough
            }
            None => enough.is_some_and(|enough| count_of(succeeded) >= enough),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn failed(code: i64) -> Value {
        json!({"metadata": {"name": "p", "namespace": "n"}, "status": {"phase": "Failed",
            "conditions": [{"type": "DisruptionTarget", "status": "True"}],
            "containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code}}}]}})
    }

    fn job(rules: &Value) -> Value {
        json!({"spec": {"completions": 5, "podFailurePolicy": {"rules": rules}}})
    }

    #[test]
    fn the_first_rule_that_matches_says_what_a_failure_means() {
        let exit = |action: &str, operator: &str, values: &[i64]| json!({"action": action, "onExitCodes": {"operator": operator, "values": values}});
        let disrupted = json!({"action": "Ignore",
            "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]});
        let rules = json!([
            exit("FailJob", "In", &[3]),
            exit("FailIndex", "In", &[4]),
            disrupted
        ]);
        let why =
            "Container c for pod n/p failed with exit code 3 matching FailJob rule at index 0";
        assert_eq!(
            meaning(&job(&rules), &failed(3)),
            Meaning::FailsJob(why.into())
        );
        assert_eq!(meaning(&job(&rules), &failed(4)), Meaning::FailsIndex);
        assert_eq!(meaning(&job(&rules), &failed(5)), Meaning::Ignored);
        assert_eq!(meaning(&job(&json!([])), &failed(5)), Meaning::Counts);
        let not_in = json!([exit("Ignore", "NotIn", &[3])]);
        assert_eq!(meaning(&job(&not_in), &failed(3)), Meaning::Counts);
        assert_eq!(meaning(&job(&not_in), &failed(9)), Meaning::Ignored);
    }

    #[test]
    fn a_success_policy_counts_all_or_the_named_indexes() {
        let met = |rule: Value, succeeded: &[i64]| {
            let job = json!({"spec": {"completions": 5, "successPolicy": {"rules": [rule]}}});
            success_rule(&job, &succeeded.iter().copied().collect()).is_some()
        };
        assert!(met(json!({"succeededCount": 2}), &[0, 4]));
        assert!(!met(json!({"succeededIndexes": "0,2-3"}), &[0, 2, 4]));
        assert!(met(json!({"succeededIndexes": "0,2-3"}), &[0, 2, 3]));
        let some = json!({"succeededIndexes": "0,2-3", "succeededCount": 1});
        assert!(met(some.clone(), &[2]) && !met(some, &[1, 4]));
    }
}
