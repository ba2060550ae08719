//! Random histories of a machine, its bodies and crashes of its worker, against a small model:
//! which bodies there are.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Start,
    Stop {
        grace_s: u64,
    },
    Update {
        launch: bool,
    },
    Restart {
        force: bool,
    },
    Suspend,
    Cordon(bool),
    Destroy {
        force: bool,
    },
    /// The driver performs its next effect; `well` says whether that succeeds.
    Perform {
        well: bool,
    },
    Advance {
        seconds: i64,
    },
    BodyReady,
    /// The body is saved, if that was asked for.
    BodySaved,
    BodyExit {
        code: i32,
    },
    /// One of its processes ends.
    ProcessExit {
        code: i32,
    },
    /// A report of a boot that is over.
    Stale,
    /// The worker is killed and starts again; what the body said just before was not heard.
    Crash {
        body_ends: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Start),
        2 => (0u64..10).prop_map(|grace_s| Step::Stop { grace_s }),
        1 => any::<bool>().prop_map(|launch| Step::Update { launch }),
        1 => any::<bool>().prop_map(|force| Step::Restart { force }),
        3 => Just(Step::Suspend),
        1 => any::<bool>().prop_map(Step::Cordon),
        1 => any::<bool>().prop_map(|force| Step::Destroy { force }),
        8 => prop::bool::weighted(0.8).prop_map(|well| Step::Perform { well }),
        3 => (0i64..90).prop_map(|seconds| Step::Advance { seconds }),
        1 => (0i64..9000).prop_map(|seconds| Step::Advance { seconds }),
        3 => Just(Step::BodyReady),
        2 => Just(Step::BodySaved),
        1 => (0i32..2).prop_map(|code| Step::ProcessExit { code }),
        2 => (0i32..2).prop_map(|code| Step::BodyExit { code }),
        1 => Just(Step::Stale),
        2 => any::<bool>().prop_map(|body_ends| Step::Crash { body_ends }),
    ]
}

/// A body on the host: whether it runs, and all that its shim has to report.
#[derive(Default)]
struct Body {
    runs: bool,
    is_being_saved: bool,
    said: Vec<ReportEvent>,
}

struct World {
    machine: Machine,
    second: i64,
    queue: VecDeque<Effect>,
    bodies: BTreeMap<BootId, Body>,
    /// The boot whose memory is on the host, and those from which a body went on.
    saved: Option<BootId>,
    used: Vec<BootId>,
}

impl World {
    fn new(config: serde_json::Value) -> Self {
        let machine = machine(config);
        Self {
            machine,
            second: 0,
            queue: VecDeque::new(),
            bodies: BTreeMap::new(),
            saved: None,
            used: Vec::new(),
        }
    }

    fn event(&mut self, event: Event) {
        let before = self.machine.clone();
        match self.machine.apply(at(self.second), event) {
            Err(_) => assert_eq!(self.machine, before, "a refusal changes nothing"),
            Ok(effects) => {
                for effect in effects {
                    self.enqueue(effect);
                }
            }
        }
        if before.state == State::Destroyed {
            assert_eq!(self.machine, before, "a destroyed machine never comes back");
        }
        assert!(self.machine.version >= before.version);
        assert!(self.machine.boots >= before.boots);
        let ids: Vec<&str> = self
            .machine
            .events
            .iter()
            .map(|event| event.id.as_str())
            .collect();
        assert!(ids.is_sorted_by(|a, b| a > b), "ids of events rise");
    }

    fn enqueue(&mut self, effect: Effect) {
        match effect {
            Effect::Record(_) | Effect::Retire(_) => {}
            Effect::Abandon => self.queue.retain(|q| !matches!(q, Effect::Prepare { .. })),
            effect => self.queue.push_back(effect),
        }
    }

    fn say(&mut self, boot: BootId, event: ReportEvent) -> Option<Event> {
        let body = self.bodies.get_mut(&boot).filter(|body| body.runs)?;
        body.runs = !event.is_last();
        body.said.push(event.clone());
        Some(report(boot.0, body.said.len() as u64, event))
    }

    fn newest_body(&self) -> Option<BootId> {
        self.bodies.keys().next_back().copied()
    }

