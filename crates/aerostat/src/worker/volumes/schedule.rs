//! When snapshots are due, and when they have been kept for long enough. Pure.

use jiff::{SignedDuration, Timestamp};
use types::{SnapshotId, VolumeId};

use super::snapshot::Snapshot;
use super::volume::{State, Volume};
use types::volume::SnapshotStatus;

/// Between two snapshots that nobody asked for.
pub(super) const BACKUP_INTERVAL: SignedDuration = SignedDuration::from_hours(24);

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Due {
    Backup(VolumeId),
    Expire(SnapshotId),
    /// Nothing is left of it but its row.
    Forget(VolumeId),
}

/// What is due at `now`. A clock that was set back makes nothing due that was not.
pub(super) fn due(now: Timestamp, volumes: &[Volume], snapshots: &[Snapshot]) -> Vec<Due> {
    let mut due = Vec::new();
    for snapshot in snapshots {
        let days = i64::from(snapshot.retention_days);
        let kept = SignedDuration::from_hours(24 * days);
        let is_over = now.duration_since(snapshot.created_at) >= kept;
        if is_over && snapshot.status == SnapshotStatus::Created {
            due.push(Due::Expire(snapshot.id.clone()));
        }
    }
    for volume in volumes {
        let mut own = snapshots.iter().filter(|s| s.volume == volume.id);
        match volume.state {
            State::Created if volume.auto_backup => {
                let last = own.map(|s| s.created_at).max();
                let since = last.unwrap_or(volume.created_at);
                if now.duration_since(since) >= BACKUP_INTERVAL {
                    due.push(Due::Backup(volume.id.clone()));
                }
            }
            State::Destroyed if own.next().is_none() => {
                due.push(Due::Forget(volume.id.clone()));
            }
            State::Creating
            | State::Restoring { .. }
            | State::Hydrating { .. }
            | State::Created
            | State::Extending
            | State::Destroying
            | State::Destroyed => {}
        }
    }
    due
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use types::HostId;

    use super::super::volume::tests::volume;
    use super::*;

    fn at(hour: i64) -> Timestamp {
        Timestamp::from_second(hour * 3600).unwrap()
    }

    fn snapshot(number: u64, hour: i64, retention_days: u32) -> Snapshot {
        let volume = volume(State::Created);
        let mut snapshot = Snapshot::begin(&volume, at(hour), false);
        snapshot.id = SnapshotId::new(HostId::new(2), number);
        snapshot.status = SnapshotStatus::Created;
        snapshot.retention_days = retention_days;
        snapshot
    }

    #[test]
    fn a_backup_is_due_a_day_after_the_last_one_or_the_creation() {
        let volumes = [volume(State::Created)];
        let backup = vec![Due::Backup(volumes[0].id.clone())];
        assert_eq!(due(at(23), &volumes, &[]), []);
        assert_eq!(due(at(24), &volumes, &[]), backup);
        let snapshots = [snapshot(1, 24, 5)];
        assert_eq!(due(at(47), &volumes, &snapshots), []);
        assert_eq!(due(at(48), &volumes, &snapshots), backup);
        let mut off = volumes;
        off[0].auto_backup = false;
        assert_eq!(due(at(480), &off, &[]), []);
    }

    #[test]
    fn snapshots_outlive_their_volume_for_as_long_as_they_are_kept() {
        let volumes = [volume(State::Destroyed)];
        let snapshots = [snapshot(1, 0, 5)];
        assert_eq!(due(at(119), &volumes, &snapshots), []);
        let expire = vec![Due::Expire(snapshots[0].id.clone())];
        assert_eq!(due(at(120), &volumes, &snapshots), expire);
        let forget = vec![Due::Forget(volumes[0].id.clone())];
        assert_eq!(due(at(120), &volumes, &[]), forget);
    }

    proptest! {
        #[test]
        fn a_day_brings_each_volume_one_backup_and_keeps_as_many_as_days(
            retention in 1u32..9,
            steps in prop::collection::vec(1i64..30, 1..80),
        ) {
            let mut one = volume(State::Created);
            one.snapshot_retention = retention;
            let volumes = [one];
            let (mut hour, mut kept, mut number) = (0, Vec::new(), 0);
            for step in steps {
                hour += step;
                for due in due(at(hour), &volumes, &kept.clone()) {
                    match due {
                        Due::Backup(_) => {
                            number += 1;
                            kept.push(snapshot(number, hour, retention));
                        }
                        Due::Expire(id) => kept.retain(|s| s.id != id),
                        Due::Forget(_) => prop_assert!(false),
                    }
                }
                prop_assert!(kept.len() <= usize::try_from(retention).unwrap() + 1);
                prop_assert_eq!(due(at(hour), &volumes, &kept), []);
            }
        }
    }
}
