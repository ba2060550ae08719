//! What a fleet goes through: loss, killed daemons, pulled cables, hosts that may not join.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use testbed::{Fleet, Host, eventually, fail, resolve, succeed, who_answers};

use crate::outside::Client;
use crate::{GATEWAY, SERVICE, World};

/// The host that suffers: not the authority, not the gateway.
const VICTIM: usize = 2;

fn names(pods: &[crate::Pod]) -> BTreeSet<String> {
    pods.iter().map(|pod| pod.name.clone()).collect()
}

pub(crate) fn packets_are_lost(world: &World<'_>, client: &Client) {
    let underlay = world.fleet.underlay();
    for host in [GATEWAY, VICTIM] {
        underlay.lose(host, 5);
    }
    for _ in 0..20 {
        eventually("an answer in spite of loss", || client.asks());
    }
    for host in [GATEWAY, VICTIM] {
        underlay.lose(host, 0);
    }
}

/// Machines outlive their daemon, and are adopted again.
pub(crate) fn a_daemon_is_killed(world: &World<'_>, client: &Client) {
    let before = world.pods_until("pods", |pods| pods.len() >= 3);
    let victim = world.host(VICTIM);
    victim.kill_daemon();
    // Those of the others go on meanwhile.
    for pod in before.iter().filter(|pod| pod.host() != victim.number()) {
        let answer = eventually("a pod of another host", || {
            who_answers(&client.netns, pod.address, 8080).map_err(|error| error.to_string())
        });
        assert_eq!(answer, pod.name);
    }
    victim.up();
    let after = world.pods_until("the same pods", |pods| names(pods) == names(&before));
    for pod in &after {
        let earlier = before.iter().find(|earlier| earlier.name == pod.name);
        assert_eq!(earlier, Some(pod), "it was started again");
    }
    client.hears(&names(&after));
}

/// The directory's host may be away: names, services and machines go on without it.
pub(crate) fn the_authority_is_away(world: &World<'_>, client: &Client) {
    let pods = world.pods_until("pods", |pods| pods.len() >= 3);
    let authority = world.host(0);
    let others: Vec<_> = pods
        .iter()
        .filter(|pod| pod.host() != authority.number())
        .collect();
    authority.kill_daemon();
    let found = resolve(&client.netns, client.dns, SERVICE);
    assert_eq!(found.expect("names are known"), [client.vip]);
    for pod in others {
        let answer = eventually("a pod of another host", || {
            who_answers(&client.netns, pod.address, 8080).map_err(|error| error.to_string())
        });
        assert_eq!(answer, pod.name);
    }
    eventually("the service without the authority's host", || client.asks());
    authority.up();
    world.pods_until("the same pods", |after| names(after) == names(&pods));
}

pub(crate) fn a_host_is_cut_off_and_returns(world: &World<'_>, client: &Client) {
    let (fleet, victim) = (world.fleet, world.host(VICTIM));
    let before = world.pods_until("pods", |pods| pods.len() >= 3);
    let is_lost = |pod: &&crate::Pod| pod.host() == victim.number();
    // Only what a Deployment wants is wanted elsewhere.
    let kept = before
        .iter()
        .filter(|pod| pod.name == "virtual")
        .find(is_lost);
    let wanted = before.len() - usize::from(kept.is_some());

    let began = Instant::now();
    fleet.underlay().cut(VICTIM);
    eventually("the silence to be noticed", || {
        match fleet.status(0, VICTIM)?.as_str() {
            "unreachable" => Ok(()),
            status => Err(status.to_owned()),
        }
    });
    eprintln!("unreachable after {:.1} s", began.elapsed().as_secs_f64());
    let during = world.pods_until("pods elsewhere", |pods| {
        pods.len() >= wanted && pods.iter().all(|pod| pod.host() != victim.number())
    });
    eprintln!("replaced after {:.1} s", began.elapsed().as_secs_f64());
    client.hears(&names(&during));
    let mesh = world.host(0).json(&["mesh", "status"]).expect("it answers");
    let peers = mesh["peers"].as_array().expect("peers");
    assert_eq!(peers.len(), 2, "{mesh}");

    fleet.underlay().heal(VICTIM);
    for host in [0, GATEWAY] {
        eventually("the host to be back", || {
            match fleet.status(host, VICTIM)?.as_str() {
                "ok" => Ok(()),
                status => Err(status.to_owned()),
            }
        });
    }
    // What was replaced is destroyed there; what was not is still the same.
    eventually("the returning host to destroy what is not wanted", || {
        let pods = names(&world.pods());
        let rows = victim.json(&["machine", "list", "--app", "kubernetes"])?;
        let started = rows.as_array().map_or(0, |rows| {
            rows.iter().filter(|row| row["state"] == "started").count()
        });
        match started == pods.len() {
            true => Ok(()),
            false => Err(format!("{started} machines for {pods:?}")),
        }
    });
    let after = world.pods_until("pods", |pods| pods.len() == before.len());
    client.hears(&names(&after));
    let one_more = Duration::from_secs(1);
    std::thread::sleep(one_more);
    assert_eq!(names(&world.pods()), names(&after), "they do not settle");
}

