//! Bodies of the Machines API beyond the machine itself.
//!
//! Requests and answers follow Fly.io's published OpenAPI document. Beyond it stand `watch` and
//! the WebSocket streams (exec, attach, logs), whose messages are described here.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{AppName, MachineId, NetworkId, OrgSlug, VersionId};
use crate::machine::{Guest, Machine, MachineConfig, MachineState, PlacementBid};

/// An app as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct App {
    pub id: String,
    /// For clients that want a number; made from `id`.
    #[serde(default)]
    pub internal_numeric_id: u32,
    pub name: AppName,
    pub machine_count: u64,
    pub volume_count: u64,
    /// Name of the private network that the app lives in.
    pub network: String,
    pub network_id: NetworkId,
    /// `deployed` or `pending`.
    pub status: String,
    pub organization: Organization,
    /// What it was created as (`app_role_id`), for its owner to tell apart.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub app_role: String,
    pub created_at: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Organization {
    /// For clients that want a number; made from `slug`.
    #[serde(default)]
    pub internal_numeric_id: u32,
    pub name: String,
    pub slug: OrgSlug,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AppList {
    pub apps: Vec<App>,
    pub total_apps: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CreateApp {
    /// `app_name` is what Fly's documentation shows; its clients send `name`.
    #[serde(alias = "app_name")]
    pub name: String,
    pub org_slug: String,
    /// Name of the private network; empty for the organisation's own.
    pub network: String,
    /// A word that lists of apps can be filtered by.
    #[serde(alias = "app_role", skip_serializing_if = "String::is_empty")]
    pub app_role_id: String,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct CreateMachine {
    /// Made up when empty. Unique within the app.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    pub config: MachineConfig,
    pub skip_launch: bool,
    /// Seconds for which the creator has the machine's lease from the first moment; 0: none. The
    /// answer's `nonce` is that of the lease.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ttl: Option<u64>,
    /// Start it without the app's secrets.
    pub skip_secrets: bool,
    /// Wait until at least this version of the app's secrets is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_secrets_version: Option<u64>,
    /// Cordon it from the first moment.
    pub skip_service_registration: bool,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UpdateMachine {
    pub config: MachineConfig,
    pub skip_launch: bool,
    pub skip_secrets: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_secrets_version: Option<u64>,
    pub skip_service_registration: bool,
    /// Seconds for which the caller has the machine's lease from now on; 0: as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_ttl: Option<u64>,
    /// Refuse unless this is the machine's version now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_version: Option<String>,
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct StopMachine {
    /// Fly's clients name the machine here as well as in the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Fly's clients write `0s` where nobody says: it counts as absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<crate::machine::Duration>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StartAnswer {
    pub previous_state: MachineState,
    pub migrated: bool,
    pub new_host: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Ok {
    pub ok: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WaitAnswer {
    pub ok: bool,
    pub state: MachineState,
    pub version: String,
    pub event_id: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Exec {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// Deprecated: one string, split as a shell would.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cmd: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// Run it beside the containers, in none of them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub machine: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<u32>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecAnswer {
    pub exit_code: i32,
    pub exit_signal: i32,
    pub stdout: String,
    pub stderr: String,
}

/// A process in a machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProcessStat {
    pub pid: i32,
    /// Processor time in the kernel, in clock ticks (1/100 s).
    pub stime: u64,
    /// Time since it was started, in seconds.
    pub rtime: u64,
    pub command: String,
    pub directory: String,
    /// Processor time of user and kernel, in clock ticks (1/100 s).
    pub cpu: u64,
    /// Bytes.
    pub rss: u64,
    pub listen_sockets: Vec<ListenSocket>,
    /// Not Fly's; empty for what runs beside the containers.
    pub container: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ListenSocket {
    /// `tcp` or `udp`.
    pub proto: String,
    /// `[::]:8080`.
    pub address: String,
}

/// Body of `POST …/signal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SignalMachine {
    /// `SIGTERM`, `TERM` or a number; Fly's clients send both words and numbers.
    pub signal: Value,
    /// Not Fly's; every container if absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub container: Option<String>,
}

/// One version of a machine's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MachineVersion {
    pub version: String,
    pub user_config: MachineConfig,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created_at: Option<Timestamp>,
}

/// Body of `PUT` or `PATCH …/metadata`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct UpdateMetadata {
    /// `null` and the empty text remove a key; keys that are not named stay.
    pub metadata: BTreeMap<String, Option<String>>,
    /// Refuse (412) unless this is the machine's version now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine_version: Option<String>,
    /// What Fly's clients write; every change is taken in the order in which it comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
}

/// Body of `POST …/metadata/{key}`, and answer of `GET`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct MetadataValue {
    pub value: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<String>,
}

/// Answer of `GET …/memory`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Memory {
    pub available_mb: u64,
    pub limit_mb: u64,
}

/// A machine in the list of its organisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OrgMachine {
    pub id: MachineId,
    pub app_name: AppName,
    pub name: String,
    pub state: MachineState,
    pub region: String,
    pub instance_id: VersionId,
    pub version: VersionId,
    pub private_ip: String,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
    /// Absent in a summary.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub config: Option<OverviewConfig>,
}

/// What a list of many machines shows of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OverviewConfig {
    pub image: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guest: Option<Guest>,
    pub metadata: BTreeMap<String, String>,
}

/// A page of the machines of an organisation, those that were changed longest ago first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OrgMachineList {
    pub machines: Vec<OrgMachine>,
    /// `?cursor=` of the next page; absent on the last.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub next_cursor: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last_machine_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_updated_at: Option<Timestamp>,
    /// Regions whose hosts cannot be reached: their machines are shown as they were.
    pub error_regions: Vec<String>,
}

