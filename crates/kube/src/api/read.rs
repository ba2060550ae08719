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
use crate::status::Status;

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
    v: String,
    pub(super) rv: u64,
    pub(super) start: String,
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
                (Some(prefix.clone() + &token.start), Some(token.rv))
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
                .map_err(|error| range_error(error, options.continue_token.is_some()))?;
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

pub(super) fn make_token(rv: u64, start: &str) -> String {
    let token = Continue {
        v: CONTINUE_VERSION.into(),
        rv,
        start: start.into(),
    };
    BASE64_STANDARD_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

pub(super) fn parse_token(token: &str) -> Result<Continue, Status> {
    let bytes = BASE64_STANDARD_NO_PAD
        .decode(token.trim_end_matches('='))
        .ok();
    bytes
        .and_then(|bytes| serde_json::from_slice::<Continue>(&bytes).ok())
        .filter(|token| token.v == CONTINUE_VERSION)
        .ok_or_else(|| Status::bad_request("continue key is not valid"))
}

pub(super) fn range_error(error: RangeError, continued: bool) -> Status {
    match error {
        RangeError::Compacted { .. } if continued => Status::expired(
            "The provided continue parameter is too old to display a consistent list result. You \
             must start a new list without the continue parameter.",
        ),
        RangeError::Compacted { rev, floor } => Status::too_old(rev, floor),
        RangeError::Future { rev, current } => Status::too_large(rev, current),
    }
}
