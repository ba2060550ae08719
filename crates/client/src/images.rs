//! Images on this host.

use hyper::Method;
use types::api::{Image, ImageList, ImportImage, PruneImages, PrunedImages, PullEvent, PullImage};

use crate::transport::Call;
use crate::watch::{Lines, parse};
use crate::{Client, Error};

/// A pull that goes on. Dropping it does not stop the pull.
#[derive(Debug)]
pub struct Pull {
    client: Client,
    lines: Lines,
}

impl Pull {
    /// The next event; the last one is [`PullEvent::Image`] or [`PullEvent::Failed`].
    pub async fn next(&mut self) -> Option<Result<PullEvent, Error>> {
        let line = self.lines.next().await?;
        Some(parse(&self.client, "the pull", line))
    }
}

impl Client {
    pub async fn images(&self) -> Result<Vec<Image>, Error> {
        let list: ImageList = self.json(&Call::get("/v1/images".into())).await?;
        Ok(list.images)
    }

    /// Fetches an image from its registry, with progress.
    pub async fn pull_image(&self, body: &PullImage) -> Result<Pull, Error> {
        let call = Call::post("/v1/images".into()).body(body);
        let response = self.send(&call).await?;
        Ok(Pull {
            client: self.clone(),
            lines: Lines::new(response.into_body()),
        })
    }

    /// Removes the images that no machine uses.
    pub async fn prune_images(&self, body: &PruneImages) -> Result<PrunedImages, Error> {
        self.json(&Call::post("/v1/images/prune".into()).body(body))
            .await
    }

    /// Takes an OCI layout or a `docker save` archive from the API's own host.
    pub async fn import_image(&self, body: &ImportImage) -> Result<Image, Error> {
        // Building the read-only image of a large layout takes minutes on a slow disk.
        let call =
            Call::post("/v1/images/import".into()).timeout(std::time::Duration::from_secs(900));
        self.json(&call.body(body)).await
    }

    pub async fn remove_image(&self, reference: &str) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, "/v1/images".into()).query("reference", reference);
        self.send(&call).await.map(drop)
    }
}
