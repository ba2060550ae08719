//! What this host has, what is promised, and what a machine would cost. Pure.

use std::time::Duration;

use types::{AppName, NetworkId};
use ulid::Ulid;

use super::check::CheckedConfig;

/// How long a reservation holds: the time of one create call, generously.
pub const RESERVATION_TTL: Duration = Duration::from_secs(10);

/// A machine that somebody wants to place.
#[derive(Debug, Clone)]
pub struct BidRequest {
    pub app: AppName,
    pub network: NetworkId,
    /// Empty: any.
    pub region: String,
    pub config: CheckedConfig,
}

/// What a worker could do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bid {
    /// Share of the host's memory that is given out, in percent.
    pub load_percent: u32,
    /// Whether no image has to be pulled.
    pub images_present: bool,
    pub free_memory_mb: u64,
}

/// A promise of room, for [`RESERVATION_TTL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    pub id: Ulid,
}

/// What a host has for machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Hardware threads.
    pub cpus: u32,
    pub memory_mb: u64,
    pub disk_mb: u64,
}
