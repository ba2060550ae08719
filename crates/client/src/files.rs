//! Files into and out of a container, as tar archives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use hyper::body::{Body, Incoming};
use hyper::{Method, Response};
use types::{AppName, MachineId};

use crate::machines::path;
use crate::transport::Call;
use crate::{Client, Error};

/// The archive is unpacked as it comes, and the answer says how that went.
const PUT_TIMEOUT: Duration = Duration::from_secs(3600);

/// A tar archive as it comes. Dropping it ends the packing.
///
/// An error is the last item. An archive that lacks its end was cut off without one.
#[derive(Debug)]
pub struct Archive {
    client: Client,
    body: Option<Incoming>,
}

impl Archive {
    pub(crate) fn new(client: &Client, response: Response<Incoming>) -> Self {
        Self {
            client: client.clone(),
            body: Some(response.into_body()),
        }
    }
}

impl Client {
    /// Packs a file or directory of a container (by default the first).
    pub async fn get_files(
        &self,
        app: &AppName,
        id: &MachineId,
        container: Option<&str>,
        file: &str,
    ) -> Result<Archive, Error> {
        let call = call(Method::GET, app, id, container, file);
        let response = self.send(&call).await?;
        Ok(Archive::new(self, response))
    }

    /// Unpacks a tar archive under a directory of a container (by default the first). Returns when
    /// everything is there.
    pub async fn put_files(
        &self,
        app: &AppName,
        id: &MachineId,
        container: Option<&str>,
        directory: &str,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), Error> {
        let call = call(Method::PUT, app, id, container, directory)
            .header("content-type", "application/x-tar")
            .timeout(PUT_TIMEOUT);
        self.send_stream(&call, archive).await.map(drop)
    }
}

fn call(
    method: Method,
    app: &AppName,
    id: &MachineId,
    container: Option<&str>,
    file: &str,
) -> Call {
    Call::new(method, format!("{}/files", path(app, id)))
        .query("path", file)
        .query_if("container", container)
}

impl Archive {
    /// The next piece. May be dropped at any point; nothing is lost.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        StreamExt::next(self).await
    }
}

impl Stream for Archive {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let Some(body) = self.body.as_mut() else {
                return Poll::Ready(None);
            };
            match ready!(Pin::new(body).poll_frame(context)) {
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Some(Err(source)) => {
                    self.body = None;
                    return Poll::Ready(Some(Err(Error::Broken {
                        address: self.client.address(),
                        source,
                    })));
                }
                None => self.body = None,
            }
        }
    }
}
