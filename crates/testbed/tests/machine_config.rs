//! What a configuration asks for, seen from inside: checks over TLS, layers that stay, volumes by
//! name. As a person does it, with the command line, in class `container`.

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use testbed::{Host, eventually, skip, succeed};

const IMAGE: &str = "localhost/hello:1";

fn run(host: &Host, name: &str, flags: &[&str]) {
    let mut words = vec!["machine", "run", "--name", name, "--class", "container"];
    words.extend(flags);
    words.extend([IMAGE, "sleep", "100000"]);
    succeed(&mut host.aerostat(&words));
}

fn sh(host: &Host, machine: &str, script: &str) -> String {
    let words = ["machine", "exec", machine, "--", "sh", "-c", script];
    succeed(&mut host.aerostat(&words)).trim().to_owned()
}

#[test]
fn a_check_over_tls_trusts_whom_the_image_trusts() {
    let host = Host::new();
    host.up();
    let tls = host.folder().join("tls");
    if let Err(why) = make_tls(&tls) {
        return skip("a_check_over_tls_trusts_whom_the_image_trusts", &why);
    }
    let authority = STANDARD.encode(std::fs::read(tls.join("cert.pem")).unwrap());
    let https = json!({"type": "http", "port": 8443, "protocol": "https", "interval": "1s",
        "method": "GET", "path": "/", "grace_period": "0s",
        "headers": [{"name": "X-Check", "values": ["yes"]}]});
    let with = |more: Value| {
        let mut check = https.clone();
        let members = check.as_object_mut().unwrap();
        members.extend(more.as_object().unwrap().clone());
        check
    };
    let config = json!({
        "files": [{"guest_path": "/etc/ssl/certs/ca-certificates.crt", "raw_value": authority}],
        "checks": {
            "any": with(json!({"tls_skip_verify": true})),
            "named": with(json!({"tls_server_name": "web.test"})),
            "other": with(json!({"tls_server_name": "other.test"})),
        },
    });
    let file = host.folder().join("config.json");
    std::fs::write(&file, config.to_string()).unwrap();
    run(&host, "web", &["--machine-config", file.to_str().unwrap()]);
    succeed(&mut host.aerostat(&["machine", "cp", tls.to_str().unwrap(), "web:/"]));
    let server = "cd /tls && ./ld-linux-x86-64.so.2 --library-path /tls ./openssl s_server -www \
                  -accept 8443 -key key.pem -cert cert.pem >/tls/log 2>&1 </dev/null &";
    sh(&host, "web", &format!("setsid sh -c '{server}'"));
    let outputs = eventually("checks to pass", || {
        let shown = host.json(&["machine", "status", "web"])?;
        let machine = shown.get(0).unwrap_or(&shown);
        let checks = machine["checks"].as_array().ok_or(shown.to_string())?;
        let said = |name: &str| {
            let check = checks.iter().find(|check| check["name"] == name);
            let check = check.ok_or(shown.to_string())?;
            Ok::<_, String>(format!("{} {}", check["status"], check["output"]))
        };
        let outputs = [said("any")?, said("named")?, said("other")?];
        match outputs[0].contains("passing") && outputs[1].contains("passing") {
            true => Ok(outputs),
            false => Err(format!("{outputs:?}")),
        }
    });
    assert!(outputs[2].contains("critical"), "{outputs:?}");
    eventually("the reason", || {
        let shown = host.json(&["machine", "status", "web"])?.to_string();
        let is_told = shown.contains("not valid for name");
        if is_told { Ok(()) } else { Err(shown) }
    });
    host.down();
}

/// openssl with its libraries, a key and a certificate for `web.test`.
fn make_tls(dir: &Path) -> Result<(), String> {
    std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
    let program = Path::new("/usr/bin/openssl");
    let loader = Path::new("/lib64/ld-linux-x86-64.so.2");
    if !program.exists() || !loader.exists() {
        return Err("there is no /usr/bin/openssl of x86-64".to_owned());
    }
    let listed = succeed(Command::new("ldd").arg(program));
    let libraries = listed
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2));
    let libraries = libraries.map(Path::new).filter(|path| path.is_absolute());
    for path in libraries.chain([program, loader]) {
        let name = path.file_name().ok_or("a library has no name")?;
        std::fs::copy(path, dir.join(name)).map_err(|error| error.to_string())?;
    }
    succeed(
        Command::new(program)
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args([
                "-subj",
                "/CN=web.test",
                "-addext",
                "subjectAltName=DNS:web.test",
            ])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .arg("-keyout")
            .arg(dir.join("key.pem"))
            .arg("-out")
            .arg(dir.join("cert.pem")),
    );
    Ok(())
}

#[test]
fn writable_layers_stay_for_as_long_as_they_are_asked_to() {
    let host = Host::new();
    host.up();
    let size = "df -k / | tail -1 | awk '{print int($2 / 900000)}'";
    for (name, persist) in [("fresh", "never"), ("kept", "restart"), ("stays", "always")] {
        run(&host, name, &["--persist", persist, "--rootfs-size", "1"]);
        sh(&host, name, "echo mine >/root-mark");
        succeed(&mut host.aerostat(&["machine", "restart", name]));
        let kept = sh(&host, name, "cat /root-mark 2>/dev/null || true");
        assert_eq!(kept == "mine", persist != "never", "{persist}: {kept}");
        let update = ["machine", "update", name, "--rootfs-size", "2", "-e", "A=b"];
        succeed(&mut host.aerostat(&update));
        let kept = sh(&host, name, "cat /root-mark 2>/dev/null || true");
        assert_eq!(kept == "mine", persist == "always", "{persist}: {kept}");
        assert_eq!(sh(&host, name, size), "2", "{persist}");
        // What the update has left stays as well.
        sh(&host, name, "echo again >/root-mark");
        succeed(&mut host.aerostat(&["machine", "stop", name]));
        succeed(&mut host.aerostat(&["machine", "start", name]));
        let kept = sh(&host, name, "cat /root-mark 2>/dev/null || true");
        assert_eq!(kept == "again", persist != "never", "{persist}: {kept}");
    }
    host.down();
}

#[test]
fn a_volume_is_mounted_by_its_name() {
    let host = Host::new();
    host.up();
    let named = |name: &str| {
        let volumes = host.json(&["volume", "list", "-a", "default"]).unwrap();
        let all = volumes.as_array().unwrap().clone();
        let ids = all.iter().filter(|volume| volume["name"] == name);
        ids.map(|volume| volume["id"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    // Made, since there is none.
    run(&host, "one", &["-v", "data:/data"]);
    let first = named("data");
    assert_eq!(first.len(), 1);
    sh(&host, "one", "echo first >/data/mark; sync");
    // Another one, since that one is taken.
    run(&host, "two", &["-v", "data:/data"]);
    assert_eq!(named("data").len(), 2);
    assert_eq!(sh(&host, "two", "cat /data/mark || true"), "");
    // The one that is free again.
    succeed(&mut host.aerostat(&["machine", "destroy", "--force", "--yes", "one"]));
    run(&host, "three", &["-v", "data:/data"]);
    assert_eq!(named("data").len(), 2);
    assert_eq!(sh(&host, "three", "cat /data/mark"), "first");
    run(&host, "four", &["-v", "data:/data"]);
    assert_eq!(named("data").len(), 3);
    host.down();
}
