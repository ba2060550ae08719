//! The configuration of one host: a typed TOML file in which every key has a default that works
//! on one server, and the paths that flags and environment may set.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use image::{CredentialsFile, PullOptions};
use serde::{Deserialize, Serialize};
use types::cluster::ClusterSettings;
use types::{HostId, IsolationClass};

/// Where things are. Everything of a host lies below the first two.
#[derive(Debug, Clone, clap::Args)]
pub struct Paths {
    /// What must survive a reboot: images, machines, the control plane's data
    #[arg(
        long,
        env = "AEROSTAT_DATA_DIR",
        hide_env_values = true,
        default_value = "/var/lib/aerostat",
        global = true,
        help_heading = "This host"
    )]
    pub data_dir: PathBuf,
    /// Sockets and what lives only as long as the host is up
    #[arg(
        long,
        env = "AEROSTAT_RUN_DIR",
        hide_env_values = true,
        default_value = "/run/aerostat",
        global = true,
        help_heading = "This host"
    )]
    pub run_dir: PathBuf,
    /// The configuration file; may be absent
    #[arg(
        long,
        env = "AEROSTAT_CONFIG",
        hide_env_values = true,
        default_value = "/etc/aerostat/aerostat.toml",
        global = true,
        help_heading = "This host"
    )]
    pub config: PathBuf,
    /// Kernel and initial RAM file system of virtual machines [default: DATA_DIR/guest]
    #[arg(
        long,
        env = "AEROSTAT_GUEST_DIR",
        hide_env_values = true,
        global = true,
        help_heading = "This host"
    )]
    pub guest_dir: Option<PathBuf>,
}

impl Paths {
    /// The Machines API on this host.
    pub fn socket(&self) -> PathBuf {
        self.run_dir.join("api.sock")
    }

    /// What makes tokens; on the first host of a fleet.
    pub fn token_root(&self) -> PathBuf {
        self.data_dir.join("tokens").join("root.key")
    }

    /// What secrets are sealed with; on the first host of a fleet.
    pub fn secrets_keys(&self) -> PathBuf {
        self.data_dir.join("secrets").join("keys")
    }

    /// A token for the Machines API over TCP that may do everything.
    pub fn token(&self) -> PathBuf {
        self.data_dir.join("token")
    }

    /// Who this host is.
    pub fn fleet(&self) -> PathBuf {
        self.data_dir.join("fleet")
    }

    pub fn kubernetes(&self) -> PathBuf {
        self.data_dir.join("kubernetes")
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.kubernetes().join("kubeconfig")
    }

    pub fn images(&self) -> PathBuf {
        self.data_dir.join("images")
    }

    /// Kernel and initial RAM file system of the virtual machines.
    pub fn guest(&self) -> PathBuf {
        self.guest_dir
            .clone()
            .unwrap_or_else(|| self.data_dir.join("guest"))
    }

    /// Kernels of virtual machines that were built here.
    pub fn kernels(&self) -> PathBuf {
        self.data_dir.join("kernels")
    }

    /// The kernel that `aerostat kernel use` chose, if it did.
    pub fn chosen_kernel(&self) -> Option<PathBuf> {
        self.kernel_link().canonicalize().ok()
    }

    /// Where the chosen kernel is, as long as one is chosen.
    pub fn kernel_link(&self) -> PathBuf {
        self.kernels().join("current/vmlinux")
    }

    /// What the probe found out about this host.
    pub fn probe(&self) -> PathBuf {
        self.run_dir.join("probe.json")
    }

    /// Held by the daemon for as long as it lives; holds its process id.
    pub fn lock(&self) -> PathBuf {
        self.run_dir.join("aerostat.lock")
    }

    pub fn log(&self) -> PathBuf {
        self.data_dir.join("aerostat.log")
    }

    /// What the running daemon listens on, for the command line.
    pub fn endpoints(&self) -> PathBuf {
        self.run_dir.join("endpoints.json")
    }
}

