//! Sets of fields: trees of path elements, the same tree that `FieldsV1` writes as JSON.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::element::{self, NoElement};

/// A set of fields, and the node of the tree that such a set is.
///
/// A node that is a member says that the field itself is in the set; the fields below it are in
/// the set by their own nodes. No node is neither a member nor has any below it, except the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Fields {
    pub(super) is_member: bool,
    pub(super) below: BTreeMap<String, Fields>,
}

impl Fields {
    pub(super) fn add_path(&mut self, names: &[&str]) {
        let mut node = self;
        for name in names {
            node = node.below.entry(element::field(name)).or_default();
        }
        node.is_member = true;
    }

    pub(super) fn is_empty(&self) -> bool {
        !self.is_member && self.below.is_empty()
    }

    /// Puts a subtree where there is none yet, unless it is empty.
    pub(super) fn put(&mut self, element: String, fields: Fields) {
        if !fields.is_empty() {
            self.below.insert(element, fields);
        }
    }

    /// The node of the element, made if there is none. The caller adds something to it.
    pub(super) fn node(&mut self, element: String) -> &mut Fields {
        self.below.entry(element).or_default()
    }

    /// Whether the field of these elements is in the set.
    pub(super) fn has<'a>(&self, mut path: impl Iterator<Item = &'a str>) -> bool {
        let node = path.try_fold(self, |node, element| node.below.get(element));
        node.is_some_and(|node| node.is_member)
    }

    /// Adds all of `other`.
    pub(super) fn add(&mut self, other: Fields) {
        self.is_member |= other.is_member;
        if self.below.is_empty() {
            self.below = other.below;
            return;
        }
        for (element, fields) in other.below {
            self.node(element).add(fields);
        }
    }

    /// Takes the fields of `other` away; those below them stay.
    pub(super) fn remove(&mut self, other: &Fields) {
        self.is_member &= !other.is_member;
        self.remove_below(other, Fields::remove);
    }

    /// Takes the fields of `other` away with everything below them.
    pub(super) fn remove_with_below(&mut self, other: &Fields) {
        if other.is_member {
            *self = Self::default();
        } else {
            self.remove_below(other, Fields::remove_with_below);
        }
    }

    fn remove_below(&mut self, other: &Fields, remove: fn(&mut Fields, &Fields)) {
        // The smaller tree is walked: what is taken away is small most of the time.
        if other.below.len() < self.below.len() {
            for (element, gone) in &other.below {
                if let Some(fields) = self.below.get_mut(element) {
                    remove(fields, gone);
                    if fields.is_empty() {
                        self.below.remove(element);
                    }
                }
            }
            return;
        }
        self.below.retain(|element, fields| {
            if let Some(gone) = other.below.get(element) {
                remove(fields, gone);
            }
            !fields.is_empty()
        });
    }

    /// The fields that are in both.
    pub(super) fn common(&self, other: &Fields) -> Fields {
        let mut common = Fields {
            is_member: self.is_member && other.is_member,
            below: BTreeMap::new(),
        };
        let (small, large) = if self.below.len() <= other.below.len() {
            (self, other)
        } else {
            (other, self)
        };
        for (element, fields) in &small.below {
            if let Some(others) = large.below.get(element) {
                common.put(element.clone(), fields.common(others));
            }
        }
        common
    }

    /// Calls `visit` with the elements of each field: fields of one node before those below it.
    pub(super) fn each<'a>(&'a self, path: &mut Vec<&'a str>, visit: &mut dyn FnMut(&[&'a str])) {
        for (element, fields) in &self.below {
            if fields.is_member {
                path.push(element);
                visit(path);
                path.pop();
            }
        }
        for (element, fields) in &self.below {
            path.push(element);
            fields.each(path, visit);
            path.pop();
        }
    }

    /// Reads `FieldsV1`.
    pub(super) fn decode(json: &Value) -> Result<Self, NoElement> {
        let mut fields = Self::decode_node(json)?;
        fields.is_member = false;
        Ok(fields)
    }

    fn decode_node(json: &Value) -> Result<Self, NoElement> {
        let mut node = Self::default();
        match json {
            Value::Null => {}
            Value::Object(map) => {
                for (text, below) in map {
                    if text == "." {
                        node.is_member = true;
                    } else if let Some(element) = element::parse(text)? {
                        let below = Self::decode_node(below)?;
                        node.below.insert(element, below);
                    }
                }
            }
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(NoElement("a set of fields is a map of maps".into()));
            }
        }
        node.is_member |= node.below.is_empty();
        Ok(node)
    }

    /// Writes `FieldsV1`.
    pub(super) fn encode(&self) -> Value {
        let below = self.below.iter();
        below
            .map(|(element, fields)| (element.clone(), fields.encode_node()))
            .collect::<Map<_, _>>()
            .into()
    }

    fn encode_node(&self) -> Value {
        let mut json = self.encode();
        if self.is_member
            && !self.below.is_empty()
            && let Some(map) = json.as_object_mut()
        {
            map.insert(".".into(), Value::Object(Map::new()));
        }
        json
    }
}

/// A path as it is shown to people.
pub(super) fn show(path: &[&str]) -> String {
    let mut shown = String::new();
    for element in path {
        element::show(element, &mut shown);
    }
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn set(json: &Value) -> Fields {
        Fields::decode(json).expect("reads")
    }

    #[test]
    fn a_set_is_read_and_written_as_it_was() {
        let json = json!({"f:data": {".": {}, "f:a": {}}, "f:spec": {"f:x": {"k:{\"a\":1}": {}}}});
        assert_eq!(set(&json).encode(), json);
        assert_eq!(set(&json!({".": {}})).encode(), json!({}));
        assert!(Fields::decode(&json!({"f:a": [1]})).is_err());
    }

    #[test]
    fn without_a_field_what_is_below_it_stays_unless_asked() {
        let all = json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}});
        let mut left = set(&all);
        left.remove(&set(&json!({"f:a": {}})));
        assert_eq!(left.encode(), json!({"f:a": {"f:b": {}}, "f:c": {}}));
        let mut left = set(&all);
        left.remove_with_below(&set(&json!({"f:a": {}, "f:z": {}})));
        assert_eq!(left.encode(), json!({"f:c": {}}));
    }

    #[test]
    fn sets_are_united_and_cut() {
        let (one, two) = (json!({"f:a": {"f:b": {}}}), json!({"f:a": {}, "f:c": {}}));
        let mut both = set(&one);
        both.add(set(&two));
        assert_eq!(
            both.encode(),
            json!({"f:a": {".": {}, "f:b": {}}, "f:c": {}})
        );
        assert_eq!(both.common(&set(&one)), set(&one));
        assert!(set(&one).common(&set(&two)).is_empty());
    }

    #[test]
    fn members_of_a_node_come_before_what_is_below() {
        let all = set(&json!({"f:a": {".": {}, "f:x": {}}, "f:b": {}}));
        let mut shown = Vec::new();
        all.each(&mut Vec::new(), &mut |path| shown.push(show(path)));
        assert_eq!(shown, [".a", ".b", ".a.x"]);
    }
}
