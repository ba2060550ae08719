//! The size of a machine, given in numbers or by the name of a preset.

use types::machine::Guest;

use super::{Checked, invalid, unbuilt};

const MEMORY_MB_MIN: u32 = 64;
const MEMORY_MB_MAX: u32 = 1 << 20;
const CPUS_MAX: u32 = 64;

/// Processors of the presets, and what one of them brings of memory.
const SHARED_CPUS: &[u32] = &[1, 2, 4, 6, 8];
const SHARED_MB: u32 = 256;
const PERFORMANCE_CPUS: &[u32] = &[1, 2, 4, 6, 8, 10, 12, 14, 16];
const PERFORMANCE_MB: u32 = 2048;

/// Fly's presets with a graphics processor, which no host of ours has.
const GPUS: &[&str] = &["a10", "l40s", "a100-40gb", "a100-80gb"];

pub(super) fn check(guest: Option<&Guest>, size: &str) -> Checked {
    if !size.is_empty() {
        if guest.is_some() {
            return invalid("config.size", "cannot stand beside guest; leave one out");
        }
        return check_preset(size);
    }
    let Some(guest) = guest else { return Ok(()) };
    unbuilt("config.guest", &guest.other)?;
    if !matches!(guest.cpu_kind.as_str(), "shared" | "performance") {
        invalid("config.guest.cpu_kind", "must be shared or performance")?;
    }
    if !(1..=CPUS_MAX).contains(&guest.cpus) {
        invalid("config.guest.cpus", format!("must be 1 to {CPUS_MAX}"))?;
    }
    if !(MEMORY_MB_MIN..=MEMORY_MB_MAX).contains(&guest.memory_mb) {
        let reason = format!("must be {MEMORY_MB_MIN} to {MEMORY_MB_MAX}");
        invalid("config.guest.memory_mb", reason)?;
    }
    Ok(())
}

fn check_preset(size: &str) -> Checked {
    if GPUS.contains(&size) {
        invalid(
            "config.size",
            format!("`{size}` has a graphics processor, and no host here has one"),
        )?;
    }
    if preset(size).is_none() {
        let names = |kind: &str, cpus: &[u32]| {
            let names = cpus.iter().map(|cpus| format!("{kind}-{cpus}x"));
            names.collect::<Vec<_>>().join(", ")
        };
        let shared = names("shared-cpu", SHARED_CPUS);
        let performance = names("performance", PERFORMANCE_CPUS);
        let size = size.escape_default();
        let reason = format!("there is no size `{size}`; there are {shared}, {performance}");
        invalid("config.size", reason)?;
    }
    Ok(())
}

/// What a preset stands for.
pub(super) fn preset(size: &str) -> Option<Guest> {
    let kinds = [
        ("shared-cpu-", "shared", SHARED_CPUS, SHARED_MB),
        (
            "performance-",
            "performance",
            PERFORMANCE_CPUS,
            PERFORMANCE_MB,
        ),
    ];
    kinds
        .into_iter()
        .find_map(|(prefix, kind, known, memory_mb)| {
            let cpus = size.strip_prefix(prefix)?.strip_suffix('x')?;
            let cpus = known.iter().find(|known| known.to_string() == cpus)?;
            Some(Guest {
                cpu_kind: kind.to_owned(),
                cpus: *cpus,
                memory_mb: memory_mb * cpus,
                ..Guest::default()
            })
        })
}
