//! How a driver performs effects: each as a task that ends in one [`Done`].

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, warn};
use types::{BootId, ImageRef};
use vmm::{BootSpec, Report, Vmm, VmmError};

use super::super::crash::{self, Moment};
use super::super::host::Host;
use super::super::machine::{Effect, Event, Machine};
use super::super::ports::{Images, Network, ReadyImage};
use super::super::secrets;
use super::super::spec::{boot_spec, check_commands, mount_volumes};
use super::Driver;

/// Beginning of the reason why an image could not be had, in `containers[].message`.
const IMAGE_FAILED: &str = "cannot get image";

/// A stop is a message to the shim; one that does not take it has until the kill deadline.
const SIGNAL_TIMEOUT: Duration = Duration::from_secs(5);

/// Time for the shim to begin to save a machine.
const SUSPEND_TIMEOUT: Duration = Duration::from_secs(10);

/// First and longest pause between tries of what has to succeed (removing what is left).
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Tries to reach a shim that is there before it counts as gone.
const ADOPT_TRIES: u32 = 5;

/// What kind of effect is going on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// May be abandoned.
    Prepare,
    Other,
}

/// How an effect ended.
pub(super) enum Done {
    Nothing,
    Event(Event),
    Prepared {
        boot: BootId,
        images: Vec<ReadyImage>,
    },
    Listening {
        boot: BootId,
        reports: mpsc::Receiver<Report>,
    },
}

type Begun = Option<(Work, AbortOnDropHandle<Done>)>;

impl<V: Vmm, N: Network, I: Images> Driver<V, N, I> {
    /// Begins an effect; `None` if it is done at once.
    pub(super) fn begin(&mut self, effect: Effect) -> Begun {
        let (host, machine) = (Arc::clone(&self.host), self.machine.clone());
        match effect {
            // Recorded, or taken out of the queue, when they were decided.
            Effect::Record(_) | Effect::Retire(_) | Effect::Abandon => None,
            Effect::Prepare { boot } => {
                let progress = self.progress.0.clone();
                spawn(Work::Prepare, prepare(host, machine, boot, progress))
            }
            Effect::Boot { boot } => {
                let images = std::mem::take(&mut self.images);
                spawn(Work::Other, start(host, machine, boot, images))
            }
            Effect::Adopt { boot, after } => spawn(Work::Other, listen(host, machine, boot, after)),
            Effect::Signal {
                boot,
                signal,
                grace,
            } => spawn(Work::Other, async move {
                crash::point("signal", Moment::Before);
                let stop = host.vmm.stop(&machine.id, boot, signal, grace);
                match tokio::time::timeout(SIGNAL_TIMEOUT, stop).await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        warn!(error = %types::chain(&error), "cannot ask machine to stop")
                    }
                    Err(_) => warn!("machine does not take the request to stop"),
                }
                crash::point("signal", Moment::After);
                Done::Nothing
            }),
            Effect::Suspend { boot } => spawn(Work::Other, suspend(host, machine, boot)),
            Effect::Discard { boot } => spawn(Work::Other, async move {
                crash::point("discard", Moment::Before);
                until_done("cannot delete a machine's saved memory", || {
                    host.vmm.discard_suspended(&machine.id)
                })
                .await;
                crash::point("discard", Moment::After);
                Done::Event(Event::Discarded { boot })
            }),
            Effect::Clear { boot } => {
                self.reports = None;
                spawn(Work::Other, async move {
                    crash::point("clear", Moment::Before);
                    until_done("cannot remove what is left of a boot", || {
                        host.vmm.kill(&machine.id, boot)
                    })
                    .await;
                    crash::point("clear", Moment::Between);
                    detach(&host, &machine).await;
                    crash::point("clear", Moment::After);
                    host.core.volumes.hand_back(&machine).await;
                    Done::Event(Event::Cleared { boot })
                })
            }
            Effect::Forget => spawn(Work::Other, async move {
                crash::point("forget", Moment::Before);
                detach(&host, &machine).await;
                crash::point("forget", Moment::Between);
                until_done("cannot delete what a machine keeps", || {
                    host.vmm.forget(&machine.id)
                })
                .await;
                crash::point("forget", Moment::After);
                Done::Event(Event::Forgotten)
            }),
        }
    }
}

fn spawn(work: Work, effect: impl Future<Output = Done> + Send + 'static) -> Begun {
    let task = tokio::spawn(effect.in_current_span());
    Some((work, AbortOnDropHandle::new(task)))
}

async fn detach<V: Vmm, N: Network, I: Images>(host: &Host<V, N, I>, machine: &Machine) {
    let field = machine.allocation.field;
    until_done("cannot remove a machine's link", || {
        host.network.detach(field)
    })
    .await;
}

