//! Firecracker's API without a machine behind it: the states, bodies, limits and answers of
//! v1.16, so that a call in the wrong order or with a wrong field fails as it would there.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, server};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::UnixListener;

use super::super::api::{Api, ApiError, BODY_BYTES_MAX};
use super::super::model::{
    Action, BootSource, CacheType, Drive, Entropy, MachineConfig, NetworkInterface, SnapshotCreate,
    SnapshotLoad, VCPUS_MAX, VmState, Vsock,
};
use super::super::setup::{Begin, Setup};
use crate::shim::tests::spec;

const POST_BOOT: &str = "The requested operation is not supported after starting the microVM.";
const PRE_BOOT: &str = "The requested operation is not supported before starting the microVM.";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    NotStarted,
    Running,
    Paused,
}

#[derive(Debug, Default)]
struct Machine {
    state: State,
    /// Something was set that a snapshot brings along.
    configured: bool,
    has_kernel: bool,
    calls: Vec<(String, Value)>,
}

/// The fake, and what stands for the root of its jail.
#[derive(Debug, Clone)]
struct Fake {
    machine: Arc<Mutex<Machine>>,
    root: PathBuf,
}

type Outcome = Result<(), String>;

impl Fake {
    fn start(root: &Path) -> (Self, PathBuf) {
        let fake = Self {
            machine: Arc::default(),
            root: root.to_owned(),
        };
        let socket = root.join("api.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let this = fake.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let this = this.clone();
                let service = service_fn(move |request| {
                    let this = this.clone();
                    async move { Ok::<_, Infallible>(this.answer(request).await) }
                });
                let http = server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        (fake, socket)
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let answer = |status, body: Value| {
            let text = if body.is_null() {
                Bytes::new()
            } else {
                body.to_string().into()
            };
            let response = Response::builder().status(status);
            response.body(Full::new(text)).unwrap()
        };
        if body.len() > BODY_BYTES_MAX {
            // Of the HTTP server, which knows no `fault_message`.
            return answer(StatusCode::BAD_REQUEST, json!({ "error": "too large" }));
        }
        match self.call(&parts.method, parts.uri.path(), &body) {
            Ok(()) => answer(StatusCode::NO_CONTENT, Value::Null),
            Err(fault) => answer(StatusCode::BAD_REQUEST, json!({ "fault_message": fault })),
        }
    }

    fn call(&self, method: &Method, path: &str, body: &[u8]) -> Outcome {
        let mut machine = self.machine.lock().unwrap();
        let noted = serde_json::from_slice(body).unwrap_or(Value::Null);
        machine.calls.push((format!("{method} {path}"), noted));
        if method == Method::PUT && body.is_empty() {
            return Err("Empty PUT request.".into());
        }
        let mut tokens = path.trim_start_matches('/').split('/');
        let call = (method.as_str(), tokens.next().unwrap_or(""), tokens.next());
        match call {
            ("PUT", "machine-config", None) => machine.configure(|_| {
                let config: MachineConfig = parse(body)?;
                match config.vcpu_count {
                    1..=VCPUS_MAX if config.mem_size_mib > 0 => Ok(()),
                    _ => Err("Machine config error: not valid".into()),
                }
            }),
            ("PUT", "boot-source", None) => machine.configure(|machine| {
                let source: BootSource = parse(body)?;
                machine.has_kernel = true;
                let error = "Boot source error: The kernel file cannot be opened: ";
                self.exists(error, &source.kernel_image_path)?;
                source
                    .initrd_path
                    .map_or(Ok(()), |path| self.exists("Boot source error: ", &path))
            }),
            ("PUT", "drives", Some(id)) => machine.configure(|_| {
                let drive: Drive = parse(body)?;
                same_id(id, &drive.drive_id)?;
                self.exists("Drive config error: ", &drive.path_on_host)
            }),
            ("PUT", "network-interfaces", Some(id)) => machine.configure(|_| {
                let interface: NetworkInterface = parse(body)?;
                same_id(id, &interface.iface_id)
            }),
            ("PUT", "vsock", None) => machine.configure(|_| {
                let vsock: Vsock = parse(body)?;
                if vsock.guest_cid < 3 {
                    return Err("Vsock config error: not valid".into());
                }
                Ok(())
            }),
            ("PUT", "entropy", None) => machine.configure(|_| parse::<Entropy>(body).map(drop)),
            ("PUT", "actions", None) => {
                let Action::InstanceStart = parse(body)?;
                machine.start()
            }
            ("PATCH", "vm", None) => machine.change(parse(body)?),
            ("PUT", "snapshot", Some("create")) => self.save(&machine, &parse(body)?),
            ("PUT", "snapshot", Some("load")) => self.load(&mut machine, &parse(body)?),
            (method, ..) => Err(format!(
                "Invalid request method and/or path: {method} {path}."
            )),
        }
    }

    fn exists(&self, error: &str, inside: &Path) -> Outcome {
        let outside = self.root.join(inside.strip_prefix("/").unwrap());
        match outside.metadata() {
            Ok(_) => Ok(()),
            Err(cause) => Err(format!("{error}{cause}")),
        }
    }

    fn save(&self, machine: &Machine, create: &SnapshotCreate) -> Outcome {
        match machine.state {
            State::NotStarted => Err(PRE_BOOT.into()),
            State::Running => Err(
                "Create snapshot error: Cannot save the microVM state: Operation not allowed: \
                 save_state requires the microVM to be paused"
                    .into(),
            ),
            State::Paused => {
                for path in [&create.snapshot_path, &create.mem_file_path] {
                    let outside = self.root.join(path.strip_prefix("/").unwrap());
                    std::fs::write(outside, "saved").map_err(|error| error.to_string())?;
                }
                Ok(())
            }
        }
    }

    fn load(&self, machine: &mut Machine, load: &SnapshotLoad) -> Outcome {
        if machine.state != State::NotStarted {
            return Err(POST_BOOT.into());
        }
        if machine.configured {
            return Err(
                "Load snapshot error: Loading a microVM snapshot not allowed after configuring \
                 boot-specific resources."
                    .into(),
            );
        }
        let error = "Load snapshot error: ";
        self.exists(error, &load.snapshot_path)?;
        self.exists(error, &load.mem_backend.backend_path)?;
        machine.state = if load.resume_vm {
            State::Running
        } else {
            State::Paused
        };
        Ok(())
    }

    fn calls(&self) -> Vec<String> {
        let machine = self.machine.lock().unwrap();
        machine.calls.iter().map(|(call, _)| call.clone()).collect()
    }

    fn body(&self, call: &str) -> Value {
        let machine = self.machine.lock().unwrap();
        let mut calls = machine.calls.iter();
        calls.find(|(made, _)| made == call).unwrap().1.clone()
    }
}

impl Machine {
    fn configure(&mut self, set: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        if self.state != State::NotStarted {
            return Err(POST_BOOT.into());
        }
        self.configured = true;
        set(self)
    }

