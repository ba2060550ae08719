//! The directory: what the whole fleet must agree on. For now organisations, app names and
//! network ids, on one host.
//!
//! ```text
//! directory/v1/orgs/<slug>              Org
//! directory/v1/apps/<name>              App       (names are unique over all organisations)
//! directory/v1/networks/<org>/<name>    Network
//! directory/v1/network-id-last          the newest id given out
//! ```
//!
//! It is the one authority over these keys. Each key is written whole and every write is compared
//! with what was there, so a crash between two of them loses a network id (there are enough) and
//! never gives one out twice.

mod error;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use store::Store;
use types::{AppName, NetworkId, OrgSlug};

pub use error::{AppNotFound, CreateAppError, DirectoryError};

/// The organisation that is there from the start.
pub const PERSONAL: &str = "personal";
/// The network of an organisation whose apps do not name one.
pub const DEFAULT_NETWORK: &str = "default";

const ORGS: &str = "directory/v1/orgs/";
const APPS: &str = "directory/v1/apps/";
const NETWORKS: &str = "directory/v1/networks/";
const NETWORK_ID_LAST: &str = "directory/v1/network-id-last";

/// Longest name of a network, in bytes.
const NETWORK_NAME_BYTES_MAX: usize = 63;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Org {
    pub slug: OrgSlug,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// Never reused, unlike the name.
    pub id: String,
    pub name: AppName,
    pub org: OrgSlug,
    /// Name of its network within the organisation.
    pub network: String,
    pub network_id: NetworkId,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    pub id: NetworkId,
    pub org: OrgSlug,
    pub name: String,
}

/// What an app is asked to be.
#[derive(Debug, Clone)]
pub struct NewApp {
    pub name: AppName,
    pub org: OrgSlug,
    /// Made if the organisation has none of this name.
    pub network: String,
}

/// How others reach the directory. Clones share it.
#[derive(Debug, Clone)]
pub struct Handle {
    store: Store,
    /// One writer at a time: two apps that name the same new network get the same one.
    writer: Arc<tokio::sync::Mutex<()>>,
}

