//! An object with what somebody wants of it: the structured merge of server-side apply.
//!
//! Maps are merged by name and associative lists by element; everything else is replaced. The
//! order of a merged list is that of the wanted one, with the other items before the item that
//! they stood before.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::element::{self, NoElement};
use super::schema::{Form, Items, Schema, form};

/// `live` with everything that `wanted` has.
///
/// # Errors
/// If an item of a list has no key, or `wanted` has two items of one key. Both were checked before.
pub(super) fn merge(schema: &dyn Schema, live: &Value, wanted: &Value) -> Result<Value, NoElement> {
    let merged = walk(schema, Some(live), Some(wanted))?;
    Ok(merged.unwrap_or_else(|| Value::Object(Map::new())))
}

/// Nothing comes out where the parts came to nothing.
fn walk(
    schema: &dyn Schema,
    live: Option<&Value>,
    wanted: Option<&Value>,
) -> Result<Option<Value>, NoElement> {
    let Some(value) = wanted.or(live) else {
        return Ok(None);
    };
    match form(schema, value) {
        Form::Leaf => {}
        Form::Map => {
            let (live, wanted) = (live.and_then(as_map), wanted.and_then(as_map));
            if live.is_some() || wanted.is_some() {
                return maps(schema, live, wanted);
            }
        }
        Form::List(items) => {
            let (live, wanted) = (live.and_then(as_list), wanted.and_then(as_list));
            if live.is_some() || wanted.is_some() {
                let (live, wanted) = (live.unwrap_or_default(), wanted.unwrap_or_default());
                return Lists::new(items, schema.item(), live, wanted)?.merge();
            }
        }
    }
    Ok(Some(value.clone()))
}

fn as_map(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object().filter(|map| !map.is_empty())
}

fn as_list(value: &Value) -> Option<&[Value]> {
    let list = value.as_array().map(Vec::as_slice);
    list.filter(|list| !list.is_empty())
}

fn maps(
    schema: &dyn Schema,
    live: Option<&Map<String, Value>>,
    wanted: Option<&Map<String, Value>>,
) -> Result<Option<Value>, NoElement> {
    let mut merged = Map::new();
    let mut member = |name: &str, live: Option<&Value>, wanted: Option<&Value>| {
        if let Some(value) = walk(schema.member(name).schema(), live, wanted)? {
            merged.insert(name.to_owned(), value);
        }
        Ok(())
    };
    for (name, value) in wanted.into_iter().flatten() {
        member(name, live.and_then(|live| live.get(name)), Some(value))?;
    }
    for (name, value) in live.into_iter().flatten() {
        if !wanted.is_some_and(|wanted| wanted.contains_key(name)) {
            member(name, Some(value), None)?;
        }
    }
    Ok((!merged.is_empty()).then_some(Value::Object(merged)))
}

/// An item with its element.
type Item<'a> = (String, &'a Value);

/// Two lists that are being merged.
struct Lists<'a> {
    schema: &'a dyn Schema,
    live: Vec<Item<'a>>,
    wanted: Vec<Item<'a>>,
}

impl<'a> Lists<'a> {
    fn new(
        items: Items<'_>,
        schema: &'a dyn Schema,
        live: &'a [Value],
        wanted: &'a [Value],
    ) -> Result<Self, NoElement> {
        let element = |item| Ok((element::of_item(items, schema, item)?, item));
        let lists = Self {
            schema,
            live: live.iter().map(element).collect::<Result<_, _>>()?,
            wanted: wanted.iter().map(element).collect::<Result<_, _>>()?,
        };
        let mut seen = HashSet::new();
        match lists
            .wanted
            .iter()
            .find(|(element, _)| !seen.insert(element))
        {
            Some((element, _)) => {
                let mut shown = String::new();
                element::show(element, &mut shown);
                Err(NoElement(format!("duplicate entries for key {shown}")))
            }
            None => Ok(lists),
        }
    }