/// A host that may not join says why, and is as it was before.
pub(crate) fn joining_is_refused(fleet: &Fleet) {
    let underlay = fleet.underlay();
    let fresh = || Host::inside(&underlay.host(1), underlay.address(1));
    let refused = |host: &Host, words: &[&str], why: &str| {
        let (code, text) = fail(&mut host.aerostat(words));
        assert!(text.contains(why), "{words:?} exits with {code}: {text}");
        assert!(!host.folder().join("data/fleet").exists());
        assert!(!host.folder().join("data/fleet.new").exists());
        code
    };
    let used = fleet.invite();
    // The second host runs, so another in its place only asks.
    let third = fresh();
    let join = ["join", &used, "--name", "third"];
    assert_eq!(refused(&third, &["join", "aero1-nonsense"], "token"), 2);
    let first = fleet.host(0).number().to_string();
    third.configure("");
    let other_number = Host::inside(&underlay.host(1), underlay.address(1));
    std::fs::write(
        other_number.folder().join("aerostat.toml"),
        format!(
            "host_number = {first}\nadvertise = \"{}\"\n",
            underlay.address(1)
        ),
    )
    .expect("configuration");
    assert_eq!(refused(&other_number, &join, "duplicate host id"), 1);
    // Taking it down must not take the first host's network.
    other_number.configure("");
    // Nothing was spent by that.
    succeed(&mut third.aerostat(&join));
    let (code, text) = fail(&mut third.aerostat(&join));
    assert!(
        code == 1 && text.contains("aerostat down --purge"),
        "{text}"
    );

    let fourth = fresh();
    let join = ["join", &used, "--name", "fourth"];
    assert_eq!(refused(&fourth, &join, "has been used"), 1);
    let short = fleet
        .host(0)
        .aerostat(&["host", "token", "create", "--ttl", "1s"]);
    let expired = succeed(&mut { short }).trim().to_owned();
    std::thread::sleep(Duration::from_millis(1100));
    assert_eq!(
        refused(&fourth, &["join", &expired, "--name", "fourth"], "expired"),
        1
    );
    let (_, text) = fail(&mut fleet.host(1).aerostat(&["join", &used]));
    assert!(text.contains("running already"), "{text}");
    let authority = fleet.host(0);
    let another = fleet.invite();
    authority.kill_daemon();
    let join = ["join", &another, "--name", "fourth"];
    assert_eq!(refused(&fourth, &join, "]:51822"), 2);
    authority.up();
    let rows = authority.json(&["host", "list"]).expect("a list");
    assert_eq!(rows.as_array().map(Vec::len), Some(3), "{rows}");
    a_host_that_never_came_is_removed(fleet, &fourth, &another);
}

