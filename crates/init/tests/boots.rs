//! A real boot: the guest image under QEMU without KVM, driven over the real protocol.
//!
//! Needs `cargo xtask guest --out .cache/guest` before (or `AEROSTAT_GUEST_DIR`), and QEMU,
//! mkfs.erofs, mkfs.ext4 and a static busybox.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use guest::wire::host::{Connection, ControlReceiver, ControlSender, FromGuest, FromProcess};
use tokio::net::UnixStream;
use types::api::TerminalSize;
use types::guest::{
    ContainerReportState, ContainerSpec, ExecEnd, ExecRequest, FileSpec, GuestMessage, HostMessage,
    MachineSpec, Network, Resume, VIRTIO_PORT,
};
use types::machine::{ExitEvent, Restart, RestartPolicy};

/// A boot takes 3 s on a quiet host with two processors; this is for a busy one.
const DEADLINE: Duration = Duration::from_secs(60);

/// In the year 2033.
const RESUMED_UNIX_MS: i64 = 2_000_000_000_000;

const APPLETS: [&str; 16] = [
    "sh", "cat", "date", "echo", "hostname", "id", "ip", "kill", "ls", "nc", "ps", "pwd", "sleep",
    "stty", "tty", "touch",
];

fn guest_directory() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache/guest");
    std::env::var_os("AEROSTAT_GUEST_DIR").map_or_else(default, PathBuf::from)
}

/// What this machine lacks for a boot.
fn missing() -> Option<String> {
    let has = |name: &str| {
        ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
            .iter()
            .any(|directory| Path::new(directory).join(name).exists())
    };
    let programs = [
        "qemu-system-x86_64",
        "mkfs.erofs",
        "mkfs.ext4",
        "e2fsck",
        "busybox",
    ];
    if let Some(name) = programs.into_iter().find(|name| !has(name)) {
        return Some(format!("there is no {name}"));
    }
    let directory = guest_directory();
    let files = ["vmlinux", "initramfs.cpio"].map(|name| directory.join(name));
    let file = files.iter().find(|file| !file.exists())?;
    Some(format!(
        "there is no {}; `cargo xtask guest` makes it",
        file.display()
    ))
}

fn run(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {output:?}");
}