    /// What stands on the server under each element; items that cannot be told apart are not
    /// merged with.
    fn server(&self) -> HashMap<&str, Option<&'a Value>> {
        let mut server = HashMap::with_capacity(self.live.len());
        for (element, item) in &self.live {
            let seen = server.contains_key(element.as_str());
            server.insert(element.as_str(), (!seen).then_some(*item));
        }
        server
    }

    fn merge(&self) -> Result<Option<Value>, NoElement> {
        let server = self.server();
        let wanted: HashSet<&str> = self.wanted.iter().map(|(element, _)| &**element).collect();
        let elements = self.wanted.iter().map(|(element, _)| element.as_str());
        let mut shared = elements.filter(|element| server.contains_key(element));
        let mut next_shared = shared.next();
        let mut done = HashSet::new();
        let mut merged = Vec::with_capacity(self.live.len().max(self.wanted.len()));
        let (mut live, mut want) = (self.live.iter().peekable(), self.wanted.iter().peekable());
        loop {
            if let (Some((element, _)), Some((other, _))) = (live.peek(), want.peek())
                && element != other
                && wanted.contains(element.as_str())
                && next_shared.is_some_and(|next| next != element)
            {
                // It is shared, but stands elsewhere in the wanted order.
                live.next();
                continue;
            }
            if let Some((element, item)) = live.peek()
                && !wanted.contains(element.as_str())
            {
                merged.extend(walk(self.schema, Some(*item), None)?);
                live.next();
                continue;
            }
            if let Some((element, _)) = live.peek()
                && (done.contains(element.as_str())
                    || want.peek().is_some_and(|(other, _)| other == element))
            {
                live.next();
            }
            let Some((element, item)) = want.next() else {
                if live.peek().is_none() {
                    break;
                }
                continue;
            };
            let present = server.get(element.as_str());
            let present = present.map(|item| item.unwrap_or(&Value::Null));
            merged.extend(walk(self.schema, present, Some(item))?);
            done.insert(element.as_str());
            if next_shared == Some(element) {
                next_shared = shared.next();
            }
        }
        Ok((!merged.is_empty()).then_some(Value::Array(merged)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::schema::type_named;

    fn merged(live: &Value, wanted: &Value) -> Value {
        let schema = type_named("io.k8s.api.core.v1.Pod").expect("served");
        merge(schema.get(), live, wanted).expect("merges")
    }

    fn names(names: &str) -> Value {
        let named = names.chars().map(|name| json!({"name": name.to_string()}));
        json!({"spec": {"containers": named.collect::<Vec<_>>()}})
    }

    #[test]
    fn maps_and_items_are_merged_and_the_rest_replaced() {
        let live = json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {
            "containers": [{"name": "c", "image": "i:1", "args": ["x", "y"]}, {"name": "d"}],
            "tolerations": [{"key": "k"}],
        }});
        let wanted = json!({"metadata": {"labels": {"b": "3"}}, "spec": {
            "containers": [{"name": "c", "args": ["z"]}], "tolerations": [{"key": "l"}],
        }});
        let expected = json!({"metadata": {"labels": {"a": "1", "b": "3"}}, "spec": {
            "containers": [{"name": "c", "image": "i:1", "args": ["z"]}, {"name": "d"}],
            "tolerations": [{"key": "l"}],
        }});
        assert_eq!(merged(&live, &wanted), expected);
    }

    #[test]
    fn others_stay_before_the_item_that_they_stood_before() {
        for (live, wanted, expected) in [
            ("abc", "b", "abc"),
            ("abc", "xb", "axbc"),
            ("abc", "ca", "bca"),
            ("", "ab", "ab"),
            ("ab", "", "ab"),
            ("abcd", "dxa", "bcdxa"),
        ] {
            assert_eq!(
                merged(&names(live), &names(wanted)),
                names(expected),
                "{live} {wanted}"
            );
        }
    }

    #[test]
    fn two_items_of_one_key_cannot_be_wanted() {
        let schema = type_named("io.k8s.api.core.v1.Pod").expect("served");
        let refusal = merge(schema.get(), &names(""), &names("aa")).expect_err("two of one key");
        assert_eq!(refusal.0, "duplicate entries for key [name=\"a\"]");
    }

    proptest! {
        #[test]
        fn a_merged_list_has_every_item_once_and_the_wanted_order(
            live in "[a-f]{0,6}", wanted in "[a-f]{0,6}",
        ) {
            let once = |text: &str| {
                let mut seen = HashSet::new();
                text.chars().filter(|one| seen.insert(*one)).collect::<String>()
            };
            let (live, wanted) = (once(&live), once(&wanted));
            let merged = merged(&names(&live), &names(&wanted));
            let list = merged["spec"]["containers"].as_array().cloned().unwrap_or_default();
            let list: String = list.iter().filter_map(|item| item["name"].as_str()).collect();
            let in_order: String = list.chars().filter(|one| wanted.contains(*one)).collect();
            prop_assert_eq!(in_order, wanted);
            for one in live.chars() {
                prop_assert_eq!(list.matches(one).count(), 1);
            }
        }
    }
}
