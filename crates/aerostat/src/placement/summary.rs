//! One answer out of many refusals. Pure.

use crate::worker::{Lack, NoBid};

/// What is said when none of the `asked` hosts will have a machine.
pub(super) fn summary(asked: usize, refusals: Vec<NoBid>) -> NoBid {
    let silent = |refusal: &NoBid| matches!(refusal, NoBid::Late | NoBid::Unreachable { .. });
    if asked <= 1 {
        return refusals.into_iter().next().unwrap_or(NoBid::Late);
    }
    if refusals.iter().all(silent) {
        return NoBid::Late;
    }
    let mut lacks: Vec<Lack> = Vec::new();
    for refusal in refusals {
        let refusal = if silent(&refusal) {
            NoBid::Late
        } else {
            refusal
        };
        match lacks
            .iter_mut()
            .find(|lack| order(&lack.refusal) == order(&refusal))
        {
            Some(lack) => {
                lack.hosts += 1;
                if free(&refusal) > free(&lack.refusal) {
                    lack.refusal = refusal;
                }
            }
            None => lacks.push(Lack { refusal, hosts: 1 }),
        }
    }
    lacks.sort_by_key(|lack| order(&lack.refusal));
    NoBid::NoHost { asked, lacks }
}

/// The kind, those first that are most worth knowing: what passes when a machine stops, then what
/// passes by itself, then what stays.
fn order(refusal: &NoBid) -> u8 {
    match refusal {
        NoBid::InsufficientMemory { .. } => 0,
        NoBid::InsufficientCpus { .. } => 1,
        NoBid::InsufficientDisk { .. } => 2,
        NoBid::Late | NoBid::Unreachable { .. } => 3,
        NoBid::ClassNotOffered { .. } => 4,
        NoBid::ConfigRefused { .. } => 5,
        NoBid::RegionUnknown { .. } => 6,
        NoBid::Volume(_) | NoBid::VolumePlacement { .. } | NoBid::VolumesApart { .. } => 7,
        NoBid::NoHost { .. } => 8,
    }
}

/// How much there was of what lacked.
fn free(refusal: &NoBid) -> u64 {
    match refusal {
        NoBid::InsufficientMemory { free_mb, .. } | NoBid::InsufficientDisk { free_mb, .. } => {
            *free_mb
        }
        NoBid::InsufficientCpus { free, .. } => u64::from(*free),
        NoBid::ClassNotOffered { .. }
        | NoBid::ConfigRefused { .. }
        | NoBid::RegionUnknown { .. }
        | NoBid::Volume(_)
        | NoBid::VolumePlacement { .. }
        | NoBid::VolumesApart { .. }
        | NoBid::Late
        | NoBid::Unreachable { .. }
        | NoBid::NoHost { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Scope;

    fn memory(free_mb: u64) -> NoBid {
        NoBid::InsufficientMemory {
            asked_mb: 512,
            free_mb,
        }
    }

    #[test]
    fn one_host_speaks_for_itself() {
        assert_eq!(summary(1, vec![memory(5)]), memory(5));
        assert_eq!(summary(0, vec![]), NoBid::Late);
    }

    #[test]
    fn of_several_it_is_told_what_each_kind_lacked() {
        let cpus = NoBid::InsufficientCpus { asked: 8, free: 1 };
        let told = summary(4, vec![NoBid::Late, memory(5), cpus, memory(64)]);
        assert_eq!(
            told.to_string(),
            "could not reserve resource for machine: insufficient memory available to fulfill \
             request (512 MB asked, 64 MB free) on 2 of 4 hosts; insufficient CPUs available to \
             fulfill request (8 asked, 1 free) on 1 of 4 hosts; no answer in time on 1 \
             of 4 hosts"
        );
        assert_eq!(told.code(), "insufficient_capacity");
        assert_eq!((told.scope(), told.retryable()), (Scope::Region, true));
        assert_eq!(
            told.hint(),
            "ask for at most 64 MB of memory, or stop a machine"
        );
    }

    #[test]
    fn hosts_that_do_not_offer_a_class_will_not_later_either() {
        let class = || NoBid::ClassNotOffered {
            class: types::IsolationClass::Microvm,
            reason: "no KVM".into(),
        };
        let told = summary(2, vec![class(), class()]);
        assert_eq!(
            (told.code(), told.retryable()),
            ("isolation_not_offered", false)
        );
    }

    #[test]
    fn silence_of_all_is_no_answer() {
        let host = types::HostId::new(3);
        let told = summary(2, vec![NoBid::Late, NoBid::Unreachable { host }]);
        assert_eq!(told, NoBid::Late);
    }
}