    fn perform(&mut self, well: bool) {
        let Some(effect) = self.queue.pop_front() else {
            return;
        };
        match effect {
            Effect::Record(_) | Effect::Retire(_) | Effect::Abandon | Effect::Signal { .. } => {}
            Effect::Prepare { boot } if well => {
                let deadline = at(self.second + 60);
                let images = images(&self.machine);
                self.event(Event::Prepared {
                    boot,
                    images,
                    deadline,
                });
            }
            Effect::Prepare { boot } => {
                let (container, reason) = ("app".to_owned(), "no image".to_owned());
                self.event(Event::Unprepared {
                    boot,
                    container,
                    reason,
                });
            }
            Effect::Boot { boot } if well => {
                if self.machine.resumes() {
                    let saved = self.saved.expect("a boot goes on only from what is there");
                    assert!(!self.used.contains(&saved), "memory is used once");
                    self.used.push(saved);
                } else if self.machine.present_boot() == Some(boot) {
                    assert_eq!(
                        self.saved, None,
                        "no old memory beside a boot from the start"
                    );
                }
                let body = Body {
                    runs: true,
                    ..Body::default()
                };
                self.bodies.insert(boot, body);
            }
            Effect::Boot { boot } => {
                self.event(Event::BootRefused {
                    boot,
                    reason: "no room".into(),
                });
            }
            Effect::Adopt { boot, after } => match self.bodies.get(&boot) {
                None => self.event(Event::BootGone { boot }),
                Some(body) => {
                    let said: Vec<_> = body.said.clone();
                    for (seq, event) in (1..).zip(said).filter(|(seq, _)| *seq > after) {
                        self.event(report(boot.0, seq, event));
                    }
                }
            },
            Effect::Clear { boot } => {
                self.bodies.remove(&boot);
                self.event(Event::Cleared { boot });
            }
            Effect::Suspend { boot } => self.suspend(boot, well),
            Effect::Discard { boot } => {
                self.saved = None;
                self.event(Event::Discarded { boot });
            }
            Effect::Forget => {
                self.saved = None;
                self.event(Event::Forgotten);
            }
        }
    }

    fn crash(&mut self) {
        let row = serde_json::to_string(&self.machine).unwrap();
        let found: Machine = serde_json::from_str(&row).unwrap();
        assert_eq!(found, self.machine, "the ledger keeps everything");
        self.queue.clear();
        for effect in self.machine.recover(at(self.second)) {
            self.enqueue(effect);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Start => self.event(Event::Start),
            Step::Stop { grace_s } => {
                let grace = Some(Duration::from_secs(grace_s));
                self.event(Event::Stop {
                    signal: None,
                    grace,
                });
            }
            Step::Update { launch } => self.event(Event::Update(Box::new(Update {
                config: Arc::clone(&self.machine.config),
                isolation: self.machine.isolation,
                version: new_version(at(self.second)),
                launch,
                current_version: None,
                cordon: false,
                secrets: SecretsWanted::default(),
            }))),
            Step::Restart { force } => self.event(Event::Restart {
                signal: None,
                grace: None,
                force,
            }),
            Step::Suspend => self.event(Event::Suspend),
            Step::Cordon(cordoned) => self.event(Event::Cordon(cordoned)),
            Step::Destroy { force } => self.event(Event::Destroy { force }),
            Step::Perform { well } => self.perform(well),
            Step::Advance { seconds } => {
                self.advance(seconds);
            }
            Step::BodySaved => self.body_saved(),
            Step::ProcessExit { code } => self.process_exit(code),
            Step::BodyReady | Step::BodyExit { .. } => {
                let event = match step {
                    Step::BodyExit { code: exit_code } => ReportEvent::Exited {
                        exit: ExitEvent {
                            exit_code,
                            ..ExitEvent::default()
                        },
                    },
                    _ => ReportEvent::Ready,
                };
                let told = self.newest_body().and_then(|boot| self.say(boot, event));
                if let Some(told) = told {
                    self.event(told);
                }
            }
            Step::Stale => {
                if self.machine.boots > 1 {
                    self.event(exit(self.machine.boots - 1, 1));
                }
            }
            Step::Crash { body_ends } => {
                if let Some(boot) = self.newest_body().filter(|_| body_ends) {
                    self.say(
                        boot,
                        ReportEvent::Failed {
                            reason: "lost".into(),
                        },
                    );
                }
                self.crash();
            }
        }
        self.check();
    }

    fn advance(&mut self, seconds: i64) {
        self.second += seconds;
        self.event(Event::Tick);
        if self.machine.is_scheduled_now(at(self.second)) {
            let lacks = (seconds % 5 == 0).then(|| "no room".to_owned());
            self.event(Event::Scheduled { lacks });
            assert!(!self.machine.is_scheduled_now(at(self.second)), "once");
        }
    }