/// Tries until it succeeds: what is left behind must not stay.
async fn until_done<F, E>(trouble: &'static str, mut attempt: impl FnMut() -> F)
where
    F: Future<Output = Result<(), E>>,
    E: std::error::Error,
{
    let mut pause = RETRY_MIN;
    while let Err(error) = attempt().await {
        warn!(error = %types::chain(&error), trouble, "trying again");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Makes every container's image ready, one after the other.
async fn prepare<V: Vmm, N: Network, I: Images>(
    host: Arc<Host<V, N, I>>,
    machine: Machine,
    boot: BootId,
    progress: mpsc::Sender<Event>,
) -> Done {
    crash::point("prepare", Moment::Before);
    let mut images = Vec::new();
    for container in machine.config.containers() {
        let image: Result<ImageRef, _> = container.image.parse();
        let resolved = match image {
            Ok(image) => {
                if !host.images.present(&image).await {
                    let container = container.name.clone();
                    let image = image.to_string();
                    // The driver holds the other end for as long as it holds this task.
                    let _ = progress
                        .send(Event::Pulling {
                            boot,
                            container,
                            image,
                        })
                        .await;
                }
                let resolved = host.images.resolve(&image).await;
                resolved
                    .map_err(|error| format!("{IMAGE_FAILED} {image}: {}", types::chain(&error)))
            }
            Err(error) => Err(error.to_string()),
        };
        match resolved {
            Ok(image) => images.push(image),
            Err(reason) => {
                let container = container.name;
                return Done::Event(Event::Unprepared {
                    boot,
                    container,
                    reason,
                });
            }
        }
    }
    if let Err(error) = check_commands(&machine, &images) {
        let reason = error.to_string();
        return Done::Event(Event::Unprepared {
            boot,
            container: error.container,
            reason,
        });
    }
    crash::point("prepare", Moment::After);
    Done::Prepared { boot, images }
}

/// Asks for the machine's memory to be saved; its last report tells that it was.
async fn suspend<V: Vmm, N: Network, I: Images>(
    host: Arc<Host<V, N, I>>,
    machine: Machine,
    boot: BootId,
) -> Done {
    crash::point("suspend", Moment::Before);
    let asked = tokio::time::timeout(SUSPEND_TIMEOUT, host.vmm.suspend(&machine.id, boot)).await;
    crash::point("suspend", Moment::After);
    match asked {
        // It is over, and its reports tell how it ended.
        Ok(Ok(()) | Err(VmmError::Gone { .. })) => Done::Nothing,
        Ok(Err(error)) => Done::Event(Event::SuspendRefused {
            boot,
            reason: types::chain(&error),
        }),
        Err(_) => Done::Event(Event::SuspendRefused {
            boot,
            reason: "the machine does not take the request".into(),
        }),
    }
}

/// Attaches the machine and starts its body.
async fn start<V: Vmm, N: Network, I: Images>(
    host: Arc<Host<V, N, I>>,
    machine: Machine,
    boot: BootId,
    images: Vec<ReadyImage>,
) -> Done {
    let refused = |reason: String| Done::Event(Event::BootRefused { boot, reason });
    let link = host
        .network
        .link(machine.address.0, machine.allocation, machine.isolation);
    let unix_ms = Timestamp::now().as_millisecond();
    let settings = host.core.spec_settings();
    let mut spec = match boot_spec(&machine, boot, &images, link, settings, unix_ms) {
        Ok(spec) => spec,
        Err(error) => return refused(error.to_string()),
    };
    // A resumed guest goes on with file systems of the size that it knows.
    let volumes = match host.core.volumes.ready(&machine, !spec.resume).await {
        Ok(volumes) => volumes,
        Err(error) => return refused(types::chain(&error)),
    };
    if let Err(error) = mount_volumes(&machine.config, &volumes, &mut spec.spec) {
        return refused(error.to_string());
    }
    if let Err(reason) = give_secrets(&host, &machine, &mut spec).await {
        return refused(reason);
    }
    // Its shim gets ready while the link is made.
    if let Err(error) = host.vmm.prepare(spec.clone()).await {
        return refused(types::chain(&error));
    }
    crash::point("attach", Moment::Before);
    let attached = host
        .network
        .attach(machine.address.0, machine.allocation, machine.isolation)
        .await;
    crash::point("attach", Moment::After);
    if let Err(error) = attached {
        let error = types::chain(&error);
        return refused(format!("cannot attach the network: {error}"));
    }
    crash::point("boot", Moment::Before);
    if let Err(error) = host.vmm.boot(spec).await {
        return refused(types::chain(&error));
    }
    crash::point("boot", Moment::After);
    listen(host, machine, boot, 0).await
}

/// Puts the app's secrets into `spec`. One that goes on where it stood has them in its memory.
async fn give_secrets<V: Vmm, N: Network, I: Images>(
    host: &Host<V, N, I>,
    machine: &Machine,
    spec: &mut BootSpec,
) -> Result<(), String> {
    if spec.resume || !secrets::are_needed(machine) {
        return Ok(());
    }
    let min_version = machine.secrets.min_version;
    let had = host.core.config.secrets.of_app(&machine.app, min_version);
    let had = had
        .await
        .map_err(|error| format!("cannot get the app's secrets: {}", types::chain(&error)))?;
    secrets::give(spec, machine, &had).map_err(|error| error.to_string())
}

/// Gets the boot's reports after the first `after`.
async fn listen<V: Vmm, N: Network, I: Images>(
    host: Arc<Host<V, N, I>>,
    machine: Machine,
    boot: BootId,
    after: u64,
) -> Done {
    crash::point("adopt", Moment::Before);
    let mut pause = RETRY_MIN;
    for _ in 0..ADOPT_TRIES {
        match host.vmm.reports(&machine.id, boot, after).await {
            Ok(reports) => return Done::Listening { boot, reports },
            Err(VmmError::Gone { .. }) => return Done::Event(Event::BootGone { boot }),
            Err(error) => warn!(error = %types::chain(&error), "cannot reach a machine's shim"),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    Done::Event(Event::ShimGone { boot })
}
