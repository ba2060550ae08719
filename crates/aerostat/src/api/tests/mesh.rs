//! The mesh as the API tells of it.

use types::HostId;

use super::fixture::server;

#[tokio::test]
async fn the_mesh_tells_how_it_sees_the_other_hosts() {
    let server = server().await;
    let mesh = server.client.mesh().await.unwrap();
    assert_eq!((mesh.host, mesh.port), (HostId::new(2), 51821));
    assert_eq!(mesh.drops["foreign_source"], 3);
}