    fn body_saved(&mut self) {
        let body = self.bodies.iter().next_back();
        let saving = body.filter(|(_, body)| body.runs && body.is_being_saved);
        if let Some((boot, _)) = saving {
            let boot = *boot;
            self.saved = Some(boot);
            let told = self.say(boot, ReportEvent::Suspended);
            told.into_iter().for_each(|told| self.event(told));
        }
    }

    fn process_exit(&mut self, exit_code: i32) {
        let exit = ExitEvent {
            exit_code,
            ..ExitEvent::default()
        };
        let state = ContainerReportState::Exited {
            exit,
            restart_after_ms: None,
        };
        let event = ReportEvent::Container(ContainerReport {
            container: "process-1".into(),
            run: 0,
            state,
        });
        let told = self.newest_body().and_then(|boot| self.say(boot, event));
        told.into_iter().for_each(|told| self.event(told));
    }

    fn suspend(&mut self, boot: BootId, well: bool) {
        let Some(body) = self.bodies.get_mut(&boot).filter(|body| body.runs) else {
            // Of one that is over, its reports tell.
            return;
        };
        if well {
            body.is_being_saved = true;
        } else {
            let reason = "disk full".into();
            self.event(Event::SuspendRefused { boot, reason });
        }
    }

    fn check(&self) {
        assert!(self.bodies.len() <= 1, "at most one boot is alive");
        if let Some(boot) = self.newest_body() {
            let known = self.machine.present_boot();
            assert_eq!(known, Some(boot), "a body belongs to a state that knows it");
        }
        if self.machine.state == State::Suspended {
            assert!(
                self.saved.is_some(),
                "what a suspended machine had is there"
            );
            assert_eq!(self.saved, self.machine.saved);
        }
        if let Some(saved) = self.saved {
            assert_eq!(self.machine.saved, Some(saved), "no memory is forgotten");
        }
        let takes = self.machine.holds_room() || self.bodies.is_empty();
        assert!(takes, "a body has its room");
    }
}

impl World {
    /// Whatever has happened, a machine that is not going starts when somebody asks for it and
    /// everything goes well.
    fn starts(&mut self) {
        for _ in 0..60 {
            if self.machine.is_going() {
                return;
            }
            match self.machine.shown_state() {
                MachineState::Started => return,
                MachineState::Created
                | MachineState::Stopped
                | MachineState::Suspended
                | MachineState::Failed => self.step(Step::Start),
                MachineState::Starting => match self.machine.state {
                    State::Waiting { .. } => self.step(Step::Advance { seconds: 61 }),
                    _ => self.step(Step::BodyReady),
                },
                MachineState::Suspending
                | MachineState::Stopping
                | MachineState::Restarting
                | MachineState::Updating => {
                    self.step(Step::BodySaved);
                    self.step(Step::BodyExit { code: 0 });
                }
                MachineState::Destroying | MachineState::Destroyed => return,
            }
            self.step(Step::Perform { well: true });
        }
        panic!("it does not start: {:?}", self.machine.state);
    }
}

fn configs() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        Just(json!({"image": "x"})),
        Just(json!({"image": "x", "restart": {"policy": "no"}})),
        Just(json!({"image": "x", "restart": {"policy": "always"}})),
        Just(json!({"image": "x", "auto_destroy": true})),
        Just(json!({"image": "x", "isolation": "emulated"})),
        Just(json!({"image": "x", "isolation": "emulated", "restart": {"policy": "always"}})),
        Just(json!({"image": "x", "isolation": "emulated", "schedule": "hourly"})),
        Just(json!({"image": "x", "processes": [{"cmd": ["a"]}, {"cmd": ["b"]}]})),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn at_most_one_boot_is_alive_and_every_machine_can_be_destroyed(
        config in configs(),
        steps in prop::collection::vec(step(), 0..80),
    ) {
        let mut world = World::new(config);
        for step in steps {
            world.step(step);
        }
        world.starts();
        world.step(Step::Destroy { force: true });
        for _ in 0..20 {
            world.step(Step::Perform { well: true });
        }
        prop_assert_eq!(&world.machine.state, &State::Destroyed);
        prop_assert_eq!(world.saved, None);
        prop_assert!(world.bodies.is_empty(), "nothing is left of a destroyed machine");
        for step in [Step::Start, Step::Update { launch: true }, Step::Crash { body_ends: true }] {
            world.step(step);
        }
        prop_assert!(world.queue.is_empty());
    }
}
