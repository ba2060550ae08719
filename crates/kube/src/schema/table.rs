//! The table in memory.
//!
//! Its text has a line `@<type name> [atomic]` per type, followed by a line per field:
//! `<name> <protobuf tag path> <kind> [flags]`. The tag path is `-` for a field that protobuf does
//! not carry, and `2.4` for field 4 of a struct embedded as field 2. A kind is one letter for a
//! scalar, `@<type name>`, `[<item kind>` or `{<value kind>`. Flags: `req`, `zero` (zero is a value,
//! not the lack of one), `set`, `atomic`, `map=<keys>`, `patch=<strategies>`, `key=<merge key>`,
//! `enum=<values>`.
//!
//! Names and fields point into the compiled-in text. At first use the text is divided into types;
//! a type is read when somebody asks for it, because most are never asked for.

use std::collections::HashMap;
use std::io::Read;
use std::sync::OnceLock;

static TEXT: &str = include_str!("table.txt");
static DESCRIPTIONS: &[u8] = include_bytes!("descriptions.txt.gz");

/// A message type.
#[derive(Debug)]
pub struct Type {
    pub name: &'static str,
    /// References to it are replaced as a whole by server-side apply.
    pub atomic: bool,
    pub fields: Vec<Field>,
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// The last word of the name: `PodSpec`.
    pub fn short_name(&self) -> &'static str {
        self.name.rsplit('.').next().unwrap_or(self.name)
    }

    /// As Go names it, with its package: `v1.PodSpec`.
    pub(super) fn go_name(&self) -> String {
        let mut words = self.name.rsplit('.');
        let (name, package) = (words.next(), words.next());
        format!("{}.{}", package.unwrap_or("v1"), name.unwrap_or(self.name))
    }
}

/// An index into the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeRef(usize);

impl TypeRef {
    pub fn get(self) -> &'static Type {
        let table = table();
        let entry = &table.entries[self.0];
        entry.parsed.get_or_init(|| parse(entry.text, &table.index))
    }
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    /// Tag in the message, or in the embedded struct with the first tag. Empty: not in protobuf.
    pub tags: Vec<u32>,
    pub kind: Kind,
    pub required: bool,
    /// Go can tell a zero that was written from nothing: `replicas: 0` is not the default.
    pub keeps_zero: bool,
    pub flags: Vec<&'static str>,
}

