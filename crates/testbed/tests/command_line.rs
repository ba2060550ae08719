//! Every command of the tree on a real host: what prints data prints it as JSON, as YAML and as
//! names, and a refusal has its exit code and says what to try. The tree is asked for its
//! commands, so that a new one fails here until it has a call.

use std::collections::BTreeSet;
use std::process::Output;

use serde_json::Value;
use testbed::{Host, eventually, fail, skip, succeed};

const IMAGE: &str = "localhost/hello:1";
const ID: &str = "0123456789abcd";

/// A call of each command, in an order in which each finds what it needs. The words of a command
/// that change something come with what they change.
const CALLS: &[&str] = &[
    "up",
    "doctor",
    "env",
    "kernel list",
    "kernel path",
    "commands",
    "host list",
    "host token create --ttl 5m --address 192.0.2.1:51822",
    "mesh status",
    "k8s create team-a",
    "k8s list",
    "k8s rotate-keys tokens team-a",
    "k8s delete team-a --yes",
    "image list",
    "image prune",
    "app create shop",
    "app list",
    "app show shop",
    "machine run -a shop --name web localhost/hello:1",
    "machine create -a shop --name made localhost/hello:1",
    "machine list",
    "machine status web",
    "machine logs web",
    "machine exec web true",
    "machine wait web",
    "machine events web",
    "machine why web",
    "machine ps web",
    "machine stats web",
    "machine cordon web",
    "machine uncordon web",
    "machine metadata web role=front",
    "machine versions web",
    "machine signal web --signal SIGURG",
    "machine update web -e A=B",
    "machine clone web --name twin",
    "machine restart twin --timeout 1",
    "machine kill twin",
    "machine stop twin --timeout 1",
    "machine start made",
    "machine lease acquire made --ttl 60",
    "machine lease show made",
    "service set front -a shop --port 80:8080",
    "service list -a shop",
    "service show front -a shop",
    "service remove front -a shop",
    "machine destroy twin --force",
    "app create gone",
    "app destroy gone",
    "secret set -a shop A=1",
    "secret list -a shop",
    "secret unset -a shop A",
    "secret rotate-key",
    "volume create data -a shop --size 1",
    "volume list -a shop",
    "volume show data -a shop",
    "volume update data -a shop --retention 14",
    "volume snapshot create data -a shop",
    "volume snapshot list data -a shop",
    "volume fork data -a shop --name copy",
    "volume extend data -a shop --size 2",
    "volume destroy copy -a shop --yes",
    "token create --name ci",
    "token list",
    "wireguard create laptop",
    "wireguard list",
    "wireguard remove laptop",
    "context add lab http://127.0.0.1:1",
    "context list",
    "context use lab",
    "context use here",
    "context remove lab",
];

/// Commands without a call, and why.
const NOT_HERE: &[(&str, &str)] = &[
    ("down", "prints no data, and ends the host"),
    ("serve", "runs until it is ended"),
    ("join", "needs a second host; see life_of_a_packet"),
    ("host remove", "needs a second host; see life_of_a_packet"),
    ("completion", "prints a script"),
    ("kernel build", "compiles for minutes"),
    ("kernel use", "needs a kernel"),
    ("k8s kubeconfig", "prints a file, which is YAML"),
    ("k8s backup", "writes a file; see clusters::backup"),
    (
        "k8s restore",
        "needs a host that is down; see clusters::backup",
    ),
    ("kubernetes", "runs until it is ended"),
    ("image pull", "needs a registry; see crates/image"),
    ("image import", "needs an archive; see crates/image"),
    ("image remove", "the image is in use here"),
    ("machine suspend", "class container cannot"),
    ("machine resume", "class container cannot"),
    ("machine console", "connects a terminal"),
    ("machine attach", "connects a terminal"),
    ("machine cp", "prints no data"),
    ("machine lease release", "needs the nonce; see below"),
    ("secret import", "reads standard input"),
    ("volume restore", "needs the id of a snapshot"),
    ("token attenuate", "prints a token"),
    ("token inspect", "needs a token"),
    ("token revoke", "needs the id of a token"),
];

fn call(host: &Host, words: &str, format: &str) -> Output {
    let words: Vec<&str> = words.split(' ').collect();
    // After the noun and the verb: what follows some commands belongs to another program.
    let flag = words.iter().position(|word| word.starts_with('-'));
    let at = flag.unwrap_or(words.len()).min(2);
    let (verb, rest) = words.split_at(at);
    let mut command = host.aerostat(verb);
    command.args(["-o", format]).args(rest);
    command
        .env("XDG_CONFIG_HOME", host.folder())
        .env_remove("AEROSTAT_APP");
    command.output().expect("aerostat runs")
}

/// Whether the API of this version has not got it.
fn is_missing(error: &str) -> bool {
    error.contains("not built yet") || error.contains("there is nothing at")
}

