//! Several hosts that are one fleet, each in a namespace of the underlay.

use serde_json::Value;

use crate::{Host, Underlay, eventually, succeed};

/// Hosts that are taken down, and then the network under them, when this is dropped.
#[derive(Debug)]
pub struct Fleet {
    // First, because they are dropped first.
    hosts: Vec<Host>,
    underlay: Underlay,
}

impl Fleet {
    /// A fleet of `count` hosts, all up. The first is its authority and has the control plane.
    ///
    /// # Panics
    /// If one of them does not come up.
    pub fn new(count: usize) -> Self {
        Self::configured(count, "")
    }

    /// [`Self::new`], with more configuration for every host.
    ///
    /// # Panics
    /// If one of them does not come up.
    pub fn configured(count: usize, more: &str) -> Self {
        let underlay = Underlay::new(count);
        let hosts: Vec<Host> = (0..count)
            .map(|index| {
                let host = Host::inside(&underlay.host(index), underlay.address(index));
                host.configure(more);
                host
            })
            .collect();
        let fleet = Self { hosts, underlay };
        fleet.hosts[0].up();
        for index in 1..count {
            fleet.join(index);
            fleet.hosts[index].up();
        }
        fleet.meet();
        fleet
    }

    fn join(&self, index: usize) {
        let (token, name) = (self.invite(), format!("host{index}"));
        succeed(&mut self.hosts[index].aerostat(&["join", &token, "--name", &name]));
    }

    /// Waits until every host has heard of every other.
    fn meet(&self) {
        for host in &self.hosts {
            eventually("all hosts to be heard of", || {
                let list = host.json(&["host", "list"])?;
                let rows = list.as_array().cloned().unwrap_or_default();
                let ok = rows.iter().filter(|row| row["status"] == "ok").count();
                if ok == self.hosts.len() {
                    return Ok(());
                }
                Err(format!("host {} has {list}", host.id()))
            });
        }
    }

    /// A token for another host.
    ///
    /// # Panics
    /// If the first host does not give one.
    pub fn invite(&self) -> String {
        let made = self.hosts[0].aerostat(&["host", "token", "create"]);
        succeed(&mut { made }).trim().to_owned()
    }

    pub fn host(&self, index: usize) -> &Host {
        &self.hosts[index]
    }

    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    pub fn underlay(&self) -> &Underlay {
        &self.underlay
    }

    /// What `host` thinks of the host at `of`: its row of `aerostat host list`.
    ///
    /// # Errors
    /// What is wrong, for [`eventually`].
    pub fn status(&self, host: usize, of: usize) -> Result<String, String> {
        let list = self.hosts[host].json(&["host", "list"])?;
        let number = u64::from(self.hosts[of].number());
        let is_it = |row: &&Value| row["id"].as_u64().is_some_and(|id| id & 0xffff == number);
        let row = list.as_array().and_then(|rows| rows.iter().find(is_it));
        let status = row.and_then(|row| row["status"].as_str());
        status.map(str::to_owned).ok_or_else(|| list.to_string())
    }
}
