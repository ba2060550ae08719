//! Volumes and their snapshots.

use types::volume::{
    CreateVolume, ExtendVolume, ExtendedVolume, OrgVolumeList, UpdateVolume, Volume, VolumeSnapshot,
};

use super::super::volumes;
use super::route::{Route, delete, get, post, put};

pub(super) fn routes() -> Vec<Route> {
    lists().into_iter().chain(one()).collect()
}

fn lists() -> Vec<Route> {
    vec![
        get(
            "/v1/apps/{app}/volumes",
            "Volumes of an app, by name; hosts that did not answer are named in a header",
            volumes::list,
        )
        .query(&[("summary", "Without what their file systems say")])
        .gives::<Vec<Volume>>(),
        post(
            "/v1/apps/{app}/volumes",
            "Creates a volume: empty, from a snapshot, or as a fork of another",
            volumes::create,
        )
        .takes::<CreateVolume>()
        .gives::<Volume>(),
        get(
            "/v1/orgs/{org}/volumes",
            "Volumes of an organisation, those first that changed longest ago",
            volumes::list_of_org,
        )
        .query(&[
            ("region", "Only of this region"),
            (
                "state",
                "Only these states; repeated, or separated by commas",
            ),
            ("include_deleted", "Also destroyed ones that have snapshots"),
            ("summary", "Without what their file systems say"),
            ("updated_after", "Only those that changed after this time"),
            ("cursor", "`next_cursor` of the page before"),
            ("limit", "Volumes on one page, at most 1000"),
        ])
        .gives::<OrgVolumeList>(),
    ]
}

fn one() -> Vec<Route> {
    vec![
        get("/v1/apps/{app}/volumes/{id}", "A volume", volumes::get).gives::<Volume>(),
        put(
            "/v1/apps/{app}/volumes/{id}",
            "Changes when snapshots are taken and how long they are kept",
            volumes::update,
        )
        .takes::<UpdateVolume>()
        .gives::<Volume>(),
        post(
            "/v1/apps/{app}/volumes/{id}",
            "As PUT, for older clients",
            volumes::update,
        )
        .takes::<UpdateVolume>()
        .gives::<Volume>(),
        delete(
            "/v1/apps/{app}/volumes/{id}",
            "Deletes a volume that no machine has; its snapshots are kept",
            volumes::destroy,
        )
        .gives::<Volume>(),
        put(
            "/v1/apps/{app}/volumes/{id}/extend",
            "Lets a volume grow",
            volumes::extend,
        )
        .takes::<ExtendVolume>()
        .gives::<ExtendedVolume>(),
        get(
            "/v1/apps/{app}/volumes/{id}/snapshots",
            "Snapshots of a volume, oldest first",
            volumes::snapshots,
        )
        .gives::<Vec<VolumeSnapshot>>(),
        post(
            "/v1/apps/{app}/volumes/{id}/snapshots",
            "Takes a snapshot",
            volumes::snapshot,
        )
        .gives::<VolumeSnapshot>(),
    ]
}
