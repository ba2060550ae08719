//! A user: nothing but names. There are no objects for users or groups.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub(crate) const ANONYMOUS: &str = "system:anonymous";
pub(crate) const AUTHENTICATED: &str = "system:authenticated";
pub(crate) const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Its members may do everything, by definition.
pub(crate) const MASTERS: &str = "system:masters";
const SERVICE_ACCOUNT_PREFIX: &str = "system:serviceaccount:";
const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    pub name: String,
    /// Tells users of one name at different times apart; empty if the source knows none.
    pub uid: String,
    pub groups: Vec<String>,
    /// What else the source of the identity says, by key in lower case.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Nobody in particular: no credentials.
    pub fn anonymous() -> Self {
        Self {
            name: ANONYMOUS.into(),
            groups: vec![UNAUTHENTICATED.into()],
            ..Self::default()
        }
    }

    /// Someone known by a credential.
    pub fn authenticated(name: String, mut groups: Vec<String>) -> Self {
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Self {
            name,
            groups,
            ..Self::default()
        }
    }

    /// A service account, as its tokens name it.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups = service_account_groups(namespace);
        Self::authenticated(service_account_name(namespace, name), groups)
    }

    /// The API server itself.
    pub fn server() -> Self {
        Self::authenticated("system:apiserver".into(), vec![MASTERS.into()])
    }

    /// A controller of the control plane, by the service account that upstream's has.
    pub fn controller(name: &str) -> Self {
        Self::service_account("kube-system", name)
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    pub fn is_master(&self) -> bool {
        self.is_in(MASTERS)
    }

    /// As reviews and audit events show it (`UserInfo`): what is empty is left out.
    pub fn to_json(&self) -> Value {
        let mut info = Map::new();
        info.insert("username".into(), self.name.as_str().into());
        if !self.uid.is_empty() {
            info.insert("uid".into(), self.uid.as_str().into());
        }
        if !self.groups.is_empty() {
            info.insert("groups".into(), json!(self.groups));
        }
        if !self.extra.is_empty() {
            info.insert("extra".into(), json!(self.extra));
        }
        info.into()
    }
}

/// The user name of a service account.
pub(crate) fn service_account_name(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}")
}

/// The groups of every service account of a namespace, but for [`AUTHENTICATED`].
pub(crate) fn service_account_groups(namespace: &str) -> Vec<String> {
    vec![
        SERVICE_ACCOUNTS.to_owned(),
        format!("{SERVICE_ACCOUNTS}:{namespace}"),
    ]
}

/// Namespace and name of the service account that a user name means, if it means one.
pub(crate) fn service_account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT_PREFIX)?.split_once(':')?;
    let is_plain = |part: &str| !part.is_empty() && !part.contains(':');
    (is_plain(namespace) && is_plain(name)).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_may_mean_a_service_account() {
        let user = User::service_account("team", "bot");
        assert_eq!(service_account_of(&user.name), Some(("team", "bot")));
        assert!(user.is_in("system:serviceaccounts:team") && user.is_in(AUTHENTICATED));
        for other in [
            "bot",
            "system:serviceaccount:team",
            "system:serviceaccount::bot",
            "system:serviceaccount:team:a:b",
        ] {
            assert_eq!(service_account_of(other), None, "{other}");
        }
    }

    #[test]
    fn what_a_user_has_not_is_not_shown() {
        let shown = User::anonymous().to_json();
        let expected = json!({"username": ANONYMOUS, "groups": [UNAUTHENTICATED]});
        assert_eq!(shown, expected);
    }
}
