//! A machine as the Machines API shows it.

use types::machine::Machine as Shown;

use super::Machine;

impl Machine {
    pub(crate) fn show(&self, revision: u64) -> Shown {
        let mut config = self.config.as_given().clone();
        // Fly's clients count on a size also where nobody asked for one.
        config.guest.get_or_insert_with(|| self.config.guest());
        // It says the same, and whoever sends back what they read must not be refused for both.
        config.size.clear();
        Shown {
            id: self.id.clone(),
            name: self.name.clone(),
            state: self.shown_state(),
            region: self.region.clone(),
            instance_id: self.version.clone(),
            version: self.version.clone(),
            private_ip: self.address.0.to_string(),
            created_at: self.created_at,
            updated_at: self.updated_at,
            config,
            image_ref: self
                .containers
                .first()
                .map(|c| c.image_ref.clone())
                .unwrap_or_default(),
            events: self.events.iter().cloned().collect(),
            checks: self.checks.clone(),
            containers: self.containers.clone(),
            nonce: None,
            host_status: "ok".into(),
            cordoned: self.cordoned,
            creation_key: self.creation_key.clone(),
            isolation: self.isolation,
            revision,
        }
    }
}
