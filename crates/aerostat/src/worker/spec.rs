//! From a machine's configuration and its images to what a boot is given. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use types::guest::{ContainerSpec, FileSpec, MachineSpec, MountSpec, Network};
use types::machine::{ContainerConfig, DnsOption, FieldRef, Persist};
use types::sixpn::{GATEWAY, MTU, RESOLVER};
use types::{BootId, ImageRef};
use vmm::{BootNetwork, BootSpec, ContainerImage, KeepLayers};

use super::capacity::rootfs_mb;
use super::machine::Machine;
use super::ports::{ImageSettings, ReadyImage};

/// Where programs are looked for if the image does not say: Docker's default.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Mode of files that do not say.
const FILE_MODE_DEFAULT: u32 = 0o644;
/// What the Machines API sends to a machine whose configuration and image do not say.
const SIGNAL_DEFAULT: &str = "SIGINT";

/// What the host adds to every boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    pub(crate) boot_timeout: Duration,
    pub(crate) rootfs_mib_default: u64,
}

/// A container that has nothing to run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("image {image} has neither entry point nor command; give container `{container}` one")]
pub(crate) struct NoCommand {
    pub(crate) container: String,
    image: String,
}

/// Whether every container has something to run with these images.
pub(crate) fn check_commands(machine: &Machine, images: &[ReadyImage]) -> Result<(), NoCommand> {
    for (container, image) in machine.config.containers().iter().zip(images) {
        checked_command(container, &image.settings)?;
    }
    Ok(())
}

/// The specification of a boot. `images` are those of the containers, in their order.
pub(crate) fn boot_spec(
    machine: &Machine,
    boot: BootId,
    images: &[ReadyImage],
    attachment: BootNetwork,
    settings: Settings,
    unix_ms: i64,
) -> Result<BootSpec, NoCommand> {
    let containers = machine.config.containers();
    let specs = containers.iter().zip(images);
    let specs = specs.map(|(container, image)| container_spec(machine, container, image));
    let rootfs = containers
        .iter()
        .zip(images)
        .map(|(container, image)| ContainerImage {
            container: container.name.clone(),
            rootfs: image.rootfs.clone(),
        });
    let dns = &machine.config.as_given().dns;
    let hostname = match dns.hostname.as_str() {
        "" => machine.id.to_string(),
        name => name.to_owned(),
    };
    Ok(BootSpec {
        machine: machine.id.clone(),
        boot,
        isolation: machine.isolation,
        guest: machine.config.guest(),
        attachment,
        images: rootfs.collect(),
        rootfs_size_bytes: rootfs_mb(&machine.config, settings.rootfs_mib_default) << 20,
        keep: keep_layers(machine),
        resume: machine.resumes(),
        boot_timeout: settings.boot_timeout,
        spec: MachineSpec {
            machine_id: machine.id.to_string(),
            hostname,
            network: network(machine),
            containers: specs.collect::<Result<_, _>>()?,
            volumes: Vec::new(),
            directories: machine.config.directories(),
            checks: machine
                .config
                .checks()
                .into_iter()
                .map(|c| c.spec)
                .collect(),
            unix_ms,
        },
    })
}

fn keep_layers(machine: &Machine) -> Option<KeepLayers> {
    let any_version = match machine.config.persist() {
        Persist::Never => return None,
        Persist::Restart => false,
        Persist::Always => true,
    };
    Some(KeepLayers {
        version: machine.version.to_string(),
        any_version,
    })
}

fn network(machine: &Machine) -> Network {
    let dns = &machine.config.as_given().dns;
    let nameservers = match dns.nameservers.as_slice() {
        [] => vec![RESOLVER.to_string()],
        given => given.to_vec(),
    };
    let ipv6 = machine.address.0.addr();
    Network {
        ipv6,
        gateway_v6: GATEWAY,
        ipv4: machine.allocation.ipv4,
        gateway_v4: net::GATEWAY_V4,
        mtu: MTU,
        nameservers,
        searches: dns.searches.clone(),
        options: dns.options.iter().map(resolver_option).collect(),
        hosts: vec![format!("{ipv6} fly-local-6pn")],
    }
}

fn resolver_option(option: &DnsOption) -> String {
    match option.value.as_str() {
        "" => option.name.clone(),
        value => format!("{}:{value}", option.name),
    }
}

