//! What somebody asks of a volume, checked. Pure, but for the rows of what it is made from.

use jiff::Timestamp;
use rusqlite::Connection;
use types::VolumeId;
use types::volume::{CreateVolume, SnapshotStatus};

use super::NewVolume;
use super::refused::VolumeRefused;
use super::tables::{self, TableError};
use super::volume::{State, Volume};

/// The largest ext4 with blocks of 4 KiB is 16 TiB.
const SIZE_GB_MAX: u64 = 16_000;
const SIZE_GB_DEFAULT: u64 = 1;
const RETENTION_DAYS_DEFAULT: u32 = 5;
const RETENTION_DAYS_MAX: u32 = 60;
const NAME_BYTES_MAX: usize = 63;

fn invalid(field: &str, reason: impl Into<String>) -> VolumeRefused {
    VolumeRefused::Invalid {
        field: field.into(),
        reason: reason.into(),
    }
}

/// Whether a body makes sense by itself.
///
/// # Errors
/// [`VolumeRefused::Invalid`].
pub fn body(body: &CreateVolume) -> Result<(), VolumeRefused> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
    let name = &body.name;
    if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(plain) {
        let rule = "must be 1 to 63 lower-case letters, digits, underscores and dashes";
        return Err(invalid("name", rule));
    }
    if !matches!(body.fstype.as_str(), "" | "ext4") {
        return Err(invalid("fstype", "must be ext4"));
    }
    if body.snapshot_id.is_some() && body.source_volume_id.is_some() {
        let rule = "cannot stand beside snapshot_id: a volume begins with one of them";
        return Err(invalid("source_volume_id", rule));
    }
    if let Some(size_gb) = body.size_gb {
        size(size_gb)?;
    }
    retention(body.snapshot_retention)
}

pub(super) fn size(size_gb: u64) -> Result<(), VolumeRefused> {
    match (1..=SIZE_GB_MAX).contains(&size_gb) {
        true => Ok(()),
        false => Err(invalid("size_gb", format!("must be 1 to {SIZE_GB_MAX}"))),
    }
}

pub(super) fn retention(days: Option<u32>) -> Result<(), VolumeRefused> {
    match days {
        Some(days) if !(1..=RETENTION_DAYS_MAX).contains(&days) => {
            let rule = format!("must be 1 to {RETENTION_DAYS_MAX} days");
            Err(invalid("snapshot_retention", rule))
        }
        Some(_) | None => Ok(()),
    }
}

/// The volume as it was asked for, and the size if one was named.
pub(super) fn draft(
    new: NewVolume,
    id: VolumeId,
    region: &str,
    now: Timestamp,
) -> Result<(Volume, Option<u64>), VolumeRefused> {
    body(&new.body)?;
    let CreateVolume {
        name,
        size_gb,
        snapshot_id,
        source_volume_id,
        snapshot_retention,
        auto_backup_enabled,
        ..
    } = new.body;
    let state = match (snapshot_id, source_volume_id) {
        (Some(snapshot), _) => State::Restoring { snapshot },
        (None, Some(source)) => State::Hydrating { source },
        (None, None) => State::Creating,
    };
    let volume = Volume {
        id,
        app: new.app,
        org: new.org,
        network: new.network,
        name,
        region: region.into(),
        size_gb: size_gb.unwrap_or(SIZE_GB_DEFAULT),
        made_gb: 0,
        state,
        created_at: now,
        updated_at: now,
        snapshot_retention: snapshot_retention.unwrap_or(RETENTION_DAYS_DEFAULT),
        auto_backup: auto_backup_enabled.unwrap_or(true),
        creation_key: new.creation_key,
    };
    Ok((volume, size_gb))
}

/// The draft, if what it is made from is there, belongs to the same app and fits. Where no size was
/// named it is as large as that. Of the same app, because a token may be good for one app only, and
/// the host that asks has not looked at what another app has.
pub(super) fn source(
    db: &Connection,
    mut draft: Volume,
    asked_gb: Option<u64>,
) -> Result<Volume, TableError> {
    let (field, least_gb) = match &draft.state {
        State::Restoring { snapshot } => {
            let found = tables::snapshot(db, snapshot)?;
            if (&found.org, &found.app) != (&draft.org, &draft.app) {
                let id = snapshot.clone();
                return Err(VolumeRefused::NoSnapshot { id }.into());
            }
            if found.status == SnapshotStatus::Waiting {
                let id = found.volume;
                return Err(VolumeRefused::Copying { id }.into());
            }
            ("snapshot", found.volume_gb)
        }
        State::Hydrating { source } => {
            let (found, _) = tables::volume(db, source)?;
            if (&found.org, &found.app) != (&draft.org, &draft.app) {
                let id = source.clone();
                return Err(VolumeRefused::NotFound { id }.into());
            }
            found.settled("fork")?;
            ("source volume", found.made_gb)
        }
        State::Creating
        | State::Created
        | State::Extending
        | State::Destroying
        | State::Destroyed => return Ok(draft),
    };
    draft.size_gb = asked_gb.unwrap_or(least_gb);
    if draft.size_gb < least_gb {
        let rule = format!("must be at least the {least_gb} GB of the {field}");
        return Err(invalid("size_gb", rule).into());
    }
    Ok(draft)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(json: &str) -> String {
        let body: CreateVolume = serde_json::from_str(json).unwrap();
        super::body(&body).unwrap_err().to_string()
    }

    #[test]
    fn a_refusal_names_the_member_and_what_is_allowed() {
        assert!(refused(r#"{"name":"Data"}"#).starts_with("name must be 1 to 63"));
        assert_eq!(
            refused(r#"{"name":"a","fstype":"raw"}"#),
            "fstype must be ext4"
        );
        assert_eq!(
            refused(r#"{"name":"a","size_gb":0}"#),
            "size_gb must be 1 to 16000"
        );
        let retention = refused(r#"{"name":"a","snapshot_retention":61}"#);
        assert_eq!(retention, "snapshot_retention must be 1 to 60 days");
        let both = r#"{"name":"a","snapshot_id":"vs_0002000000000000",
            "source_volume_id":"vol_0002000000000000"}"#;
        assert!(refused(both).contains("cannot stand beside"));
    }

    #[test]
    fn what_fly_s_client_sends_for_a_new_volume_is_taken() {
        let fly = r#"{"name":"data","region":"local","size_gb":3,"encrypted":true,
            "require_unique_zone":true,"snapshot_id":null,"source_volume_id":null,
            "snapshot_retention":5,"auto_backup_enabled":true,"fstype":"ext4",
            "compute":{"cpu_kind":"shared"},"compute_image":""}"#;
        let body: CreateVolume = serde_json::from_str(fly).unwrap();
        super::body(&body).unwrap();
    }
}
