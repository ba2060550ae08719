//! Machines: what goes on in them, and the verbs beyond their usual life.

use std::time::Duration;

use hyper::Method;
use serde_json::Value;
use types::api::{
    MachineVersion, Memory, MetadataValue, Ok as Done, ProcessStat, SignalMachine, UpdateMetadata,
};
use types::guest::Statistics;
use types::{AppName, MachineId};

use crate::machines::path;
use crate::transport::{Call, segment};
use crate::{Client, Error};

/// A restart waits for its stop: the longest grace (300 s), and a little more.
const RESTART_TIMEOUT: Duration = Duration::from_secs(360);

/// How to restart; what is absent comes from the machine's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restart {
    /// `SIGTERM`, `TERM` or a number.
    pub signal: Option<String>,
    /// Time to stop in.
    pub timeout: Option<Duration>,
    /// Without asking the machine.
    pub force: bool,
}

impl Client {
    /// Writes the machine's memory to disk; a start goes on where it stood.
    pub async fn suspend_machine(&self, app: &AppName, id: &MachineId) -> Result<Done, Error> {
        self.json(&Call::post(format!("{}/suspend", path(app, id))))
            .await
    }

    /// Stops the machine and starts it again, as one step.
    pub async fn restart_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        how: &Restart,
    ) -> Result<Done, Error> {
        let timeout = how.timeout.map(types::machine::Duration).map(String::from);
        let call = Call::post(format!("{}/restart", path(app, id)))
            .timeout(RESTART_TIMEOUT)
            .query_if("signal", how.signal.as_ref())
            .query_if("timeout", timeout)
            .query_if("force_stop", how.force.then_some("true"));
        self.json(&call).await
    }

    /// Sends a signal to the first process of a container, or of each.
    pub async fn signal_machine(
        &self,
        app: &AppName,
        id: &MachineId,
        signal: &str,
        container: Option<&str>,
    ) -> Result<Done, Error> {
        let body = SignalMachine {
            signal: Value::String(signal.to_owned()),
            container: container.map(str::to_owned),
        };
        let call = Call::post(format!("{}/signal", path(app, id))).body(&body);
        self.json(&call).await
    }

    /// Takes the machine out of its services.
    pub async fn cordon_machine(&self, app: &AppName, id: &MachineId) -> Result<Done, Error> {
        self.json(&Call::post(format!("{}/cordon", path(app, id))))
            .await
    }

    /// Puts it back.
    pub async fn uncordon_machine(&self, app: &AppName, id: &MachineId) -> Result<Done, Error> {
        self.json(&Call::post(format!("{}/uncordon", path(app, id))))
            .await
    }

    /// The versions of the machine's configuration that are still known, newest first.
    pub async fn versions(
        &self,
        app: &AppName,
        id: &MachineId,
    ) -> Result<Vec<MachineVersion>, Error> {
        self.json(&Call::get(format!("{}/versions", path(app, id))))
            .await
    }

    /// The processes in a machine that runs, by process id.
    pub async fn processes(
        &self,
        app: &AppName,
        id: &MachineId,
    ) -> Result<Vec<ProcessStat>, Error> {
        self.json(&Call::get(format!("{}/ps", path(app, id)))).await
    }

    /// What a machine that runs uses.
    pub async fn statistics(&self, app: &AppName, id: &MachineId) -> Result<Statistics, Error> {
        self.json(&Call::get(format!("{}/stats", path(app, id))))
            .await
    }

    /// The memory of a machine that runs, and what of it is left.
    pub async fn memory(&self, app: &AppName, id: &MachineId) -> Result<Memory, Error> {
        self.json(&Call::get(format!("{}/memory", path(app, id))))
            .await
    }

    pub async fn metadata(
        &self,
        app: &AppName,
        id: &MachineId,
    ) -> Result<std::collections::BTreeMap<String, String>, Error> {
        self.json(&Call::get(format!("{}/metadata", path(app, id))))
            .await
    }

    /// Changes some keys; the machine keeps its version.
    ///
    /// # Errors
    /// `Api` with status 412 if `machine_version` is not the machine's version any more.
    pub async fn update_metadata(
        &self,
        app: &AppName,
        id: &MachineId,
        body: &UpdateMetadata,
    ) -> Result<(), Error> {
        let call = Call::new(Method::PATCH, format!("{}/metadata", path(app, id))).body(body);
        self.send(&call).await.map(drop)
    }

    pub async fn metadata_value(
        &self,
        app: &AppName,
        id: &MachineId,
        key: &str,
    ) -> Result<String, Error> {
        let answer: MetadataValue = self.json(&Call::get(key_path(app, id, key))).await?;
        Ok(answer.value)
    }

    /// Sets one key. The empty text removes it.
    pub async fn set_metadata(
        &self,
        app: &AppName,
        id: &MachineId,
        key: &str,
        value: &str,
    ) -> Result<(), Error> {
        let body = MetadataValue {
            value: value.to_owned(),
            updated_at: None,
        };
        let call = Call::post(key_path(app, id, key)).body(&body);
        self.send(&call).await.map(drop)
    }

    /// A key that is not there is no error.
    pub async fn delete_metadata(
        &self,
        app: &AppName,
        id: &MachineId,
        key: &str,
    ) -> Result<(), Error> {
        let call = Call::new(Method::DELETE, key_path(app, id, key));
        self.send(&call).await.map(drop)
    }
}

fn key_path(app: &AppName, id: &MachineId, key: &str) -> String {
    format!("{}/metadata/{}", path(app, id), segment(key))
}
