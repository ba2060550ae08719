//! Volumes that a machine is to mount by name: a free one of that name, or a new one.

use client::Client;
use types::machine::MachineConfig;
use types::volume::{CreateVolume, Volume, VolumeState};
use types::{AppName, VolumeId};

/// Puts the ids of volumes in place of their names. All volumes of a machine are on one host, so
/// one that is beside the first is preferred.
pub(super) async fn find_volumes(
    client: &Client,
    app: &AppName,
    region: &str,
    config: &mut MachineConfig,
) -> anyhow::Result<()> {
    let is_id = |text: &str| text.parse::<VolumeId>().is_ok();
    if config.mounts.iter().all(|mount| is_id(&mount.volume)) {
        return Ok(());
    }
    let mut known = client.volumes(app).await?.volumes;
    for index in 0..config.mounts.len() {
        let name = config.mounts[index].volume.clone();
        if is_id(&name) {
            continue;
        }
        let taken: Vec<&str> = config.mounts.iter().map(|m| m.volume.as_str()).collect();
        let volume = match pick(&known, &name, region, &taken) {
            Some(free) => free.clone(),
            None => {
                let body = CreateVolume {
                    name: name.clone(),
                    region: region.to_owned(),
                    ..CreateVolume::default()
                };
                let made = client.create_volume(app, &body).await?;
                eprintln!("volume {name} ({}) of {} GB created", made.id, made.size_gb);
                known.push(made.clone());
                made
            }
        };
        let mount = &mut config.mounts[index];
        mount.volume = volume.id.to_string();
        mount.name = name;
    }
    Ok(())
}

/// A volume of this name that no machine has, and none of the `taken` ones. Pure.
fn pick<'a>(known: &'a [Volume], name: &str, region: &str, taken: &[&str]) -> Option<&'a Volume> {
    let is_taken = |volume: &Volume| taken.contains(&volume.id.as_str());
    let beside = known.iter().find(|volume| is_taken(volume));
    let beside = beside.map(|volume| volume.zone.as_str());
    let free = known.iter().filter(|volume| {
        volume.name == name
            && volume.state == VolumeState::Created
            && volume.attached_machine_id.is_none()
            && (region.is_empty() || volume.region == region)
            && !is_taken(volume)
    });
    free.min_by_key(|volume| beside.is_some_and(|zone| zone != volume.zone))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn volume(id: &str, name: &str, zone: &str, machine: Option<&str>) -> Volume {
        serde_json::from_value(json!({
            "id": id, "name": name, "state": "created", "size_gb": 1, "region": "fra",
            "zone": zone, "encrypted": false, "fstype": "ext4", "attached_machine_id": machine,
            "created_at": "2026-01-01T00:00:00Z", "host_status": "ok", "snapshot_retention": 5,
            "auto_backup_enabled": true, "block_size": 0, "blocks": 0, "blocks_free": 0,
            "blocks_avail": 0, "bytes_used": 0, "bytes_total": 0,
        }))
        .unwrap()
    }

    #[test]
    fn a_free_volume_of_the_name_is_picked_beside_those_of_the_machine() {
        let [one, two, three, four] = [1, 2, 3, 4].map(|n| format!("vol_000200000000000{n}"));
        let known = [
            volume(&one, "data", "0002", Some("0123456789abcd")),
            volume(&two, "data", "0002", None),
            volume(&three, "data", "0003", None),
            volume(&four, "logs", "0003", None),
        ];
        let pick = |name: &str, region: &str, taken: &[&str]| {
            pick(&known, name, region, taken).map(|volume| volume.id.to_string())
        };
        assert_eq!(pick("data", "", &[]), Some(two.clone()));
        assert_eq!(pick("data", "fra", &[&two]), Some(three.clone()));
        assert_eq!(pick("data", "", &[&four]), Some(three.clone()));
        assert_eq!(pick("data", "", &[&two, &three]), None);
        assert_eq!(pick("data", "ams", &[]), None);
        assert_eq!(pick("other", "", &[]), None);
    }
}
