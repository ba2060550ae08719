//! The driver: one task for each machine. It waits, lets the machine decide, records what the
//! decision changed, and performs its effects one after the other.
//!
//! An effect runs as a task of its own and ends in an event, so that requests are heard
//! meanwhile. Dropping the driver at any point is what a crash would do: `recovery` goes on.

mod work;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;
use tracing::{Instrument as _, info, warn};
use types::BootId;
use types::machine::{Machine as Shown, MachineState};
use vmm::{Report, Vmm};

use super::capacity::Claim;
use super::check::CheckedConfig;
use super::host::Host;
use super::machine::{Effect, Event, Lease, Machine, Permit};
use super::ports::{Images, Network, ReadyImage};
use super::refused::{NoBid, Refused};
use work::{Done, Work};

/// Room for every request one API call can cause, for the 16 calls the API lets in at a time.
/// Full means that the driver is stuck, so the caller gets an error instead of a queue.
pub(super) const REQUESTS_MAX: usize = 16;

/// Steps of image pulls that have not been recorded yet; whoever pulls waits when it is full.
const PROGRESS_MAX: usize = 16;

/// Pause before a change that could not be recorded (disk full) is tried again.
const RECORD_RETRY: Duration = Duration::from_secs(1);

/// A request from outside, and where the answer goes: the machine before and after.
pub(super) struct Request {
    pub(super) event: Event,
    pub(super) permit: Permit,
    pub(super) reply: oneshot::Sender<Result<Answer, Refused>>,
}

#[derive(Debug)]
pub(super) struct Answer {
    pub(super) before: MachineState,
    pub(super) machine: Shown,
    /// The lease that somebody holds now.
    pub(super) lease: Option<Lease>,
}

pub(super) struct Driver<V, N, I> {
    host: Arc<Host<V, N, I>>,
    machine: Machine,
    inbox: mpsc::Receiver<Request>,
    reachable: Arc<AtomicU64>,
    reports: Option<(BootId, mpsc::Receiver<Report>)>,
    progress: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    /// Images of the boot that is about to begin.
    images: Vec<ReadyImage>,
    queue: VecDeque<Effect>,
    work: Option<(Work, AbortOnDropHandle<Done>)>,
}

/// What a driver waits for.
enum Input {
    Request(Request),
    /// `None`: no more reports of this boot.
    Report(BootId, Option<Report>),
    Progress(Event),
    Done(Done),
    Tick,
    /// The worker shuts down.
    End,
}

impl<V: Vmm, N: Network, I: Images> Driver<V, N, I> {
    /// A driver that first performs `effects`.
    pub(super) fn new(
        host: Arc<Host<V, N, I>>,
        machine: Machine,
        inbox: mpsc::Receiver<Request>,
        reachable: Arc<AtomicU64>,
        effects: Vec<Effect>,
    ) -> Self {
        let driver = Self {
            host,
            machine,
            inbox,
            reachable,
            reports: None,
            progress: mpsc::channel(PROGRESS_MAX),
            images: Vec::new(),
            queue: effects.into(),
            work: None,
        };
        // Now, so that nobody is promised the room of a machine that was found in the ledger.
        driver.account(&driver.machine);
        driver
    }

    /// Runs until the machine is destroyed or the worker shuts down.
    pub(super) async fn run(mut self) {
        let span = tracing::info_span!("machine", id = %self.machine.id);
        let host = Arc::clone(&self.host);
        let id = self.machine.id.clone();
        let drive = async {
            while self.machine.shown_state() != MachineState::Destroyed {
                self.begin_next();
                match self.next().await {
                    Input::Request(request) => self.answer(request).await,
                    Input::Report(boot, Some(report)) => {
                        self.observe(Event::Reported { boot, report }).await;
                    }
                    Input::Report(boot, None) => {
                        self.reports = None;
                        self.observe(Event::ShimGone { boot }).await;
                    }
                    Input::Progress(event) => self.observe(event).await,
                    Input::Done(done) => self.done(done).await,
                    Input::Tick => {
                        self.observe(Event::Tick).await;
                        self.start_by_schedule().await;
                    }
                    Input::End => return,
                }
            }
            host.core.forget_driver(&id);
        };
        drive.instrument(span).await;
    }

