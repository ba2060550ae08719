//! Hosts and services as values that can be watched, and when secrets change.

use std::sync::{Arc, Weak};

use store::{Watch, WatchError};

use super::Inner;
use super::rows::{HOSTS, PREFIX, SECRETS, SERVICES};

/// Tells of changes for as long as anybody holds `inner`.
pub(super) fn feed(inner: &Arc<Inner>) {
    // From before the reading, so that nothing falls between the two.
    let watch = inner.watch();
    inner.publish_hosts();
    inner.publish_services();
    tokio::spawn(follow(Arc::downgrade(inner), watch));
}

async fn follow(inner: Weak<Inner>, watch: Result<Watch, WatchError>) {
    let Ok(mut watch) = watch else { return };
    loop {
        let events = watch.next().await;
        let Some(inner) = inner.upgrade() else { return };
        match events {
            Ok(events) => {
                let touched = |prefix| events.iter().any(|event| event.key.starts_with(prefix));
                if touched(HOSTS) {
                    inner.publish_hosts();
                }
                if touched(SERVICES) {
                    inner.publish_services();
                }
                if touched(SECRETS) {
                    inner.secrets.send_modify(|count| *count += 1);
                }
            }
            // More was written at once than the history keeps.
            Err(WatchError::Compacted { .. } | WatchError::Future { .. }) => {
                let Ok(again) = inner.watch() else { return };
                watch = again;
                inner.publish_hosts();
                inner.publish_services();
                inner.secrets.send_modify(|count| *count += 1);
            }
            Err(WatchError::Closed) => return,
        }
    }
}

impl Inner {
    fn watch(&self) -> Result<Watch, WatchError> {
        let store = &self.rows.0;
        store.watch(PREFIX, store.current_rev())
    }

    fn publish_hosts(&self) {
        let hosts = Arc::new(self.rows.hosts());
        self.hosts.send_if_modified(|known| replace(known, hosts));
    }

    fn publish_services(&self) {
        let services = Arc::new(self.rows.services());
        self.services
            .send_if_modified(|known| replace(known, services));
    }
}

fn replace<T: PartialEq>(known: &mut Arc<Vec<T>>, now: Arc<Vec<T>>) -> bool {
    let changed = *known != now;
    *known = now;
    changed
}
