//! What can be done with a volume, one after the other.

use std::os::unix::fs::MetadataExt as _;

use types::volume::{SnapshotStatus, VolumeState};

use super::*;

#[tokio::test]
async fn a_volume_is_made_grows_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path()).await;
    let room = place.volumes.accounts().volume_room_gb();
    let id = place.with_file("mine").await;
    let disk = place.disk(id.as_str());
    assert_eq!((mode(&disk), mode(disk.parent().unwrap())), (0o600, 0o700));
    assert!(
        fs::metadata(&disk).unwrap().blocks() * 512 < 64 << 20,
        "it is sparse"
    );
    let shown = place.list().await.remove(0);
    assert_eq!((shown.state, shown.size_gb), (VolumeState::Created, 1));
    assert_eq!(shown.block_size * shown.blocks, 1 << 30);
    assert!(shown.blocks_avail > shown.blocks * 9 / 10);
    assert_eq!(shown.zone, "0002");
    assert_eq!(place.volumes.accounts().volume_room_gb(), room - 1);

    let extended = place.volumes.extend(&id, 3).await.unwrap();
    assert!(!extended.needs_restart);
    let shown = extended.volume;
    assert_eq!(shown.block_size * shown.blocks, 3 << 30);
    check(&disk);
    assert_eq!(read(&disk), "mine");
    let smaller = place.volumes.extend(&id, 2).await.unwrap_err();
    assert!(smaller.to_string().contains("do not shrink"), "{smaller}");
    assert_eq!(place.volumes.accounts().volume_room_gb(), room - 3);

    let gone = place.volumes.destroy(&id).await.unwrap();
    assert_eq!(gone.volume.state, VolumeState::Destroyed);
    assert_eq!(place.list().await, []);
    assert_eq!(place.names(), Vec::<String>::new());
    assert_eq!(place.volumes.accounts().volume_room_gb(), room);
    let missing = place.volumes.destroy(&id).await.unwrap_err();
    assert_eq!(missing, VolumeRefused::NotFound { id });
    place.close().await;
}

#[tokio::test]
async fn a_snapshot_is_restored_larger_and_outlives_its_volume() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path()).await;
    let id = place.with_file("before").await;
    let snapshot = place.volumes.snapshot(&id).await.unwrap();
    assert_ne!(snapshot.status, SnapshotStatus::Waiting);
    place.settled().await;
    let listed = place.volumes.snapshots(&id).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert!(listed[0].digest.starts_with("sha256:"), "{:?}", listed[0]);
    assert_eq!(
        (listed[0].volume_size, listed[0].retention_days),
        (1 << 30, 5)
    );
    debugfs(&place.disk(id.as_str()), "rm hello", true);
    place.volumes.destroy(&id).await.unwrap();
    assert_eq!(place.volumes.snapshots(&id).await.unwrap(), listed);

    let restore = |size_gb| CreateVolume {
        snapshot_id: Some(snapshot.id.clone()),
        size_gb,
        ..named_volume("restored")
    };
    let restored = place.create(restore(Some(2))).await.unwrap();
    let disk = place.disk(restored.as_str());
    check(&disk);
    assert_eq!(read(&disk), "before");
    let shown = place.list().await.remove(0);
    assert_eq!(
        (shown.size_gb, shown.block_size * shown.blocks),
        (2, 2 << 30)
    );
    let same = place.create(restore(None)).await.unwrap();
    assert_eq!(place.volumes.get(&same).await.unwrap().volume.size_gb, 1);

    // Kept for its days, and then there is nothing left of either.
    let later = Timestamp::now() + jiff::SignedDuration::from_hours(24 * 5 + 1);
    let mut hindered = std::collections::BTreeSet::new();
    place.volumes.keep_once(later, &mut hindered).await;
    place.volumes.keep_once(later, &mut hindered).await;
    let mut kept = [restored.to_string(), same.to_string()];
    kept.sort();
    assert_eq!(place.names(), kept);
    let gone = place.volumes.snapshots(&id).await.unwrap_err();
    assert_eq!(gone, VolumeRefused::NotFound { id });
    place.close().await;
}

#[tokio::test]
async fn a_fork_is_a_volume_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path()).await;
    let id = place.with_file("shared").await;
    let fork = CreateVolume {
        source_volume_id: Some(id.clone()),
        ..named_volume("fork")
    };
    let other = place.create(fork.clone()).await.unwrap();
    debugfs(&place.disk(id.as_str()), "rm hello", true);
    assert_eq!(read(&place.disk(other.as_str())), "shared");
    let foreign = NewVolume {
        org: "others".parse().unwrap(),
        ..new(fork)
    };
    let refused = place.volumes.create(foreign).await.unwrap_err();
    assert_eq!(refused, VolumeRefused::NotFound { id });
    assert_eq!(place.list().await.len(), 2);
    place.close().await;
}

#[tokio::test]
async fn a_backup_is_taken_daily_and_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path()).await;
    let daily = CreateVolume {
        auto_backup_enabled: None,
        ..named_volume("daily")
    };
    let id = place.create(daily).await.unwrap();
    let mut hindered = std::collections::BTreeSet::new();
    place
        .volumes
        .keep_once(Timestamp::now(), &mut hindered)
        .await;
    assert_eq!(place.volumes.snapshots(&id).await.unwrap(), []);
    let tomorrow = Timestamp::now() + jiff::SignedDuration::from_hours(25);
    place.volumes.keep_once(tomorrow, &mut hindered).await;
    assert_eq!(place.volumes.snapshots(&id).await.unwrap().len(), 1);
    let update = UpdateVolume {
        auto_backup_enabled: Some(false),
        snapshot_retention: Some(9),
    };
    let shown = place.volumes.update(&id, &update).await.unwrap().volume;
    assert_eq!(
        (shown.auto_backup_enabled, shown.snapshot_retention),
        (false, 9)
    );
    place.settled().await;
    place.close().await;
}

#[tokio::test]
async fn what_there_is_no_room_for_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path()).await;
    let large = |size_gb| CreateVolume {
        size_gb: Some(size_gb),
        ..named_volume("large")
    };
    let refused = place.create(large(101)).await.unwrap_err();
    assert_eq!(refused.to_string(), "no capacity");
    let id = place.create(large(60)).await.unwrap();
    assert!(place.create(large(60)).await.is_err());
    assert!(place.volumes.extend(&id, 101).await.is_err());
    assert_eq!(place.names(), [id.to_string()]);
    place.volumes.destroy(&id).await.unwrap();
    place.create(large(100)).await.unwrap();
    place.close().await;
}

#[tokio::test]
async fn what_belongs_to_no_volume_is_swept() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::open(folder.path()).await;
    let id = place.with_file("kept").await;
    let root = folder.path().join("volumes");
    fs::create_dir_all(root.join("vol_000200000000000x/deep")).unwrap();
    fs::write(root.join("stray"), "x").unwrap();
    place.close().await;
    let place = Place::open(folder.path()).await;
    assert_eq!(place.names(), [id.to_string()]);
    assert_eq!(read(&place.disk(id.as_str())), "kept");
    place.close().await;
}
