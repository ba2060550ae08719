//! A runtime of plain processes without any isolation, and a host that talks to it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use guest::inspect::{Sockets, stat};
use guest::root::Root;
use guest::runtime::RunEnd;
use guest::wire::host::{Connection, ControlReceiver, ControlSender, FromGuest, FromProcess};
use guest::{
    Alive, Ended, ExitStatus, Guest, Process, Reaper, Runtime, RuntimeError, signal, stdio,
};
use types::api::{ProcessStat, TerminalSize};
use types::guest::{
    ContainerReport, ContainerSpec, ExecEnd, ExecRequest, GuestMessage, HostMessage, MachineSpec,
    Network, Statistics,
};
use types::machine::{ExitEvent, Restart, RestartPolicy};

pub(crate) struct Plain;

impl Plain {
    fn run(
        reaper: &Reaper,
        command: &[String],
        io: (guest::ProcessIo, stdio::ChildIo),
    ) -> Result<Process, RuntimeError> {
        // util-linux's setsid stays the same process, as the child leads no group yet.
        let mut child = Command::new("setsid");
        if matches!(io.1, stdio::ChildIo::Pty { .. }) {
            child.arg("--ctty");
        }
        child.args(command);
        let failed = |source| RuntimeError::new(format!("run `{}`", command[0]), source);
        io.1.give_to(&mut child).map_err(failed)?;
        let (child, exit) = reaper.spawn(&mut child).map_err(failed)?;
        let pid = i32::try_from(child.id()).unwrap();
        Ok(Process {
            pid,
            exit,
            io: io.0,
        })
    }

    fn io(
        tty: bool,
        stdin: bool,
        size: Option<TerminalSize>,
    ) -> (guest::ProcessIo, stdio::ChildIo) {
        if tty {
            stdio::pty(size)
        } else {
            stdio::pipes(stdin)
        }
        .unwrap()
    }
}

impl Runtime for Plain {
    fn prepare(&self, spec: &MachineSpec) -> Result<(), RuntimeError> {
        match spec.hostname.as_str() {
            "unwanted" => Err(RuntimeError::new("set host name", "it is not wanted")),
            _ => Ok(()),
        }
    }

    fn start(
        &self,
        reaper: &Reaper,
        _: &MachineSpec,
        container: &ContainerSpec,
        _: u32,
    ) -> Result<Process, RuntimeError> {
        let io = Self::io(container.tty, container.stdin, None);
        Self::run(reaper, &container.command, io)
    }

    fn exec(
        &self,
        reaper: &Reaper,
        _: &ContainerSpec,
        _: i32,
        request: &ExecRequest,
    ) -> Result<Process, RuntimeError> {
        let io = Self::io(request.tty, request.stdin, request.size);
        Self::run(reaper, &request.command, io)
    }

    fn exec_beside(&self, _: &Reaper, _: &ExecRequest) -> Result<Process, RuntimeError> {
        Err(RuntimeError::new("run it there", "there is no such place"))
    }

    fn resume(&self, unix_ms: i64, entropy: &[u8]) -> Result<(), RuntimeError> {
        match (unix_ms, entropy) {
            (5, b"hi") => Ok(()),
            _ => Err(RuntimeError::new("resume", "that is not what was sent")),
        }
    }

    fn processes(&self, alive: &[Alive]) -> Result<Vec<ProcessStat>, RuntimeError> {
        let one = |one: &Alive| stat(one.main, one.main, &one.container, &Sockets::of(one.main));
        Ok(alive.iter().filter_map(one).collect())
    }

    fn statistics(&self, alive: &[Alive]) -> Result<Statistics, RuntimeError> {
        let processes = u32::try_from(alive.len()).unwrap();
        Ok(Statistics {
            processes,
            ..Statistics::default()
        })
    }

    fn root(&self, container: &ContainerSpec) -> Result<Root, RuntimeError> {
        let path = std::path::Path::new(&container.working_dir);
        Root::open(path).map_err(|source| RuntimeError::new("open the root", source))
    }

    fn volume(&self, name: &str) -> Result<OwnedFd, RuntimeError> {
        let opened = std::fs::File::open(name);
        let directory = opened.map_err(|source| RuntimeError::new("open the volume", source))?;
        Ok(directory.into())
    }

    fn signal(&self, _: &ContainerSpec, main: i32, number: i32) -> Result<(), RuntimeError> {
        signal::send(main, number).map_err(|source| RuntimeError::new("signal", source))
    }

    fn kill(&self, container: &ContainerSpec, main: i32) -> Result<(), RuntimeError> {
        // It may not lead a group yet.
        self.signal(container, -main, 9)?;
        self.signal(container, main, 9)
    }

    fn ended(&self, _: &ContainerSpec, _: u32, _: ExitStatus) -> RunEnd {
        RunEnd::default()
    }
}

