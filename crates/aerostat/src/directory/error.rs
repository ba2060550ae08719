//! What the directory refuses, and what can go wrong with it.

use store::WriteError;
use types::{AppName, OrgSlug};

/// The directory itself does not work.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    #[error("cannot write {key} of the directory")]
    Write { key: String, source: WriteError },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no app `{name}`")]
pub struct AppNotFound {
    pub name: AppName,
}

/// Why an app was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateAppError {
    #[error("the app name `{name}` is taken")]
    NameTaken { name: AppName },
    #[error("there is no organisation `{slug}`")]
    OrgNotFound { slug: OrgSlug },
    #[error("`{name}` cannot be the name of a network")]
    NetworkName { name: String },
    #[error("every network id has been given out")]
    NetworksExhausted,
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}