    /// Waits. Everything here may be dropped at any point.
    async fn next(&mut self) -> Input {
        let due = self
            .machine
            .due()
            .map(|due| due.duration_since(Timestamp::now()));
        let due = due.map(|left| Duration::try_from(left).unwrap_or(Duration::ZERO));
        tokio::select! {
            biased;
            () = self.host.core.shutdown.cancelled() => Input::End,
            request = self.inbox.recv() => request.map_or(Input::End, Input::Request),
            // Before the end of the effect that they belong to.
            Some(event) = self.progress.1.recv() => Input::Progress(event),
            done = finished(&mut self.work) => Input::Done(done),
            (boot, report) = reported(&mut self.reports) => Input::Report(boot, report),
            () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => Input::Tick,
        }
    }

    /// Carries out a request: decided and recorded when the answer goes out.
    async fn answer(&mut self, request: Request) {
        let before = self.machine.shown_state();
        let answer = self.request(request.event, &request.permit).await;
        let answer = answer.map(|machine| Answer {
            before,
            machine,
            lease: self.machine.lease(Timestamp::now()).cloned(),
        });
        // Whoever asked may have gone away.
        let _ = request.reply.send(answer);
    }

    async fn request(&mut self, event: Event, permit: &Permit) -> Result<Shown, Refused> {
        self.machine.admit(Timestamp::now(), permit)?;
        self.make_room(&event)?;
        let mut next = self.machine.clone();
        let decided = next.apply(Timestamp::now(), event);
        let effects = match decided {
            Ok(effects) => effects,
            Err(refused) => {
                self.account(&self.machine);
                return Err(refused);
            }
        };
        let recorded = self.record(next, effects).await;
        Ok(recorded?)
    }

    /// Takes the room that a request needs before it is decided.
    fn make_room(&self, event: &Event) -> Result<(), Refused> {
        let config = match event {
            Event::Start | Event::Restart { .. } if !self.machine.holds_room() => {
                &self.machine.config
            }
            Event::Update(update) if update.launch => &update.config,
            // Nothing else makes a machine take more than it has.
            Event::Start
            | Event::Restart { .. }
            | Event::Update(_)
            | Event::Metadata(_)
            | Event::Cordon(_)
            | Event::Stop { .. }
            | Event::Suspend
            | Event::Destroy { .. }
            | Event::Lease(_)
            | Event::Pulling { .. }
            | Event::Prepared { .. }
            | Event::Unprepared { .. }
            | Event::BootRefused { .. }
            | Event::Reported { .. }
            | Event::ShimGone { .. }
            | Event::BootGone { .. }
            | Event::SuspendRefused { .. }
            | Event::Discarded { .. }
            | Event::Scheduled { .. }
            | Event::Cleared { .. }
            | Event::Forgotten
            | Event::Tick => return Ok(()),
        };
        Ok(self.take_room(config)?)
    }

    fn take_room(&self, config: &CheckedConfig) -> Result<(), NoBid> {
        let claim = Claim::of(
            &self.machine.app,
            config,
            self.host.core.config.rootfs_mib_default,
        );
        let mut accounts = self.host.core.accounts();
        accounts.room(Timestamp::now(), claim, Some(&self.machine.id))?;
        accounts.set(&self.machine.id, Some(claim));
        Ok(())
    }

    /// Starts the machine if its schedule says so and there is room for it.
    async fn start_by_schedule(&mut self) {
        if self.machine.is_scheduled_now(Timestamp::now()) {
            let lacks = self.take_room(&self.machine.config).err();
            let lacks = lacks.map(|refusal| refusal.to_string());
            self.observe(Event::Scheduled { lacks }).await;
        }
    }

    /// Puts the books right for `machine`, and what others may reach.
    fn account(&self, machine: &Machine) {
        self.host.core.volumes.note_use(machine);
        let reachable = machine.reachable().map_or(0, |boot| boot.0);
        self.reachable.store(reachable, Ordering::Release);
        let claim = || {
            Claim::of(
                &machine.app,
                &machine.config,
                self.host.core.config.rootfs_mib_default,
            )
        };
        let claim = machine.holds_room().then(claim);
        self.host.core.accounts().set(&machine.id, claim);
    }

