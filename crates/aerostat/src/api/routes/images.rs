//! Images of the host that is asked.

use types::api::{
    Image, ImageList, ImportImage, Ok as Done, PruneImages, PrunedImages, PullEvent, PullImage,
};

use super::super::images;
use super::route::{Limit, Route, delete, get, post};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get("/v1/images", "Images", images::list).gives::<ImageList>(),
        post(
            "/v1/images",
            "Pulls an image, and tells how far it is",
            images::pull,
        )
        .takes::<PullImage>()
        .streams::<PullEvent>(),
        delete("/v1/images", "Removes an image", images::remove)
            .query(&[("reference", "Its name")])
            .gives::<Done>(),
        post(
            "/v1/images/import",
            "Takes an OCI layout or a docker save archive from the host's disk",
            images::import,
        )
        .takes::<ImportImage>()
        .gives::<Image>()
        .limit(Limit::Transfer),
        post(
            "/v1/images/prune",
            "Removes what no machine uses",
            images::prune,
        )
        .takes::<PruneImages>()
        .gives::<PrunedImages>()
        .limit(Limit::Transfer),
    ]
}
