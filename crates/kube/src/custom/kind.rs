//! What a definition says of one version of a kind, ready to be used.

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::columns::{self, Column};
use super::convert::Conversion;
use super::jsonpath::simple;
use super::schema::Schema;
use super::{definition, keeper, prune, rules, validate};
use crate::egress::Client;
use crate::object;
use crate::schema::TypeError;
use crate::status::{Cause, Status};

/// One version of a custom kind.
#[derive(Debug)]
pub struct Kind {
    /// The group and this version.
    pub api_version: String,
    /// The group and the version that objects are stored in.
    pub storage_version: String,
    /// The name of its definition.
    pub definition: String,
    pub(crate) schema: Schema,
    /// The schema of the version that objects are stored in, if that is another one.
    stored_schema: Option<Box<Schema>>,
    /// Differs whenever what is published of the kind differs.
    pub(crate) fingerprint: [u8; 32],
    columns: Vec<Column>,
    /// Fields that lists can select by, as selectors name them.
    selectable: Vec<String>,
    scale: Option<Scale>,
    has_status: bool,
    conversion: Conversion,
    /// What clients of a deprecated version are told.
    pub(crate) deprecation: Option<String>,
    /// The definition is being deleted: no more objects are made.
    pub(crate) is_terminating: bool,
}

/// Where the subresource `scale` finds its fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scale {
    pub(crate) spec: Vec<String>,
    pub(crate) status: Vec<String>,
    pub(crate) selector: Option<Vec<String>>,
}

impl Scale {
    fn parse(source: &Value) -> Option<Self> {
        let path = |field: &str| simple(object::text(source, &[field]));
        Some(Self {
            spec: path("specReplicasPath")?,
            status: path("statusReplicasPath")?,
            selector: path("labelSelectorPath"),
        })
    }
}

impl Kind {
    /// Reads a version of a definition.
    pub(crate) fn new(found: &Value, version: &Value, client: &Client) -> Self {
        let spec = &found["spec"];
        let group = object::text(spec, &["group"]);
        let name = object::text(version, &["name"]);
        let kind = object::text(spec, &["names", "kind"]);
        let storage = definition::storage_version(found).unwrap_or_default();
        let fields = object::items(version, &["selectableFields"]).iter();
        let fields = fields.map(|field| object::text(field, &["jsonPath"]));
        let deprecation = (version["deprecated"] == true).then(|| {
            let own = object::text(version, &["deprecationWarning"]);
            match own {
                "" => format!(
                    "{group}/{name} {kind} is deprecated{}",
                    replacement(spec, name)
                ),
                own => own.to_owned(),
            }
        });
        let schema = object::at(version, &["schema", "openAPIV3Schema"]);
        let stored = object::items(spec, &["versions"]).iter();
        let mut stored = stored.filter(|one| one["storage"] == true);
        let stored = stored.next().filter(|one| one["name"] != version["name"]);
        let stored = stored.and_then(|one| object::at(one, &["schema", "openAPIV3Schema"]));
        Self {
            api_version: format!("{group}/{name}"),
            storage_version: format!("{group}/{storage}"),
            definition: object::name(found).to_owned(),
            schema: schema.map(Schema::parse).unwrap_or_default(),
            stored_schema: stored.map(|schema| Box::new(Schema::parse(schema))),
            fingerprint: Sha256::digest(spec.to_string()).into(),
            columns: columns::of_version(version),
            selectable: fields
                .map(|path| path.trim_start_matches('.').to_owned())
                .collect(),
            scale: Scale::parse(&version["subresources"]["scale"]),
            has_status: version["subresources"].get("status").is_some(),
            conversion: Conversion::parse(spec, client),
            deprecation,
            is_terminating: object::is_terminating(found),
        }
    }

    pub(crate) fn has_status(&self) -> bool {
        self.has_status
    }

    pub(crate) fn scale(&self) -> Option<&Scale> {
        self.scale.as_ref()
    }

    pub(crate) fn can_select(&self, field: &str) -> bool {
        self.selectable.iter().any(|one| one == field)
    }

    /// Takes out of a body what the schema does not know, and fills in defaults. Returns the paths
    /// of what was taken.
    pub(crate) fn decode(&self, object: &mut Value) -> Result<Vec<String>, TypeError> {
        let unknown = prune::prune_root(&self.schema, object)?;
        prune::default(&self.schema, object);
        Ok(unknown)
    }

