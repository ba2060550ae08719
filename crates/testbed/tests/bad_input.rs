//! What a person or a program may get wrong, or the world around them: each is told in words that
//! say what to do, within a time that is stated here, and leaves nothing behind.
//!
//! The times are what somebody waits who is told, on a host that is busy with other tests. They are
//! a few times what an idle one takes: all but the registry that hangs are told within a second.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use testbed::{Host, Snapshot, eventually, fail, skip, succeed};

const IMAGE: &str = "localhost/hello:1";

/// For whatever the host knows by itself.
const AT_ONCE: Duration = Duration::from_secs(15);
/// A registry that takes a connection and says nothing is given up after 30 s.
const REGISTRY: Duration = Duration::from_secs(50);
/// A virtual machine that ends: its boot, and on a busy host that takes a while.
const BOOT: Duration = Duration::from_secs(180);

const CLASSES: [&str; 2] = ["container", "emulated"];

/// One at a time: the snapshots are of the whole machine.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a command that has to be refused; returns its exit code and what it said.
fn refused(host: &Host, within: Duration, words: &[&str]) -> (i32, String) {
    let begun = Instant::now();
    let (code, text) = fail(&mut host.aerostat(words));
    let took = begun.elapsed();
    eprintln!("{words:?}: exit {code} after {took:?}\n{text}");
    assert!(took < within, "{words:?} took {took:?}: {text}");
    (code, text)
}

/// What a host has that a refusal could leave: machines, apps and volumes it knows, and what is
/// named after it in the kernel and in its folders.
fn things(host: &Host, before: &Snapshot) -> Vec<String> {
    let mut found = Snapshot::take().since(before, host);
    found.retain(|thing| !thing.starts_with("process "));
    for words in [["machine", "list"], ["app", "list"], ["image", "list"]] {
        let listed = host.json(&words).expect("a list");
        found.extend(listed.as_array().into_iter().flatten().map(|thing| {
            let name = ["id", "name", "reference"].map(|key| thing[key].to_string());
            format!("{words:?} {name:?}")
        }));
    }
    for part in ["run/machines", "data/machines", "data/images/work"] {
        let folder = std::fs::read_dir(host.folder().join(part));
        let entries = folder.into_iter().flatten().flatten();
        found.extend(entries.map(|entry| entry.path().display().to_string()));
    }
    found.sort();
    found
}

fn leaves_nothing(host: &Host, before: &Snapshot, clean: &[String], after: &str) {
    eventually(&format!("nothing left of {after}"), || {
        let left = things(host, before);
        let more: Vec<_> = left.iter().filter(|one| !clean.contains(one)).collect();
        more.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{more:#?}"))
    });
}

/// A registry that answers: nothing is there but `other`, whose digest is never what was asked for.
fn registry() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its port").to_string();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = [0; 4096];
            let read = stream.read(&mut request).unwrap_or(0);
            let line = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = line.split_whitespace().nth(1).unwrap_or_default();
            let (status, kind, body) = match path {
                "/v2/" => ("200 OK", "application/json", "{}".to_owned()),
                path if path.starts_with("/v2/other/manifests/") => {
                    let digest = format!("sha256:{}", "0".repeat(64));
                    let body = format!(
                        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{digest}","size":2}},"layers":[]}}"#
                    );
                    ("200 OK", "application/vnd.oci.image.manifest.v1+json", body)
                }
                _ => (
                    "404 Not Found",
                    "application/json",
                    r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#
                        .to_owned(),
                ),
            };
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: \
                 close\r\n\r\n{body}",
                body.len()
            );
            // Whoever hung up needs no answer.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    address
}

fn offers(host: &Host, class: &str) -> bool {
    let checks = host.json(&["doctor"]).expect("a report");
    let name = format!("class {class}");
    let mut checks = checks.as_array().into_iter().flatten();
    checks.any(|check| check["name"] == name.as_str() && check["verdict"] == "ok")
}

#[test]
fn an_image_that_cannot_be_had_is_told_in_time_and_leaves_nothing() {
    let _turn = turn();
    let before = Snapshot::take();
    let registry = registry();
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    let closed = nobody.local_addr().expect("its port").to_string();
    drop(nobody);
    // The kernel takes its connections, and nobody else ever does.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let hanging = silent.local_addr().expect("its port").to_string();
    let host = Host::new();
    host.configure(&format!(
        "kubernetes = false\nplain_http_registries = [\"{registry}\", \"{closed}\", \"{hanging}\"]"
    ));
    host.up();
    let clean = things(&host, &before);
    let zeros = "0".repeat(64);
    for (image, within, says) in [
        ("localhost/none:1".to_owned(), AT_ONCE, "image import"),
        (
            format!("localhost/hello@sha256:{zeros}"),
            AT_ONCE,
            "there is no image",
        ),
        (format!("{registry}/gone:1"), AT_ONCE, "gone:1"),
        (
            format!("{registry}/other@sha256:{zeros}"),
            AT_ONCE,
            "digest",
        ),
        (format!("{closed}/x:1"), AT_ONCE, "cannot reach registry"),
        (format!("{hanging}/x:1"), REGISTRY, "cannot reach registry"),
    ] {
        let (code, text) = refused(&host, within, &["machine", "run", &image]);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(says), "{image}: {text}");
        leaves_nothing(&host, &before, &clean, &image);
    }
    host.down();
    let left = Snapshot::take().since(&before, &host);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

