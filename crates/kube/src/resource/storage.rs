//! Rows of `storage.k8s.io`.

use super::{CORE, Resource, Scope, StatusPart, status_of};

pub static CSI_DRIVERS: Resource = Resource {
    group: "storage.k8s.io",
    plural: "csidrivers",
    singular: "csidriver",
    kind: "CSIDriver",
    scope: Scope::Cluster,
    returns_deleted: true,
    schema: "io.k8s.api.storage.v1.CSIDriver",
    needs_revision: true,
    ..CORE
};

pub static CSI_NODES: Resource = Resource {
    group: "storage.k8s.io",
    plural: "csinodes",
    singular: "csinode",
    kind: "CSINode",
    scope: Scope::Cluster,
    returns_deleted: true,
    schema: "io.k8s.api.storage.v1.CSINode",
    needs_revision: true,
    ..CORE
};

pub static CSI_STORAGE_CAPACITIES: Resource = Resource {
    group: "storage.k8s.io",
    plural: "csistoragecapacities",
    singular: "csistoragecapacity",
    kind: "CSIStorageCapacity",
    schema: "io.k8s.api.storage.v1.CSIStorageCapacity",
    needs_revision: true,
    ..CORE
};

pub static STORAGE_CLASSES: Resource = Resource {
    group: "storage.k8s.io",
    plural: "storageclasses",
    singular: "storageclass",
    kind: "StorageClass",
    scope: Scope::Cluster,
    short_names: &["sc"],
    returns_deleted: true,
    schema: "io.k8s.api.storage.v1.StorageClass",
    ..CORE
};

pub static VOLUME_ATTACHMENTS: Resource = Resource {
    group: "storage.k8s.io",
    plural: "volumeattachments",
    singular: "volumeattachment",
    kind: "VolumeAttachment",
    scope: Scope::Cluster,
    subresources: &[status_of("VolumeAttachment")],
    status: StatusPart::Subresource,
    returns_deleted: true,
    schema: "io.k8s.api.storage.v1.VolumeAttachment",
    needs_revision: true,
    ..CORE
};

pub static VOLUME_ATTRIBUTES_CLASSES: Resource = Resource {
    group: "storage.k8s.io",
    plural: "volumeattributesclasses",
    singular: "volumeattributesclass",
    kind: "VolumeAttributesClass",
    scope: Scope::Cluster,
    short_names: &["vac"],
    returns_deleted: true,
    schema: "io.k8s.api.storage.v1.VolumeAttributesClass",
    ..CORE
};
