//! Kubernetes clusters.

use hyper::Method;
use types::cluster::{Cluster, ClusterList, ClusterName, CreateCluster, RotateKeys, RotatedKeys};

use crate::transport::Call;
use crate::{Archive, Client, Error};

impl Client {
    /// The clusters of the host, by name.
    pub async fn clusters(&self) -> Result<ClusterList, Error> {
        self.json(&Call::get("/v1/clusters".into())).await
    }

    /// Makes a cluster; it answers when this returns.
    pub async fn create_cluster(&self, body: &CreateCluster) -> Result<Cluster, Error> {
        self.json(&Call::post("/v1/clusters".into()).body(body))
            .await
    }

    /// Deletes a cluster with its pods and all its data.
    pub async fn delete_cluster(&self, name: &ClusterName) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, format!("/v1/clusters/{name}"));
        self.send(&call).await.map(drop)
    }

    /// Makes new keys of a running cluster, or takes the old ones away.
    pub async fn rotate_cluster_keys(
        &self,
        name: &ClusterName,
        body: &RotateKeys,
    ) -> Result<RotatedKeys, Error> {
        let call = Call::post(format!("/v1/clusters/{name}/keys")).body(body);
        self.json(&call).await
    }

    /// The kubeconfig of a cluster's administrator.
    pub async fn kubeconfig(&self, name: &ClusterName) -> Result<String, Error> {
        let call = Call::get(format!("/v1/clusters/{name}/kubeconfig"));
        let response = self.send(&call).await?;
        let body = self.collect(&call, response).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// A backup of a cluster while it goes on: a tar archive with its state and its keys.
    pub async fn back_up_cluster(&self, name: &ClusterName) -> Result<Archive, Error> {
        let call = Call::get(format!("/v1/clusters/{name}/backup"));
        let response = self.send(&call).await?;
        Ok(Archive::new(self, response))
    }
}
