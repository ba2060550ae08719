//! Services of a Machines API for tests: rows in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use client::Error;
use futures::future::BoxFuture;
use types::NetworkId;
use types::api::ErrorBody;
use types::service::{Service, ServiceSpec};

use super::Services;

#[derive(Debug, Default)]
pub(super) struct Fake {
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    services: BTreeMap<String, Service>,
    vips: u16,
    puts: usize,
    is_away: bool,
    panics: bool,
}

impl Fake {
    pub(super) fn services(&self) -> BTreeMap<String, Service> {
        self.rows.lock().unwrap().services.clone()
    }

    pub(super) fn puts(&self) -> usize {
        self.rows.lock().unwrap().puts
    }

    /// Whether requests fail.
    pub(super) fn set_away(&self, is_away: bool) {
        self.rows.lock().unwrap().is_away = is_away;
    }

    /// The next service that is written breaks off.
    pub(super) fn panic_once(&self) {
        self.rows.lock().unwrap().panics = true;
    }

    fn asked<T>(&self, act: impl FnOnce(&mut Rows) -> T) -> Result<T, Error> {
        let mut rows = self.rows.lock().unwrap();
        if rows.is_away {
            let body = ErrorBody {
                error: "the directory is away".into(),
                status: "unavailable".into(),
                ..ErrorBody::default()
            };
            let body = Box::new(body);
            return Err(Error::Api { status: 503, body });
        }
        Ok(act(&mut rows))
    }
}

impl Services for Fake {
    fn put<'a>(
        &'a self,
        name: &'a str,
        spec: &'a ServiceSpec,
    ) -> BoxFuture<'a, Result<Service, Error>> {
        if std::mem::take(&mut self.rows.lock().unwrap().panics) {
            return Box::pin(async { panic!("expected by a test") });
        }
        let put = self.asked(|rows| {
            rows.puts += 1;
            rows.vips += 1;
            let vip = format!("fdaa:0:7:0:1::{:x}", rows.vips).parse().unwrap();
            let had = rows.services.get(name).and_then(|had| had.vip);
            let service = Service {
                name: name.to_owned(),
                app: "kubernetes".parse().unwrap(),
                network_id: NetworkId::try_from(7).unwrap(),
                vip: (!spec.headless).then(|| had.unwrap_or(vip)),
                spec: spec.clone(),
            };
            rows.services.insert(name.to_owned(), service.clone());
            service
        });
        Box::pin(async { put })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        let deleted = self.asked(|rows| drop(rows.services.remove(name)));
        Box::pin(async { deleted })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Service>, Error>> {
        let all = self.asked(|rows| rows.services.values().cloned().collect());
        Box::pin(async { all })
    }
}
