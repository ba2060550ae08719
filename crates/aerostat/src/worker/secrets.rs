//! An app's secrets in what a boot is given. Pure. They come after everything else, so that a
//! secret beats a variable of the configuration that has its name, as on Fly.

use base64::Engine as _;
use types::machine::{ContainerConfig, EnvSecret, File};
use vmm::BootSpec;

use super::machine::Machine;
use crate::secrets::{AppSecrets, Secret};

/// All that the containers of a machine get of them together: they have to fit into one frame of
/// the guest protocol with everything else.
const SECRETS_BYTES_MAX: usize = 768 << 10;

/// Why a boot cannot be given what its configuration asks for. Shows no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoSecret {
    #[error("app has no secret `{name}`, which container `{container}` asks for")]
    Missing { container: String, name: String },
    #[error(
        "secret `{name}` is no base64, and file {path} of container `{container}` is to hold what it stands for"
    )]
    NotBase64 {
        container: String,
        name: String,
        path: String,
    },
    #[error(
        "its containers would get {bytes} bytes of secrets, and {SECRETS_BYTES_MAX} are possible"
    )]
    TooLarge { bytes: usize },
}

/// Adds the secrets that each container is to have to its environment and its files.
pub(crate) fn give(
    spec: &mut BootSpec,
    machine: &Machine,
    secrets: &AppSecrets,
) -> Result<(), NoSecret> {
    let given = machine.config.as_given();
    let containers = machine.config.containers();
    let mut bytes = 0;
    for (index, container) in containers.iter().enumerate() {
        let Some(booted) = spec.spec.containers.get_mut(index) else {
            break;
        };
        // Containers are made of processes only where there are none given.
        let process = given.processes.get(index);
        let process = process.filter(|_| given.containers.is_empty());
        let all = !machine.secrets.skip
            && match process {
                Some(process) => !process.ignore_app_secrets,
                None => container.secrets.is_empty(),
            };
        if all {
            for (name, value) in &secrets.values {
                bytes += name.len() + value.expose().len();
                booted.env.insert(name.clone(), value.expose().to_owned());
            }
        }
        for named in &container.secrets {
            let value = find(secrets, container, source(named))?.expose();
            bytes += named.env_var.len() + value.len();
            booted.env.insert(named.env_var.clone(), value.to_owned());
        }
        for (file, booted) in container.files.iter().zip(&mut booted.files) {
            if let Some(content) = content(secrets, container, file)? {
                bytes += content.len();
                booted.content = content;
            }
        }
    }
    if bytes > SECRETS_BYTES_MAX {
        return Err(NoSecret::TooLarge { bytes });
    }
    Ok(())
}

/// Whether a boot of this machine cannot do without its app's secrets.
pub(crate) fn are_needed(machine: &Machine) -> bool {
    let containers = machine.config.containers();
    let named = |container: &ContainerConfig| {
        let from = |file: &File| file.secret_name.is_some();
        !container.secrets.is_empty() || container.files.iter().any(from)
    };
    // One that was to be made without secrets and names some all the same is told so.
    !machine.secrets.skip || containers.iter().any(named)
}

fn source(named: &EnvSecret) -> &str {
    match named.name.as_str() {
        "" => &named.env_var,
        name => name,
    }
}

fn find<'a>(
    secrets: &'a AppSecrets,
    container: &ContainerConfig,
    name: &str,
) -> Result<&'a Secret, NoSecret> {
    secrets.values.get(name).ok_or_else(|| NoSecret::Missing {
        container: container.name.clone(),
        name: name.to_owned(),
    })
}

/// A file's content is base64, and so is what the secret holds.
fn content(
    secrets: &AppSecrets,
    container: &ContainerConfig,
    file: &File,
) -> Result<Option<String>, NoSecret> {
    let Some(name) = &file.secret_name else {
        return Ok(None);
    };
    let value = find(secrets, container, name)?.expose().trim();
    let decoded = base64::engine::general_purpose::STANDARD.decode(value);
    match decoded {
        Ok(_) => Ok(Some(value.to_owned())),
        Err(_) => Err(NoSecret::NotBase64 {
            container: container.name.clone(),
            name: name.clone(),
            path: file.guest_path.clone(),
        }),
    }
}
