//! Suspension and restoration of a QEMU: its own migration, to a file and back.
//!
//! QEMU gets the file as a descriptor, since the user it runs as may not open it. The machine
//! stands still while it is saved, so one pass over its memory is enough.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::info;

use super::argv::Accelerator;
use super::qmp::{Qmp, QmpError};
use super::{Failure, Vm, describe};
use crate::hold::{self, Point};
use crate::paths::Paths;
use crate::suspended::{About, Suspended};
use crate::{BootSpec, VmmError};

const MEMORY: &str = "memory";
/// QEMU's default of 128 MiB/s is meant for networks.
const BANDWIDTH_BYTES_PER_S: u64 = 1 << 40;
const POLL: Duration = Duration::from_millis(3);
/// A machine that is saved more slowly than this has a disk that does not work.
const SAVE_MIB_PER_S_MIN: u64 = 16;
const SAVE_TIMEOUT_MIN: Duration = Duration::from_secs(60);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(20);
/// From the end of QEMU's monitor to that of its process.
const END_TIMEOUT: Duration = Duration::from_secs(1);

impl Vm {
    /// Lets the machine stand still. It is saved next, or killed.
    pub(crate) async fn pause(&mut self) -> Result<(), Failure> {
        let stop = timeout(COMMAND_TIMEOUT, self.qmp.execute("stop", json!({})));
        stop.await.map_err(|_| "QEMU does not stop the machine")??;
        hold::at(&self.dir, Point::Paused).await;
        Ok(())
    }

    /// Lets the machine see the new size of a disk.
    pub(crate) async fn resize(&mut self, disk: &str, bytes: u64) -> Result<(), Failure> {
        let size = json!({ "node-name": disk, "size": bytes });
        let resized = timeout(COMMAND_TIMEOUT, self.qmp.execute("block_resize", size)).await;
        resized.map_err(|_| "QEMU does not resize the disk")??;
        Ok(())
    }

    /// Writes what is needed to go on later. When this returns it is on disk, and the machine
    /// must not go on here.
    pub(crate) async fn save(&mut self, paths: &Paths, boot: &BootSpec) -> Result<(), Failure> {
        let suspended = paths.suspended(&boot.machine);
        let about = self.about(boot).await?;
        let unfinished = suspended.begin()?;
        let memory = unfinished.create(MEMORY)?;
        let limit = u64::from(boot.guest.memory_mb) / SAVE_MIB_PER_S_MIN;
        let limit = SAVE_TIMEOUT_MIN + Duration::from_secs(limit);
        let qmp = &mut self.qmp;
        let saved = timeout(limit, send_memory(qmp, &memory)).await;
        let saved = saved.map_err(|_| format!("the machine was not saved within {limit:?}"))?;
        self.explain(saved).await?;
        hold::at(&self.dir, Point::Saved).await;
        let disks = paths.disks(boot);
        spawn_blocking(move || unfinished.complete(about, &disks)).await??;
        hold::at(&self.dir, Point::Completed).await;
        Ok(())
    }

    /// Goes on from what was saved, which from then on is nobody else's.
    pub(super) async fn restore(
        &mut self,
        suspended: &Suspended,
        saved: &About,
        boot: &BootSpec,
    ) -> Result<(), Failure> {
        saved.fits(&self.about(boot).await?)?;
        let path = suspended.file(MEMORY);
        let memory = File::open(&path).map_err(VmmError::file("open", &path))?;
        let received = receive_memory(&mut self.qmp, &memory).await;
        self.explain(received).await?;
        hold::at(&self.dir, Point::Loaded).await;
        suspended.use_up()?;
        hold::at(&self.dir, Point::Taken).await;
        self.qmp.execute("cont", json!({})).await?;
        info!("machine goes on");
        hold::at(&self.dir, Point::Continued).await;
        Ok(())
    }

    /// Says what became of QEMU, if that is why something failed.
    async fn explain(&mut self, result: Result<(), Failure>) -> Result<(), Failure> {
        let Err(error) = result else { return Ok(()) };
        match timeout(END_TIMEOUT, self.qemu.wait()).await {
            Ok(Ok(status)) => Err(format!("{error}: {}", describe(status)).into()),
            Ok(Err(_)) | Err(_) => Err(error),
        }
    }

    async fn about(&mut self, boot: &BootSpec) -> Result<About, Failure> {
        let version = timeout(COMMAND_TIMEOUT, self.qmp.version());
        let version = version
            .await
            .map_err(|_| "QEMU does not say its version")??;
        let accelerator = match self.accelerator {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg",
        };
        let machine_type = format!("q35 {accelerator}");
        Ok(About::new(boot, format!("QEMU {version}"), machine_type))
    }
}

/// Hands `file` to QEMU and returns the name under which its migration knows it.
async fn hand_over(qmp: &mut Qmp, file: &File) -> Result<String, QmpError> {
    if qmp.version().await?.saves_to_files() {
        let set = qmp.execute_with("add-fd", json!({}), file.as_fd()).await?;
        return Ok(format!("file:/dev/fdset/{}", set["fdset-id"]));
    }
    let name = json!({ "fdname": MEMORY });
    qmp.execute_with("getfd", name, file.as_fd()).await?;
    Ok(format!("fd:{MEMORY}"))
}

async fn send_memory(qmp: &mut Qmp, file: &File) -> Result<(), Failure> {
    let parameters = json!({ "max-bandwidth": BANDWIDTH_BYTES_PER_S });
    qmp.execute("migrate-set-parameters", parameters).await?;
    let uri = hand_over(qmp, file).await?;
    qmp.execute("migrate", json!({ "uri": uri })).await?;
    until(qmp, "query-migrate", |answer| {
        let status = answer["status"].as_str().unwrap_or("");
        match status {
            "completed" => Ok(true),
            "failed" | "cancelled" => {
                let reason = answer["error-desc"].as_str().unwrap_or("no reason given");
                Err(format!("QEMU could not save the machine: {reason}").into())
            }
            _ => Ok(false),
        }
    })
    .await
}

async fn receive_memory(qmp: &mut Qmp, file: &File) -> Result<(), Failure> {
    let uri = hand_over(qmp, file).await?;
    qmp.execute("migrate-incoming", json!({ "uri": uri }))
        .await?;
    until(qmp, "query-status", |answer| {
        let status = answer["status"].as_str().unwrap_or("");
        match status {
            "inmigrate" => Ok(false),
            "paused" | "prelaunch" => Ok(true),
            _ => Err(format!("the machine that was saved is `{status}`").into()),
        }
    })
    .await
}

async fn until(
    qmp: &mut Qmp,
    query: &str,
    done: impl Fn(&Value) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    while !done(&qmp.execute(query, json!({})).await?)? {
        sleep(POLL).await;
    }
    Ok(())
}
