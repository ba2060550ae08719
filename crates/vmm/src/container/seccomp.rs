//! The system calls that containers may not make.
//!
//! What is denied is what Docker's default profile denies to a container with the default
//! capabilities, on kernels since 4.8 (where `ptrace` no longer gets around filters). That profile
//! lists what is allowed; this one lists what is not, so a system call that a newer kernel brings is
//! allowed until it stands here. 32-bit programs are killed.
//!
//! A process without `no_new_privileges` needs `CAP_SYS_ADMIN` to give itself a filter. libcontainer
//! has dropped capabilities by the time it calls us, so root gets that one too, and gives it back
//! here, before the first instruction of the container's program.

use std::collections::BTreeMap;

use caps::{CapSet, Capability};
use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::default::DefaultExecutor;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, TargetArch,
};

use types::api::TerminalSize;

use crate::sys;

/// The number of a system call of the ABI that has 32-bit pointers is larger by this.
const X32: i64 = 0x4000_0000;
/// `clone` flags that make namespaces.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
];
/// Execution domains that programs ask for: Linux, UNAME26, 32 bits, both, and "tell me".
const PERSONALITIES: [u64; 5] = [0, 0x20000, 0x8, 0x20008, 0xffff_ffff];

/// Whatever the arguments.
const DENIED: [libc::c_long; 53] = [
    // Mounts and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_mount_setattr,
    libc::SYS_setns,
    libc::SYS_unshare,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_syslog,
    libc::SYS_acct,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_vhangup,
    libc::SYS_sysfs,
    libc::SYS__sysctl,
    libc::SYS_ustat,
    libc::SYS_uselib,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    // Keys are not part of any namespace.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Large attack surfaces.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_fanotify_init,
    // Around the file system's boundaries, and other processes' memory.
    libc::SYS_open_by_handle_at,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_mbind,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy,
];

/// Programs for the kernel, to be installed one after the other.
pub(super) fn filters() -> Result<Vec<BpfProgram>, BackendError> {
    let denied = filter(denied()?, libc::EPERM)?;
    // Its flags are in memory, where no filter can look: with this answer, C libraries use clone.
    let clone3 = BTreeMap::from([(libc::SYS_clone3, vec![]), (libc::SYS_clone3 + X32, vec![])]);
    Ok(vec![denied, filter(clone3, libc::ENOSYS)?])
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

fn filter(rules: Rules, errno: i32) -> Result<BpfProgram, BackendError> {
    let deny = SeccompAction::Errno(errno.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, deny, TargetArch::x86_64)?.try_into()
}

fn denied() -> Result<Rules, BackendError> {
    // No rules for a number means whatever the arguments are.
    let mut rules: Rules = DENIED.iter().map(|&number| (number, vec![])).collect();
    let flag = |flag: libc::c_int| {
        let flag = u64::from(flag.unsigned_abs());
        rule([condition(0, SeccompCmpOp::MaskedEq(flag), flag)?])
    };
    let clone: Result<_, _> = NAMESPACES.into_iter().map(flag).collect();
    rules.insert(libc::SYS_clone, clone?);
    // Sockets of the host and other machines, which no network namespace contains.
    let vsock = condition(
        0,
        SeccompCmpOp::Eq,
        u64::from(libc::AF_VSOCK.unsigned_abs()),
    )?;
    rules.insert(libc::SYS_socket, vec![rule([vsock])?]);
    let others = PERSONALITIES.map(|allowed| condition(0, SeccompCmpOp::Ne, allowed));
    let others: Result<Vec<_>, _> = others.into_iter().collect();
    rules.insert(libc::SYS_personality, vec![rule(others?)?]);
    let x32: Vec<_> = rules.iter().map(|(n, r)| (n + X32, r.clone())).collect();
    rules.extend(x32);
    Ok(rules)
}

fn rule(conditions: impl Into<Vec<SeccompCondition>>) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(conditions.into())
}

