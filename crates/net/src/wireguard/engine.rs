//! The engine's threads and its handle.

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::core::{Core, Opened, Outgoing};
use super::counters::Drops;
use super::error::WireGuardError;
use super::initiation::Timestamp;
use super::key::{PrivateKey, PublicKey};
use super::knock::{Door, Knocks};
use super::peer::{PeerConfig, PeerId, PeerStatus};
use super::policy::Policy;
use super::socket::Underlay;
use super::tun::Tun;
use super::{inbound, outbound};

/// How long a broken device is left alone before it is tried again.
const RETRY_MS: u16 = 1000;

/// What keeps WireGuard peers: this engine, or the kernel's.
pub trait Backend: Send + Sync {
    /// Adds a peer, or makes it what `config` says; its session goes on unless the key changed.
    fn ensure_peer(&self, config: &PeerConfig) -> Result<(), WireGuardError>;
    /// Whether there was such a peer. Nothing is sent to it or taken from it any more.
    fn remove_peer(&self, id: PeerId) -> bool;
    /// All peers, by id.
    fn peers(&self) -> Vec<PeerStatus>;
}

/// What an engine works with. Both devices may be of different network namespaces: each is of
/// the one it was opened in.
#[derive(Debug)]
pub struct EngineConfig {
    pub private_key: PrivateKey,
    pub tun: Tun,
    pub underlay: Underlay,
}

/// What the engine's threads share.
pub(super) struct Shared {
    pub(super) core: Core,
    pub(super) tun: Tun,
    pub(super) underlay: Underlay,
    /// Readable, by its end, once the engine is to stop. Ends a wait.
    stop: PipeReader,
    /// Ends the threads also where there is always something to read.
    stopping: AtomicBool,
}

impl Shared {
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Waits until `device` has something to read; for a broken one (`None`), a moment. Not longer
    /// than until the engine is to stop.
    pub(super) fn wait(&self, device: Option<&impl AsFd>) {
        let stop = PollFd::new(self.stop.as_fd(), PollFlags::POLLIN);
        // A signal ends the wait early, which is no harm.
        let _ = match device {
            Some(device) => {
                let mut polls = [stop, PollFd::new(device.as_fd(), PollFlags::POLLIN)];
                poll(&mut polls, PollTimeout::NONE)
            }
            None => poll(&mut [stop], PollTimeout::from(RETRY_MS)),
        };
    }

    fn send(&self, (to, datagram): Outgoing) {
        self.underlay.send(to, &[datagram], &self.core.counters);
    }
}

/// What a thread does until the engine stops.
type Job = fn(&Shared);

/// A running WireGuard device. Stops, and takes its TUN device along, when dropped.
pub struct Engine {
    shared: Arc<Shared>,
    public_key: PublicKey,
    /// Closing it ends the threads.
    stop: Option<PipeWriter>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("link", &self.shared.tun.link())
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts without peers. What comes from others than peers is dropped.
    pub fn start(config: EngineConfig, policy: impl Policy) -> Result<Self, WireGuardError> {
        Self::start_with(config, Box::new(policy), None)
    }

    /// Starts without peers. Keys that no peer has knock, and wait to be admitted or declined.
    pub fn start_with_door(
        config: EngineConfig,
        policy: impl Policy,
    ) -> Result<(Self, Knocks), WireGuardError> {
        let (door, knocks) = Door::new();
        let engine = Self::start_with(config, Box::new(policy), Some(door))?;
        Ok((engine, knocks))
    }

    fn start_with(
        config: EngineConfig,
        policy: Box<dyn Policy>,
        door: Option<Door>,
    ) -> Result<Self, WireGuardError> {
        let thread_error = |source| WireGuardError::Thread { source };
        let (reader, writer) = io::pipe().map_err(thread_error)?;
        let mtu = config.tun.mtu();
        let shared = Arc::new(Shared {
            core: Core::new(&config.private_key, mtu, policy, door),
            tun: config.tun,
            underlay: config.underlay,
            stop: reader,
            stopping: AtomicBool::new(false),
        });
        let mut engine = Self {
            public_key: config.private_key.public(),
            shared,
            stop: Some(writer),
            threads: Vec::new(),
        };
        let jobs: [(&str, Job); 3] = [
            ("wg out", outbound::run),
            ("wg in", inbound::run),
            ("wg timers", run_timers),
        ];
        for (name, job) in jobs {
            let shared = Arc::clone(&engine.shared);
            let builder = std::thread::Builder::new().name(name.to_owned());
            let thread = builder.spawn(move || job(&shared)).map_err(thread_error)?;
            engine.threads.push(thread);
        }
        Ok(engine)
    }

    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// The UDP address that peers send to.
    pub fn local_addr(&self) -> io::Result<std::net::SocketAddr> {
        self.shared.underlay.local_addr()
    }

    /// The name of the TUN device.
    pub fn link(&self) -> &str {
        self.shared.tun.link()
    }

    /// Dropped packets since the start, by reason.
    pub fn drops(&self) -> Drops {
        self.shared.core.counters.snapshot()
    }

    /// Makes a key that knocked a peer, and answers what it knocked with at once. Whether it was
    /// still waiting; if not, there is no new peer, and its client will knock again.
    pub fn admit(&self, config: &PeerConfig) -> Result<bool, WireGuardError> {
        let mut opened = Opened::default();
        let admitted = self.shared.core.admit(config, &mut opened)?;
        for reply in opened.replies {
            self.shared.send(reply);
        }
        Ok(admitted)
    }

    /// Forgets a key that knocked. Whether it was still waiting.
    pub fn decline(&self, key: &PublicKey) -> bool {
        self.shared.core.decline(key)
    }

    /// Keys that knocked and wait.
    pub fn waiting(&self) -> usize {
        self.shared.core.waiting()
    }

    /// The time of the last accepted initiation of each key that is or was a peer's: what has to
    /// survive the engine, so that recorded initiations stay useless.
    pub fn last_initiations(&self) -> Vec<(PublicKey, Timestamp)> {
        self.shared.core.last_initiations()
    }

    /// Whether `key` was a peer's once, as far as is remembered.
    pub fn remembers(&self, key: &PublicKey) -> bool {
        self.shared.core.remembers(key)
    }

    /// Takes over what an earlier engine's `last_initiations` said. Concerns peers that are added
    /// after.
    pub fn remember(&self, initiations: impl IntoIterator<Item = (PublicKey, Timestamp)>) {
        self.shared.core.remember(initiations);
    }
}

impl Backend for Engine {
    fn ensure_peer(&self, config: &PeerConfig) -> Result<(), WireGuardError> {
        if let Some(first) = self.shared.core.ensure_peer(config)? {
            self.shared.send(first);
        }
        Ok(())
    }

    fn remove_peer(&self, id: PeerId) -> bool {
        self.shared.core.remove_peer(id)
    }

    fn peers(&self) -> Vec<PeerStatus> {
        self.shared.core.peers()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        self.stop = None;
        self.shared.core.timers.stop();
        for thread in self.threads.drain(..) {
            // What a panic had to say has been printed.
            let _ = thread.join();
        }
    }
}

fn run_timers(shared: &Shared) {
    while let Some(peer) = shared.core.timers.wait() {
        if let Some(outgoing) = shared.core.tick(&peer) {
            shared.send(outgoing);
        }
    }
}
