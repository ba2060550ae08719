//! Random histories in which the worker is killed at any point: what it acknowledged stays true,
//! at most one boot of a machine is alive, and nothing is left over.

use std::collections::BTreeMap;

use proptest::prelude::*;
use types::{BootId, HostId};

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Create,
    Start(usize),
    Stop(usize),
    Update(usize),
    Destroy(usize),
    Lease(usize),
    Exit(usize, i32),
    /// Lets the worker work for so many turns of its tasks.
    Turns(u32),
    Kill,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Create),
        2 => (0usize..4).prop_map(Step::Start),
        3 => (0usize..4).prop_map(Step::Stop),
        1 => (0usize..4).prop_map(Step::Update),
        2 => (0usize..4).prop_map(Step::Destroy),
        2 => (0usize..4).prop_map(Step::Lease),
        2 => (0usize..4, 0i32..2).prop_map(|(n, code)| Step::Exit(n, code)),
        4 => (0u32..40).prop_map(Step::Turns),
        4 => Just(Step::Kill),
    ]
}

/// What was acknowledged.
#[derive(Default)]
struct Promised {
    /// Machines that were created, and whether their destruction was acknowledged.
    machines: BTreeMap<MachineId, bool>,
    leases: BTreeMap<MachineId, Lease>,
    version: u64,
}

/// A lease that lasts for longer than the test.
async fn lease(handle: &Handle, id: &MachineId) -> Result<Lease, Refused> {
    let request = LeaseRequest {
        owner: "personal".into(),
        description: String::new(),
        ttl: LEASE_TTL_MAX,
    };
    handle.acquire_lease(id, request).await
}

struct Life {
    runtime: tokio::runtime::Runtime,
    worker: Worker,
    world: World,
}

impl Life {
    fn begin(world: World) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let worker = runtime.block_on(world.start());
        Self {
            runtime,
            worker,
            world,
        }
    }

    /// `kill -9`: every task ends where it is. What had been handed to the ledger is written or
    /// not, as it happens; the next life begins when the file is free.
    fn kill(self) -> Self {
        let Self {
            runtime,
            worker,
            world,
        } = self;
        let Worker {
            core,
            handle,
            ledger,
        } = worker;
        drop(runtime);
        drop((core, handle));
        ledger.join().unwrap();
        Self::begin(world.with_new_catalog())
    }

    fn step(&mut self, step: &Step, promised: &mut Promised) {
        // Leases are given here, and stand in nobody's way.
        let handle = self.worker.handle().permitted(Permit::Override);
        let id = |n: &usize| promised.machines.keys().nth(*n).cloned();
        match step {
            Step::Create => {
                let next = promised.machines.len() as u64 + 1;
                let config = json!({"image": "x", "guest": {"memory_mb": 64}});
                let created = self.runtime.block_on(create(&handle, next, config));
                promised.machines.insert(created.unwrap().id, false);
            }
            Step::Start(n) => {
                if let Some(id) = id(n) {
                    let _ = self.runtime.block_on(handle.start(&id));
                }
            }
            Step::Stop(n) => {
                if let Some(id) = id(n) {
                    let _ = self
                        .runtime
                        .block_on(handle.stop(&id, StopRequest::default()));
                }
            }
            Step::Update(n) => {
                if let Some(id) = id(n) {
                    let config = request(json!({"image": "y"})).config;
                    let update = UpdateRequest {
                        config,
                        launch: true,
                        current_version: None,
                        cordon: false,
                        secrets: SecretsWanted::default(),
                    };
                    let _ = self.runtime.block_on(handle.update(&id, update));
                }
            }
            Step::Destroy(n) => {
                if let Some(id) = id(n)
                    && self.runtime.block_on(handle.destroy(&id, true)).is_ok()
                {
                    promised.machines.insert(id, true);
                }
            }
            Step::Lease(n) => {
                if let Some(id) = id(n)
                    && let Ok(lease) = self.runtime.block_on(lease(&handle, &id))
                {
                    promised.leases.insert(id, lease);
                }
            }
            Step::Exit(n, exit_code) => {
                if let Some(id) = id(n) {
                    let exit = ExitEvent {
                        exit_code: *exit_code,
                        ..ExitEvent::default()
                    };
                    self.world.vmm.exit(&id, exit);
                }
            }
            Step::Turns(turns) => self.runtime.block_on(async {
                for _ in 0..*turns {
                    tokio::task::yield_now().await;
                    if turns % 3 == 0 {
                        tokio::time::sleep(Duration::from_micros(300)).await;
                    }
                }
            }),
            Step::Kill => {}
        }
    }

    fn check(&self, promised: &mut Promised) {
        let mut alive: BTreeMap<MachineId, Vec<BootId>> = BTreeMap::new();
        for (id, boot) in self.world.vmm.alive() {
            alive.entry(id).or_default().push(boot);
        }
        assert!(
            alive.values().all(|boots| boots.len() == 1),
            "one boot each: {alive:?}"
        );
        let version = self.world.catalog.position(HostId::new(2)).unwrap().version;
        assert!(version >= promised.version, "versions never go back");
        promised.version = version;
        for (id, destroyed) in &promised.machines {
            let machine = self
                .worker
                .handle()
                .get(id)
                .expect("what was acknowledged is there");
            let going = matches!(
                machine.state,
                MachineState::Destroying | MachineState::Destroyed
            );
            assert_eq!(going, *destroyed, "{id} is {}", machine.state);
            let held = self.runtime.block_on(self.worker.handle().lease(id));
            if !going {
                assert_eq!(held.unwrap().as_ref(), promised.leases.get(id), "{id}");
            }
        }
    }

    /// Destroys everything, and looks at what is left.
    fn end(self, promised: &Promised) {
        let handle = self.worker.handle().permitted(Permit::Override);
        self.runtime.block_on(async {
            for id in promised.machines.keys() {
                handle.destroy(id, true).await.unwrap();
            }
            for id in promised.machines.keys() {
                self.world.until(id, MachineState::Destroyed).await;
            }
        });
        assert!(self.world.vmm.alive().is_empty());
        assert!(self.world.network.attached().is_empty(), "no link is left");
        self.runtime.block_on(self.worker.shutdown());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_a_killed_worker_acknowledged_stays_true(
        steps in prop::collection::vec(step(), 1..25),
    ) {
        let mut life = Life::begin(World::new());
        let mut promised = Promised::default();
        for step in &steps {
            life.step(step, &mut promised);
            if matches!(step, Step::Kill) {
                life = life.kill();
            }
            life.check(&mut promised);
        }
        life.end(&promised);
    }
}