    fn start(&mut self) -> Outcome {
        match self.state {
            State::Running | State::Paused => Err(POST_BOOT.into()),
            State::NotStarted if !self.has_kernel => Err(
                "Start microvm error: Cannot start microvm without kernel configuration.".into(),
            ),
            State::NotStarted => {
                self.state = State::Running;
                Ok(())
            }
        }
    }

    fn change(&mut self, wanted: VmState) -> Outcome {
        if self.state == State::NotStarted {
            return Err(PRE_BOOT.into());
        }
        self.state = match wanted {
            VmState::Paused => State::Paused,
            VmState::Resumed => State::Running,
        };
        Ok(())
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        format!("An error occurred when deserializing the json body of a request: {error}.")
    })
}

fn same_id(path: &str, body: &str) -> Outcome {
    if path.is_empty() || !path.chars().all(|c| c == '_' || c.is_alphanumeric()) {
        return Err(
            "API Resource IDs can only contain alphanumeric characters and underscores.".into(),
        );
    }
    if path != body {
        return Err("The id from the path does not match the id from the body!".into());
    }
    Ok(())
}

fn drive(id: &str, read_only: bool) -> Drive {
    Drive {
        drive_id: id.into(),
        path_on_host: Path::new("/").join(id),
        is_root_device: false,
        is_read_only: read_only,
        cache_type: CacheType::Unsafe,
    }
}

fn boot() -> Begin {
    Begin::Boot {
        kernel: "/vmlinux".into(),
        initramfs: "/initramfs.cpio".into(),
        drives: vec![drive("image0", true), drive("upper0", false)],
    }
}

fn setup(begin: Begin) -> Setup {
    Setup::new(&spec().boot, begin).unwrap()
}

fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for name in ["vmlinux", "initramfs.cpio", "image0", "upper0"] {
        std::fs::write(root.path().join(name), "").unwrap();
    }
    root
}

