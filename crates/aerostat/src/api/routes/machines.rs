//! Machines: their lists, their life, and what goes on in them.

use std::collections::BTreeMap;

use types::api::{
    AcquireLease, CreateMachine, Exec, ExecAnswer, LEASE_NONCE_HEADER, Lease, LeaseAnswer,
    Ok as Done, StartAnswer, StopMachine, UpdateMachine, WaitAnswer, WatchEvent,
};
use types::machine::{Event, Machine};

use super::super::{create, exec, lease, machines, stream, wait, watch};
use super::route::{Limit, Parameter, Route, delete, get, post};

const NONCE: &[Parameter] = &[(LEASE_NONCE_HEADER, "Of the machine's lease, if it is held")];

pub(super) fn routes() -> Vec<Route> {
    [lists(), life(), inside()].into_iter().flatten().collect()
}

fn lists() -> Vec<Route> {
    vec![
        get(
            "/v1/apps/{app}/watch",
            "Changes of an app's machines",
            watch::watch,
        )
        .query(&[("from", "The revision to go on from")])
        .streams::<WatchEvent>(),
        get(
            "/v1/apps/{app}/machines",
            "Machines of an app",
            machines::list,
        )
        .query(&[
            (
                "state",
                "Only these states; repeated, or separated by commas",
            ),
            ("region", "Only of this region"),
            ("metadata.{key}", "Only those with this value"),
            ("include_deleted", "Also destroyed ones"),
            ("summary", "Without events and checks"),
        ])
        .gives::<Vec<Machine>>(),
        post(
            "/v1/apps/{app}/machines",
            "Creates a machine",
            create::create,
        )
        .takes::<CreateMachine>()
        .gives::<Machine>(),
    ]
}

fn life() -> Vec<Route> {
    vec![
        get("/v1/apps/{app}/machines/{id}", "A machine", machines::get).gives::<Machine>(),
        post(
            "/v1/apps/{app}/machines/{id}",
            "Gives a machine a new configuration",
            machines::update,
        )
        .headers(NONCE)
        .takes::<UpdateMachine>()
        .gives::<Machine>(),
        delete(
            "/v1/apps/{app}/machines/{id}",
            "Destroys a machine",
            machines::destroy,
        )
        .query(&[
            ("force", "Also one that is running"),
            ("kill", "What Fly's clients call it"),
        ])
        .headers(NONCE)
        .gives::<Done>(),
        post(
            "/v1/apps/{app}/machines/{id}/start",
            "Starts a machine",
            machines::start,
        )
        .headers(NONCE)
        .gives::<StartAnswer>(),
        post(
            "/v1/apps/{app}/machines/{id}/stop",
            "Stops a machine",
            machines::stop,
        )
        .headers(NONCE)
        .takes::<StopMachine>()
        .gives::<Done>(),
        post(
            "/v1/apps/{app}/machines/{id}/restart",
            "Stops a machine and starts it again",
            machines::restart,
        )
        .query(&[
            ("timeout", "Time to stop in: Go's text (1m30s) or seconds"),
            ("signal", "Instead of that of the configuration"),
            ("force_stop", "Without asking the machine"),
        ])
        .headers(NONCE)
        .gives::<Done>()
        .limit(Limit::Long),
        get(
            "/v1/apps/{app}/machines/{id}/wait",
            "Waits until a machine has become something",
            wait::wait,
        )
        .query(&[
            (
                "state",
                "started (if absent), any other state, or settled; repeated or with commas",
            ),
            ("timeout", "Seconds, 1 to 60; 60 if absent"),
            ("version", "Only this version counts"),
            ("instance_id", "What older clients call the version"),
            (
                "from_event_id",
                "Only what happened after this event counts",
            ),
        ])
        .gives::<WaitAnswer>(),
        get(
            "/v1/apps/{app}/machines/{id}/events",
            "What happened to a machine, newest first",
            machines::events,
        )
        .query(&[("limit", "20 if absent, 50 at most")])
        .gives::<Vec<Event>>(),
        get(
            "/v1/apps/{app}/machines/{id}/metadata",
            "A machine's metadata",
            machines::metadata,
        )
        .gives::<BTreeMap<String, String>>(),
        get(
            "/v1/apps/{app}/machines/{id}/lease",
            "A machine's lease",
            lease::get,
        )
        .gives::<LeaseAnswer<Lease>>(),
        post(
            "/v1/apps/{app}/machines/{id}/lease",
            "Takes a machine's lease, or with its nonce makes it last longer",
            lease::acquire,
        )
        .query(&[("ttl", "Seconds; what the body says counts less")])
        .headers(NONCE)
        .takes::<AcquireLease>()
        .creates::<LeaseAnswer<Lease>>(),
        delete(
            "/v1/apps/{app}/machines/{id}/lease",
            "Gives a machine's lease back",
            lease::release,
        )
        .headers(NONCE)
        .gives::<LeaseAnswer<Done>>(),
    ]
}

fn inside() -> Vec<Route> {
    vec![
        post(
            "/v1/apps/{app}/machines/{id}/exec",
            "Runs a command to its end",
            exec::exec,
        )
        .takes::<Exec>()
        .gives::<ExecAnswer>()
        .limit(Limit::Long),
        get(
            "/v1/apps/{app}/machines/{id}/exec/stream",
            "Runs a command; a WebSocket with its streams",
            stream::exec,
        )
        .query(&[
            ("command", "Program and arguments; repeated"),
            ("container", "The first if absent"),
            ("stdin", "Whether there is standard input"),
            ("tty", "Whether it has a terminal"),
            ("width", "Of the terminal"),
            ("height", "Of the terminal"),
        ])
        .upgrades(),
        get(
            "/v1/apps/{app}/machines/{id}/attach",
            "The streams of a container's own process, as a WebSocket",
            stream::attach,
        )
        .query(&[
            ("container", "The first if absent"),
            ("width", "Of the terminal"),
            ("height", "Of the terminal"),
        ])
        .upgrades(),
        get(
            "/v1/apps/{app}/machines/{id}/logs",
            "What a container wrote, as a WebSocket",
            stream::logs,
        )
        .query(&[
            ("container", "The first if absent"),
            ("follow", "Goes on until the container has ended"),
            ("tail", "Only the last so many lines"),
            ("since_ms", "Only what is newer, in milliseconds since 1970"),
            ("previous", "Of the run before this one"),
        ])
        .upgrades(),
    ]
}
