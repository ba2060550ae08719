//! How large a pod's machine is.

use types::machine::Guest;

use super::super::pod::{Container, Pod};
use super::super::quantity::milli_of;
use super::{Untranslatable, unsupported};

/// Size of a machine whose pod asks for nothing, and the least that any pod gets: kernel and
/// supervision need their part of it.
const MEMORY_MIB_MIN: u128 = 256;

/// The sum of the containers, or the largest init container if that is more: init containers run
/// one after the other, before the others.
pub(super) fn guest(pod: &Pod) -> Result<Guest, Untranslatable> {
    let cpu_milli = total(pod, "cpu", 0)?;
    let memory_milli = total(pod, "memory", (MEMORY_MIB_MIN << 20) * 1000)?;
    let memory_mib = (memory_milli / 1000).div_ceil(1 << 20).max(MEMORY_MIB_MIN);
    let too_much = |_| unsupported("spec.containers[].resources", "larger than any machine");
    Ok(Guest {
        cpus: u32::try_from(cpu_milli.div_ceil(1000).max(1)).map_err(too_much)?,
        memory_mb: u32::try_from(memory_mib).map_err(too_much)?,
        ..Guest::default()
    })
}

/// `unset` counts once if any container asks for nothing, so that it does not live on what the
/// others asked for.
fn total(pod: &Pod, resource: &str, unset: u128) -> Result<u128, Untranslatable> {
    let of = |container: &Container| -> Result<Option<u128>, Untranslatable> {
        let resources = &container.resources;
        let asked = resources
            .limits
            .get(resource)
            .or_else(|| resources.requests.get(resource));
        let Some(quantity) = asked else {
            return Ok(None);
        };
        let field = format!("resources.{resource} of container {}", container.name);
        let milli = milli_of(quantity)
            .ok_or_else(|| unsupported(&field, &format!("{quantity} is not a quantity")))?;
        Ok(Some(milli))
    };
    let mut sum = 0u128;
    let mut any_unset = false;
    for container in &pod.spec.containers {
        match of(container)? {
            Some(milli) => sum = sum.saturating_add(milli),
            None => any_unset = true,
        }
    }
    if any_unset {
        sum = sum.saturating_add(unset);
    }
    for container in &pod.spec.init_containers {
        sum = sum.max(of(container)?.unwrap_or(unset));
    }
    Ok(sum)
}