impl Handle {
    /// Takes over the directory's keys in `store`, and makes the first organisation if there is
    /// none.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub async fn open(store: Store) -> Result<Self, DirectoryError> {
        let directory = Self {
            store,
            writer: Arc::default(),
        };
        let slug: OrgSlug = PERSONAL.parse().expect("the constant is a slug");
        if directory.org(&slug).is_none() {
            let org = Org {
                slug,
                name: "Personal".into(),
            };
            directory.create(&format!("{ORGS}{PERSONAL}"), &org).await?;
        }
        Ok(directory)
    }

    pub fn org(&self, slug: &OrgSlug) -> Option<Org> {
        self.read(&format!("{ORGS}{slug}"))
    }

    pub fn orgs(&self) -> Vec<Org> {
        self.list(ORGS)
    }

    /// # Errors
    /// If there is no app of this name.
    pub fn app(&self, name: &AppName) -> Result<App, AppNotFound> {
        self.read(&format!("{APPS}{name}"))
            .ok_or_else(|| AppNotFound { name: name.clone() })
    }

    /// Every app, by name.
    pub fn apps(&self) -> Vec<App> {
        self.list(APPS)
    }

    /// Every network that was ever made.
    pub fn networks(&self) -> Vec<Network> {
        self.list(NETWORKS)
    }

    /// Makes an app, and its network if that is new.
    ///
    /// # Errors
    /// If the name is taken, the organisation does not exist, the network's name cannot be one,
    /// or the store cannot be written.
    pub async fn create_app(&self, new: NewApp, now: Timestamp) -> Result<App, CreateAppError> {
        let _writer = self.writer.lock().await;
        if self.org(&new.org).is_none() {
            return Err(CreateAppError::OrgNotFound { slug: new.org });
        }
        if self.app(&new.name).is_ok() {
            return Err(CreateAppError::NameTaken { name: new.name });
        }
        let network = self.ensure_network(&new.org, &new.network).await?;
        let app = App {
            id: format!("{:016x}", rand::random::<u64>()),
            name: new.name,
            org: new.org,
            network: network.name,
            network_id: network.id,
            created_at: now,
        };
        self.create(&format!("{APPS}{}", app.name), &app).await?;
        Ok(app)
    }

    /// Forgets an app. Its network stays, and so do its machines: whoever asks looks after those
    /// first.
    ///
    /// # Errors
    /// `Ok(Err(..))` if there is no such app; `Err` if the store cannot be written.
    pub async fn delete_app(
        &self,
        name: &AppName,
    ) -> Result<Result<(), AppNotFound>, DirectoryError> {
        let _writer = self.writer.lock().await;
        let key = format!("{APPS}{name}");
        let Some(entry) = self.store.get(&key) else {
            return Ok(Err(AppNotFound { name: name.clone() }));
        };
        let deleted = self.store.delete(&key, entry.rev).await;
        deleted.map_err(|source| DirectoryError::Write { key, source })?;
        Ok(Ok(()))
    }

    async fn ensure_network(&self, org: &OrgSlug, name: &str) -> Result<Network, CreateAppError> {
        let name = if name.is_empty() {
            DEFAULT_NETWORK
        } else {
            name
        };
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if name.len() > NETWORK_NAME_BYTES_MAX || !name.bytes().all(plain) {
            return Err(CreateAppError::NetworkName {
                name: name.to_owned(),
            });
        }
        let key = format!("{NETWORKS}{org}/{name}");
        if let Some(network) = self.read(&key) {
            return Ok(network);
        }
        let id = self.next_network_id().await?;
        let network = Network {
            id,
            org: org.clone(),
            name: name.to_owned(),
        };
        self.create(&key, &network).await?;
        Ok(network)
    }

    /// The number is taken before the network is written, so that it is never given out twice.
    async fn next_network_id(&self) -> Result<NetworkId, CreateAppError> {
        let key = NETWORK_ID_LAST;
        let entry = self.store.get(key);
        let last: u32 = self.read(key).unwrap_or(0);
        let id = NetworkId::try_from(last + 1).map_err(|_| CreateAppError::NetworksExhausted)?;
        let value = encode(&id);
        let written = match entry {
            None => self.store.create(key, value, None).await,
            Some(entry) => self.store.update(key, entry.rev, value, None).await,
        };
        written.map_err(|source| DirectoryError::Write {
            key: key.into(),
            source,
        })?;
        Ok(id)
    }

    async fn create<T: Serialize>(&self, key: &str, value: &T) -> Result<(), DirectoryError> {
        match self.store.create(key, encode(value), None).await {
            Ok(_) => Ok(()),
            Err(source) => Err(DirectoryError::Write {
                key: key.to_owned(),
                source,
            }),
        }
    }

    fn read<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let entry = self.store.get(key)?;
        decode(key, &entry.value)
    }

    fn list<T: DeserializeOwned>(&self, prefix: &str) -> Vec<T> {
        // A list of what is now cannot be of a revision that is no longer kept.
        let Ok(range) = self.store.range(prefix, None, usize::MAX, None) else {
            return Vec::new();
        };
        range
            .entries
            .iter()
            .filter_map(|(key, entry)| decode(key, &entry.value))
            .collect()
    }
}

fn encode<T: Serialize>(value: &T) -> Bytes {
    // Rows are our own types: no maps with other keys than strings, no failing serialisers.
    serde_json::to_vec(value).expect("a row is JSON").into()
}

/// A row that this version cannot read is treated as absent and said so: better one app missing
/// than no directory.
fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Option<T> {
    match serde_json::from_slice(value) {
        Ok(row) => Some(row),
        Err(error) => {
            tracing::error!(key, %error, "directory row cannot be read");
            None
        }
    }
}

#[cfg(test)]
mod tests;
