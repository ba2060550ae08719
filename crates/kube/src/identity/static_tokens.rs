//! Fixed tokens from a file, in upstream's format: `token,user,uid,"group,group"`.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::User;

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("cannot read the tokens in {path}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} line {line}: want `token,user,uid,\"group,group\"`")]
    Line { path: PathBuf, line: usize },
}

/// Users by the digest of their token, so that looking one up tells nothing of the others.
#[derive(Debug, Default)]
pub(super) struct StaticTokens(HashMap<[u8; 32], User>);

impl StaticTokens {
    pub(super) fn load(path: &Path) -> Result<Self, TokenFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| TokenFileError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|line| TokenFileError::Line {
            path: path.to_owned(),
            line,
        })
    }

    /// Err is the number of the first line that is wrong.
    pub(super) fn parse(text: &str) -> Result<Self, usize> {
        let mut users = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fields = fields(line).ok_or(index + 1)?;
            let [token, name, uid, rest @ ..] = &fields[..] else {
                return Err(index + 1);
            };
            if token.is_empty() || name.is_empty() {
                return Err(index + 1);
            }
            let groups = rest.first().map_or("", String::as_str).split(',');
            let groups = groups.map(str::trim).filter(|group| !group.is_empty());
            let mut user = User::authenticated(name.clone(), groups.map(str::to_owned).collect());
            user.uid.clone_from(uid);
            users.insert(Sha256::digest(token).into(), user);
        }
        Ok(Self(users))
    }

    pub(super) fn user(&self, token: &str) -> Option<User> {
        if self.0.is_empty() {
            return None;
        }
        let digest: [u8; 32] = Sha256::digest(token).into();
        self.0.get(&digest).cloned()
    }
}

/// The fields of a line; one may be in quotes and then hold commas.
fn fields(line: &str) -> Option<Vec<String>> {
    let (mut fields, mut rest) = (Vec::new(), line);
    loop {
        let field;
        if let Some(quoted) = rest.trim_start().strip_prefix('"') {
            let (text, after) = quoted.split_once('"')?;
            field = text;
            rest = after.trim_start();
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field = rest[..end].trim();
            rest = &rest[end..];
        }
        fields.push(field.to_owned());
        rest = match rest.strip_prefix(',') {
            Some(rest) => rest,
            None if rest.is_empty() => return Some(fields),
            None => return None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_token_user_uid_and_groups() {
        let tokens = StaticTokens::parse("# people\n\ns3cret,alice,7,\"dev, ops\"\nx,bob,8\n");
        let tokens = tokens.expect("parses");
        let alice = tokens.user("s3cret").expect("known");
        assert_eq!((alice.name.as_str(), alice.uid.as_str()), ("alice", "7"));
        assert_eq!(alice.groups, ["dev", "ops", "system:authenticated"]);
        assert!(tokens.user("x").is_some() && tokens.user("y").is_none());
        for wrong in ["a,b", "a,b,c,\"d", ",b,c", "a,b,c,\"d\"e"] {
            assert_eq!(StaticTokens::parse(wrong).err(), Some(1), "{wrong}");
        }
    }
}
