//! `kill -9` before and after each step: the next start finishes what was begun or leaves nothing
//! of it, and nothing is there that belongs to no row.

use std::os::unix::process::ExitStatusExt as _;

use types::volume::VolumeState;

use super::*;

/// Set in the process that is killed: the folder, and what to do there.
const FOLDER: &str = "AEROSTAT_TEST_FOLDER";
const VERB: &str = "AEROSTAT_TEST_VERB";
const CRASH_AT: &str = "AEROSTAT_TEST_CRASH_AT";

/// Each verb, and the points that it passes.
const POINTS: &[(&str, &[&str])] = &[
    ("create", &["volume-recorded", "file-made", "filled"]),
    ("fork", &["volume-recorded", "file-copied", "filled"]),
    (
        "restore",
        &["volume-recorded", "file-copied", "file-sized", "filled"],
    ),
    ("extend", &["extend-recorded", "file-sized", "grown"]),
    ("destroy", &["destroy-recorded", "file-removed", "removed"]),
    (
        "snapshot",
        &["snapshot-recorded", "file-copied", "snapshot-copied"],
    ),
    ("expire", &["snapshot-forgotten", "file-removed"]),
];

/// The process that is killed. Does nothing when it is run as a test.
#[tokio::test]
async fn child() {
    let (Ok(folder), Ok(verb)) = (std::env::var(FOLDER), std::env::var(VERB)) else {
        return;
    };
    let place = Place::open(Path::new(&folder)).await;
    let id = place.list().await.remove(0).id;
    match verb.as_str() {
        "create" => drop(place.create(named_volume("new")).await),
        "fork" => {
            let fork = CreateVolume {
                source_volume_id: Some(id),
                ..named_volume("new")
            };
            drop(place.create(fork).await);
        }
        "restore" => {
            let snapshot = place.volumes.snapshots(&id).await.unwrap().remove(0);
            let restore = CreateVolume {
                snapshot_id: Some(snapshot.id),
                size_gb: Some(2),
                ..named_volume("new")
            };
            drop(place.create(restore).await);
        }
        "extend" => drop(place.volumes.extend(&id, 2).await),
        "destroy" => drop(place.volumes.destroy(&id).await),
        "snapshot" => drop(place.volumes.snapshot(&id).await),
        "expire" => {
            let snapshot = place.volumes.snapshots(&id).await.unwrap().remove(0);
            drop(place.volumes.expire(&snapshot.id).await);
        }
        other => panic!("{other}"),
    }
    panic!("{verb} was not killed");
}

fn kill_at(folder: &Path, verb: &str, point: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "worker::volumes::tests::crash::child",
            "--nocapture",
        ])
        .envs([(VERB, verb), (CRASH_AT, point)])
        .env(FOLDER, folder)
        .output()
        .unwrap();
    assert_eq!(
        output.status.signal(),
        Some(9),
        "{verb} at {point}: {output:?}"
    );
}

#[tokio::test]
async fn a_killed_worker_leaves_nothing_half_done() {
    for (verb, points) in POINTS {
        for point in *points {
            let folder = tempfile::tempdir().unwrap();
            let place = Place::open(folder.path()).await;
            let id = place.with_file("kept").await;
            place.volumes.snapshot(&id).await.unwrap();
            place.settled().await;
            place.close().await;

            kill_at(folder.path(), verb, point);

            let place = Place::open(folder.path()).await;
            place.settled().await;
            let case = format!("{verb} at {point}");
            let volumes = place.list().await;
            let snapshots = place.volumes.snapshots(&id).await.unwrap();
            let (new, snapshots_wanted, size_gb) = match *verb {
                "create" | "fork" | "restore" => (Some(*verb), 1, 1),
                "extend" => (None, 1, 2),
                "snapshot" => (None, 2, 1),
                "expire" => (None, 0, 1),
                "destroy" => {
                    assert_eq!(volumes, [], "{case}");
                    (None, 1, 0)
                }
                other => panic!("{other}"),
            };
            assert_eq!(snapshots.len(), snapshots_wanted, "{case}");
            let mut expected: Vec<String> = snapshots.iter().map(|s| s.id.to_string()).collect();
            for volume in &volumes {
                assert_eq!(volume.state, VolumeState::Created, "{case}");
                let disk = place.disk(volume.id.as_str());
                check(&disk);
                let is_new = volume.name == "new";
                let wanted_gb = match (is_new, new) {
                    (true, Some("restore")) => 2,
                    (true, _) => 1,
                    (false, _) => size_gb,
                };
                assert_eq!(volume.size_gb, wanted_gb, "{case}");
                assert_eq!(volume.block_size * volume.blocks, wanted_gb << 30, "{case}");
                if !(is_new && new == Some("create")) {
                    assert_eq!(read(&disk), "kept", "{case}");
                }
                expected.push(volume.id.to_string());
            }
            assert_eq!(
                volumes.iter().any(|v| v.name == "new"),
                new.is_some(),
                "{case}"
            );
            expected.sort();
            assert_eq!(place.names(), expected, "{case}");
            let in_volumes: u64 = volumes.iter().map(|volume| volume.size_gb).sum();
            let free_gb = place.volumes.accounts().volume_room_gb();
            assert_eq!(free_gb, 100 - in_volumes, "{case}");
            place.close().await;
        }
    }
}
