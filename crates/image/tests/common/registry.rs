//! Debian's registry, which each test starts for itself on a port of the kernel's choice.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use image::{ImageStore, PullOptions};
use types::ImageRef;

/// A running registry and a layout to push from.
pub(crate) struct Registry {
    process: Child,
    pub(crate) address: String,
    pub(crate) root: tempfile::TempDir,
}

impl Registry {
    pub(crate) fn start(test: &str, extra: &str) -> Option<Self> {
        let root = tempfile::tempdir().unwrap();
        let data = root.path().join("data");
        let config = root.path().join("config.yml");
        // `user` with the password `secret`, as the registry demands it: bcrypt.
        let users = "user:$2b$05$iHubAnFn7Kvnk3g00hMpFuDiZK.SHo7ATgMofkTQ2CIiZc1KgVDUq\n";
        fs::write(root.path().join("users"), users).unwrap();
        let extra = extra.replace("USERS", &root.path().join("users").display().to_string());
        let text = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:0\n{extra}",
            data.display()
        );
        fs::write(&config, text).unwrap();
        let started = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut process = match started {
            Ok(process) => process,
            Err(error) => {
                eprintln!("SKIPPED: {test}: docker-registry: {error}");
                return None;
            }
        };
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let address = lines
            .find_map(|line| {
                let line = line.unwrap();
                let (_, rest) = line.split_once("listening on ")?;
                Some(rest[..rest.find('"').unwrap()].to_owned())
            })
            .expect("the registry says where it listens");
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            process,
            address,
            root,
        })
    }

    pub(crate) fn push(&self, layout: &Path, name: &str) -> bool {
        let output = Command::new("skopeo")
            .args([
                "copy",
                "--all",
                "--dest-tls-verify=false",
                "--dest-creds",
                "user:secret",
            ])
            .arg(format!("oci:{}", layout.display()))
            .arg(format!("docker://{}/{name}", self.address))
            .output();
        match output {
            Ok(output) => {
                assert!(
                    output.status.success(),
                    "{}",
                    String::from_utf8_lossy(&output.stderr)
                );
                true
            }
            Err(error) => {
                eprintln!("SKIPPED: pushing to the registry: skopeo: {error}");
                false
            }
        }
    }

    pub(crate) fn layout(&self) -> PathBuf {
        self.root.path().join("layout")
    }

    pub(crate) fn reference(&self, name: &str) -> ImageRef {
        format!("{}/{name}", self.address).parse().unwrap()
    }

    pub(crate) fn options(&self) -> PullOptions {
        PullOptions {
            plain_http_registries: vec![self.address.clone()],
            ..PullOptions::default()
        }
    }

    pub(crate) fn store(&self) -> ImageStore {
        ImageStore::open(&self.root.path().join("store")).unwrap()
    }

    /// Nothing is left of what was not stored, once the threads that were unpacking other
    /// layers have noticed.
    pub(crate) fn assert_nothing_stored(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        for directory in ["references", "rootfs", "work"] {
            let path = self.root.path().join("store").join(directory);
            while fs::read_dir(&path).unwrap().count() > 0 {
                assert!(Instant::now() < deadline, "{directory} is not empty");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
