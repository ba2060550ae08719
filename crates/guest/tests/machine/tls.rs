//! Health checks over https.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use types::guest::{GuestMessage, Probe, ProbeTls};
use types::machine::Health;

use crate::fixture::shell;
use crate::health::{check, start};

/// A server with TLS and a certificate for that name; the authority's in PEM.
fn tls_server(name: &str) -> (u16, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = authority.self_signed(&key).unwrap().pem();
    let issuer = rcgen::Issuer::new(authority, key);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let certificate = certificate.signed_by(&key, &issuer).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key.into())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let mut piece = [0; 1024];
            // Probes that do not trust it go away in the middle of the handshake.
            if let Ok(1..) = stream.read(&mut piece) {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nsecret");
            }
        }
    });
    (port, pem)
}

#[tokio::test]
async fn https_checks_verify_what_the_image_trusts_unless_told_not_to() {
    let (port, authority) = tls_server("web.test");
    let with = |server_name: &str, verify| {
        let server_name = server_name.to_owned();
        Probe::Http {
            port,
            method: "GET".into(),
            path: "/".into(),
            headers: Vec::new(),
            tls: Some(ProbeTls {
                server_name,
                verify,
            }),
        }
    };
    let mut checks = vec![
        check("a/any", with("", false)),
        check("a/named", with("web.test", true)),
        check("a/other", with("other.test", true)),
        check("a/address", with("", true)),
        check("b/stranger", with("web.test", true)),
    ];
    checks[4].container = Some("b".into());
    let roots = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let bundle = roots[0].path().join("etc/ssl/certs");
    std::fs::create_dir_all(&bundle).unwrap();
    std::fs::write(bundle.join("ca-certificates.crt"), authority).unwrap();
    let mut containers = vec![shell("a", "sleep 1000"), shell("b", "sleep 1000")];
    for (container, root) in containers.iter_mut().zip(&roots) {
        container.working_dir = root.path().display().to_string();
    }
    let mut host = start(containers, checks).await;
    // By name: they come in any order.
    let mut wanted = BTreeMap::from([
        ("a/any", (Health::Passing, "HTTP 200 secret")),
        ("a/named", (Health::Passing, "HTTP 200 secret")),
        ("a/other", (Health::Critical, "not valid for name")),
        ("a/address", (Health::Critical, "not valid for name")),
        (
            "b/stranger",
            (Health::Critical, "no certificate authorities"),
        ),
    ]);
    while !wanted.is_empty() {
        let GuestMessage::Health(report) = host.message().await else {
            continue;
        };
        let Some((status, output)) = wanted.get(report.check.as_str()) else {
            continue;
        };
        if report.status != Health::Warning {
            assert_eq!(report.status, *status, "{report:?}");
            assert!(report.output.contains(output), "{report:?}");
            wanted.remove(report.check.as_str());
        }
    }
    host.stop(Duration::ZERO).await;
    host.exit().await;
}