#[test]
fn what_a_host_cannot_give_or_does_not_know_is_told_at_once_and_leaves_nothing() {
    let _turn = turn();
    let before = Snapshot::take();
    let host = Host::new();
    host.configure("kubernetes = false");
    host.up();
    succeed(&mut host.aerostat(&["app", "create", "shop"]));
    succeed(&mut host.aerostat(&[
        "machine", "run", "-a", "shop", "-n", "web", IMAGE, "sleep", "3600",
    ]));
    let lease = host.json(&["machine", "lease", "acquire", "shop/web", "--ttl", "60"]);
    assert!(lease.expect("a lease")["nonce"].is_string());
    let clean = things(&host, &before);
    for class in CLASSES.into_iter().filter(|class| offers(&host, class)) {
        for (flags, says) in [
            // More than any host has, and more than this one has.
            (&["--memory", "99999872"][..], "must be 64 to 1048576"),
            (&["--memory", "1048576"], "memory"),
            (&["--rootfs-size", "99999"], "must be at most 1024"),
            (&["-n", "web"], "already"),
        ] {
            let mut words = vec!["machine", "run", "-a", "shop", "--class", class];
            words.extend(flags);
            words.push(IMAGE);
            let (code, text) = refused(&host, AT_ONCE, &words);
            assert_eq!(code, 1, "{text}");
            assert!(text.contains(says), "{flags:?}: {text}");
            leaves_nothing(&host, &before, &clean, says);
        }
    }
    for (words, says) in [
        (
            &["volume", "create", "data", "-a", "shop", "--size", "15000"][..],
            "capacity",
        ),
        (
            &["machine", "lease", "release", "shop/web", "--nonce", "no"],
            "lease",
        ),
        (&["machine", "stop", "shop/web"], "lease currently held"),
        (&["app", "create", "shop"], "taken"),
    ] {
        let (code, text) = refused(&host, AT_ONCE, words);
        assert_eq!(code, 1, "{text}");
        assert!(text.contains(says), "{words:?}: {text}");
        leaves_nothing(&host, &before, &clean, says);
    }
    host.down();
    let left = Snapshot::take().since(&before, &host);
    assert!(left.is_empty(), "left behind: {left:#?}");
}

#[test]
fn a_machine_that_ends_at_once_is_told_in_time_and_goes_without_a_trace() {
    goes("container", "", AT_ONCE, "ended with exit code 7");
}

#[test]
fn a_virtual_machine_that_ends_at_once_is_told_in_time_and_goes_without_a_trace() {
    goes("emulated", "", BOOT, "ended with exit code 7");
}

#[test]
fn a_guest_that_never_becomes_ready_is_told_in_time_and_goes_without_a_trace() {
    // No kernel boots under emulation within a second.
    goes(
        "emulated",
        "boot_timeout_s = 1",
        BOOT,
        "not ready within 1s",
    );
}

fn goes(class: &str, configuration: &str, within: Duration, says: &str) {
    let _turn = turn();
    let before = Snapshot::take();
    let host = Host::new();
    host.configure(&format!("kubernetes = false\n{configuration}"));
    host.up();
    if !offers(&host, class) {
        return skip("bad input", &format!("class {class} is not offered"));
    }
    succeed(&mut host.aerostat(&["app", "create", "default"]));
    let clean = things(&host, &before);
    let words = [
        "machine",
        "run",
        "-n",
        "brief",
        "--class",
        class,
        "--restart",
        "no",
        IMAGE,
        "sh",
        "-c",
        "exit 7",
    ];
    let (code, text) = refused(&host, within, &words);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains(says), "{text}");
    let why = succeed(&mut host.aerostat(&["machine", "why", "brief"]));
    assert!(why.contains(says), "{why}");
    succeed(&mut host.aerostat(&["machine", "destroy", "brief", "--force"]));
    leaves_nothing(&host, &before, &clean, says);
    host.down();
    let left = Snapshot::take().since(&before, &host);
    assert!(left.is_empty(), "left behind: {left:#?}");
}