/// Body of `POST /v1/platform/placements`: where would these machines have room?
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AskPlacement {
    pub org_slug: String,
    /// Size of each; by default what a machine has that names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compute: Option<Guest>,
    /// Regions and groups of them, those that are preferred first: `fra,eu,any`. Empty: this
    /// host's region, then any.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub region: String,
    /// How many; 0: as many as there is room for.
    pub count: u64,
    /// Each with a volume of this name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volume_name: String,
    /// Each with a volume of this size.
    pub volume_size_bytes: u64,
    /// `region` and `spread`: how much the order of the regions counts, and evenness between
    /// them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub weights: BTreeMap<String, i64>,
}

/// Answer of `POST /v1/platform/placements`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Placements {
    pub regions: Vec<RegionPlacement>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RegionPlacement {
    pub region: String,
    /// Machines that would go there.
    pub count: u64,
    /// Hosts that they would go to: so many can be started at a time without one waiting for
    /// another's host.
    pub concurrency: u64,
}

/// The header that makes a creation repeatable: of the requests with one key, one creates, and the
/// others are answered with what it created. With another body they are refused (422).
pub const IDEMPOTENCY_KEY_HEADER: &str = "idempotency-key";

/// The header with which whoever holds a machine's lease asks for a change.
pub const LEASE_NONCE_HEADER: &str = "fly-machine-lease-nonce";

/// Body of `POST …/lease`. `?ttl=` says the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct AcquireLease {
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u64>,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// A lease on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Lease {
    pub nonce: String,
    /// Seconds since 1970.
    pub expires_at: i64,
    pub owner: String,
    #[serde(default)]
    pub description: String,
    /// The machine's version now.
    pub version: String,
}

/// What the endpoints of leases answer with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaseAnswer<T> {
    /// `success`.
    pub status: String,
    pub data: T,
}

/// The body of every refusal and error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ErrorBody {
    /// For people.
    pub error: String,
    /// For programs, stable: `insufficient_capacity`, `name_taken`, `not_found`, …
    pub status: String,
    pub details: ErrorDetails,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ErrorDetails {
    /// Where there was no room: `host`, `volume` or `region`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// Whether the same request may succeed later without anything else changing.
    pub retryable: bool,
    /// What to try next.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub hint: String,
    /// Of a machine that no host would have: what each said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bids: Vec<PlacementBid>,
}

/// A region as the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Region {
    pub code: String,
    pub name: String,
    pub latitude: f64,
    pub longitude: f64,
    pub gateway_available: bool,
    pub requires_paid_plan: bool,
    pub deprecated: bool,
    /// Group that the region's code belongs to, such as `eu`; empty for codes of one's own.
    #[serde(default)]
    pub geo_region: String,
    /// Hosts that can be reached. Not Fly's.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hosts: Option<u32>,
    /// What those have together, free or not. Not Fly's, whose `capacity` is a number.
    #[serde(
        rename = "host_capacity",
        skip_serializing_if = "Option::is_none",
        default
    )]
    pub capacity: Option<RegionCapacity>,
}

/// What the hosts of a region have for machines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RegionCapacity {
    /// Hardware threads.
    pub cpus: u32,
    pub memory_mb: u64,
    pub disk_mb: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RegionList {
    /// Code of the region that is nearest to the caller.
    #[serde(alias = "Nearest")]
    pub nearest: String,
    #[serde(alias = "Regions")]
    pub regions: Vec<Region>,
}

/// An image that this host holds, ready to boot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Image {
    /// The name it was pulled or imported under.
    pub reference: String,
    /// Digest of its manifest, `sha256:…`.
    pub digest: String,
    /// Size of the read-only root filesystem.
    pub size_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created_at: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImageList {
    pub images: Vec<Image>,
}

/// Body of `POST /v1/images`. The answer is newline-delimited JSON of [`PullEvent`]s.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PullImage {
    pub reference: String,
    /// Speak HTTP without TLS to this registry.
    #[serde(default)]
    pub plain_http: bool,
}

/// Body of `POST /v1/images/import`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ImportImage {
    /// On the API's own host: an OCI layout (a directory, or a tar file of one) or an archive of
    /// `docker save`. Absolute.
    pub path: String,
    /// The name to keep it under; empty: its own.
    #[serde(default)]
    pub name: String,
}

/// Body of `POST /v1/images/prune`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PruneImages {
    /// Also what was imported, and no registry can give back.
    #[serde(default)]
    pub all: bool,
}