/// One reaper for all tests of this process, on a runtime that outlives them.
pub(crate) fn reaper() -> Reaper {
    static REAPER: OnceLock<Reaper> = OnceLock::new();
    let start = || {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                sender.send(Reaper::start().unwrap()).unwrap();
                std::future::pending::<()>().await;
            });
        });
        receiver.recv().unwrap()
    };
    REAPER.get_or_init(start).clone()
}

pub(crate) fn shell(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        command: ["sh", "-c", script].map(String::from).to_vec(),
        env: BTreeMap::new(),
        working_dir: "/".into(),
        user: String::new(),
        tty: false,
        stdin: false,
        restart: Restart {
            policy: RestartPolicy::No,
            max_retries: None,
        },
        stop_signal: None,
        depends_on: Vec::new(),
        files: Vec::new(),
        mounts: Vec::new(),
        image_disk: String::new(),
        upper_disk: String::new(),
    }
}

pub(crate) fn machine(containers: Vec<ContainerSpec>) -> MachineSpec {
    MachineSpec {
        machine_id: "m".into(),
        hostname: "m".into(),
        network: Network {
            ipv6: Ipv6Addr::LOCALHOST,
            gateway_v6: Ipv6Addr::LOCALHOST,
            ipv4: Ipv4Addr::LOCALHOST,
            gateway_v4: Ipv4Addr::LOCALHOST,
            mtu: 1420,
            nameservers: Vec::new(),
            searches: Vec::new(),
            options: Vec::new(),
            hosts: Vec::new(),
        },
        containers,
        volumes: Vec::new(),
        directories: Vec::new(),
        checks: Vec::new(),
        unix_ms: 0,
    }
}

pub(crate) struct Host {
    pub(crate) guest: Guest<Plain>,
    pub(crate) served: tokio::task::JoinHandle<Ended>,
    pub(crate) connection: Connection,
    pub(crate) sender: ControlSender,
    pub(crate) receiver: ControlReceiver,
    pub(crate) log: Vec<u8>,
}

impl Host {
    pub(crate) async fn connect(guest: Guest<Plain>) -> Self {
        let (ours, theirs) = tokio::io::duplex(4096);
        let this = guest.clone();
        let served = tokio::spawn(async move { this.serve(theirs).await });
        let connection = Connection::new(ours);
        let (sender, receiver) = connection.control().await.unwrap();
        Self {
            guest,
            served,
            connection,
            sender,
            receiver,
            log: Vec::new(),
        }
    }

    pub(crate) async fn start(containers: Vec<ContainerSpec>) -> Self {
        Self::start_spec(machine(containers)).await
    }

    pub(crate) async fn start_spec(spec: MachineSpec) -> Self {
        let mut host = Self::connect(Guest::new(Plain, reaper())).await;
        let start = HostMessage::Start(Box::new(spec));
        host.sender.send(&start).await.unwrap();
        assert_eq!(host.message().await, GuestMessage::Ready);
        host
    }

    /// The next message; logs on the way are kept.
    pub(crate) async fn message(&mut self) -> GuestMessage {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), self.receiver.next());
            match next.await.expect("in time").unwrap().expect("not the end") {
                FromGuest::Message(message) => return message,
                FromGuest::Log(chunk) => self.log.extend(chunk.bytes),
            }
        }
    }

    pub(crate) async fn report(&mut self) -> ContainerReport {
        match self.message().await {
            GuestMessage::Container(report) => report,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn exit(&mut self) -> ExitEvent {
        loop {
            match self.message().await {
                GuestMessage::Exited { exit } => return exit,
                GuestMessage::Container(_) | GuestMessage::Health(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) async fn first_output(&mut self) {
        while self.log.is_empty() {
            if let Some(FromGuest::Log(chunk)) = self.receiver.next().await.unwrap() {
                self.log.extend(chunk.bytes);
            }
        }
    }

    pub(crate) async fn stop(&mut self, grace: Duration) {
        let grace_ms = u64::try_from(grace.as_millis()).unwrap();
        let signal = None;
        let stop = HostMessage::Stop { signal, grace_ms };
        self.sender.send(&stop).await.unwrap();
    }
}

pub(crate) fn request(container: &str, script: &str) -> ExecRequest {
    ExecRequest {
        container: container.into(),
        command: ["sh", "-c", script].map(String::from).to_vec(),
        env: BTreeMap::new(),
        tty: false,
        stdin: false,
        size: None,
        machine: false,
    }
}

/// Everything up to the end: standard output, standard error and the end.
pub(crate) async fn read_all(output: &mut guest::wire::host::Output) -> (String, String, ExecEnd) {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let next = tokio::time::timeout(Duration::from_secs(30), output.next());
        match next.await.expect("in time").unwrap().expect("an end") {
            FromProcess::Stdout(bytes) => stdout.extend(bytes),
            FromProcess::Stderr(bytes) => stderr.extend(bytes),
            FromProcess::End(end) => {
                let text = |bytes| String::from_utf8(bytes).unwrap();
                return (text(stdout), text(stderr), end);
            }
        }
    }
}
