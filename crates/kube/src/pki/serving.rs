//! The serving certificate: made in memory at every start, and made anew while the server runs,
//! long before it ends. Connections that are open keep the one they began with.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{NAMES, Pki, PkiError, SERVING_DAYS, ends_at, is_due, params};

/// What a server shows; clones share it.
#[derive(Debug, Clone)]
pub struct Serving(Arc<Shown>);

#[derive(Debug)]
struct Shown {
    /// Further names and addresses of the server.
    names: Vec<String>,
    now: RwLock<Current>,
}

#[derive(Debug, Clone)]
struct Current {
    key: Arc<CertifiedKey>,
    certificate_pem: String,
}

impl Serving {
    /// Makes the first one. `names` are further names and addresses of the server.
    ///
    /// # Errors
    /// If a name is none, or the certificate cannot be made.
    pub fn new(pki: &Pki, names: &[String]) -> Result<Self, PkiError> {
        Ok(Self(Arc::new(Shown {
            names: names.to_vec(),
            now: RwLock::new(make(pki, names)?),
        })))
    }

    /// Makes a new one, which the next connection sees.
    ///
    /// # Errors
    /// If it cannot be made; the old one stays.
    pub fn renew(&self, pki: &Pki) -> Result<(), PkiError> {
        let made = make(pki, &self.0.names)?;
        *self.0.now.write().unwrap_or_else(PoisonError::into_inner) = made;
        Ok(())
    }

    /// Whether it is time for [`Self::renew`].
    pub fn is_due(&self, now: jiff::Timestamp) -> bool {
        is_due(&self.current().certificate_pem, SERVING_DAYS, now)
    }

    /// When the certificate ends.
    pub fn ends_at(&self) -> Option<jiff::Timestamp> {
        ends_at(&self.current().certificate_pem)
    }

    fn current(&self) -> Current {
        let now = self.0.now.read().unwrap_or_else(PoisonError::into_inner);
        now.clone()
    }
}

impl ResolvesServerCert for Serving {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current().key)
    }
}

fn make(pki: &Pki, names: &[String]) -> Result<Current, PkiError> {
    let own = NAMES.iter().map(|name| (*name).to_owned());
    let all: Vec<_> = own.chain(names.to_vec()).collect();
    let mut params = params("aerostat-kube", &all, SERVING_DAYS)?;
    params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let served = pki.sign("aerostat-kube", params)?;
    let key = PrivateKeyDer::from_pem_slice(served.key_pem.as_bytes());
    let key = key.map_err(|_| PkiError::Parse {
        path: pki.dir.clone(),
    })?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    let certificate = vec![pki.der(&served.certificate_pem)?];
    let key = CertifiedKey::from_der(certificate, key, &provider);
    Ok(Current {
        key: Arc::new(key.map_err(|source| PkiError::Tls { source })?),
        certificate_pem: served.certificate_pem,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serving_certificate_is_renewed_months_before_it_ends() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let pki = Pki::open(dir.path()).expect("made");
        let serving = Serving::new(&pki, &["example.internal".into()]).expect("made");
        let now = jiff::Timestamp::now();
        assert!(!serving.is_due(now));
        let in_days = |days: i64| now + jiff::SignedDuration::from_hours(24 * days);
        assert!(!serving.is_due(in_days(240)) && serving.is_due(in_days(250)));
        let before = serving.current();
        serving.renew(&pki).expect("made");
        assert!(!Arc::ptr_eq(&before.key, &serving.current().key));
        assert!(serving.ends_at().expect("an end") < in_days(366));
    }
}
