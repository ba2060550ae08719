//! The containers of a machine, from what its body reports.

use jiff::Timestamp;
use types::guest::{ContainerReport, ContainerReportState};
use types::machine::{ContainerState, ContainerStatus, ImageIdentity, PastRun};

use super::{Machine, unseen_exit};

impl Machine {
    /// All containers, as before a boot. How the last run of each ended stays known.
    pub(crate) fn reset_containers(&mut self) {
        let old = std::mem::take(&mut self.containers);
        let fresh = self.config.containers().into_iter().map(|container| {
            let known = old.iter().find(|status| status.name == container.name);
            ContainerStatus {
                name: container.name,
                state: ContainerState::Created,
                image_ref: identity_of(&container.image),
                restart_count: 0,
                started_at: None,
                exit_event: None,
                last_exit: known.and_then(past_run),
                message: String::new(),
            }
        });
        self.containers = fresh.collect();
    }

    pub(super) fn set_images(&mut self, images: Vec<ImageIdentity>) {
        for (container, image) in self.containers.iter_mut().zip(images) {
            container.image_ref = image;
            container.message.clear();
        }
    }

    /// Whether these are the images that the containers have.
    pub(super) fn has_images(&self, images: &[ImageIdentity]) -> bool {
        let ours = self.containers.iter().map(|c| c.image_ref.digest.as_str());
        ours.eq(images.iter().map(|image| image.digest.as_str()))
    }

    pub(super) fn set_message(&mut self, name: &str, message: &str) {
        if let Some(container) = self.containers.iter_mut().find(|c| c.name == name) {
            message.clone_into(&mut container.message);
        }
    }

    pub(super) fn fail_container(&mut self, name: &str, reason: &str) {
        if let Some(container) = self.containers.iter_mut().find(|c| c.name == name) {
            container.state = ContainerState::Failed;
            reason.clone_into(&mut container.message);
        }
    }

    pub(super) fn set_container(&mut self, report: ContainerReport) {
        let named = |container: &&mut ContainerStatus| container.name == report.container;
        // A guest may only speak of what it was given.
        let Some(container) = self.containers.iter_mut().find(named) else {
            return;
        };
        container.restart_count = report.run;
        container.message.clear();
        match report.state {
            ContainerReportState::Started { pid: _, unix_ms } => {
                container.last_exit = past_run(container);
                container.state = ContainerState::Started;
                container.started_at = Timestamp::from_millisecond(unix_ms).ok();
                container.exit_event = None;
            }
            ContainerReportState::Exited {
                exit,
                restart_after_ms,
            } => {
                container.exit_event = Some(exit);
                container.state = match restart_after_ms {
                    Some(_) => ContainerState::Waiting,
                    None => ContainerState::Stopped,
                };
                container.message = pause(restart_after_ms);
            }
            ContainerReportState::Failed {
                reason,
                restart_after_ms,
            } => {
                container.state = match restart_after_ms {
                    Some(_) => ContainerState::Waiting,
                    None => ContainerState::Failed,
                };
                container.message = reason;
            }
        }
    }

    /// The body is over: whatever still counts as started is not.
    pub(super) fn end_containers(&mut self, now: Timestamp) {
        for container in &mut self.containers {
            match container.state {
                ContainerState::Started => {
                    container.state = ContainerState::Stopped;
                    container.exit_event.get_or_insert_with(|| unseen_exit(now));
                    container.message = "its end was not seen".into();
                }
                ContainerState::Waiting => {
                    container.state = ContainerState::Stopped;
                    container.message.clear();
                }
                ContainerState::Created | ContainerState::Stopped | ContainerState::Failed => {}
            }
        }
    }
}

fn pause(restart_after_ms: Option<u64>) -> String {
    restart_after_ms
        .map(|ms| format!("starts again after {ms} ms"))
        .unwrap_or_default()
}

fn past_run(container: &ContainerStatus) -> Option<PastRun> {
    let ended = container.exit_event.clone().map(|exit_event| PastRun {
        started_at: container.started_at,
        exit_event,
    });
    ended.or_else(|| container.last_exit.clone())
}

/// What the reference itself says about the image.
fn identity_of(image: &str) -> ImageIdentity {
    match image.parse::<types::ImageRef>() {
        Ok(image) => ImageIdentity {
            registry: image.registry,
            repository: image.repository,
            tag: image.tag.unwrap_or_default(),
            digest: image.digest.unwrap_or_default(),
        },
        Err(_) => ImageIdentity::default(),
    }
}