/// The file. Unknown keys are errors, so that a misspelt one is noticed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Name of the region that this host is in; also the name of the Kubernetes node.
    pub region: String,
    /// Number of this host, 2 to 65535: 16 bits of the 6PN address of each of its machines. Unset:
    /// 2 for the first host of a fleet; one that joins is given a free one.
    pub host_number: Option<u16>,
    /// Address under which other hosts and clients outside reach this host. Unset: the one that
    /// it uses to reach the fleet, or the Internet.
    pub advertise: Option<IpAddr>,
    /// Where the mesh between hosts listens (UDP, WireGuard).
    pub mesh_listen: SocketAddr,
    /// Where the gateway for clients outside listens (UDP, WireGuard).
    pub gateway_listen: SocketAddr,
    /// Where the first host of a fleet listens for hosts that want to join (TCP, TLS).
    pub join_listen: SocketAddr,
    /// Whether the Kubernetes control plane runs here. Unset: on the first host of a fleet only.
    pub kubernetes: Option<bool>,
    /// Time after which the pods of a host that has fallen silent are replaced, in seconds.
    pub host_silent_s: u32,
    /// Address of the Machines API over TCP. Plain HTTP, therefore loopback only.
    pub api_listen: SocketAddr,
    /// Address of the Kubernetes API.
    pub kubernetes_listen: SocketAddr,
    /// An etcd that has the state of this host's clusters, as `http://host:port`; several control
    /// planes may share it. Unset: a database file of each cluster.
    pub kubernetes_etcd: Vec<String>,
    /// Settings of the cluster `default`: who may call, the audit log, its node. Other clusters are
    /// given theirs when they are created.
    pub kubernetes_api: ClusterSettings,
    /// Class of machines that do not ask for one. Unset: `microvm` where KVM is usable, else
    /// `container`.
    pub isolation_default: Option<IsolationClass>,
    /// Classes that machines may not use on this host.
    pub isolation_refused: Vec<IsolationClass>,
    /// Registries that are spoken to without TLS, as `host:port`.
    pub plain_http_registries: Vec<String>,
    /// For a registry, others that are asked first, as `host:port`, in their order. A mirror that
    /// fails or does not have the image is passed over. It is trusted with what tags mean.
    pub registry_mirrors: BTreeMap<String, Vec<String>>,
    /// File of registry credentials in Docker's format. Unset: `$DOCKER_CONFIG/config.json` or
    /// `~/.docker/config.json` of the user that the daemon runs as, which may be absent.
    pub registry_credentials: Option<PathBuf>,
    /// Room that images may take on disk, in GiB; beyond it, those that no machine uses and that
    /// can be pulled again go, idle longest first. 0: no limit. Unset: a fifth of the disk, since a
    /// full one stops every machine, and what goes comes back with the next pull.
    pub images_gib_max: Option<u64>,
    /// The Firecracker that runs class `microvm`, 1.16 or newer. Unset: `firecracker` in `PATH`;
    /// where there is none, QEMU runs it.
    pub firecracker: Option<PathBuf>,
    /// Firecracker's jailer, of the same release. Unset: `jailer` in `PATH`.
    pub jailer: Option<PathBuf>,
    /// The kernel of virtual machines, an uncompressed ELF image with everything that a guest
    /// needs built in. Unset: what `aerostat kernel use` chose, else Debian's.
    pub kernel: Option<PathBuf>,
    /// Program and arguments that print the keys of secrets on the first host of a fleet: 32 bytes in
    /// base64 or hexadecimal in each line, the one that is to be used for new secrets first. Unset:
    /// the variable `AEROSTAT_SECRETS_KEY`, which holds the same, and without it a file that is made
    /// below the data directory.
    pub secrets_key_command: Vec<String>,
    /// Time a machine has from its start until its guest is ready, in seconds.
    pub boot_timeout_s: u32,
    /// Size of a machine's writable layer where it does not say, in MiB.
    pub rootfs_mib: u64,
    /// Whether machines reach the outside through the host's address.
    pub egress: bool,
}

impl Default for Config {
    fn default() -> Self {
        let loopback = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port);
        let everywhere = |port| SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port);
        Self {
            region: "local".into(),
            host_number: None,
            advertise: None,
            mesh_listen: everywhere(51821),
            gateway_listen: everywhere(51820),
            join_listen: everywhere(51822),
            kubernetes: None,
            host_silent_s: 60,
            api_listen: loopback(4280),
            kubernetes_listen: loopback(6443),
            kubernetes_etcd: Vec::new(),
            kubernetes_api: ClusterSettings::default(),
            isolation_default: None,
            isolation_refused: Vec::new(),
            plain_http_registries: Vec::new(),
            registry_mirrors: BTreeMap::new(),
            registry_credentials: None,
            images_gib_max: None,
            firecracker: None,
            jailer: None,
            kernel: None,
            secrets_key_command: Vec::new(),
            boot_timeout_s: 60,
            rootfs_mib: 1024,
            egress: true,
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read configuration {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("configuration {} is not valid", path.display())]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    #[error("configuration {}: {key} {reason}", path.display())]
    Value {
        path: PathBuf,
        key: &'static str,
        reason: String,
    },
}