    /// What is wrong with an object.
    pub(crate) fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let mut causes = validate::validate(&self.schema, object, old);
        causes.extend(self.validate_scale(object));
        if !self.schema.has_rules {
            return causes;
        }
        if validate::blocks_rules(&causes) {
            causes.push(validate::not_checked());
        } else {
            causes.extend(rules::evaluate(&self.schema, object, old));
        }
        causes
    }

    fn validate_scale(&self, object: &Value) -> Vec<Cause> {
        let mut causes = Vec::new();
        let paths = self
            .scale
            .iter()
            .flat_map(|scale| [&scale.spec, &scale.status]);
        for path in paths {
            let keys: Vec<_> = path.iter().map(String::as_str).collect();
            let found = object::at(object, &keys);
            if let Some(replicas) = found.filter(|found| found.as_i64().is_some_and(|one| one < 0))
            {
                let why = "should be a non-negative integer";
                causes.push(Cause::invalid(
                    format!(".{}", path.join(".")),
                    replicas,
                    why,
                ));
            }
        }
        causes
    }

    /// Whether anything but metadata (and status, where that is written apart) differs.
    pub(crate) fn is_changed(&self, old: &Value, new: &Value) -> bool {
        let rest = |object: &Value| {
            let mut rest = object.as_object().cloned().unwrap_or_default();
            rest.remove("metadata");
            if self.has_status {
                rest.remove("status");
            }
            rest
        };
        rest(old) != rest(new)
    }

    /// Brings a stored object to this version, as far as that can be done without asking anybody.
    ///
    /// What is missing comes from the schema of the version that is stored, as it does upstream;
    /// another version only leaves out what it does not know.
    pub(crate) fn present(&self, object: &mut Value) {
        let is = object::text(object, &["apiVersion"]);
        match &self.conversion {
            Conversion::None => {
                self.decode_stored(object);
                object["apiVersion"] = self.api_version.as_str().into();
            }
            Conversion::Webhook(_) if is == self.storage_version => self.decode_stored(object),
            Conversion::Webhook(_) => {}
        }
        if self.stored_schema.is_some() && object::text(object, &["apiVersion"]) == self.api_version
        {
            // What was stored fitted once; what no longer does is shown as it is.
            let _ = prune::prune_root(&self.schema, object);
        }
    }

    /// What a client is answered that wrote an object in this version: what it would read.
    pub(crate) fn as_read(&self, object: &mut Value) {
        if self.stored_schema.is_some() && matches!(self.conversion, Conversion::None) {
            self.present(object);
        }
    }

    /// What reading from the store does: the schema may have changed since it was written.
    fn decode_stored(&self, object: &mut Value) {
        let schema = self.stored_schema.as_deref().unwrap_or(&self.schema);
        if prune::prune_root(schema, object).is_ok() {
            prune::default(schema, object);
        }
    }

    /// Brings objects to this version that [`Kind::present`] could not.
    pub(crate) async fn convert(&self, objects: Vec<Value>) -> Result<Vec<Value>, Status> {
        let is_other = |object: &Value| object::text(object, &["apiVersion"]) != self.api_version;
        if !objects.iter().any(is_other) {
            return Ok(objects);
        }
        let mut objects = self.conversion.convert(objects, &self.api_version).await?;
        objects.iter_mut().for_each(|object| self.present(object));
        Ok(objects)
    }

    /// Brings an object of this version to the one that is stored.
    pub(crate) async fn to_stored(&self, object: Value) -> Result<Value, Status> {
        let stored = self
            .conversion
            .convert(vec![object], &self.storage_version)
            .await?;
        let lost = || Status::internal("the conversion lost the object");
        let mut stored = stored.into_iter().next().ok_or_else(lost)?;
        if self.stored_schema.is_some() {
            self.decode_stored(&mut stored);
        }
        Ok(stored)
    }

    /// The columns of a Table.
    pub(crate) fn columns(&self) -> Vec<Value> {
        let name = json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
            "description": "Name must be unique within a namespace. Is required when creating \
                            resources, although some resources may allow a client to request the \
                            generation of an appropriate name automatically. Name is primarily \
                            intended for creation idempotence and configuration definition. Cannot \
                            be updated. More info: \
                            https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"});
        let own = self.columns.iter().map(Column::definition);
        std::iter::once(name).chain(own).collect()
    }

    /// A row of a Table.
    pub(crate) fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let name = json!(object::name(object));
        let own = self.columns.iter().map(|column| column.cell(object, now));
        std::iter::once(name).chain(own).collect()
    }
}

/// What the warning of a deprecated version adds: the newest stable one that serves instead.
fn replacement(spec: &Value, deprecated: &str) -> String {
    let versions = object::items(spec, &["versions"]).iter();
    let served =
        versions.filter(|version| version["served"] == true && version["deprecated"] != true);
    let names = served.map(|version| object::text(version, &["name"]));
    let rank = keeper::preference;
    let newest = names
        .filter(|name| rank(name) > rank(deprecated))
        .max_by_key(|name| rank(name));
    let (group, kind) = (
        object::text(spec, &["group"]),
        object::text(spec, &["names", "kind"]),
    );
    newest.map_or_else(String::new, |name| format!("; use {group}/{name} {kind}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_in_another_version_has_the_defaults_of_the_stored_one() {
        let found = json!({"metadata": {"name": "foos.ex.com"}, "spec": {"group": "ex.com",
            "names": {"kind": "Foo"}, "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"a": {"type": "string", "default": "one"},
                    "b": {"type": "string"}}}}},
            {"name": "v1beta1", "served": true, "deprecated": true, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"a": {"type": "string"},
                    "c": {"type": "string", "default": "two"}}}}},
        ]}});
        let client = Client::default();
        let beta = Kind::new(&found, &found["spec"]["versions"][1], &client);
        let mut object = json!({"apiVersion": "ex.com/v1", "kind": "Foo", "b": "kept", "z": 1});
        beta.present(&mut object);
        assert_eq!(
            object,
            json!({"apiVersion": "ex.com/v1beta1", "kind": "Foo", "a": "one"})
        );
        assert_eq!(
            beta.deprecation.as_deref(),
            Some("ex.com/v1beta1 Foo is deprecated; use ex.com/v1 Foo")
        );
    }
}