fn container_spec(
    machine: &Machine,
    container: &ContainerConfig,
    image: &ReadyImage,
) -> Result<ContainerSpec, NoCommand> {
    let settings = &image.settings;
    let command = checked_command(container, settings)?;
    let given = machine.config.as_given();
    let own_stop = container.stop.as_ref().and_then(|stop| stop.signal.clone());
    let stop = own_stop.or_else(|| given.stop_config.as_ref()?.signal.clone());
    let stop = stop.or_else(|| settings.stop_signal.clone());
    // Containers that were named themselves come from Kubernetes' world, where the default is the
    // guest's own: SIGTERM.
    let stop = stop.or_else(|| {
        given
            .containers
            .is_empty()
            .then(|| SIGNAL_DEFAULT.to_owned())
    });
    let working_dir = container
        .working_dir
        .clone()
        .unwrap_or_else(|| settings.working_dir.clone());
    Ok(ContainerSpec {
        name: container.name.clone(),
        command,
        env: environment(machine, container, settings),
        working_dir: if working_dir.is_empty() {
            "/".into()
        } else {
            working_dir
        },
        user: container
            .user
            .clone()
            .unwrap_or_else(|| settings.user.clone()),
        tty: container.tty,
        stdin: container.stdin,
        restart: container
            .restart
            .clone()
            .unwrap_or_else(|| machine.config.restart()),
        stop_signal: stop,
        depends_on: container.depends_on.clone(),
        files: container.files.iter().map(file).collect(),
        mounts: directories(machine, container),
        image_disk: String::new(),
        upper_disk: String::new(),
    })
}

fn checked_command(
    container: &ContainerConfig,
    image: &ImageSettings,
) -> Result<Vec<String>, NoCommand> {
    let command = command(container, image);
    if command.is_empty() {
        let (container, image) = (container.name.clone(), container.image.clone());
        return Err(NoCommand { container, image });
    }
    Ok(command)
}

/// `exec` beats everything; an entry point of the configuration also drops the image's command,
/// as Docker and Kubernetes do.
fn command(container: &ContainerConfig, image: &ImageSettings) -> Vec<String> {
    if !container.exec.is_empty() {
        return container.exec.clone();
    }
    let (entrypoint, cmd) = if !container.entrypoint.is_empty() {
        (&container.entrypoint, &container.cmd)
    } else if container.cmd.is_empty() {
        (&image.entrypoint, &image.cmd)
    } else {
        (&image.entrypoint, &container.cmd)
    };
    entrypoint.iter().chain(cmd).cloned().collect()
}

/// The image's, then what the platform tells every machine, then the configuration's.
fn environment(
    machine: &Machine,
    container: &ContainerConfig,
    image: &ImageSettings,
) -> BTreeMap<String, String> {
    let mut env = BTreeMap::from([("PATH".to_owned(), PATH_DEFAULT.to_owned())]);
    let pairs = image.env.iter().filter_map(|pair| pair.split_once('='));
    env.extend(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let group = machine.config.as_given().metadata.get("fly_process_group");
    let group = group.map_or("app", String::as_str);
    let memory_mb = machine.config.guest().memory_mb.to_string();
    let id = field(machine, container, FieldRef::Id);
    for (name, value) in [
        ("FLY_APP_NAME", field(machine, container, FieldRef::AppName)),
        ("FLY_ALLOC_ID", id.clone()),
        ("FLY_MACHINE_ID", id),
        (
            "FLY_MACHINE_VERSION",
            field(machine, container, FieldRef::Version),
        ),
        (
            "FLY_PRIVATE_IP",
            field(machine, container, FieldRef::PrivateIp),
        ),
        ("FLY_REGION", field(machine, container, FieldRef::Region)),
        ("FLY_IMAGE_REF", field(machine, container, FieldRef::Image)),
        ("FLY_PROCESS_GROUP", group.to_owned()),
        ("FLY_VM_MEMORY_MB", memory_mb),
    ] {
        env.insert(name.to_owned(), value);
    }
    for from in &container.env_from {
        env.insert(
            from.env_var.clone(),
            field(machine, container, from.field_ref),
        );
    }
    env.extend(container.env.clone());
    env
}

fn field(machine: &Machine, container: &ContainerConfig, field: FieldRef) -> String {
    match field {
        FieldRef::Id => machine.id.to_string(),
        FieldRef::Version => machine.version.to_string(),
        FieldRef::AppName => machine.app.to_string(),
        FieldRef::PrivateIp => machine.address.0.to_string(),
        FieldRef::Region => machine.region.clone(),
        FieldRef::Image => {
            let image: Result<ImageRef, _> = container.image.parse();
            image.map_or_else(|_| container.image.clone(), |image| image.to_string())
        }
    }
}

/// The directories that a container mounts; its volumes come with `mount_volumes`.
fn directories(machine: &Machine, container: &ContainerConfig) -> Vec<MountSpec> {
    let known = &machine.config.as_given().volumes;
    let mounts = container.mounts.iter();
    let mounts = mounts.filter(|mount| known.iter().any(|known| known.name == mount.name));
    let mounts = mounts.map(|mount| MountSpec {
        source: mount.name.clone(),
        sub_path: mount.sub_path.clone(),
        path: mount.path.clone(),
        read_only: mount.read_only,
    });
    mounts.collect()
}

fn file(file: &types::machine::File) -> FileSpec {
    FileSpec {
        path: file.guest_path.clone(),
        content: file.raw_value.clone().unwrap_or_default(),
        mode: file.mode.unwrap_or(FILE_MODE_DEFAULT),
    }
}

mod volumes;

pub(crate) use volumes::mount_volumes;

#[cfg(test)]
mod tests;