impl Config {
    /// Reads the file at `path`; an absent file is the default configuration.
    ///
    /// # Errors
    /// If the file cannot be read, has an unknown key or a value that cannot be used.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.into(),
                    source,
                });
            }
        };
        let config: Self = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.into(),
            source: Box::new(source),
        })?;
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |key, reason: &str| {
            Err(ConfigError::Value {
                path: path.into(),
                key,
                reason: reason.to_owned(),
            })
        };
        if self.host_number.is_some_and(|number| number < 2) {
            return wrong("host_number", "must be 2 or more: 0 and 1 are reserved");
        }
        if !self.api_listen.ip().is_loopback() {
            return wrong(
                "api_listen",
                "must be a loopback address: it speaks plain HTTP",
            );
        }
        if self.region.parse::<types::AppName>().is_err() {
            return wrong("region", "must be lower-case letters, digits and dashes");
        }
        let relative = |path: &PathBuf| path.is_relative();
        let paths = [
            ("registry_credentials", &self.registry_credentials),
            ("firecracker", &self.firecracker),
            ("jailer", &self.jailer),
            ("kernel", &self.kernel),
        ];
        for (key, path) in paths {
            if path.as_ref().is_some_and(relative) {
                return wrong(key, "must be an absolute path");
            }
        }
        if let Some(key) = self.kubernetes_api.relative_path() {
            let reason = format!("must have an absolute path as {key}");
            return wrong("kubernetes_api", &reason);
        }
        if self.boot_timeout_s == 0 {
            return wrong("boot_timeout_s", "must be 1 or more");
        }
        Ok(())
    }

    /// How images are pulled.
    pub fn pull_options(&self) -> PullOptions {
        let named = self.registry_credentials.clone().map(CredentialsFile::at);
        PullOptions {
            plain_http_registries: self.plain_http_registries.clone(),
            mirrors: self.registry_mirrors.clone(),
            credentials_file: named.or_else(CredentialsFile::of_user),
            ..PullOptions::default()
        }
    }

    /// Where Firecracker is looked for.
    pub fn firecracker_paths(&self) -> vmm::FirecrackerPaths {
        vmm::FirecrackerPaths {
            firecracker: self.firecracker.clone(),
            jailer: self.jailer.clone(),
        }
    }

    /// The id of this host as long as no fleet has given it another.
    pub fn host(&self) -> HostId {
        HostId::new(self.host_number.unwrap_or(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        Config::load(file.path())
    }

    #[test]
    fn an_absent_file_is_the_default_configuration() {
        let config = Config::load(Path::new("/nonexistent/aerostat.toml")).unwrap();
        assert_eq!(config.region, "local");
    }

    #[test]
    fn a_misspelt_key_or_a_bad_value_is_an_error() {
        assert!(matches!(
            load("regoin = \"x\""),
            Err(ConfigError::Parse { .. })
        ));
        assert!(matches!(
            load("host_number = 1"),
            Err(ConfigError::Value { .. })
        ));
        assert!(matches!(
            load("registry_credentials = \"config.json\""),
            Err(ConfigError::Value { .. })
        ));
        assert!(matches!(
            load("api_listen = \"0.0.0.0:4280\""),
            Err(ConfigError::Value { .. })
        ));
        assert!(load("region = \"fra\"\nisolation_default = \"emulated\"").is_ok());
        assert!(matches!(
            load("[kubernetes_api.audit]\npolicy_file = \"policy.yaml\""),
            Err(ConfigError::Value { .. })
        ));
        let config = load("[kubernetes_api]\nnode_labels = {a = \"b\"}\n[kubernetes_api.audit]");
        assert!(config.unwrap().kubernetes_api.audit.is_some());
    }
}