#[test]
fn every_command_prints_data_in_the_format_that_was_asked_for() {
    let host = Host::new();
    host.configure("isolation_default = \"container\"");
    host.up();
    let mut called = BTreeSet::new();
    let mut wrong = Vec::new();
    for words in CALLS {
        let output = call(&host, words, "json");
        let (text, error) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        called.insert(*words);
        if is_missing(&error) {
            skip(words, &error);
            continue;
        }
        // A check that fails is data of `doctor`.
        if !output.status.success() && *words != "doctor" {
            wrong.push(format!("{words}: {error}{text}"));
        }
        // Logs are a document a line.
        for document in match *words == "machine logs web" {
            true => text.lines().collect::<Vec<_>>(),
            false => vec![&*text],
        } {
            if let Err(error) = serde_json::from_str::<Value>(document) {
                wrong.push(format!("{words}: {error}: {text}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    every_command_was_called(&host, &called);
    the_same_as_yaml_and_names(&host);
}

fn every_command_was_called(host: &Host, called: &BTreeSet<&str>) {
    let tree = host.json(&["commands"]).expect("the tree");
    let mut missing = Vec::new();
    for row in tree.as_array().expect("a list") {
        let command = row["command"].as_str().expect("a path");
        let has_call = called
            .iter()
            .any(|call| format!("{call} ").starts_with(&format!("{command} ")));
        let excused = NOT_HERE.iter().any(|(path, _)| *path == command);
        if row["group"] == false && !has_call && !excused {
            missing.push(command.to_owned());
        }
    }
    assert!(
        missing.is_empty(),
        "commands without a call in CALLS: {missing:?}"
    );
}

fn the_same_as_yaml_and_names(host: &Host) {
    for words in [
        "machine list",
        "app list",
        "image list",
        "host list",
        "context list",
    ] {
        let json = call(host, words, "json");
        let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
        let rows = json.as_array().expect("a list").len();
        let names = call(host, words, "name");
        let names = String::from_utf8_lossy(&names.stdout).into_owned();
        assert_eq!(names.lines().count(), rows, "{words}: {names}");
        let wide = call(host, words, "wide");
        let wide = String::from_utf8_lossy(&wide.stdout).into_owned();
        assert_eq!(wide.lines().count(), rows + 1, "{words}: {wide}");
        let yaml = call(host, words, "yaml");
        assert!(
            yaml.status.success() && yaml.stdout.starts_with(b"- "),
            "{words}"
        );
    }
}

#[test]
fn people_and_scripts_get_what_they_need() {
    let host = Host::new();
    host.configure("isolation_default = \"container\"");
    host.up();
    let aerostat = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let mut command = host.aerostat(&words);
        command.env_remove("AEROSTAT_APP");
        command
    };
    // The id, and nothing else, is on standard output.
    let id = succeed(&mut aerostat(&format!("machine run --name web {IMAGE}")));
    let id = id.trim();
    assert_eq!(id.len(), ID.len(), "{id}");
    for name in [id, &id[..6], "web", "default/web"] {
        let line = succeed(&mut aerostat(&format!("machine status {name} -o name")));
        assert_eq!(line.trim(), id, "{name}");
    }
    let (code, text) = fail(&mut aerostat("machine status wbe"));
    assert_eq!(code, 1);
    assert!(
        text.contains("did you mean `web`?") || text.contains("machine list"),
        "{text}"
    );

    // A command's own exit code; and of several machines the others go on.
    let (code, _) = fail(&mut host.aerostat(&["machine", "exec", "web", "sh", "-c", "exit 7"]));
    assert_eq!(code, 7);
    let (code, text) = fail(&mut aerostat("machine destroy web"));
    assert_eq!(code, 1);
    assert!(text.contains("--force"), "{text}");
    let (code, text) = fail(&mut aerostat("machine destroy --all"));
    assert_eq!(code, 1);
    assert!(text.contains("--yes"), "{text}");

    // One that falls over says how, with its last words.
    let mut falls = aerostat(&format!("machine run --name falls --restart no {IMAGE}"));
    falls.args(["--", "sh", "-c", "echo last words; exit 3"]);
    let _ = falls.output().expect("aerostat runs");
    let story = eventually("its end", || {
        let story = succeed(&mut aerostat("machine why falls"));
        story
            .contains("now:  stopped")
            .then_some(story.clone())
            .ok_or(story)
    });
    for words in [
        "ended with exit code 3",
        "leave it so",
        "aerostat machine logs default/falls",
    ] {
        assert!(story.contains(words), "{words}: {story}");
    }

    files_there_and_back(&host);
    let lease = host
        .json(&["machine", "lease", "acquire", "web"])
        .expect("a lease");
    let nonce = lease["nonce"].as_str().expect("a nonce");
    succeed(&mut host.aerostat(&["machine", "lease", "release", "web", "--nonce", nonce]));
    succeed(&mut aerostat("machine destroy --all --yes --force"));
    let list = aerostat("machine list").output().expect("aerostat runs");
    assert!(list.stdout.is_empty());
    assert!(String::from_utf8_lossy(&list.stderr).contains("aerostat machine run"));
}

fn files_there_and_back(host: &Host) {
    let (from, to) = (host.folder().join("from"), host.folder().join("to"));
    std::fs::create_dir_all(from.join("deep")).unwrap();
    std::fs::write(from.join("deep/file"), "hello").unwrap();
    let from = from.to_str().unwrap();
    let sent = host
        .aerostat(&["machine", "cp", from, "web:/tmp/there"])
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&sent.stderr).into_owned();
    if is_missing(&told) {
        return skip("files_there_and_back", &told);
    }
    assert!(sent.status.success(), "{told}");
    succeed(&mut host.aerostat(&["machine", "exec", "web", "cat", "/tmp/there/deep/file"]));
    succeed(&mut host.aerostat(&["machine", "cp", "web:/tmp/there", to.to_str().unwrap()]));
    let back = std::fs::read_to_string(to.join("deep/file")).unwrap();
    assert_eq!(back, "hello");
}
