//! Questions to a guest, and files to and from it: streams that are no process's.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::timeout;
use types::api::ProcessStat;
use types::guest::{FRAME_BYTES_MAX, FrameKind, Open, Statistics};

use super::{Connection, Input, Output};
use crate::wire::{WireError, read_frame};

/// A guest reads a few hundred small files for an answer, and may be busy.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Connection {
    /// The machine's processes, as many as fit into one answer.
    ///
    /// # Errors
    /// If the guest does not answer, or cannot.
    pub async fn processes(&self) -> Result<Vec<ProcessStat>, WireError> {
        self.ask(&Open::Processes).await
    }

    /// What the machine uses.
    ///
    /// # Errors
    /// If the guest does not answer, or cannot.
    pub async fn statistics(&self) -> Result<Statistics, WireError> {
        self.ask(&Open::Statistics).await
    }

    /// Unpacks the archive on standard input under a directory of a container. The end is as that
    /// of a process; nothing comes before it.
    ///
    /// # Errors
    /// If no stream can be opened.
    pub async fn put_files(
        &self,
        container: &str,
        path: &str,
    ) -> Result<(Input, Output), WireError> {
        let (container, path) = (container.to_owned(), path.to_owned());
        self.streams(&Open::PutFiles { container, path }).await
    }

    /// Packs a file or directory of a container to standard output.
    ///
    /// # Errors
    /// If no stream can be opened.
    pub async fn get_files(
        &self,
        container: &str,
        path: &str,
    ) -> Result<(Input, Output), WireError> {
        let (container, path) = (container.to_owned(), path.to_owned());
        self.streams(&Open::GetFiles { container, path }).await
    }

    /// Lets a volume stand still: standard output tells that it does, and its end that it did until
    /// standard input was closed. Guests of version 1 end the stream.
    ///
    /// # Errors
    /// If no stream can be opened.
    pub async fn freeze(&self, volume: &str) -> Result<(Input, Output), WireError> {
        let volume = volume.to_owned();
        self.streams(&Open::Freeze { volume }).await
    }

    /// Lets the file system of a volume take up its disk, which has `bytes` now.
    ///
    /// # Errors
    /// If the guest does not answer, or cannot; those of version 1 end the stream.
    pub async fn grow(&self, volume: &str, bytes: u64) -> Result<(), WireError> {
        let volume = volume.to_owned();
        self.ask(&Open::Grow { volume, bytes }).await
    }

    async fn ask<T: DeserializeOwned>(&self, open: &Open) -> Result<T, WireError> {
        let exchange = async {
            let (mut reader, _writer, _lease) = self.open(open).await?;
            read_frame(&mut reader, FRAME_BYTES_MAX).await
        };
        let frame = timeout(ANSWER_TIMEOUT, exchange).await;
        let frame = frame.map_err(|_| WireError::Silent)??;
        let frame = frame.ok_or(WireError::Closed)?;
        if frame.kind != FrameKind::Message {
            return Err(WireError::Unexpected { kind: frame.kind });
        }
        let answer = frame.parse::<Result<T, String>>();
        let answer = answer.map_err(|source| WireError::Malformed { source })?;
        answer.map_err(|reason| WireError::Refused { reason })
    }
}