/// The fleet can do without it; its name is free again.
fn a_host_that_never_came_is_removed(fleet: &Fleet, newcomer: &Host, another: &str) {
    eventually("the authority's word", || {
        match fleet.status(1, 0)?.as_str() {
            "ok" => Ok(()),
            status => Err(status.to_owned()),
        }
    });
    succeed(&mut fleet.host(1).aerostat(&["host", "remove", "third"]));
    for host in fleet.hosts() {
        let rows = host.json(&["host", "list"]).expect("a list");
        assert_eq!(rows.as_array().map(Vec::len), Some(2), "{rows}");
    }
    succeed(&mut newcomer.aerostat(&["join", another, "--name", "third"]));
}

/// A host that is removed is no peer of anybody.
pub(crate) fn a_host_is_removed(fleet: &Fleet) {
    let (authority, other) = (fleet.host(0), fleet.host(1));
    let number = other.number().to_string();
    let (code, text) = fail(&mut other.aerostat(&["host", "remove", &number]));
    assert!(code == 1 && text.contains("is up"), "{text}");
    let first = authority.number().to_string();
    let (code, text) = fail(&mut authority.aerostat(&["host", "remove", &first, "--force"]));
    assert!(code == 1 && text.contains("the directory"), "{text}");
    let run = ["machine", "run", "localhost/hello:1"];
    for _ in 0..4 {
        succeed(&mut authority.aerostat(&run));
    }
    let owners = || {
        let rows = authority.json(&["machine", "list"])?;
        let rows = rows.as_array().cloned().unwrap_or_default();
        let is_other = format!(":a7b:{:x}:", other.number());
        let address = |row: &serde_json::Value| row["private_ip"].to_string();
        let (theirs, ours): (Vec<_>, Vec<_>) = rows
            .iter()
            .map(address)
            .partition(|address| address.contains(&is_other));
        Ok::<_, String>((ours.len(), theirs.len()))
    };
    let peers = || {
        let mesh = authority.json(&["mesh", "status"])?;
        let peers = mesh["peers"].as_array().map(Vec::len);
        peers.ok_or_else(|| mesh.to_string())
    };
    let (ours, theirs) = owners().expect("a list");
    assert!(theirs > 0, "none of {ours} machines is there");
    let before = peers().expect("peers");
    succeed(&mut authority.aerostat(&["host", "remove", &number, "--force"]));
    eventually("its machines and its peer to be gone", || {
        let found = (peers()?, owners()?);
        match found == (before - 1, (ours, 0)) {
            true => Ok(()),
            false => Err(format!("{found:?}")),
        }
    });
}

/// A daemon that cannot start says why, and takes away what it had made.
pub(crate) fn a_start_that_fails_leaves_nothing(fleet: &Fleet) {
    // The second host runs here, on the usual ports.
    let underlay = fleet.underlay();
    let host = Host::inside(&underlay.host(1), underlay.address(1));
    let mut free = String::new();
    for (key, why) in [
        ("api_listen", "of the Machines API is taken"),
        ("mesh_listen", "of the mesh is taken"),
        ("gateway_listen", "of the gateway is taken"),
    ] {
        host.configure(&free);
        let (code, text) = fail(&mut host.aerostat(&["up"]));
        assert!(code == 2 && text.contains(why), "{text}");
        free += &format!("{key} = \"127.0.0.1:0\"\n");
    }
    host.configure(&free);
    let up = host.aerostat(&["up"]);
    let mut without_tun = std::process::Command::new("unshare");
    let script = "mount --bind /dev/null /dev/net/tun && exec \"$@\"";
    without_tun
        .args(["--mount", "sh", "-c", script, "sh"])
        .arg(up.get_program())
        .args(up.get_args());
    for (name, value) in up.get_envs() {
        match value {
            Some(value) => without_tun.env(name, value),
            None => without_tun.env_remove(name),
        };
    }
    let (code, text) = fail(&mut without_tun);
    assert!(code == 2 && text.contains("aerostat doctor"), "{text}");
    let netns = format!("/run/netns/aero-{}", host.id());
    assert!(!std::path::Path::new(&netns).exists());
}
