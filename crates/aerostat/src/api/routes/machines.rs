//! Machines: their lists, their life, and what goes on in them.

use std::collections::BTreeMap;

use types::api::{
    AcquireLease, CreateMachine, Exec, ExecAnswer, IDEMPOTENCY_KEY_HEADER, LEASE_NONCE_HEADER,
    Lease, LeaseAnswer, MachineVersion, Memory, MetadataValue, Ok as Done, ProcessStat,
    SignalMachine, StartAnswer, StopMachine, UpdateMachine, UpdateMetadata, WaitAnswer, WatchEvent,
};
use types::guest::Statistics;
use types::machine::{Event, Machine};

use super::super::{
    control, create, exec, files, inside, lease, machines, metadata, stream, wait, watch,
};
use super::route::{Limit, Parameter, Route, delete, get, patch, post, put};

pub(super) const WATCH: Parameter = (
    "watch",
    "Instead of a list: what happens, as lines of JSON or as server-sent events (Accept)",
);
pub(super) const FROM: Parameter = ("from", "Of a watch: the revision to go on from");
pub(super) const LAST_EVENT_ID: Parameter = ("last-event-id", "Says the same as from");
const FILES: &[Parameter] = &[
    ("path", "Absolute, in the container"),
    ("container", "The first if absent"),
];
const NONCE: &[Parameter] = &[(LEASE_NONCE_HEADER, "Of the machine's lease, if it is held")];

pub(super) fn routes() -> Vec<Route> {
    let tables = [
        lists(),
        life(),
        history(),
        control(),
        settings(),
        inside(),
        streams(),
    ];
    tables.into_iter().flatten().collect()
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
            (
                "summary",
                "Without configuration, events, checks and containers",
            ),
            WATCH,
            FROM,
        ])
        .headers(&[LAST_EVENT_ID])
        .gives::<Vec<Machine>>(),
        post(
            "/v1/apps/{app}/machines",
            "Creates a machine",
            create::create,
        )
        .headers(&[(IDEMPOTENCY_KEY_HEADER, "Makes the request repeatable")])
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
            control::restart,
        )
        .query(&[
            ("timeout", "Time to stop in: Go's text (1m30s) or seconds"),
            ("signal", "Instead of that of the configuration"),
            ("force_stop", "Without asking the machine"),
        ])
        .headers(NONCE)
        .gives::<Done>(),
    ]
}

/// What became of a machine.
fn history() -> Vec<Route> {
    vec![
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
    ]
}

/// What somebody has said about a machine: metadata and leases.
fn settings() -> Vec<Route> {
    vec![
        get(
            "/v1/apps/{app}/machines/{id}/metadata",
            "A machine's metadata",
            metadata::get,
        )
        .gives::<BTreeMap<String, String>>(),
        put(
            "/v1/apps/{app}/machines/{id}/metadata",
            "Changes some keys; null and the empty text remove one",
            metadata::update,
        )
        .headers(NONCE)
        .takes::<UpdateMetadata>()
        .says_nothing(),
        patch(
            "/v1/apps/{app}/machines/{id}/metadata",
            "The same as PUT",
            metadata::update,
        )
        .headers(NONCE)
        .takes::<UpdateMetadata>()
        .says_nothing(),
        get(
            "/v1/apps/{app}/machines/{id}/metadata/{key}",
            "One value",
            metadata::get_value,
        )
        .gives::<MetadataValue>(),
        post(
            "/v1/apps/{app}/machines/{id}/metadata/{key}",
            "Sets one value",
            metadata::set_value,
        )
        .headers(NONCE)
        .takes::<MetadataValue>()
        .says_nothing(),
        delete(
            "/v1/apps/{app}/machines/{id}/metadata/{key}",
            "Removes one key",
            metadata::delete_value,
        )
        .headers(NONCE)
        .says_nothing(),
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

/// Verbs beside a machine's usual life.
fn control() -> Vec<Route> {
    vec![
        post(
            "/v1/apps/{app}/machines/{id}/suspend",
            "Writes a machine's memory to disk; a start goes on where it stood",
            control::suspend,
        )
        .headers(NONCE)
        .gives::<Done>(),
        post(
            "/v1/apps/{app}/machines/{id}/signal",
            "Sends a signal to the first process of each container, or of one",
            control::signal,
        )
        .headers(NONCE)
        .takes::<SignalMachine>()
        .gives::<Done>(),
        post(
            "/v1/apps/{app}/machines/{id}/cordon",
            "Takes a machine out of its services",
            control::cordon,
        )
        .headers(NONCE)
        .gives::<Done>(),
        post(
            "/v1/apps/{app}/machines/{id}/uncordon",
            "Puts a machine back into its services",
            control::uncordon,
        )
        .headers(NONCE)
        .gives::<Done>(),
        get(
            "/v1/apps/{app}/machines/{id}/versions",
            "Configurations that a machine has had, newest first",
            control::versions,
        )
        .gives::<Vec<MachineVersion>>(),
    ]
}

/// What goes on in a machine.
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
            "/v1/apps/{app}/machines/{id}/ps",
            "Processes in a machine",
            inside::processes,
        )
        .query(&[
            (
                "sort_by",
                "pid (if absent), cpu, rss, rtime, stime, command or directory",
            ),
            ("order", "asc (if absent) or desc"),
        ])
        .gives::<Vec<ProcessStat>>(),
        get(
            "/v1/apps/{app}/machines/{id}/stats",
            "What a machine uses",
            inside::statistics,
        )
        .gives::<Statistics>(),
        get(
            "/v1/apps/{app}/machines/{id}/memory",
            "A machine's memory, and what of it is left",
            inside::memory,
        )
        .gives::<Memory>(),
        get(
            "/v1/apps/{app}/machines/{id}/files",
            "A file or directory of a container, as a tar archive",
            files::get,
        )
        .query(FILES)
        .gives_media(files::TAR),
        put(
            "/v1/apps/{app}/machines/{id}/files",
            "Unpacks a tar archive under a directory of a container",
            files::put,
        )
        .query(FILES)
        .takes_media(files::TAR)
        .gives::<Done>()
        .limit(Limit::Transfer),
    ]
}

/// What becomes a WebSocket.
fn streams() -> Vec<Route> {
    vec![
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
