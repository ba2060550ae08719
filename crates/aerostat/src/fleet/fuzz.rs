//! Records as strangers may write them. Entry point of the fuzz target and of the corpus test.

use jiff::Timestamp;
use types::fleet::HostRecord;

use super::certificate::Certificate;
use super::record::verify_record;

/// The authority of a fleet that has a few hosts in the corpus; its key is gone.
const AUTHORITY: &str = include_str!("fuzz.crt");
/// 2027-01-15, when they are valid.
const NOW_S: i64 = 1_800_000_000;

/// Whatever a record says, it is refused, or it is one that the authority has certified.
#[doc(hidden)]
pub fn fuzz_record(bytes: &[u8]) {
    // The certificate on its own: PEM breaks more easily than what is in it.
    if let Ok(pem) = str::from_utf8(bytes) {
        let _ = Certificate::from_pem(pem);
    }
    let _ = Certificate::from_der(bytes);
    let Ok(record) = serde_json::from_slice::<HostRecord>(bytes) else {
        return;
    };
    let now = Timestamp::from_second(NOW_S).expect("the constant is a time");
    if verify_record(AUTHORITY, &record, now).is_ok() {
        let certificate = Certificate::from_pem(&record.certificate).expect("it was read before");
        assert_eq!(certificate.host, Some(record.id));
        let key = certificate.mesh_key.map(|key| key.to_string());
        assert_eq!(key, Some(record.public_key));
    }
}
