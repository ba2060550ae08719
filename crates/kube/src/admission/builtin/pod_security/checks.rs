//! What the checks of both levels have in common: a pod with all its containers, and how a
//! violation names the ones at fault.

use serde_json::Value;

use crate::object;

/// One rule that a pod breaks.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Violation {
    pub(super) reason: &'static str,
    /// Empty where the reason says it all.
    pub(super) detail: String,
}

impl Violation {
    pub(super) fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
        }
    }
}

/// A pod or a template of one.
pub(super) struct Pod<'a> {
    pub(super) whole: &'a Value,
    pub(super) spec: &'a Value,
    /// Its security context; null if it has none.
    pub(super) context: &'a Value,
    /// In upstream's order: init containers, containers, ephemeral containers.
    pub(super) containers: Vec<&'a Value>,
}

impl<'a> Pod<'a> {
    pub(super) fn new(whole: &'a Value) -> Self {
        let spec = &whole["spec"];
        let lists = ["initContainers", "containers", "ephemeralContainers"];
        let containers = lists.iter().flat_map(|list| object::items(spec, &[list]));
        Self {
            whole,
            spec,
            context: &spec["securityContext"],
            containers: containers.collect(),
        }
    }

    /// Whether the pod asks for Windows, where some rules mean nothing.
    pub(super) fn is_windows(&self) -> bool {
        self.spec["os"]["name"] == "windows"
    }

    /// The names of the containers for which `is_bad`.
    pub(super) fn bad(&self, is_bad: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        let bad = self.containers.iter().filter(|container| is_bad(container));
        bad.map(|container| object::text(container, &["name"]))
            .collect()
    }
}

/// `"a"`, or `"a", "b"`.
pub(super) fn quoted<T: AsRef<str>>(names: &[T]) -> String {
    let quoted: Vec<_> = names
        .iter()
        .map(|name| format!("{:?}", name.as_ref()))
        .collect();
    quoted.join(", ")
}

/// `container "a"`, or `containers "a", "b"`.
pub(super) fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

pub(super) fn plural(word: &str, count: usize) -> String {
    if count == 1 {
        word.to_owned()
    } else {
        format!("{word}s")
    }
}

/// Sorted, each once.
pub(super) fn distinct<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut all: Vec<_> = texts.collect();
    all.sort_unstable();
    all.dedup();
    all
}