impl Field {
    fn flag(&self, name: &str) -> Option<&'static str> {
        self.flags
            .iter()
            .find_map(|flag| flag.strip_prefix(name)?.strip_prefix('='))
    }

    /// Key by which strategic merge matches list items.
    pub fn merge_key(&self) -> Option<&'static str> {
        self.flag("key")
    }

    /// `merge`, `retainKeys`, or both.
    pub fn has_patch_strategy(&self, strategy: &str) -> bool {
        self.flag("patch")
            .is_some_and(|all| all.split(',').any(|one| one == strategy))
    }

    pub fn patch_strategy(&self) -> Option<&'static str> {
        self.flag("patch")
    }

    /// The values that a text may have, where upstream publishes them.
    pub fn enumeration(&self) -> Option<impl Iterator<Item = &'static str> + use<>> {
        self.flag("enum").map(|values| values.split(','))
    }

    /// `set`, `atomic`, or `map` and its keys, as the OpenAPI markers tell it.
    pub fn list_type(&self) -> Option<(&'static str, Vec<&'static str>)> {
        if let Some(keys) = self.flag("map") {
            return Some(("map", keys.split(',').collect()));
        }
        let plain = self
            .flags
            .iter()
            .find(|flag| matches!(**flag, "set" | "atomic"));
        plain.map(|flag| (*flag, Vec::new()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Scalar(Scalar),
    Message(TypeRef),
    List(Box<Kind>),
    Map(Box<Kind>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    String,
    /// Base64 in JSON.
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    IntOrString,
    Quantity,
    Time,
    MicroTime,
    /// Any object, kept as it is.
    Raw,
    Fields,
    /// Any value, kept as it is.
    Json,
    /// In a CustomResourceDefinition: a schema or a list of schemas.
    SchemaOrArray,
    /// A schema, or whether there may be anything.
    SchemaOrBool,
    /// A schema or a list of names.
    SchemaOrStrings,
}

struct Entry {
    text: &'static str,
    parsed: OnceLock<Type>,
}

struct Table {
    entries: Vec<Entry>,
    index: HashMap<&'static str, usize>,
}

fn table() -> &'static Table {
    static TABLE: OnceLock<Table> = OnceLock::new();
    TABLE.get_or_init(|| divide(TEXT))
}

/// What a document rendered from the table depends on.
pub(crate) fn fingerprint() -> &'static [u8] {
    TEXT.as_bytes()
}

/// The type with this full name. The names in [`crate::resource`] are checked by a test.
pub fn type_named(name: &str) -> Option<TypeRef> {
    table().index.get(name).copied().map(TypeRef)
}

/// Everybody's documentation: `(type, field)` to text; the field is empty for the type itself.
/// Unpacked at every call, because only `explain` and OpenAPI ask, and the answer is cached there.
pub fn descriptions() -> HashMap<(String, String), String> {
    let mut text = String::new();
    let mut unpacked = flate2::read::GzDecoder::new(DESCRIPTIONS);
    if unpacked.read_to_string(&mut text).is_err() {
        return HashMap::new();
    }
    let mut all = HashMap::new();
    let mut owner = String::new();
    for line in text.lines() {
        let Some((name, json)) = line.split_once('\t') else {
            continue;
        };
        let description = serde_json::from_str(json).unwrap_or_default();
        match name.strip_prefix('@') {
            Some(name) => {
                owner = name.to_owned();
                all.insert((owner.clone(), String::new()), description);
            }
            None => drop(all.insert((owner.clone(), name.to_owned()), description)),
        }
    }
    all
}

/// Every type's lines, by name. The text is ours and tested whole, so a mistake in it is a
/// programming error.
fn divide(text: &'static str) -> Table {
    let mut index = HashMap::new();
    let mut entries: Vec<Entry> = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.strip_prefix('@') {
        let end = start.find("\n@").map_or(start.len(), |at| at + 1);
        let (body, after) = start.split_at(end);
        let name = body.split([' ', '\n']).next().unwrap_or(body);
        index.insert(name, entries.len());
        entries.push(Entry {
            text: body,
            parsed: OnceLock::new(),
        });
        rest = after;
    }
    Table { entries, index }
}

fn parse(text: &'static str, index: &HashMap<&'static str, usize>) -> Type {
    let mut lines = text.lines();
    let mut header = lines.next().unwrap_or_default().split(' ');
    let name = header.next().unwrap_or_default();
    let atomic = header.next() == Some("atomic");
    let fields = lines.map(|line| parse_field(line, index)).collect();
    Type {
        name,
        atomic,
        fields,
    }
}

fn parse_field(line: &'static str, index: &HashMap<&'static str, usize>) -> Field {
    let mut words = line.split(' ');
    let mut word = || words.next().unwrap_or_default();
    let (name, tags, kind) = (word(), word(), word());
    let tags = tags.split('.').filter_map(|tag| tag.parse().ok()).collect();
    let flags: Vec<_> = words.collect();
    Field {
        name,
        tags,
        kind: parse_kind(kind, index),
        required: flags.contains(&"req"),
        keeps_zero: flags.contains(&"zero"),
        flags,
    }
}

fn parse_kind(word: &'static str, index: &HashMap<&'static str, usize>) -> Kind {
    if let Some(item) = word.strip_prefix('[') {
        return Kind::List(Box::new(parse_kind(item, index)));
    }
    if let Some(value) = word.strip_prefix('{') {
        return Kind::Map(Box::new(parse_kind(value, index)));
    }
    if let Some(name) = word.strip_prefix('@') {
        return Kind::Message(TypeRef(index[name]));
    }
    Kind::Scalar(match word {
        "s" => Scalar::String,
        "y" => Scalar::Bytes,
        "b" => Scalar::Bool,
        "i" => Scalar::Int32,
        "l" => Scalar::Int64,
        "d" => Scalar::Double,
        "I" => Scalar::IntOrString,
        "Q" => Scalar::Quantity,
        "T" => Scalar::Time,
        "M" => Scalar::MicroTime,
        "F" => Scalar::Fields,
        "J" => Scalar::Json,
        "A" => Scalar::SchemaOrArray,
        "B" => Scalar::SchemaOrBool,
        "S" => Scalar::SchemaOrStrings,
        _ => Scalar::Raw,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_served_resource_has_its_type_and_every_reference_resolves() {
        for resource in crate::resource::BUILT_IN {
            let schema = type_named(resource.schema).expect(resource.schema).get();
            assert!(schema.field("metadata").is_some(), "{}", resource.schema);
        }
        let count = table().entries.len();
        assert!(count > 450);
        let fields = (0..count).map(|at| TypeRef(at).get().fields.len());
        assert!(fields.sum::<usize>() > 2000);
    }

    #[test]
    fn enumerations_and_zeros_are_read() {
        let spec = type_named("io.k8s.api.apps.v1.DeploymentSpec");
        let spec = spec.expect("served").get();
        let field = |name| spec.field(name).expect("a field");
        assert!(field("replicas").keeps_zero && !field("minReadySeconds").keeps_zero);
        let strategy = type_named("io.k8s.api.apps.v1.DeploymentStrategy");
        let strategy = strategy.expect("served").get().field("type");
        let values = strategy.expect("a field").enumeration().expect("one");
        assert_eq!(values.collect::<Vec<_>>(), ["Recreate", "RollingUpdate"]);
    }

    #[test]
    fn markers_and_embedded_tags_are_read() {
        let pod_spec = type_named("io.k8s.api.core.v1.PodSpec")
            .expect("served")
            .get();
        let containers = pod_spec.field("containers").expect("a field");
        assert_eq!(containers.merge_key(), Some("name"));
        assert_eq!(containers.list_type(), Some(("map", vec!["name"])));
        assert!(containers.required);
        let volume = type_named("io.k8s.api.core.v1.Volume")
            .expect("served")
            .get();
        assert_eq!(volume.field("emptyDir").expect("a field").tags, [2, 2]);
    }

    #[test]
    fn every_field_is_described() {
        let descriptions = descriptions();
        let key = (
            "io.k8s.api.core.v1.PodSpec".to_owned(),
            "containers".to_owned(),
        );
        assert!(descriptions[&key].starts_with("List of containers"));
    }
}