/// What `POST /v1/images/prune` removed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PrunedImages {
    pub images: Vec<Image>,
    pub freed_bytes: u64,
}

/// How far a pull has come. Layers are counted from 0, the lowest; several go on at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "stage", rename_all = "lowercase")]
pub enum PullProgress {
    Downloading {
        layer: usize,
        layers: usize,
        done_bytes: u64,
        total_bytes: u64,
    },
    /// Downloaded and checked.
    Unpacking { layer: usize, layers: usize },
    /// All layers are there; the root filesystem is being written.
    Writing { layers: usize },
}

/// One line of the answer to a pull.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum PullEvent {
    /// How far it is.
    Progress(PullProgress),
    /// Last: the image is there.
    Image { image: Image },
    /// Last: it could not be pulled.
    Failed { body: ErrorBody },
}

/// One line of `GET /v1/apps/{app}/machines?watch=true&from={revision}` (newline-delimited JSON, or
/// server-sent events if the request accepts `text/event-stream`; then `id` is the revision and
/// `Last-Event-ID` says the same as `from`). `from` is the revision of a list or of an earlier
/// line; without it the watch begins with every machine.
/// A revision that is no longer kept is answered with 410: list again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum WatchEvent {
    /// A machine as it is now, also for a new one. A destroyed one is shown once, in state
    /// `destroyed`.
    Machine {
        revision: u64,
        machine: Box<Machine>,
        /// The machine's app, in a watch of an organisation.
        #[serde(skip_serializing_if = "Option::is_none", default)]
        app_name: Option<AppName>,
    },
    /// Nothing happened up to this revision. Sent when the watch has caught up and then at least
    /// every 30 s.
    Bookmark { revision: u64 },
}

/// The header that carries the revision of a list.
pub const REVISION_HEADER: &str = "aerostat-revision";

/// Channels of an exec or attach WebSocket: the first byte of each binary message.
///
/// `GET …/machines/{id}/exec/stream?container=&command=a&command=b&stdin=true&tty=true` and
/// `GET …/machines/{id}/attach?container=&stdin=true&tty=true`; `width=` and `height=` give the
/// terminal its first size.
/// The server ends with one `STATUS` message (JSON [`ExecStatus`]) and closes.
pub mod channel {
    pub const STDIN: u8 = 0;
    pub const STDOUT: u8 = 1;
    pub const STDERR: u8 = 2;
    /// Server to client, JSON [`super::ExecStatus`], last.
    pub const STATUS: u8 = 3;
    /// Client to server, JSON [`super::TerminalSize`].
    pub const RESIZE: u8 = 4;
    /// Client to server: no more standard input.
    pub const CLOSE_STDIN: u8 = 255;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub struct TerminalSize {
    #[serde(alias = "Width")]
    pub width: u16,
    #[serde(alias = "Height")]
    pub height: u16,
}

/// How an exec ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "result", rename_all = "lowercase")]
pub enum ExecStatus {
    /// `exit_code` is 128 and the signal's number after a signal.
    Exited { exit_code: i32 },
    /// It was never run, or its end is not known.
    Failed { message: String },
}

/// A line of `GET …/machines/{id}/logs` (WebSocket, `?container=&follow=&tail=&since_ms=&previous=`),
/// as one binary message: channel (1 stdout, 2 stderr), 8 bytes of nanoseconds since 1970
/// (big-endian), then the bytes that were written, with their line feed if there was one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub channel: u8,
    pub unix_ns: i64,
    pub bytes: Vec<u8>,
}

impl LogLine {
    pub fn encode(&self) -> Vec<u8> {
        let mut message = Vec::with_capacity(9 + self.bytes.len());
        message.push(self.channel);
        message.extend_from_slice(&self.unix_ns.to_be_bytes());
        message.extend_from_slice(&self.bytes);
        message
    }

    /// `None` if `message` is too short or its channel is unknown.
    pub fn decode(message: &[u8]) -> Option<Self> {
        let (&channel, rest) = message.split_first()?;
        let (time, bytes) = rest.split_first_chunk::<8>()?;
        matches!(channel, channel::STDOUT | channel::STDERR).then(|| Self {
            channel,
            unix_ns: i64::from_be_bytes(*time),
            bytes: bytes.to_vec(),
        })
    }
}

/// What to send of a container's log.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LogQuery {
    /// May stay empty when the machine has one container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    pub follow: bool,
    /// Only this many of the last lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tail: Option<u64>,
    /// Only what was written at or after this time, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<i64>,
    /// The run before the current one.
    pub previous: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_survives_the_way_there_and_back() {
        let line = LogLine {
            channel: channel::STDERR,
            unix_ns: -5,
            bytes: b"a\n".to_vec(),
        };
        assert_eq!(LogLine::decode(&line.encode()), Some(line));
        assert_eq!(LogLine::decode(&[1, 2, 3]), None);
        assert_eq!(LogLine::decode(&[0; 20]), None);
    }

    #[test]
    fn a_watch_event_names_its_type() {
        let bookmark = serde_json::to_string(&WatchEvent::Bookmark { revision: 7 }).unwrap();
        assert_eq!(bookmark, r#"{"type":"bookmark","revision":7}"#);
    }
}
