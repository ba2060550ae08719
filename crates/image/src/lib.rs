//! OCI images become read-only EROFS files.
//!
//! ```text
//! registry ─┐                 ┌ layer ┐
//!           ├─ blob ─ spool ──┤ layer ├─ tree ─ erofs ─ store
//! layout ───┘ (checked)       └ layer ┘ (pure merge)
//! ```
//!
//! A blob is checked against its digest and unpacked into a temporary file, the spool. `layer`
//! reads entries out of it, `tree` merges the entries of all layers, and `erofs` writes the
//! result as one file that a guest's kernel mounts. Nothing of an image is ever unpacked onto
//! the host's own file system, so a hostile layer has nothing to escape from: device nodes,
//! setuid bits and symbolic links are data in that one file.
//!
//! What this crate does not know: machines, and who boots an image.
#![forbid(unsafe_code)]

mod busybox;
mod convert;
mod credentials;
mod digest;
mod erofs;
pub mod error;
mod layer;
mod layout;
mod manifest;
mod registry;
mod spool;
mod store;
#[cfg(test)]
#[path = "../tests/common/tarball.rs"]
mod tarball;
mod tree;

pub use busybox::BusyboxError;
pub use convert::fuzz_layer;
pub use credentials::{CredentialsError, CredentialsFile};
pub use error::{ImageError, Limits, Reason, Refused, StoreError};
pub use layout::ImportError;
pub use manifest::{ImageConfig, fuzz_document};
pub use registry::{Credentials, Progress, PullError, PullOptions, Shown};
pub use store::{Freed, GarbageRules, Image, ImageStore, Imported};
