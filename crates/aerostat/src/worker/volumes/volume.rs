//! One volume, as its worker sees it. Pure.
//!
//! ```text
//!  Creating ───────┐                        ┌──grown──┐
//!  Restoring ──────┼─filled──▶ Created ──extend──▶ Extending
//!  Hydrating ──────┘              │ destroy
//!      └──────────not filled──▶ Destroying ──removed──▶ Destroyed
//! ```
//!
//! Restoring begins with what a snapshot holds, Hydrating with what another volume holds. Whoever
//! carries out an effect records its end as the next event; one that was cut off is begun again at
//! the next start (`recover`), so every effect may be repeated.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use types::volume::VolumeState;
use types::{AppName, NetworkId, OrgSlug, SnapshotId, VolumeId};

use super::refused::VolumeRefused;

/// What the ledger keeps of a volume, but for the machine that it is attached to: that is written
/// together with the machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Volume {
    pub(crate) id: VolumeId,
    pub(crate) app: AppName,
    pub(crate) org: OrgSlug,
    pub(crate) network: NetworkId,
    pub(crate) name: String,
    pub(crate) region: String,
    /// What was asked for.
    pub(crate) size_gb: u64,
    /// Size of the file system. Less than `size_gb` while it waits for a boot that lets it grow.
    pub(crate) made_gb: u64,
    pub(crate) state: State,
    pub(crate) created_at: Timestamp,
    pub(crate) updated_at: Timestamp,
    pub(crate) snapshot_retention: u32,
    pub(crate) auto_backup: bool,
    /// Digests of the `Idempotency-Key` and the body of the request that created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) creation_key: Option<String>,
}

/// Where a volume stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(crate) enum State {
    Creating,
    Restoring { snapshot: SnapshotId },
    Hydrating { source: VolumeId },
    Created,
    Extending,
    Destroying,
    Destroyed,
}

/// What can happen to a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Its file is there, whole and on disk.
    Filled,
    /// Its file could not be made.
    NotFilled,
    /// Asked to grow; `used`: a machine has it open, or is about to.
    Extend {
        size_gb: u64,
        used: bool,
    },
    /// The file system has this size now.
    Grown {
        size_gb: u64,
    },
    NotGrown,
    /// Somebody has it open after all; it grows at the next boot.
    GrowsLater,
    Update {
        snapshot_retention: Option<u32>,
        auto_backup: Option<bool>,
    },
    Destroy,
    /// Nothing is left of its file.
    Removed,
}

/// What a decision asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Make the file, out of what the state says.
    Fill,
    /// Let the file system grow to this size.
    Grow { size_gb: u64 },
    /// Delete the file.
    Remove,
}

impl Volume {
    /// Decides what `event` means. On refusal nothing has changed.
    pub(crate) fn apply(
        &mut self,
        now: Timestamp,
        event: Event,
    ) -> Result<Option<Effect>, VolumeRefused> {
        let effect = match event {
            Event::Filled => self.filled(),
            Event::NotFilled => self.not_filled(),
            Event::Extend { size_gb, used } => self.extend(size_gb, used)?,
            Event::Grown { size_gb } => self.grown(size_gb),
            Event::NotGrown => self.not_grown(),
            Event::GrowsLater => self.grows_later(),
            Event::Update {
                snapshot_retention,
                auto_backup,
            } => {
                self.alive("update")?;
                self.snapshot_retention = snapshot_retention.unwrap_or(self.snapshot_retention);
                self.auto_backup = auto_backup.unwrap_or(self.auto_backup);
                None
            }
            Event::Destroy => self.destroy()?,
            Event::Removed => {
                if self.state == State::Destroying {
                    self.state = State::Destroyed;
                }
                None
            }
        };
        self.updated_at = now.max(self.updated_at);
        Ok(effect)
    }

    fn filled(&mut self) -> Option<Effect> {
        match self.state {
            State::Creating | State::Restoring { .. } | State::Hydrating { .. } => {
                self.made_gb = self.size_gb;
                self.state = State::Created;
            }
            // The end of an effect that was begun twice.
            State::Created | State::Extending | State::Destroying | State::Destroyed => {}
        }
        None
    }

