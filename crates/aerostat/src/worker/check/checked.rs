//! A configuration that was let through, and what it means.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use types::IsolationClass;
use types::guest::{CheckSpec, DirectorySpec};
use types::machine::{
    ContainerConfig, Guest, MachineConfig, Persist, Process, Restart, RestartPolicy, StorageType,
};

use super::{Invalid, ONLY_CONTAINER, check_bytes, probes, size};

/// A configuration that [`super::check`] has let through.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckedConfig(MachineConfig);

/// A check of a machine or of one of its containers.
#[derive(Debug, Clone, PartialEq)]
pub struct MachineCheck {
    pub spec: CheckSpec,
    /// Whether services leave the machine out while it does not pass.
    pub readiness: bool,
}

impl CheckedConfig {
    pub(super) fn new(config: MachineConfig) -> Self {
        Self(config)
    }

    /// As it was given.
    pub fn as_given(&self) -> &MachineConfig {
        &self.0
    }

    /// The same with other metadata.
    pub(crate) fn with_metadata(
        &self,
        metadata: BTreeMap<String, String>,
    ) -> Result<Self, Invalid> {
        let changed = Self(MachineConfig {
            metadata,
            ..self.0.clone()
        });
        check_bytes(&changed)?;
        Ok(changed)
    }

    /// The containers: those given, one for each process, or one named [`ONLY_CONTAINER`].
    /// The machine's `env` counts for each of them, less than its own.
    pub fn containers(&self) -> Vec<ContainerConfig> {
        let config = &self.0;
        let mut containers = if !config.containers.is_empty() {
            config.containers.clone()
        } else if config.processes.is_empty() {
            vec![self.only_container()]
        } else {
            let processes = config.processes.iter().zip(1..);
            let processes = processes.map(|(process, number)| self.process(process, number));
            processes.collect()
        };
        for container in &mut containers {
            let own = std::mem::replace(&mut container.env, config.env.clone());
            container.env.extend(own);
        }
        containers
    }

    fn only_container(&self) -> ContainerConfig {
        let config = &self.0;
        ContainerConfig {
            name: ONLY_CONTAINER.into(),
            image: config.image.clone(),
            exec: config.init.exec.clone(),
            entrypoint: config.init.entrypoint.clone(),
            cmd: config.init.cmd.clone(),
            tty: config.init.tty,
            stdin: config.init.stdin || config.init.tty,
            files: config.files.clone(),
            // The machine's own policy restarts it, with a new boot.
            restart: Some(Restart {
                policy: RestartPolicy::No,
                max_retries: None,
            }),
            ..ContainerConfig::default()
        }
    }

    /// One that fails is started again in its place; when one has ended for good, so has the
    /// machine, and its own policy decides (`machine::outcomes`).
    fn process(&self, process: &Process, number: usize) -> ContainerConfig {
        let config = &self.0;
        let own = self.restart();
        let restart = match own.policy {
            RestartPolicy::No => own,
            RestartPolicy::OnFailure | RestartPolicy::Always => Restart {
                policy: RestartPolicy::OnFailure,
                ..own
            },
        };
        ContainerConfig {
            name: process_name(number),
            image: config.image.clone(),
            exec: process.exec.clone(),
            entrypoint: process.entrypoint.clone(),
            cmd: process.cmd.clone(),
            user: Some(process.user.clone()).filter(|user| !user.is_empty()),
            env: process.env.clone(),
            env_from: process.env_from.clone(),
            secrets: process.secrets.clone(),
            files: config.files.clone(),
            restart: Some(restart),
            ..ContainerConfig::default()
        }
    }

    pub fn container_names(&self) -> Vec<String> {
        let config = &self.0;
        if !config.containers.is_empty() {
            let names = config.containers.iter();
            return names.map(|container| container.name.clone()).collect();
        }
        match config.processes.len() {
            0 => vec![ONLY_CONTAINER.into()],
            count => (1..=count).map(process_name).collect(),
        }
    }

    /// Its checks with those of its containers, by name.
    pub fn checks(&self) -> Vec<MachineCheck> {
        let own = self.0.checks.iter();
        let own = own.map(|(name, check)| probes::of_machine(name, check));
        let containers = self.0.containers.iter().flat_map(|container| {
            let checks = container.healthchecks.iter();
            checks.map(|check| probes::of_container(&container.name, check))
        });
        let mut checks: Vec<_> = own.chain(containers).collect();
        checks.sort_by(|a, b| a.spec.name.cmp(&b.spec.name));
        checks
    }

    /// The directories that its containers share.
    pub fn directories(&self) -> Vec<DirectorySpec> {
        let directories = self.0.volumes.iter();
        let directories = directories.filter_map(|directory| {
            let temp_dir = directory.temp_dir.as_ref()?;
            Some(DirectorySpec {
                name: directory.name.clone(),
                memory: temp_dir.storage_type == StorageType::Memory,
                size_bytes: temp_dir.size_mb << 20,
            })
        });
        directories.collect()
    }

    pub fn guest(&self) -> Guest {
        let given = self.0.guest.clone();
        given
            .or_else(|| size::preset(&self.0.size))
            .unwrap_or_default()
    }

    /// How long its writable layers stay.
    pub fn persist(&self) -> Persist {
        let config = &self.0;
        let older = config.guest.as_ref().and_then(|guest| guest.persist_rootfs);
        config.rootfs.persist.or(older).unwrap_or(Persist::Never)
    }

    /// The machine's own restart policy, with its defaults.
    pub fn restart(&self) -> Restart {
        self.0.restart.clone().unwrap_or_default()
    }

    /// Whether a machine of that class can do all of it.
    ///
    /// # Errors
    /// The first thing that it cannot.
    pub(crate) fn check_class(&self, class: IsolationClass) -> Result<(), Invalid> {
        probes::check_class(self, class)
    }

    pub fn isolation(&self) -> Option<IsolationClass> {
        self.0.isolation
    }
}

/// Processes have no names of their own.
fn process_name(number: usize) -> String {
    format!("process-{number}")
}
