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
    let rows = fleet.host(0).json(&["host", "list"]).expect("a list");
    assert_eq!(rows.as_array().map(Vec::len), Some(3), "{rows}");
}