    fn not_filled(&mut self) -> Option<Effect> {
        match self.state {
            State::Creating | State::Restoring { .. } | State::Hydrating { .. } => {
                self.state = State::Destroying;
                Some(Effect::Remove)
            }
            State::Created | State::Extending | State::Destroying | State::Destroyed => None,
        }
    }

    fn extend(&mut self, size_gb: u64, used: bool) -> Result<Option<Effect>, VolumeRefused> {
        self.settled("extend")?;
        if size_gb <= self.size_gb {
            return Err(VolumeRefused::Invalid {
                field: "size_gb".into(),
                reason: format!(
                    "must be more than the {} GB that the volume has; volumes do not shrink",
                    self.size_gb
                ),
            });
        }
        self.size_gb = size_gb;
        if used {
            return Ok(None);
        }
        self.state = State::Extending;
        Ok(Some(Effect::Grow { size_gb }))
    }

    fn grown(&mut self, size_gb: u64) -> Option<Effect> {
        match self.state {
            State::Created | State::Extending => {
                self.made_gb = self.made_gb.max(size_gb);
                self.state = State::Created;
            }
            State::Creating
            | State::Restoring { .. }
            | State::Hydrating { .. }
            | State::Destroying
            | State::Destroyed => {}
        }
        None
    }

    /// What could not grow stays as it was, and says so.
    fn not_grown(&mut self) -> Option<Effect> {
        match self.state {
            State::Extending => {
                self.size_gb = self.made_gb;
                self.state = State::Created;
            }
            State::Creating
            | State::Restoring { .. }
            | State::Hydrating { .. }
            | State::Created
            | State::Destroying
            | State::Destroyed => {}
        }
        None
    }

    fn grows_later(&mut self) -> Option<Effect> {
        if self.state == State::Extending {
            self.state = State::Created;
        }
        None
    }

    fn destroy(&mut self) -> Result<Option<Effect>, VolumeRefused> {
        match self.state {
            State::Created => {
                self.state = State::Destroying;
                Ok(Some(Effect::Remove))
            }
            State::Destroying | State::Destroyed => Ok(None),
            State::Creating
            | State::Restoring { .. }
            | State::Hydrating { .. }
            | State::Extending => Err(self.wrong_state("destroy")),
        }
    }

    /// What has to be done (again) when a worker finds this volume in its ledger.
    pub(crate) fn recover(&self) -> Option<Effect> {
        match self.state {
            State::Creating | State::Restoring { .. } | State::Hydrating { .. } => {
                Some(Effect::Fill)
            }
            State::Extending => Some(Effect::Grow {
                size_gb: self.size_gb,
            }),
            State::Destroying => Some(Effect::Remove),
            State::Created | State::Destroyed => None,
        }
    }

    /// The size that the file system takes on at the next boot, if it waits for one.
    pub(crate) fn waits_to_grow(&self) -> Option<u64> {
        (self.state == State::Created && self.made_gb < self.size_gb).then_some(self.size_gb)
    }

    pub(crate) fn shown_state(&self) -> VolumeState {
        match self.state {
            State::Creating => VolumeState::Creating,
            State::Restoring { .. } => VolumeState::Restoring,
            State::Hydrating { .. } => VolumeState::Hydrating,
            State::Created => VolumeState::Created,
            State::Extending => VolumeState::Extending,
            State::Destroying => VolumeState::Destroying,
            State::Destroyed => VolumeState::Destroyed,
        }
    }

    /// Refuses unless the volume will be there tomorrow.
    pub(crate) fn alive(&self, verb: &'static str) -> Result<(), VolumeRefused> {
        match self.state {
            State::Creating
            | State::Restoring { .. }
            | State::Hydrating { .. }
            | State::Created
            | State::Extending => Ok(()),
            State::Destroying | State::Destroyed => Err(self.wrong_state(verb)),
        }
    }

    /// Refuses unless the volume is whole and nothing is being done with it.
    pub(crate) fn settled(&self, verb: &'static str) -> Result<(), VolumeRefused> {
        match self.state {
            State::Created => Ok(()),
            State::Creating
            | State::Restoring { .. }
            | State::Hydrating { .. }
            | State::Extending
            | State::Destroying
            | State::Destroyed => Err(self.wrong_state(verb)),
        }
    }

