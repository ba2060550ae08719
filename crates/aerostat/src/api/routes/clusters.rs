//! Kubernetes clusters.

use types::api::Ok as Done;
use types::cluster::{Cluster, ClusterList, CreateCluster, RotateKeys, RotatedKeys};

use super::super::clusters;
use super::super::files::TAR;
use super::route::{Route, delete, get, post};

pub(super) fn routes() -> Vec<Route> {
    vec![
        get(
            "/v1/clusters",
            "Kubernetes clusters of this host, by name",
            clusters::list,
        )
        .gives::<ClusterList>(),
        post(
            "/v1/clusters",
            "Makes a cluster, with an app and a network for its pods",
            clusters::create,
        )
        .takes::<CreateCluster>()
        .creates::<Cluster>(),
        get("/v1/clusters/{name}", "A cluster", clusters::get).gives::<Cluster>(),
        delete(
            "/v1/clusters/{name}",
            "Deletes a cluster with its pods and its data",
            clusters::delete,
        )
        .gives::<Done>(),
        post(
            "/v1/clusters/{name}/keys",
            "Makes new keys of a running cluster, or takes the old ones away",
            clusters::rotate,
        )
        .takes::<RotateKeys>()
        .gives::<RotatedKeys>(),
        get(
            "/v1/clusters/{name}/kubeconfig",
            "The kubeconfig of the cluster's administrator",
            clusters::kubeconfig,
        )
        .gives_media("application/yaml"),
        get(
            "/v1/clusters/{name}/backup",
            "State and keys of a cluster as they are now",
            clusters::back_up,
        )
        .gives_media(TAR),
    ]
}
