//! `aerostat up`: the daemon in the background, and what a newcomer needs to go on.

use std::fs::{self, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use client::Client;
use image::ImageStore;
use types::ImageRef;

use super::env::quoted;
use super::output::{self, Table};
use super::{Context, need_root};
use crate::app::Endpoints;

/// Less than this and nothing is started: databases and images would fail half-way.
const DISK_BYTES_MIN: u64 = 128 << 20;

/// How long a daemon that holds its lock may be silent: until a killed one is gone, for example.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The image that is there when there is no registry at hand.
const FIRST_IMAGE: &str = "localhost/hello:1";

#[derive(Debug, clap::Args)]
pub(super) struct Up {
    /// Seconds to wait until everything answers
    #[arg(long, default_value_t = 60)]
    timeout: u64,
}

impl Up {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        need_root("aerostat up")?;
        context.config()?;
        let endpoints = match running(context).await? {
            Some(endpoints) => {
                eprintln!("aerostat is running already (pid {})", endpoints.pid);
                endpoints
            }
            None => self.start(context).await?,
        };
        if let Err(error) = first_image(context).await {
            // Everything else works without it, and the next `up` tries again.
            eprintln!("warning: there is no first image: {error:#}");
        }
        if !context.format.is_table() {
            let names = || vec![endpoints.socket.display().to_string()];
            return output::print(context.format, &endpoints, || Table::new(&[]), names);
        }
        tell(&endpoints, &context.paths.log())
    }

    async fn start(&self, context: &Context) -> anyhow::Result<Endpoints> {
        let paths = &context.paths;
        fs::create_dir_all(&paths.data_dir)
            .with_context(|| format!("cannot make {}", paths.data_dir.display()))?;
        enough_disk(&paths.data_dir)?;
        let log_path = paths.log();
        let mut log = OpenOptions::new()
            .create(true)
            .append(true)
            .read(true)
            .open(&log_path)
            .with_context(|| format!("cannot write the log {}", log_path.display()))?;
        let log_from = log.seek(SeekFrom::End(0)).context("cannot read the log")?;
        let mut child = spawn(context, &log)?;
        let deadline = Instant::now() + Duration::from_secs(self.timeout);
        loop {
            // A daemon that was killed leaves its own behind until the next one answers.
            let endpoints = Endpoints::read(paths)?;
            if let Some(endpoints) = endpoints.filter(|e| e.pid == child.id().cast_signed()) {
                return Ok(endpoints);
            }
            if child
                .try_wait()
                .context("cannot wait for the daemon")?
                .is_some()
            {
                bail!("{}", why_it_ended(&log_path, log_from));
            }
            if Instant::now() > deadline {
                // Nothing half-done: a daemon that is not ready is no daemon.
                child.kill().ok();
                bail!(
                    "the daemon was not ready within {} s; its log is {}",
                    self.timeout,
                    log_path.display()
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The daemon that runs and answers. One that holds its lock and does not answer is on its way
/// up or down, and soon is one or the other.
async fn running(context: &Context) -> anyhow::Result<Option<Endpoints>> {
    let client = Client::unix(context.paths.socket());
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    loop {
        let Some(endpoints) = Endpoints::read(&context.paths)? else {
            return Ok(None);
        };
        match client.regions().await {
            Ok(_) => return Ok(Some(endpoints)),
            Err(error) if Instant::now() > deadline => {
                return Err(error).context(format!(
                    "the daemon (pid {}) runs and does not answer; end it with `aerostat down`",
                    endpoints.pid
                ));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

fn enough_disk(folder: &Path) -> anyhow::Result<()> {
    let stat = nix::sys::statvfs::statvfs(folder)
        .with_context(|| format!("cannot measure the disk of {}", folder.display()))?;
    let free = stat.blocks_available() * stat.fragment_size();
    if free < DISK_BYTES_MIN {
        bail!(
            "only {} are free in {}, and {} are the least to start with; free some, or name \
             another disk with --data-dir",
            output::size(free),
            folder.display(),
            output::size(DISK_BYTES_MIN)
        );
    }
    Ok(())
}

fn spawn(context: &Context, log: &fs::File) -> anyhow::Result<Child> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let paths = &context.paths;
    let mut command = Command::new(&program);
    command
        .arg("serve")
        .arg("--data-dir")
        .arg(&paths.data_dir)
        .arg("--run-dir")
        .arg(&paths.run_dir)
        .arg("--config")
        .arg(&paths.config)
        .arg("--guest-dir")
        .arg(paths.guest())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("cannot share the log")?)
        .stderr(log.try_clone().context("cannot share the log")?)
        // Its own process group, so that a Ctrl-C in this terminal does not reach it.
        .process_group(0);
    command
        .spawn()
        .with_context(|| format!("cannot start {}", program.display()))
}

/// The daemon's last words.
fn why_it_ended(log: &Path, from: u64) -> String {
    let mut text = String::new();
    let read = fs::File::open(log).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.read_to_string(&mut text)
    });
    let error = text
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("error: "));
    match (read, error) {
        (Ok(_), Some(error)) => error.to_owned(),
        _ => format!(
            "the daemon ended while it started; its log is {}",
            log.display()
        ),
    }
}

/// Makes the first image from this host's busybox, unless there is one already.
async fn first_image(context: &Context) -> anyhow::Result<()> {
    let name: ImageRef = FIRST_IMAGE.parse()?;
    let images = context.paths.images();
    let made = tokio::task::spawn_blocking(move || -> anyhow::Result<bool> {
        let store = ImageStore::open(&images)?;
        if !store.list()?.is_empty() {
            return Ok(false);
        }
        let busybox = Path::new("/bin/busybox");
        if !busybox.exists() {
            eprintln!("no first image: install busybox-static and run `aerostat up` again");
            return Ok(false);
        }
        store.busybox(busybox, &name)?;
        Ok(true)
    });
    if made.await.context("making the first image was cut off")?? {
        eprintln!("made a first image from this host's busybox: {FIRST_IMAGE}");
    }
    Ok(())
}

fn tell(endpoints: &Endpoints, log: &Path) -> anyhow::Result<()> {
    let mut text = "Aerostat runs on this host.\n".to_owned();
    let mut row = |name: &str, value: String| text += &format!("  {name:<16} {value}\n");
    if let Some(kubernetes) = &endpoints.kubernetes {
        row("Kubernetes API", format!("https://{}", kubernetes.api));
    }
    let socket = endpoints.socket.display();
    row(
        "Machines API",
        format!("http://{}, and {socket}", endpoints.api),
    );
    row("daemon's log", log.display().to_string());
    match &endpoints.kubernetes {
        Some(kubernetes) => {
            let kubeconfig = quoted(&kubernetes.kubeconfig.display().to_string());
            text += &format!(
                "
A first pod, once the last line below is in your shell:
  kubectl run web --image={FIRST_IMAGE}
  kubectl get pods -o wide
  kubectl logs -f web            what it writes
  aerostat image list            images that are here
Without Kubernetes: aerostat machine run {FIRST_IMAGE}

export KUBECONFIG={kubeconfig}"
            );
        }
        None => {
            text += &format!(
                "
The Kubernetes API is not on this host. From here:
  aerostat host list             the hosts of the fleet
  aerostat mesh status           how this one sees the others
  aerostat machine run {FIRST_IMAGE}"
            );
        }
    }
    output::line(&text)
}