    fn wrong_state(&self, verb: &'static str) -> VolumeRefused {
        VolumeRefused::WrongState {
            id: self.id.clone(),
            verb: verb.into(),
            state: self.shown_state(),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use types::HostId;

    use super::*;

    pub(in crate::worker::volumes) fn volume(state: State) -> Volume {
        Volume {
            id: VolumeId::new(HostId::new(2), 1),
            app: "web".parse().unwrap(),
            org: "personal".parse().unwrap(),
            network: NetworkId::try_from(7).unwrap(),
            name: "data".into(),
            region: "local".into(),
            size_gb: 1,
            made_gb: 0,
            state,
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            snapshot_retention: 5,
            auto_backup: true,
            creation_key: None,
        }
    }

    fn apply(volume: &mut Volume, event: Event) -> Result<Option<Effect>, VolumeRefused> {
        volume.apply(Timestamp::UNIX_EPOCH, event)
    }

    #[test]
    fn a_volume_in_use_grows_at_the_next_boot() {
        let mut volume = volume(State::Creating);
        apply(&mut volume, Event::Filled).unwrap();
        let extend = |size_gb, used| Event::Extend { size_gb, used };
        assert_eq!(apply(&mut volume, extend(3, true)).unwrap(), None);
        assert_eq!(volume.waits_to_grow(), Some(3));
        assert!(apply(&mut volume, extend(3, false)).is_err());
        apply(&mut volume, Event::Grown { size_gb: 3 }).unwrap();
        assert_eq!((volume.waits_to_grow(), volume.made_gb), (None, 3));
        let grow = apply(&mut volume, extend(4, false)).unwrap();
        assert_eq!(grow, Some(Effect::Grow { size_gb: 4 }));
        apply(&mut volume, Event::NotGrown).unwrap();
        assert_eq!((volume.size_gb, volume.state.clone()), (3, State::Created));
    }

    #[test]
    fn a_volume_that_could_not_be_made_leaves_nothing() {
        let mut volume = volume(State::Creating);
        let effect = apply(&mut volume, Event::NotFilled).unwrap();
        assert_eq!(effect, Some(Effect::Remove));
        apply(&mut volume, Event::Removed).unwrap();
        assert_eq!(volume.state, State::Destroyed);
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Filled),
            Just(Event::NotFilled),
            (0u64..6, any::<bool>()).prop_map(|(size_gb, used)| Event::Extend { size_gb, used }),
            Just(Event::NotGrown),
            Just(Event::GrowsLater),
            Just(Event::Destroy),
            Just(Event::Removed),
            any::<Option<bool>>().prop_map(|auto_backup| Event::Update {
                snapshot_retention: None,
                auto_backup
            }),
        ]
    }

    proptest! {
        /// The shell: carries out what is asked for, now or after a crash, and reports its end.
        #[test]
        fn whatever_happens_an_effect_is_owed_exactly_while_something_is_half_done(
            events in prop::collection::vec((event(), any::<bool>()), 0..40),
        ) {
            let mut volume = volume(State::Creating);
            for (event, crash) in events {
                let before = volume.clone();
                let owed = volume.recover();
                // Only the end of what is owed can happen; requests can always.
                let fits = match &event {
                    Event::Filled | Event::NotFilled => owed == Some(Effect::Fill),
                    Event::NotGrown | Event::GrowsLater | Event::Grown { .. } => {
                        matches!(owed, Some(Effect::Grow { .. }))
                    }
                    Event::Removed => owed == Some(Effect::Remove),
                    Event::Extend { .. } | Event::Update { .. } | Event::Destroy => true,
                };
                if !fits { continue; }
                let asked = volume.apply(Timestamp::UNIX_EPOCH, event);
                match asked {
                    Err(_) => prop_assert_eq!(&volume, &before, "a refusal changes nothing"),
                    Ok(Some(effect)) => prop_assert_eq!(volume.recover(), Some(effect)),
                    Ok(None) => {}
                }
                prop_assert!(volume.size_gb >= before.made_gb, "nothing shrinks");
                prop_assert!(volume.made_gb >= before.made_gb);
                if crash && let Some(Effect::Grow { size_gb }) = volume.recover() {
                    volume.apply(Timestamp::UNIX_EPOCH, Event::Grown { size_gb }).unwrap();
                    prop_assert_eq!(volume.made_gb, volume.size_gb);
                }
                if volume.state == State::Created {
                    prop_assert!(volume.recover().is_none() && volume.made_gb > 0);
                }
            }
        }
    }
}