    /// Takes in something that has happened; it is recorded whatever that takes.
    async fn observe(&mut self, event: Event) {
        loop {
            let mut next = self.machine.clone();
            let effects = match next.apply(Timestamp::now(), event.clone()) {
                Ok(effects) => effects,
                Err(refused) => {
                    warn!(error = %refused, "the machine refused what has happened");
                    return;
                }
            };
            match self.record(next, effects).await {
                Ok(_) => break,
                Err(error) => {
                    warn!(error = %types::chain(&error), "cannot record a machine's change; trying again");
                    tokio::select! {
                        () = self.host.core.shutdown.cancelled() => return,
                        () = tokio::time::sleep(RECORD_RETRY) => {}
                    }
                }
            }
        }
    }

    /// Makes `next` the machine, on disk first, and queues what is to be done.
    async fn record(
        &mut self,
        next: Machine,
        effects: Vec<Effect>,
    ) -> Result<Shown, super::ledger::LedgerError> {
        if next == self.machine && effects.is_empty() {
            return Ok(self.host.core.shown(&self.machine));
        }
        let mut events = Vec::new();
        let mut retired = None;
        let mut work = Vec::new();
        for effect in effects {
            match effect {
                Effect::Record(event) => events.push(event),
                Effect::Retire(config) => retired = Some(config),
                effect @ (Effect::Prepare { .. }
                | Effect::Abandon
                | Effect::Boot { .. }
                | Effect::Adopt { .. }
                | Effect::Signal { .. }
                | Effect::Suspend { .. }
                | Effect::Discard { .. }
                | Effect::Clear { .. }
                | Effect::Forget) => work.push(effect),
            }
        }
        // Before the change is published: whoever sees it may count on it.
        self.account(&next);
        let ledger = &self.host.core.ledger;
        let shown = match ledger.commit(next.clone(), events, retired).await {
            Ok(shown) => shown,
            Err(error) => {
                self.account(&self.machine);
                return Err(error);
            }
        };
        if shown.state != self.machine.shown_state() {
            info!(state = %shown.state, boot = next.boots, "machine changed state");
        }
        self.machine = next;
        for effect in work {
            self.enqueue(effect);
        }
        Ok(shown)
    }

    fn enqueue(&mut self, effect: Effect) {
        match effect {
            Effect::Abandon => {
                self.queue
                    .retain(|queued| !matches!(queued, Effect::Prepare { .. }));
                if matches!(self.work, Some((Work::Prepare, _))) {
                    self.work = None;
                }
            }
            effect @ (Effect::Record(_)
            | Effect::Retire(_)
            | Effect::Prepare { .. }
            | Effect::Boot { .. }
            | Effect::Adopt { .. }
            | Effect::Signal { .. }
            | Effect::Suspend { .. }
            | Effect::Discard { .. }
            | Effect::Clear { .. }
            | Effect::Forget) => self.queue.push_back(effect),
        }
    }

    /// Begins the next effect if none is going on.
    fn begin_next(&mut self) {
        while self.work.is_none() {
            let Some(effect) = self.queue.pop_front() else {
                return;
            };
            self.work = self.begin(effect);
        }
    }

    async fn done(&mut self, done: Done) {
        match done {
            Done::Nothing => {}
            Done::Event(event) => self.observe(event).await,
            Done::Prepared { boot, images } => {
                let identities = images.iter().map(|image| image.identity.clone()).collect();
                self.images = images;
                let deadline = self.host.core.boot_deadline();
                self.observe(Event::Prepared {
                    boot,
                    images: identities,
                    deadline,
                })
                .await;
            }
            Done::Listening { boot, reports } => self.reports = Some((boot, reports)),
        }
    }
}

/// The end of the effect that is going on. Never, if there is none.
async fn finished(work: &mut Option<(Work, AbortOnDropHandle<Done>)>) -> Done {
    match work {
        Some((_, task)) => {
            let done = task.await;
            *work = None;
            done.unwrap_or_else(|error| {
                // Only a panic: nobody else aborts it. The machine's deadlines go on.
                tracing::error!(error = %error, "an effect of a machine panicked");
                Done::Nothing
            })
        }
        None => std::future::pending().await,
    }
}

async fn reported(
    reports: &mut Option<(BootId, mpsc::Receiver<Report>)>,
) -> (BootId, Option<Report>) {
    match reports {
        Some((boot, receiver)) => (*boot, receiver.recv().await),
        None => std::future::pending().await,
    }
}
