//! Custom resources: kinds that users define by a CustomResourceDefinition.

/// What a definition says of one version of a kind, ready to be used.
#[derive(Debug)]
pub struct Kind {
    /// Whether objects are stored in this version.
    pub is_storage: bool,
}
