//! Get and list.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::RangeError;

use super::stored::{convert, convert_one, decode};
use super::{Api, Selector};
use crate::resource::Resource;
use crate::status::{Details, Status};

/// Objects looked at in one go when a selector has to find `limit` matches.
const SCAN: usize = 500;

/// What to list.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    pub selector: Selector,
    /// 0: all.
    pub limit: usize,
    /// Where the previous page ended.
    pub continue_token: Option<String>,
    /// The state at exactly this revision.
    pub at_rev: Option<u64>,
}

/// A page of objects.
#[derive(Debug, Clone, Default)]
pub struct List {
    pub items: Vec<Value>,
    /// The revision of the store that this is the state of.
    pub rev: u64,
    pub continue_token: Option<String>,
    /// Told only for lists without selector, as upstream does.
    pub remaining: Option<usize>,
}

/// Upstream's token, base64 of JSON.
#[derive(Serialize, Deserialize)]
pub(super) struct Continue {
    #[serde(default)]
    v: String,
    /// Negative: as it is now, however long ago the list began.
    #[serde(default)]
    rv: i64,
    #[serde(default)]
    pub(super) start: String,
}

impl Continue {
    /// The revision to go on at; none for the latest.
    pub(super) fn at_rev(&self) -> Option<u64> {
        u64::try_from(self.rv).ok()
    }
}

const CONTINUE_VERSION: &str = "meta.k8s.io/v1";

