//! What a definition says of one version of a kind, ready to be used.

use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::columns::{self, Column};
use super::convert::Conversion;
use super::jsonpath::simple;
use super::schema::Schema;
use super::{definition, prune, rules, validate};
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
                "" => format!("{group}/{name} {kind} is deprecated"),
                own => own.to_owned(),
            }
        });
        let schema = object::at(version, &["schema", "openAPIV3Schema"]);
        Self {
            api_version: format!("{group}/{name}"),
            storage_version: format!("{group}/{storage}"),
            definition: object::name(found).to_owned(),
            schema: schema.map(Schema::parse).unwrap_or_default(),
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
                causes.push(Cause::invalid(path.join("."), replicas, why));
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
    pub(crate) fn present(&self, object: &mut Value) {
        match &self.conversion {
            Conversion::None => object["apiVersion"] = self.api_version.as_str().into(),
            Conversion::Webhook(_) if object::text(object, &["apiVersion"]) != self.api_version => {
                return;
            }
            Conversion::Webhook(_) => {}
        }
        // What was stored fitted once; what no longer does is shown as it is.
        let _ = self.decode(object);
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
        stored.into_iter().next().ok_or_else(lost)
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