/// An image with busybox, and empty writable layers.
fn make_disks(directory: &Path, containers: &[&str]) {
    let tree = directory.join("tree");
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::copy("/usr/bin/busybox", tree.join("bin/busybox")).unwrap();
    for applet in APPLETS {
        symlink("busybox", tree.join("bin").join(applet)).unwrap();
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/sh\n";
    fs::write(tree.join("etc/passwd"), passwd).unwrap();
    fs::write(
        tree.join("etc/group"),
        "root:x:0:\nwww:x:34:\nlog:x:5:web\n",
    )
    .unwrap();
    // A name file that an image puts elsewhere must not be followed out of the root.
    symlink("/run/resolv.conf", tree.join("etc/resolv.conf")).unwrap();
    let image = directory.join("image.erofs");
    run(
        "mkfs.erofs",
        &[image.to_str().unwrap(), tree.to_str().unwrap()],
    );
    for container in containers {
        let upper = directory.join(format!("{container}.ext4"));
        fs::File::create(&upper).unwrap().set_len(64 << 20).unwrap();
        run("mkfs.ext4", &["-q", "-F", upper.to_str().unwrap()]);
    }
}

/// QEMU, ended with the test.
struct Vm {
    qemu: Child,
    directory: tempfile::TempDir,
}

impl Vm {
    fn start(containers: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        make_disks(directory.path(), containers);
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let guest = guest_directory();
        let mut command = Command::new("qemu-system-x86_64");
        command.args("-nodefaults -no-user-config -display none -no-reboot".split(' '));
        command.args("-M q35,usb=off -bios qboot.rom -accel tcg -cpu max -m 256 -smp 1".split(' '));
        command.arg("-kernel").arg(guest.join("vmlinux"));
        command.arg("-initrd").arg(guest.join("initramfs.cpio"));
        let append = "console=ttyS0 reboot=t panic=-1 quiet tsc=reliable no_timer_check";
        command.args(["-append", append, "-serial"]);
        command.arg(format!("file:{}", path("console")));
        let mut disk = |name: &str, file: String, options: &str| {
            command.arg("-drive");
            command.arg(format!("if=none,id={name},format=raw,file={file}{options}"));
            let device = "virtio-blk-pci,disable-legacy=on";
            command.args(["-device", &format!("{device},drive={name},serial={name}")]);
        };
        disk("image", path("image.erofs"), ",readonly=on");
        for container in containers {
            disk(container, path(&format!("{container}.ext4")), "");
        }
        // A card that reaches nobody. (With a `hubport` behind it, qboot of QEMU 7.2 hangs.)
        command.args(["-netdev", "user,id=net,restrict=on", "-device"]);
        command.arg("virtio-net-pci,disable-legacy=on,romfile=,netdev=net");
        command.args(["-device", "virtio-rng-pci,disable-legacy=on"]);
        command.args(["-device", "virtio-serial-pci,disable-legacy=on", "-chardev"]);
        command.arg(format!(
            "socket,id=control,path={},server=on,wait=off",
            path("control")
        ));
        command.arg("-device");
        command.arg(format!("virtserialport,chardev=control,name={VIRTIO_PORT}"));
        let qemu = command.stdin(Stdio::null()).spawn().unwrap();
        Self { qemu, directory }
    }

    async fn connect(&self) -> UnixStream {
        let path = self.directory.path().join("control");
        let deadline = Instant::now() + DEADLINE;
        loop {
            match UnixStream::connect(&path).await {
                Ok(stream) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn console(&self) -> String {
        let bytes = fs::read(self.directory.path().join("console")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    async fn wait_for_end(&mut self) {
        let deadline = Instant::now() + DEADLINE;
        while self.qemu.try_wait().unwrap().is_none() {
            assert!(
                Instant::now() < deadline,
                "QEMU goes on:\n{}",
                self.console()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        if std::thread::panicking() {
            eprintln!("console:\n{}", self.console());
        }
    }
}

fn container(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.into(),
        command: ["sh", "-c", script].map(String::from).to_vec(),
        env: BTreeMap::from([("GREETING".into(), "good day".into())]),
        working_dir: "/srv/new".into(),
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
        image_disk: "image".into(),
        upper_disk: name.into(),
    }
}

fn machine(containers: Vec<ContainerSpec>) -> MachineSpec {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    MachineSpec {
        machine_id: "m".into(),
        hostname: "web".into(),
        network: Network {
            ipv6: "fdaa:0:1:a7b:1::2".parse().unwrap(),
            gateway_v6: "fe80::1".parse().unwrap(),
            ipv4: "172.19.0.2".parse().unwrap(),
            gateway_v4: "172.19.0.1".parse().unwrap(),
            mtu: 1420,
            nameservers: vec!["fdaa::3".into()],
            searches: Vec::new(),
            options: Vec::new(),
            hosts: Vec::new(),
        },
        containers,
        volumes: Vec::new(),
        directories: Vec::new(),
        checks: Vec::new(),
        unix_ms: i64::try_from(now.as_millis()).unwrap(),
    }
}

fn request(container: &str, script: &str) -> ExecRequest {
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

async fn exec(connection: &Connection, request: ExecRequest) -> (String, ExecEnd) {
    let (_input, mut output) = connection.exec(request).await.unwrap();
    let mut text = Vec::new();
    loop {
        match output.next().await.unwrap().expect("an end") {
            FromProcess::Stdout(bytes) | FromProcess::Stderr(bytes) => text.extend(bytes),
            FromProcess::End(end) => return (String::from_utf8(text).unwrap(), end),
        }
    }
}

async fn next(receiver: &mut ControlReceiver) -> FromGuest {
    receiver.next().await.unwrap().expect("more")
}

/// Collects logs until `wanted` is among them.
async fn read_log(receiver: &mut ControlReceiver, log: &mut String, wanted: &str) {
    while !log.contains(wanted) {
        if let FromGuest::Log(chunk) = next(receiver).await {
            log.push_str(&String::from_utf8_lossy(&chunk.bytes));
        }
    }
}

async fn read_exit(receiver: &mut ControlReceiver) -> ExitEvent {
    loop {
        if let FromGuest::Message(GuestMessage::Exited { exit }) = next(receiver).await {
            return exit;
        }
    }
}

/// A host that comes back learns how everything is.
async fn connect_again(vm: &Vm) -> (ControlSender, ControlReceiver, Connection) {
    let connection = Connection::new(vm.connect().await);
    // The guest's clock is right, and this is a time that it would not have by itself.
    let resume = Resume {
        unix_ms: RESUMED_UNIX_MS,
        entropy: "AAAA".repeat(20),
    };
    let (sender, mut receiver) = connection.control_again(resume).await.unwrap();
    let mut running = 0;
    loop {
        match next(&mut receiver).await {
            FromGuest::Message(GuestMessage::Container(report)) => match report.state {
                ContainerReportState::Started { .. } => running += 1,
                ContainerReportState::Exited { .. } => assert_eq!(report.container, "job"),
                ContainerReportState::Failed { reason, .. } => panic!("{reason}"),
            },
            FromGuest::Message(GuestMessage::Ready) => break,
            FromGuest::Message(other) => panic!("{other:?}"),
            FromGuest::Log(_) => {}
        }
    }
    assert_eq!(running, 2);
    (sender, receiver, connection)
}

/// What a guest says of itself, and what it does beside its containers.
async fn ask(connection: &Connection) {
    let all = connection.processes().await.unwrap();
    let of = |container: &str| all.iter().find(|one| one.container == container).unwrap();
    assert!(
        of("").command.contains("init") && of("").pid == 1,
        "{all:?}"
    );
    assert!(
        of("user").command.contains("sleep 0.1") && of("user").directory == "/srv",
        "{all:?}"
    );
    let mut sockets = all.iter().filter(|one| !one.listen_sockets.is_empty());
    let listening = sockets.next().unwrap();
    assert_eq!(
        (listening.container.as_str(), sockets.next()),
        ("app", None)
    );
    assert_eq!(listening.listen_sockets[0].address, "[::]:8080");
    let used = connection.statistics().await.unwrap();
    assert!(
        used.memory_bytes > 1 << 20 && used.memory_limit_bytes > 100 << 20,
        "{used:?}"
    );
    assert!(used.cpu_ns > 0 && used.disk_read_bytes > 0, "{used:?}");
    let app = &used.containers["app"];
    assert!(
        app.memory_bytes > 0 && app.cpu_ns > 0 && app.processes > 0,
        "{used:?}"
    );
    assert!(app.disk_used_bytes > 0, "{used:?}");
    let mut beside = request("", "");
    let program = "/containers/app/root/bin/busybox";
    beside.command = [program, "ls", "/"].map(String::from).to_vec();
    beside.machine = true;
    let (text, end) = exec(connection, beside).await;
    assert_eq!(end, ExecEnd::Exited { exit_code: 0 });
    assert!(
        text.contains("containers\n") && text.contains("init\n"),
        "{text}"
    );
    let (_input, mut output) = connection.get_files("app", "/written").await.unwrap();
    let mut archive = Vec::new();
    while let Some(FromProcess::Stdout(bytes)) = output.next().await.unwrap() {
        archive.extend(bytes);
    }
    let (mut input, mut output) = connection.put_files("user", "/srv/in").await.unwrap();
    input.stdin(&archive).await.unwrap();
    input.close_stdin().await.unwrap();
    let end = output.next().await.unwrap();
    assert_eq!(
        end,
        Some(FromProcess::End(ExecEnd::Exited { exit_code: 0 }))
    );
    let (text, _) = exec(
        connection,
        request("user", "ls -ln /srv/in; cat /srv/in/written"),
    )
    .await;
    assert!(
        text.contains(" 33       34 ") && text.contains("mark"),
        "{text}"
    );
}

async fn look_around(connection: &Connection) {
    let (text, end) = exec(connection, request("app", "echo out; exit 7")).await;
    assert_eq!(
        (text.as_str(), end),
        ("out\n", ExecEnd::Exited { exit_code: 7 })
    );
    let (text, _) = exec(connection, request("app", "ip addr; ip route; ip -6 route")).await;
    for expected in [
        "inet6 fdaa:0:1:a7b:1::2/128",
        "inet 172.19.0.2/32",
        "mtu 1420",
        "default via 172.19.0.1 dev eth0",
        "default via fe80::1 dev eth0",
        "inet 127.0.0.1/8",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
    assert!(!text.contains("tentative"), "{text}");
    let script = "id -u; id -g; id -G; pwd; hostname; cat /secret /etc/resolv.conf; ls /proc/1/cwd \
        /dev/null /dev/shm >/dev/null && echo $GREETING; ulimit -n; ps | grep -c '[s]leep 0.1'";
    let (text, _) = exec(connection, request("user", script)).await;
    let lines: Vec<_> = text.lines().collect();
    let expected = [
        "33",
        "34",
        "34 5",
        "/srv",
        "web",
        "hinameserver fdaa::3",
        "good day",
        "65536",
    ];
    assert_eq!(lines[..8], expected, "{text}");
    let mut tty = request("app", "tty; stty size; exit 4");
    tty.tty = true;
    tty.size = Some(TerminalSize {
        width: 100,
        height: 30,
    });
    let (text, end) = exec(connection, tty).await;
    assert!(
        text.starts_with("/dev/pts/") && text.ends_with("30 100\r\n"),
        "{text:?}"
    );
    assert_eq!(end, ExecEnd::Exited { exit_code: 4 });
    let mut missing = request("app", "");
    missing.command = vec!["no-such-program".into()];
    let (_, end) = exec(connection, missing).await;
    assert!(matches!(&end, ExecEnd::Failed { reason } if reason.contains("no-such-program")));
}

#[tokio::test]
async fn a_guest_boots_runs_containers_and_ends_with_their_exit() {
    if let Some(why) = missing() {
        eprintln!("SKIPPED: a_guest_boots_runs_containers_and_ends_with_their_exit: {why}");
        return;
    }
    let begun = Instant::now();
    let mut vm = Vm::start(&["app", "user", "job"]);
    let life = tokio::time::timeout(DEADLINE, live(&vm)).await;
    assert!(life.is_ok(), "not in time; console:\n{}", vm.console());
    vm.wait_for_end().await;
    // Unmounted, not just cut off.
    let layer = vm.directory.path().join("app.ext4");
    run("e2fsck", &["-f", "-n", layer.to_str().unwrap()]);
    let console = vm.console();
    assert!(!console.contains("init: "), "PID 1 complained:\n{console}");
    eprintln!(
        "boot, life and end of a machine: {} ms",
        begun.elapsed().as_millis()
    );
}

async fn live(vm: &Vm) {
    let begun = Instant::now();
    let connection = Connection::new(vm.connect().await);
    let (mut sender, mut receiver) = connection.control().await.unwrap();
    eprintln!("hello after {} ms", begun.elapsed().as_millis());
    let script = "echo mark >/written; nc -l -p 8080 & echo hello $GREETING; trap 'echo bye; exit 5' TERM; \
        while :; do sleep 0.1; done";
    let mut user = container("user", "while :; do sleep 0.1; done");
    user.user = "web".into();
    user.working_dir = "/srv".into();
    user.files.push(FileSpec {
        path: "/secret".into(),
        content: "aGk=".into(),
        mode: 0o444,
    });
    let containers = vec![container("app", script), user, container("job", "exit 3")];
    let start = HostMessage::Start(Box::new(machine(containers)));
    sender.send(&start).await.unwrap();
    let answer = next(&mut receiver).await;
    assert_eq!(answer, FromGuest::Message(GuestMessage::Ready));
    eprintln!("ready after {} ms", begun.elapsed().as_millis());
    let (mut log, mut job) = (String::new(), None);
    while job.is_none() || !log.contains("good day") {
        match next(&mut receiver).await {
            FromGuest::Log(chunk) => log.push_str(&String::from_utf8_lossy(&chunk.bytes)),
            FromGuest::Message(GuestMessage::Container(report)) => match report.state {
                ContainerReportState::Started { pid, .. } => assert!(pid > 1),
                ContainerReportState::Exited { exit, .. } => job = Some(exit.exit_code),
                ContainerReportState::Failed { reason, .. } => panic!("{reason}"),
            },
            FromGuest::Message(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(job, Some(3));
    look_around(&connection).await;
    ask(&connection).await;
    // As before a suspension.
    sender.finish().await.unwrap();
    while receiver.next().await.unwrap().is_some() {}
    drop((receiver, connection));
    let (mut sender, mut receiver, connection) = connect_again(vm).await;
    let (text, _) = exec(&connection, request("app", "date +%s")).await;
    let seconds: i64 = text.trim().parse().unwrap();
    assert!(
        (0..60).contains(&(seconds - RESUMED_UNIX_MS / 1000)),
        "{text}"
    );
    let stop = HostMessage::Stop {
        signal: None,
        grace_ms: 3000,
    };
    sender.send(&stop).await.unwrap();
    read_log(&mut receiver, &mut log, "bye").await;
    let exit = read_exit(&mut receiver).await;
    // The first that failed was the job, before anybody asked for a stop.
    assert_eq!((exit.exit_code, exit.requested_stop), (3, false));
    assert_eq!(receiver.next().await.unwrap(), None);
    eprintln!("exited after {} ms", begun.elapsed().as_millis());
}
