//! Times of one virtual machine: cold boot, suspension, and resumption until it says that it is
//! ready, echoes on the network, and a process that is started in it has written a byte. Needs root, and names on its command line where the guest's files are, an
//! image with `/bin/sh`, and how often to measure. See `bench/suspend.sh`.
//!
//! It is its own shim, so that nothing else has to be built.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;
use tokio::time::timeout;
use types::guest::{ContainerSpec, ExecRequest, MachineSpec, Network};
use types::machine::{Guest, Restart};
use types::{BootId, HostId, IsolationClass, MachineId};
use vmm::{
    BootNetwork, BootSpec, ContainerImage, FirecrackerPaths, Local, LocalConfig, MacAddress,
    Output, Report, ReportEvent, Vmm,
};

const PATIENCE: Duration = Duration::from_secs(180);
const USER: u32 = 64_321;
const NAMESPACE: &str = "aerostat-bench";
const TAP: &str = "ab0";
const GUEST: &str = "fdaa::1:2";

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let first = args.next().unwrap_or_default();
    match first.to_str() {
        Some("shim") => return vmm::shim_main(args),
        Some("container") => return vmm::container_main(args),
        _ => {}
    }
    match (first.to_str(), args.next(), args.next()) {
        (Some(_), Some(image), Some(runs)) => {
            let runs = runs.to_str().and_then(|runs| runs.parse().ok());
            match measure(Path::new(&first), Path::new(&image), runs.unwrap_or(11)) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("{}", types::chain(error.as_ref()));
                    ExitCode::FAILURE
                }
            }
        }
        _ => {
            eprintln!("usage: suspend_bench <guest directory> <image.erofs> <runs>");
            ExitCode::from(2)
        }
    }
}

