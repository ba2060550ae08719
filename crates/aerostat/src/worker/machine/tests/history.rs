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
    BodyExit {
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
        1 => any::<bool>().prop_map(|force| Step::Destroy { force }),
        8 => prop::bool::weighted(0.8).prop_map(|well| Step::Perform { well }),
        3 => (0i64..90).prop_map(|seconds| Step::Advance { seconds }),
        3 => Just(Step::BodyReady),
        2 => (0i32..2).prop_map(|code| Step::BodyExit { code }),
        1 => Just(Step::Stale),
        2 => any::<bool>().prop_map(|body_ends| Step::Crash { body_ends }),
    ]
}

/// A body on the host: whether it runs, and all that its shim has to report.
#[derive(Default)]
struct Body {
    runs: bool,
    said: Vec<ReportEvent>,
}

struct World {
    machine: Machine,
    second: i64,
    queue: VecDeque<Effect>,
    bodies: BTreeMap<BootId, Body>,
}

impl World {
    fn new(config: serde_json::Value) -> Self {
        let machine = machine(config);
        Self {
            machine,
            second: 0,
            queue: VecDeque::new(),
            bodies: BTreeMap::new(),
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
            Effect::Record(_) => {}
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
            Effect::Record(_) | Effect::Abandon | Effect::Signal { .. } => {}
            Effect::Prepare { boot } if well => {
                let deadline = at(self.second + 60);
                self.event(Event::Prepared {
                    boot,
                    images: vec![],
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
                self.bodies.insert(
                    boot,
                    Body {
                        runs: true,
                        said: vec![],
                    },
                );
            }
            Effect::Boot { boot } => {
                self.event(Event::BootRefused {
                    boot,
                    reason: "no room".into(),
                });
            }
            Effect::Adopt { boot, after } => match self.bodies.get(&boot) {
                None => self.event(Event::ShimGone { boot }),
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
            Effect::Forget => self.event(Event::Forgotten),
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
            }))),
            Step::Destroy { force } => self.event(Event::Destroy { force }),
            Step::Perform { well } => self.perform(well),
            Step::Advance { seconds } => {
                self.second += seconds;
                self.event(Event::Tick);
            }
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

    fn check(&self) {
        assert!(self.bodies.len() <= 1, "at most one boot is alive");
        if let Some(boot) = self.newest_body() {
            let known = self.machine.present_boot();
            assert_eq!(known, Some(boot), "a body belongs to a state that knows it");
        }
        let takes = self.machine.holds_room() || self.bodies.is_empty();
        assert!(takes, "a body has its room");
    }
}

fn configs() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        Just(json!({"image": "x"})),
        Just(json!({"image": "x", "restart": {"policy": "no"}})),
        Just(json!({"image": "x", "restart": {"policy": "always"}})),
        Just(json!({"image": "x", "auto_destroy": true})),
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
        world.step(Step::Destroy { force: true });
        for _ in 0..20 {
            world.step(Step::Perform { well: true });
        }
        prop_assert_eq!(&world.machine.state, &State::Destroyed);
        prop_assert!(world.bodies.is_empty(), "nothing is left of a destroyed machine");
        for step in [Step::Start, Step::Update { launch: true }, Step::Crash { body_ends: true }] {
            world.step(step);
        }
        prop_assert!(world.queue.is_empty());
    }
}