#[tokio::test]
async fn a_machine_is_set_up_in_order_paused_saved_and_loaded_by_another_process() {
    let root = root();
    let (fake, socket) = Fake::start(root.path());
    let mut api = Api::connect(&socket).await.unwrap();
    setup(boot()).carry_out(&mut api).await.unwrap();
    let expected = [
        "PUT /machine-config",
        "PUT /boot-source",
        "PUT /drives/image0",
        "PUT /drives/upper0",
        "PUT /network-interfaces/eth0",
        "PUT /vsock",
        "PUT /entropy",
        "PUT /actions",
    ];
    assert_eq!(fake.calls(), expected);
    let source = fake.body("PUT /boot-source");
    let arguments = source["boot_args"].as_str().unwrap();
    assert!(
        arguments.contains(types::guest::VSOCK_WANTED),
        "{arguments}"
    );
    assert!(arguments.len() < 2048, "longer than the kernel reads");
    assert_eq!(
        fake.body("PUT /machine-config"),
        json!({ "vcpu_count": 2, "mem_size_mib": 128, "smt": false, "track_dirty_pages": false })
    );
    let interface = fake.body("PUT /network-interfaces/eth0");
    assert_eq!(interface["guest_mac"], "02:00:00:00:00:01");
    assert_eq!(fake.body("PUT /drives/image0")["is_read_only"], json!(true));
    api.patch("/vm", &VmState::Paused).await.unwrap();
    let create = SnapshotCreate {
        snapshot_type: super::super::model::SnapshotType::Full,
        snapshot_path: "/state".into(),
        mem_file_path: "/memory".into(),
    };
    api.put("/snapshot/create", &create).await.unwrap();

    let other = self::root();
    for name in ["state", "memory"] {
        std::fs::copy(root.path().join(name), other.path().join(name)).unwrap();
    }
    let (fake, socket) = Fake::start(other.path());
    let mut api = Api::connect(&socket).await.unwrap();
    let restore = setup(Begin::Restore {
        state: "/state".into(),
        memory: "/memory".into(),
    });
    restore.carry_out(&mut api).await.unwrap();
    let expected = ["PUT /snapshot/load"];
    assert_eq!(fake.calls(), expected);
    let load = fake.body("PUT /snapshot/load");
    assert_eq!(load["network_overrides"][0]["host_dev_name"], "m1");
    assert_eq!(
        load["resume_vm"],
        json!(false),
        "its files are taken away first"
    );
    api.patch("/vm", &VmState::Resumed).await.unwrap();
}

#[tokio::test]
async fn what_firecracker_refuses_is_told_in_its_words() {
    let root = root();
    std::fs::remove_file(root.path().join("upper0")).unwrap();
    let (_fake, socket) = Fake::start(root.path());
    let mut api = Api::connect(&socket).await.unwrap();
    let error = setup(boot()).carry_out(&mut api).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("PUT /drives/upper0 with 400"), "{text}");
    assert!(text.contains("Drive config error"), "{text}");

    let refused = api.put("/actions", &json!({ "action_type": "Sing" })).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("deserializing the json body"), "{text}");
    let refused = api.patch("/vm", &VmState::Paused).await;
    assert!(refused.unwrap_err().to_string().contains(PRE_BOOT));
    let refused = api.put("/hotplug/gpu", &json!({})).await;
    let text = refused.unwrap_err().to_string();
    assert!(text.contains("Invalid request method"), "{text}");
}

#[tokio::test]
async fn bodies_have_a_limit_and_the_connection_lives_on() {
    let root = root();
    let (fake, socket) = Fake::start(root.path());
    let mut api = Api::connect(&socket).await.unwrap();
    let long = json!({ "boot_args": "x".repeat(BODY_BYTES_MAX) });
    let error = api.put("/boot-source", &long).await.unwrap_err();
    assert!(matches!(error, ApiError::TooLong { .. }), "{error}");
    assert!(fake.calls().is_empty());
    let fits = json!({ "boot_args": "x".repeat(BODY_BYTES_MAX - 16) });
    assert!(matches!(
        api.put("/boot-source", &fits).await.unwrap_err(),
        ApiError::Refused { .. }
    ));
    api.put("/entropy", &Entropy {}).await.unwrap();
}

#[tokio::test]
async fn a_snapshot_is_not_loaded_into_a_machine_that_was_configured() {
    let root = root();
    let (_fake, socket) = Fake::start(root.path());
    let mut api = Api::connect(&socket).await.unwrap();
    api.put("/entropy", &Entropy {}).await.unwrap();
    let restore = setup(Begin::Restore {
        state: "/image0".into(),
        memory: "/image0".into(),
    });
    let error = restore.carry_out(&mut api).await.unwrap_err().to_string();
    assert!(error.contains("not allowed after configuring"), "{error}");
}

#[tokio::test]
async fn a_process_that_hangs_up_is_an_error_and_not_a_wait() {
    let root = tempfile::tempdir().unwrap();
    let socket = root.path().join("api.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let silent = tokio::spawn(async move { drop(listener.accept().await.unwrap()) });
    let mut api = Api::connect(&socket).await.unwrap();
    silent.await.unwrap();
    let error = api.put("/entropy", &Entropy {}).await.unwrap_err();
    assert!(matches!(error, ApiError::Silent { .. }), "{error}");
}

#[test]
fn more_processors_than_firecracker_has_are_refused() {
    let mut boot_spec = spec().boot;
    boot_spec.guest.cpus = VCPUS_MAX + 1;
    let refused = Setup::new(&boot_spec, boot());
    assert!(refused.unwrap_err().to_string().contains("32 at most"));
}