#[tokio::main]
async fn measure(guest_dir: &Path, image: &Path, runs: u64) -> Result<(), Failure> {
    let dir = tempdir()?;
    let bench = Bench {
        vmm: Local::new(LocalConfig {
            data_dir: dir.join("data"),
            run_dir: dir.join("run"),
            guest_dir: guest_dir.canonicalize()?,
            kernel: None,
            chosen_kernel: PathBuf::new(),
            host: HostId::new(3998),
            shim: std::env::current_exe()?,
            offers: vmm::probe(&dir.join("offers.json"), &FirecrackerPaths::default()),
            allow: BTreeSet::from(IsolationClass::ALL),
        }),
        machine: MachineId::from_bits(3998),
        image: image.canonicalize()?,
    };
    network()?;
    let measured = bench.run(runs).await;
    bench.vmm.forget(&bench.machine).await?;
    ip(&["netns", "del", NAMESPACE])?;
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn tempdir() -> Result<PathBuf, Failure> {
    let dir = std::env::temp_dir().join(format!("aerostat-bench-{}", std::process::id()));
    std::fs::create_dir(&dir)?;
    Ok(dir)
}

fn ip(args: &[&str]) -> Result<(), Failure> {
    let status = Command::new("ip").args(args).status()?;
    status
        .success()
        .then_some(())
        .ok_or_else(|| format!("ip {args:?}: {status}").into())
}

fn network() -> Result<(), Failure> {
    ip(&["netns", "add", NAMESPACE])?;
    let user = USER.to_string();
    ip(&[
        "-n", NAMESPACE, "tuntap", "add", TAP, "mode", "tap", "user", &user, "vnet_hdr",
    ])?;
    ip(&["-n", NAMESPACE, "link", "set", TAP, "up"])?;
    ip(&[
        "-n",
        NAMESPACE,
        "addr",
        "add",
        "fdaa::1:1/64",
        "dev",
        TAP,
        "nodad",
    ])?;
    let neighbour = [
        "-n",
        NAMESPACE,
        "neigh",
        "add",
        GUEST,
        "lladdr",
        "02:00:00:00:00:01",
    ];
    ip(&[&neighbour[..], &["dev", TAP, "nud", "permanent"]].concat())
}

/// Returns when the machine answers on the network.
async fn echo() -> Result<(), Failure> {
    let mut ping = tokio::process::Command::new("ip")
        .args([
            "netns", "exec", NAMESPACE, "ping", "-6", "-n", "-i", "0.01", GUEST,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let output = ping.stdout.take().ok_or("ping says nothing")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = timeout(PATIENCE, lines.next_line()).await?? {
        if line.contains("bytes from") {
            return Ok(());
        }
    }
    Err("ping ended".into())
}

struct Bench {
    vmm: Local,
    machine: MachineId,
    image: PathBuf,
}

impl Bench {
    async fn run(&self, runs: u64) -> Result<(), Failure> {
        let mut cold = Vec::new();
        let mut boot = 0;
        for _ in 0..runs.div_ceil(4) {
            boot += 1;
            let start = Instant::now();
            self.begin(boot, false).await?;
            self.first_byte(boot).await?;
            cold.push(start.elapsed());
            self.vmm.kill(&self.machine, BootId(boot)).await?;
        }
        boot += 1;
        let mut reports = self.begin(boot, false).await?;
        let (mut suspended, mut ready, mut resumed) = (Vec::new(), Vec::new(), Vec::new());
        let mut echoed = Vec::new();
        for _ in 0..runs {
            let start = Instant::now();
            self.vmm.suspend(&self.machine, BootId(boot)).await?;
            until(&mut reports, |event| *event == ReportEvent::Suspended).await?;
            suspended.push(start.elapsed());
            self.vmm.kill(&self.machine, BootId(boot)).await?;
            boot += 1;
            let start = Instant::now();
            let echo = tokio::spawn(async move { echo().await.map(|()| start.elapsed()) });
            reports = self.begin(boot, true).await?;
            ready.push(start.elapsed());
            self.first_byte(boot).await?;
            resumed.push(start.elapsed());
            echoed.push(echo.await??);
        }
        self.vmm.kill(&self.machine, BootId(boot)).await?;
        print("cold boot to exec answer", cold);
        print("suspend", suspended);
        print("resume to ready", ready);
        print("resume to network echo", echoed);
        print("resume to exec answer", resumed);
        Ok(())
    }

    /// Returns when the machine is ready.
    async fn begin(&self, boot: u64, resume: bool) -> Result<mpsc::Receiver<Report>, Failure> {
        self.vmm.boot(self.spec(boot, resume)).await?;
        let mut reports = self.vmm.reports(&self.machine, BootId(boot), 0).await?;
        until(&mut reports, |event| *event == ReportEvent::Ready).await?;
        Ok(reports)
    }

    /// Of the answer of a process that is started in the machine.
    async fn first_byte(&self, boot: u64) -> Result<(), Failure> {
        let request = || ExecRequest {
            container: "main".into(),
            command: ["sh", "-c", "echo x"].map(str::to_owned).into(),
            env: BTreeMap::new(),
            tty: false,
            stdin: false,
            size: None,
            machine: false,
        };
        loop {
            let exec = self.vmm.exec(&self.machine, BootId(boot), request());
            match timeout(PATIENCE, exec.await?.output.recv()).await? {
                Some(Output::Stdout(_)) => return Ok(()),
                // After a cold boot the container may not have been started yet.
                _ => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    }

    fn spec(&self, boot: u64, resume: bool) -> BootSpec {
        BootSpec {
            machine: self.machine.clone(),
            boot: BootId(boot),
            isolation: IsolationClass::Emulated,
            guest: Guest::default(),
            attachment: BootNetwork {
                ifname: TAP.into(),
                host_netns: Path::new("/run/netns").join(NAMESPACE),
                machine_netns: None,
                mac: MacAddress([2, 0, 0, 0, 0, 1]),
                owner_uid: USER,
            },
            images: vec![ContainerImage {
                container: "main".into(),
                rootfs: self.image.clone(),
            }],
            rootfs_size_bytes: 1 << 30,
            keep: None,
            resume,
            spec: machine(&self.machine),
            boot_timeout: PATIENCE,
        }
    }
}

fn machine(id: &MachineId) -> MachineSpec {
    let sleep = "while :; do sleep 1; done";
    MachineSpec {
        machine_id: id.to_string(),
        hostname: "bench".into(),
        network: Network {
            ipv6: "fdaa::1:2".parse().expect("an address"),
            gateway_v6: "fdaa::1:1".parse().expect("an address"),
            ipv4: [172, 19, 0, 2].into(),
            gateway_v4: [172, 19, 0, 1].into(),
            mtu: 1420,
            nameservers: Vec::new(),
            searches: Vec::new(),
            options: Vec::new(),
            hosts: Vec::new(),
        },
        containers: vec![ContainerSpec {
            name: "main".into(),
            command: ["sh", "-c", sleep].map(str::to_owned).into(),
            env: BTreeMap::new(),
            working_dir: "/".into(),
            user: String::new(),
            tty: false,
            stdin: false,
            restart: Restart::default(),
            stop_signal: None,
            depends_on: Vec::new(),
            files: Vec::new(),
            mounts: Vec::new(),
            image_disk: String::new(),
            upper_disk: String::new(),
        }],
        volumes: Vec::new(),
        directories: Vec::new(),
        checks: Vec::new(),
        unix_ms: 1_700_000_000_000,
    }
}

async fn until(
    reports: &mut mpsc::Receiver<Report>,
    wanted: impl Fn(&ReportEvent) -> bool,
) -> Result<(), Failure> {
    while let Some(report) = timeout(PATIENCE, reports.recv()).await? {
        if wanted(&report.event) {
            return Ok(());
        }
        if report.event.is_last() {
            return Err(format!("the boot ended: {:?}", report.event).into());
        }
    }
    Err("the reports ended".into())
}

#[expect(clippy::print_stdout, reason = "the figures are what this is for")]
fn print(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| {
        let index = (times.len() * percent).div_ceil(100).max(1) - 1;
        times.get(index).map_or(0, Duration::as_millis)
    };
    let count = times.len();
    println!(
        "{what:<28} p50 {:>6} ms   p99 {:>6} ms   ({count} times)",
        at(50),
        at(99)
    );
}
