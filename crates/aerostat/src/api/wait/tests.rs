//! What a wait makes of a machine.

use axum::extract::FromRequestParts;
use axum::http::Request;
use types::IsolationClass;
use types::machine::{Event, ImageIdentity, MachineConfig};

use super::*;

const OLD: &str = "01J00000000000000000000000";
const NOW: &str = "01J00000000000000000000001";
const NEXT: &str = "01J00000000000000000000002";

fn machine(state: MachineState) -> Machine {
    let event = Event {
        id: NOW.into(),
        kind: "start".into(),
        status: "started".into(),
        source: "user".into(),
        timestamp: 0,
        request: None,
    };
    Machine {
        id: "0123456789abcd".parse().unwrap(),
        name: "a".into(),
        state,
        region: "local".into(),
        instance_id: NOW.parse().unwrap(),
        version: NOW.parse().unwrap(),
        private_ip: String::new(),
        created_at: jiff::Timestamp::UNIX_EPOCH,
        updated_at: jiff::Timestamp::UNIX_EPOCH,
        config: MachineConfig::default(),
        image_ref: ImageIdentity::default(),
        events: vec![event],
        checks: Vec::new(),
        containers: Vec::new(),
        nonce: None,
        host_status: "ok".into(),
        cordoned: false,
        creation_key: None,
        isolation: IsolationClass::Container,
        revision: 1,
    }
}

async fn wanted(query: &str) -> Result<Wanted, ApiError> {
    let request = Request::get(format!("/wait?{query}")).body(()).unwrap();
    let query = Query::from_request_parts(&mut request.into_parts().0, &())
        .await
        .unwrap();
    Wanted::read(&query)
}

async fn progress(query: &str, state: MachineState) -> Progress {
    wanted(query).await.unwrap().progress(&machine(state))
}

#[tokio::test]
async fn started_is_what_one_waits_for_by_default() {
    assert_eq!(progress("", MachineState::Started).await, Progress::Reached);
    assert_eq!(progress("", MachineState::Created).await, Progress::Waiting);
    assert_eq!(
        progress("", MachineState::Starting).await,
        Progress::Waiting
    );
}

#[tokio::test]
async fn several_states_may_be_wanted() {
    for query in ["state=stopped,failed", "state=stopped&state=failed"] {
        assert_eq!(
            progress(query, MachineState::Failed).await,
            Progress::Reached
        );
        assert_eq!(
            progress(query, MachineState::Started).await,
            Progress::Waiting
        );
    }
    assert_eq!(
        progress("state=settled", MachineState::Stopped).await,
        Progress::Reached
    );
    assert_eq!(
        progress("state=settled", MachineState::Stopping).await,
        Progress::Waiting
    );
    assert!(wanted("state=asleep").await.is_err());
}

#[tokio::test]
async fn a_machine_that_settled_elsewhere_ends_the_wait() {
    let stopped = Progress::Elsewhere("stopped");
    assert_eq!(
        progress("state=started", MachineState::Stopped).await,
        stopped
    );
    let destroyed = Progress::Elsewhere("destroyed");
    assert_eq!(
        progress("state=stopped", MachineState::Destroyed).await,
        destroyed
    );
    assert_eq!(
        progress("state=stopped", MachineState::Started).await,
        Progress::Waiting
    );
    assert_eq!(
        progress("state=destroyed", MachineState::Destroyed).await,
        Progress::Reached
    );
}

#[tokio::test]
async fn only_the_version_and_the_events_asked_about_count() {
    let started = MachineState::Started;
    assert_eq!(
        progress(&format!("version={NOW}"), started).await,
        Progress::Reached
    );
    assert_eq!(
        progress(&format!("instance_id={NEXT}"), started).await,
        Progress::Waiting
    );
    let replaced = Progress::Elsewhere("replaced");
    assert_eq!(progress(&format!("version={OLD}"), started).await, replaced);
    assert_eq!(
        progress(&format!("from_event_id={NOW}"), started).await,
        Progress::Waiting
    );
    assert_eq!(
        progress(&format!("from_event_id={OLD}"), started).await,
        Progress::Reached
    );
}
