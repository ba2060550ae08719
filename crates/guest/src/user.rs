//! Who a process runs as: an image's `user` looked up in the container's own files.

use crate::root::Root;
use crate::runtime::RuntimeError;

/// Longest /etc/passwd or /etc/group that is looked at.
const ACCOUNT_BYTES_MAX: u64 = 1 << 20;

/// A user with its groups, as numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    /// Groups beyond `gid`.
    pub groups: Vec<u32>,
    pub home: String,
}

/// A user or group that is neither a number nor in the container's files.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnknownUser {
    #[error("the container's /etc/passwd has no user `{0}`")]
    User(String),
    #[error("the container's /etc/group has no group `{0}`")]
    Group(String),
}

struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn accounts(passwd: &str) -> impl Iterator<Item = Account<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        let uid = fields.next()?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let home = fields.nth(1).unwrap_or("/");
        Some(Account {
            name,
            uid,
            gid,
            home,
        })
    })
}

/// Name, number and members.
fn groups(group: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let _password = fields.next()?;
        let gid = fields.next()?.parse().ok()?;
        Some((name, gid, fields.next().unwrap_or("")))
    })
}

/// Looks up `user` in the files of a container.
///
/// # Errors
/// If the files cannot be read, or a name is unknown.
pub fn find(root: &Root, user: &str) -> Result<User, RuntimeError> {
    let read = |path: &str| {
        let bytes = root.read(path, ACCOUNT_BYTES_MAX);
        let bytes = bytes.map_err(|source| RuntimeError::new(format!("read {path}"), source))?;
        Ok::<_, RuntimeError>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let found = look_up(user, &read("/etc/passwd")?, &read("/etc/group")?);
    found.map_err(|source| RuntimeError::new("find the container's user", source))
}

/// Looks up `user` as in an image's configuration (empty, `name`, `uid`, each also with `:group`
/// or `:gid`) in the texts of the container's /etc/passwd and /etc/group.
///
/// A uid without an account gets group 0 and home `/`, as with other container runtimes.
///
/// # Errors
/// If a name is unknown.
pub fn look_up(user: &str, passwd: &str, group: &str) -> Result<User, UnknownUser> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group).filter(|group| !group.is_empty())),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number = name.parse::<u32>().ok();
    let account = accounts(passwd).find(|account| match number {
        Some(uid) => account.uid == uid,
        None => account.name == name,
    });
    let unknown = || UnknownUser::User(name.to_owned());
    let uid = number.or(account.as_ref().map(|account| account.uid));
    let uid = uid.ok_or_else(unknown)?;
    let gid = match group_name {
        None => account.as_ref().map_or(0, |account| account.gid),
        Some(text) => {
            let number = text.parse::<u32>().ok();
            let found = groups(group).find(|(name, ..)| *name == text);
            let gid = number.or(found.map(|(_, gid, _)| gid));
            gid.ok_or_else(|| UnknownUser::Group(text.to_owned()))?
        }
    };
    let is_member = |members: &str| {
        let mut members = members.split(',');
        account
            .as_ref()
            .is_some_and(|account| members.any(|member| member == account.name))
    };
    let supplementary = match group_name {
        // Whoever names a group means that one alone.
        Some(_) => Vec::new(),
        None => groups(group)
            .filter(|&(_, number, members)| number != gid && is_member(members))
            .map(|(_, number, _)| number)
            .collect(),
    };
    Ok(User {
        uid,
        gid,
        groups: supplementary,
        home: account.map_or("/", |account| account.home).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n\
        broken\nweb:x:33:34:web:/srv/web:/bin/false\nshort:x:40:41\n";
    const GROUP: &str = "root:x:0:\nwww:x:34:\nadm:x:4:root,web\nlog:x:5:web\nbroken\n";

    fn found(user: &str) -> (u32, u32, Vec<u32>, String) {
        let user = look_up(user, PASSWD, GROUP).unwrap();
        (user.uid, user.gid, user.groups, user.home)
    }

    #[test]
    fn users_are_found_by_name_and_by_number() {
        assert_eq!(found(""), (0, 0, vec![4], "/root".into()));
        assert_eq!(found("web"), (33, 34, vec![4, 5], "/srv/web".into()));
        assert_eq!(found("33"), found("web"));
        assert_eq!(found("short"), (40, 41, vec![], "/".into()));
    }

    #[test]
    fn a_named_group_replaces_all_others() {
        assert_eq!(found("web:adm"), (33, 4, vec![], "/srv/web".into()));
        assert_eq!(found("web:77"), (33, 77, vec![], "/srv/web".into()));
        assert_eq!(found("web:").1, 34);
        assert_eq!(found(":adm").1, 4);
    }

    #[test]
    fn a_number_needs_no_account_but_a_name_does() {
        assert_eq!(found("1000"), (1000, 0, vec![], "/".into()));
        let user = UnknownUser::User("nobody".into());
        assert_eq!(look_up("nobody", PASSWD, GROUP), Err(user));
        let group = UnknownUser::Group("staff".into());
        assert_eq!(look_up("web:staff", PASSWD, GROUP), Err(group));
        assert!(look_up("0", "", "").is_ok());
        assert!(look_up("-1", "", "").is_err());
    }
}
