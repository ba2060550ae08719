//! What callers match on, and what people are told.

use vmm::VmmError;

use super::*;

fn told(error: ApiError) -> (u16, String) {
    let (code, body) = error.body();
    (code.as_u16(), serde_json::to_string(&body).unwrap())
}

#[test]
fn a_directory_that_is_away_is_told_with_what_goes_on() {
    let source = Unreachable {
        host: HostId::new(2),
        source: std::io::ErrorKind::TimedOut.into(),
    };
    let source = std::sync::Arc::new(source);
    let host = "alpha".to_owned();
    let (code, body) = told(directory::Error::Unreachable { host, source }.into());
    assert_eq!(code, 503);
    assert!(body.contains("the directory's host alpha cannot be reached; machines go on"));
    assert!(body.contains(r#""status":"directory_unreachable""#));
    assert!(body.contains(r#""retryable":true"#));
}

#[test]
fn a_full_host_is_told_with_scope_and_what_to_try() {
    let refusal = NoBid::InsufficientMemory {
        asked_mb: 512,
        free_mb: 64,
    };
    let (code, body) = told(ApiError::nowhere(refusal.clone()));
    assert_eq!(code, 422);
    assert_eq!(
        body,
        r#"{"error":"could not reserve resource for machine: insufficient memory available to fulfill request (512 MB asked, 64 MB free)","status":"insufficient_capacity","details":{"scope":"host","retryable":true,"hint":"ask for at most 64 MB of memory, or stop a machine"}}"#
    );
    assert_eq!(told(Refused::from(refusal).into()).0, 409);
}

#[test]
fn texts_that_fly_s_clients_match_on_are_there() {
    let name = "web".parse().unwrap();
    let taken = ApiError::from(directory::Error::from(directory::Refused::AppNameTaken {
        name,
    }));
    let (code, body) = told(taken);
    assert_eq!(code, 422);
    assert!(body.contains(r#""error":"Name has already been taken","status":"name_taken""#));
    let wanted = "started".to_owned();
    let state = "stopped".to_owned();
    let (_, body) = told(ApiError::WaitElsewhere { wanted, state });
    assert!(body.contains("machine failed to reach desired state, started, currently stopped"));
    assert!(
        told(ApiError::MachineNotFound)
            .1
            .contains("machine not found")
    );
    assert!(
        told(Refused::LeaseNotFound.into())
            .1
            .contains("lease not found")
    );
    let (_, body) = told(ApiError::AppNotFound { name: "x".into() });
    assert!(body.contains("Could not find App"));
}

#[test]
fn a_cause_is_told_once() {
    let id: MachineId = "0123456789abcd".parse().unwrap();
    let source = VmmError::Channel {
        machine: id.clone(),
        source: std::io::ErrorKind::ConnectionReset.into(),
    };
    let (code, body) = told(Refused::Vmm { id, source }.into());
    assert_eq!(code, 500);
    assert!(body.contains(
        "cannot reach into machine 0123456789abcd: cannot talk to the shim of machine \
         0123456789abcd: connection reset"
    ));
}