fn condition(
    argument: u8,
    operation: SeccompCmpOp,
    value: u64,
) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operation, value)
}

/// Starts a container's program behind the filters.
#[derive(Clone)]
pub(super) struct Filtered {
    filters: Vec<BpfProgram>,
}

impl Filtered {
    pub(super) fn new() -> Result<Self, BackendError> {
        let filters = filters()?;
        Ok(Self { filters })
    }
}

impl Executor for Filtered {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failed =
            |error: Box<dyn std::error::Error + Send + Sync>| ExecutorError::Execution(error);
        // libcontainer leaves this to whoever gets the terminal, which is too late for a program
        // that asks at once.
        if let Some(size) = terminal_size(spec) {
            guest::stdio::resize(std::io::stdin(), size).map_err(|error| failed(error.into()))?;
        }
        for filter in &self.filters {
            sys::install_filter(filter).map_err(|error| failed(error.into()))?;
        }
        // From the bounding set first, which takes a capability that the others hold.
        for set in [CapSet::Bounding, CapSet::Effective, CapSet::Permitted] {
            let dropped = match caps::has_cap(None, set, Capability::CAP_SYS_ADMIN) {
                Ok(true) => caps::drop(None, set, Capability::CAP_SYS_ADMIN),
                Ok(false) => Ok(()),
                Err(error) => Err(error),
            };
            dropped.map_err(|error| failed(error.into()))?;
        }
        DefaultExecutor {}.exec(spec)
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        DefaultExecutor {}.validate(spec)
    }
}

fn terminal_size(spec: &Spec) -> Option<TerminalSize> {
    let process = spec.process().as_ref()?;
    let size = process
        .console_size()
        .filter(|_| process.terminal() == Some(true))?;
    Some(TerminalSize {
        width: u16::try_from(size.width()).ok()?,
        height: u16::try_from(size.height()).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_denied_call_stands_once_and_programs_fit_into_the_kernel() {
        let rules = denied().unwrap();
        assert_eq!(rules.len(), 2 * (DENIED.len() + 3));
        for filter in filters().unwrap() {
            assert!(filter.len() < 4096, "{}", filter.len());
        }
    }

    /// What a process behind the filters gets to hear.
    #[test]
    fn denied_calls_fail_and_others_work() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED: denied_calls_fail_and_others_work: needs root");
            return;
        }
        let newuser = i64::from(libc::CLONE_NEWUSER);
        let calls = [
            (libc::SYS_mount, 0, libc::EPERM),
            (libc::SYS_mount + X32, 0, libc::EPERM),
            (libc::SYS_keyctl, 0, libc::EPERM),
            (libc::SYS_add_key, 0, libc::EPERM),
            (libc::SYS_bpf, 0, libc::EPERM),
            (libc::SYS_init_module, 0, libc::EPERM),
            (libc::SYS_finit_module, 0, libc::EPERM),
            (libc::SYS_unshare, newuser, libc::EPERM),
            (libc::SYS_setns, 0, libc::EPERM),
            (libc::SYS_clone, newuser, libc::EPERM),
            (libc::SYS_clone3, 0, libc::ENOSYS),
            (libc::SYS_perf_event_open, 0, libc::EPERM),
            (libc::SYS_open_by_handle_at, 0, libc::EPERM),
            (libc::SYS_kexec_load, 0, libc::EPERM),
            (libc::SYS_io_uring_setup, 0, libc::EPERM),
            (libc::SYS_personality, 0x40000, libc::EPERM),
            (libc::SYS_personality, 0xffff_ffff, 0),
            (libc::SYS_socket, i64::from(libc::AF_VSOCK), libc::EPERM),
            (libc::SYS_getpid, 0, 0),
        ];
        let filters = filters().unwrap();
        let heard = sys::heard_behind(filters, calls.map(|(number, first, _)| (number, first)));
        for ((number, first, expected), heard) in calls.iter().zip(heard) {
            assert_eq!(heard, *expected, "call {number} with {first}");
        }
    }
}