impl Api {
    pub async fn get(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value, Status> {
        self.catch_up(None).await?;
        convert_one(resource, self.read(resource, namespace, name)?).await
    }

    /// The durable state is in memory, so reading does not wait. The exception are kinds with a
    /// conversion webhook: this returns them in the version they are stored in.
    pub(crate) fn read(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<Value, Status> {
        match self.store.get(&resource.key(namespace, name)) {
            Some(entry) => decode(resource, &entry),
            None => Err(Status::not_found(resource, name)),
        }
    }

    /// All selected objects, of all namespaces if `namespace` is `None`, and the revision to watch
    /// from.
    pub async fn list(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        selector: &Selector,
    ) -> Result<(Vec<Value>, u64), Status> {
        let options = ListOptions {
            selector: selector.clone(),
            ..ListOptions::default()
        };
        let list = self.list_with(resource, namespace, &options).await?;
        Ok((list.items, list.rev))
    }

    pub(crate) async fn list_with(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        options: &ListOptions,
    ) -> Result<List, Status> {
        self.catch_up(options.at_rev).await?;
        let prefix = resource.prefix(namespace);
        if let (Some(name), Some(_) | None) = (options.selector.only_name(), namespace)
            && (namespace.is_some() || !resource.is_namespaced())
            && options.at_rev.is_none()
        {
            return self
                .list_one(resource, &prefix, name, &options.selector)
                .await;
        }
        let (mut from, mut at_rev) = match &options.continue_token {
            Some(token) => {
                let token = parse_token(token)?;
                let at_rev = token.at_rev();
                (Some(prefix.clone() + &token.start), at_rev)
            }
            None => (None, options.at_rev),
        };
        let limit = if options.limit == 0 {
            usize::MAX
        } else {
            options.limit
        };
        let mut list = List::default();
        loop {
            let scan = if options.selector.is_everything() {
                limit
            } else {
                limit.max(SCAN)
            };
            let range = self
                .store
                .range(&prefix, from.as_deref(), scan, at_rev)
                .map_err(|error| range_error(error, options.continue_token.as_deref()))?;
            list.rev = range.rev;
            at_rev = Some(range.rev);
            let (mut left, mut last) = (range.remaining + range.entries.len(), None);
            for (key, object) in decode_range(resource, range.entries).await? {
                if list.items.len() == limit {
                    break;
                }
                left -= 1;
                if options.selector.matches(&object) {
                    list.items.push(object);
                }
                last = Some(key);
            }
            let Some(last) = last.filter(|_| left > 0) else {
                return Ok(list);
            };
            let start = format!("{last}\0");
            if list.items.len() == limit {
                list.continue_token = Some(make_token(list.rev, &start[prefix.len()..]));
                list.remaining = options.selector.is_everything().then_some(left);
                return Ok(list);
            }
            from = Some(start);
        }
    }

    async fn list_one(
        &self,
        resource: &Resource,
        prefix: &str,
        name: &str,
        selector: &Selector,
    ) -> Result<List, Status> {
        // The revision first: an object that is newer than the list is seen twice by a watch, an
        // older list would miss it.
        let rev = self.store.current_rev();
        let mut items = Vec::new();
        if let Some(entry) = self.store.get(&format!("{prefix}{name}")) {
            let object = convert_one(resource, decode(resource, &entry)?).await?;
            if selector.matches(&object) {
                items.push(object);
            }
        }
        Ok(List {
            items,
            rev,
            ..List::default()
        })
    }
}

async fn decode_range(
    resource: &Resource,
    entries: Vec<(Arc<str>, store::Entry)>,
) -> Result<Vec<(Arc<str>, Value)>, Status> {
    let (mut keys, mut objects) = (Vec::new(), Vec::new());
    for (key, entry) in entries {
        objects.push(decode(resource, &entry)?);
        keys.push(key);
    }
    let objects = convert(resource, objects).await?;
    Ok(keys.into_iter().zip(objects).collect())
}

pub(super) fn make_token(rev: u64, start: &str) -> String {
    let token = Continue {
        v: CONTINUE_VERSION.into(),
        rv: i64::try_from(rev).unwrap_or(i64::MAX),
        start: start.into(),
    };
    token_of(&token)
}

pub(super) fn parse_token(token: &str) -> Result<Continue, Status> {
    let invalid = |why: String| {
        Status::bad_request(format!(
            "invalid continue token: continue key is not valid: {why}"
        ))
    };
    let bytes = BASE64_STANDARD_NO_PAD
        .decode(token.trim_end_matches('='))
        .map_err(|error| invalid(error.to_string()))?;
    let token: Continue =
        serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
    if token.v != CONTINUE_VERSION {
        let why = format!("server does not recognize this encoded version {}", token.v);
        return Err(invalid(why));
    }
    Ok(token)
}

/// What became of a list, or of one that `continued` an earlier one.
pub(super) fn range_error(error: RangeError, continued: Option<&str>) -> Status {
    match (error, continued.map(parse_token)) {
        (RangeError::Compacted { .. }, Some(Ok(token))) => {
            let mut status = Status::expired(
                "The provided continue parameter is too old to display a consistent list result. \
                 You can start a new list without the continue parameter, or use the continue \
                 token in this response to retrieve the remainder of the results. Continuing with \
                 the provided token results in an inconsistent list - objects that were created, \
                 modified, or deleted between the time the first chunk was returned and now may \
                 show up in the list.",
            );
            let continue_token = token_of(&Continue { rv: -1, ..token });
            status.details = Some(Box::new(Details {
                continue_token,
                ..Details::default()
            }));
            status
        }
        (RangeError::Compacted { .. }, Some(Err(_)) | None) => {
            Status::expired("The resourceVersion for the provided list is too old.")
        }
        (RangeError::Future { rev, current }, _) => Status::too_large(rev, current),
    }
}

fn token_of(token: &Continue) -> String {
    BASE64_STANDARD_NO_PAD.encode(serde_json::to_vec(token).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_that_is_too_old_can_be_continued_as_it_is_now() {
        let begun = make_token(7, "a\0");
        let compacted = RangeError::Compacted { rev: 7, floor: 9 };
        let status = range_error(compacted, Some(&begun));
        assert_eq!((status.code, status.reason), (410, "Expired"));
        let body = status.to_json();
        assert!(body.get("details").is_none(), "{body}");
        let token = body["metadata"]["continue"].as_str().expect("a token");
        let token = parse_token(token).expect("our own");
        assert_eq!((token.at_rev(), token.start.as_str()), (None, "a\0"));
    }

    #[test]
    fn garbage_is_told_for_what_it_is() {
        for (token, why) in [
            ("%%", "Invalid symbol 37, offset 0."),
            ("e30", "server does not recognize this encoded version "),
        ] {
            let status = parse_token(token).err().expect("refused");
            let expected = format!("invalid continue token: continue key is not valid: {why}");
            assert_eq!((status.code, status.message), (400, expected), "{token}");
        }
    }
}
