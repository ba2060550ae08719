//! Documents of honest builders and of others.

use super::*;

const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn manifest(text: &str) -> Result<Document, ImageError> {
    Document::parse(text.replace("DIGEST", DIGEST).as_bytes())
}

fn layer(media_type: &str) -> String {
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{}","digest":"DIGEST","size":1}},
            "layers":[{{"mediaType":"{media_type}","digest":"DIGEST","size":2,"urls":["http://x"]}}]}}"#,
        CONFIG_TYPES[0]
    )
}

#[test]
fn a_manifest_names_its_configuration_and_layers() {
    let Document::Manifest(read) = manifest(&layer(LAYER_TYPES[1])).unwrap() else {
        panic!()
    };
    assert_eq!((read.config.size, read.layers[0].size), (1, 2));
}

#[test]
fn what_could_be_read_two_ways_is_refused() {
    let both = r#"{"schemaVersion":2,"manifests":[],"layers":[],
        "config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"DIGEST","size":1}}"#;
    let swapped =
        layer(LAYER_TYPES[0]).replacen('{', &format!("{{\"mediaType\":\"{OCI_INDEX}\","), 1);
    let old = r#"{"schemaVersion":1,"layers":[]}"#;
    for text in [both, &swapped, old, r#"{"schemaVersion":2}"#] {
        assert!(
            matches!(manifest(text), Err(ImageError::Unsupported { .. })),
            "{text}"
        );
    }
}

#[test]
fn foreign_layers_and_other_artefacts_are_refused() {
    for media_type in [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "text/plain",
        "",
    ] {
        let result = manifest(&layer(media_type));
        assert!(
            matches!(
                result,
                Err(ImageError::Unsupported {
                    what: "a layer",
                    ..
                })
            ),
            "{result:?}"
        );
    }
    let helm =
        layer(LAYER_TYPES[0]).replace(CONFIG_TYPES[0], "application/vnd.cncf.helm.config.v1+json");
    assert!(manifest(&helm).is_err());
}

#[test]
fn a_digest_or_a_size_that_is_none_is_refused() {
    for (good, bad) in [("DIGEST", "sha256:../../x"), ("\"size\":2", "\"size\":-2")] {
        let result = manifest(&layer(LAYER_TYPES[0]).replace(good, bad));
        assert!(
            matches!(result, Err(ImageError::Malformed { .. })),
            "{result:?}"
        );
    }
    assert!(Document::parse("[".repeat(1 << 20).as_bytes()).is_err());
}

#[test]
fn of_an_index_this_hosts_platform_is_chosen() {
    let entry = |architecture: &str, digest: &[u8]| Descriptor {
        media_type: OCI_MANIFEST.to_owned(),
        digest: Digest::of(digest),
        size: 1,
        platform: Some(Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
        }),
        annotations: None,
    };
    let host = Platform::host();
    let entries = [
        entry("s390x", b"1"),
        entry(&host.architecture, b"2"),
        entry("unknown", b"3"),
    ];
    assert_eq!(choose(&entries).unwrap().digest, Digest::of(b"2"));
    let error = choose(&entries[..1]).unwrap_err().to_string();
    assert!(
        error.contains("linux/s390x") && error.contains(&host.name()),
        "{error}"
    );
    assert!(choose(&[]).is_err());
}

#[test]
fn a_configuration_with_nulls_has_empty_fields() {
    let text = r#"{"config":{"Cmd":null,"Env":["A","B=c=d"],"Labels":{"x":null},"StopSignal":""},
        "rootfs":{"type":"layers","diff_ids":[]},"created":"no time"}"#;
    let read = ConfigFile::parse(text.as_bytes()).unwrap();
    assert_eq!(read.config.cmd, Vec::<String>::new());
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(read.config.env, [pair("A", ""), pair("B", "c=d")]);
    assert_eq!((read.config.stop_signal, read.created), (None, None));
    let none = ConfigFile::parse(br#"{"rootfs":{"diff_ids":[]}}"#).unwrap();
    assert_eq!(none.config, ImageConfig::default());
}

#[test]
fn a_configuration_for_another_machine_is_refused() {
    let text = br#"{"architecture":"s390x","os":"linux","rootfs":{"diff_ids":[]}}"#;
    let error = ConfigFile::parse(text).unwrap_err().to_string();
    assert!(error.starts_with("the image is for linux/s390x"), "{error}");
}
