//! Conflicts of an apply, and how they are told.

use std::collections::BTreeMap;

use super::fields::{Fields, show};
use crate::status::{Cause, Details, Status};

/// A field that would change and that somebody else owns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Conflict {
    /// The owner, as errors name it.
    manager: String,
    path: Vec<String>,
}

impl Conflict {
    pub(super) fn all(manager: &str, fields: &Fields) -> Vec<Self> {
        let mut all = Vec::new();
        fields.each(&mut Vec::new(), &mut |path| {
            all.push(Self {
                manager: manager.to_owned(),
                path: path.iter().map(|element| (*element).to_owned()).collect(),
            });
        });
        all
    }

    fn shown_path(&self) -> String {
        let path: Vec<_> = self.path.iter().map(String::as_str).collect();
        show(&path)
    }
}

/// All of an apply, in the order of their owners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Conflicts(Vec<Conflict>);

impl FromIterator<Conflict> for Conflicts {
    fn from_iter<I: IntoIterator<Item = Conflict>>(conflicts: I) -> Self {
        Self(conflicts.into_iter().collect())
    }
}

impl Conflicts {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those that are not about these fields.
    pub(super) fn without(self, fields: &Fields) -> Self {
        let conflicts = self.0.into_iter();
        conflicts
            .filter(|conflict| !fields.has(conflict.path.iter().map(String::as_str)))
            .collect()
    }
}

impl From<Conflicts> for Status {
    fn from(Conflicts(conflicts): Conflicts) -> Self {
        let causes = conflicts.iter().map(|conflict| Cause {
            reason: "FieldManagerConflict",
            message: format!("conflict with {}", conflict.manager),
            field: conflict.shown_path(),
        });
        let message = match &conflicts[..] {
            [one] => format!(
                "Apply failed with 1 conflict: conflict with {}: {}",
                one.manager,
                one.shown_path()
            ),
            many => {
                let mut by_manager: BTreeMap<&str, Vec<String>> = BTreeMap::new();
                for conflict in many {
                    let paths = by_manager.entry(&conflict.manager).or_default();
                    paths.push(format!("- {}", conflict.shown_path()));
                }
                let told = by_manager.iter().map(|(manager, paths)| {
                    format!("conflicts with {manager}:\n{}", paths.join("\n"))
                });
                let told: Vec<_> = told.collect();
                format!(
                    "Apply failed with {} conflicts: {}",
                    many.len(),
                    told.join("\n")
                )
            }
        };
        let details = Details {
            causes: causes.collect(),
            ..Details::default()
        };
        Status {
            code: 409,
            reason: "Conflict",
            message,
            details: Some(Box::new(details)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_conflict_is_told_in_a_line_and_several_by_their_owners() {
        let fields = |json| Fields::decode(&json).expect("reads");
        let one = Conflict::all("\"a\"", &fields(json!({"f:data": {"f:x": {}}})));
        let status = Status::from(one.iter().cloned().collect::<Conflicts>());
        assert_eq!(
            status.message,
            "Apply failed with 1 conflict: conflict with \"a\": .data.x"
        );
        let two = Conflict::all("\"b\" using v1", &fields(json!({"f:y": {}, "f:z": {}})));
        let status = Status::from(one.into_iter().chain(two).collect::<Conflicts>());
        assert_eq!(
            status.message,
            "Apply failed with 3 conflicts: conflicts with \"a\":\n- .data.x\nconflicts with \"b\" \
             using v1:\n- .y\n- .z"
        );
        let details = status.details.expect("details");
        assert_eq!(details.causes.len(), 3);
        assert_eq!(details.causes[2].message, "conflict with \"b\" using v1");
        assert_eq!(details.causes[2].field, ".z");
    }
}
