//! What machines need: KVM that runs Linux, a VMM, a kernel and what boots with it.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use types::IsolationClass;
use vmm::{FirecrackerMissing, Kvm, Offer, Offers};

use super::super::{Context, output};
use super::Check;
use crate::config::Config;

pub(super) fn checks(config: &Config, context: &Context, is_root: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    // Guest code is run, which needs root, or the answer would be about rights.
    if is_root {
        let offers = vmm::probe(&context.paths.probe(), &config.firecracker_paths());
        checks.push(kvm(offers.kvm));
        checks.push(qemu(&offers));
        checks.push(firecracker(&offers));
        let class = |class, name| self::class(&offers, config, class, name);
        checks.push(class(IsolationClass::Microvm, "class microvm"));
        checks.push(class(IsolationClass::Emulated, "class emulated"));
        checks.push(class(IsolationClass::Container, "class container"));
    }
    checks.push(guest(&context.paths.guest()));
    let chosen = context.paths.chosen_kernel();
    checks.push(kernel(config.kernel.as_deref(), chosen.as_deref()));
    checks
}

/// What machines boot, and that the VMMs can load it.
fn kernel(configured: Option<&Path>, chosen: Option<&Path>) -> Check {
    let name = "guest kernel";
    let (path, origin) = match (configured, chosen) {
        (Some(path), _) => (path, "of the configuration"),
        (None, Some(path)) => (path, "chosen with `aerostat kernel use`"),
        (None, None) => {
            let more = "`aerostat kernel build` makes one that boots three times faster";
            return Check::ok(name, format!("Debian's; {more}"));
        }
    };
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    let shown = path.display();
    match read {
        Ok(()) if magic == *b"\x7fELF" => Check::ok(name, format!("{shown}, {origin}")),
        Ok(()) => Check::warn(
            name,
            format!("{shown}, {origin}, is no ELF image"),
            "virtual machines cannot boot it",
            "name the uncompressed `vmlinux`, not a bzImage",
        ),
        Err(error) => Check::warn(
            name,
            format!("{shown}, {origin}: {error}"),
            "virtual machines cannot boot",
            "correct the key `kernel`, or choose one with `aerostat kernel use`",
        ),
    }
}

/// By a probe that ran guest code, never by the existence of /dev/kvm.
fn kvm(kvm: Kvm) -> Check {
    match kvm {
        Kvm::Usable => Check::ok("kvm", "usable: runs Linux guests"),
        Kvm::Emulated => Check::warn(
            "kvm",
            "emulated: interprets guest kernels, without instructions that Linux needs",
            "class microvm cannot be had here",
            "use class emulated or container, or a host with nested virtualisation",
        ),
        Kvm::Absent => Check::warn(
            "kvm",
            "absent: there is no /dev/kvm that can be opened",
            "class microvm cannot be had here",
            "enable virtualisation in the firmware, or use class emulated or container",
        ),
    }
}

fn qemu(offers: &Offers) -> Check {
    match &offers.qemu {
        Some(version) => Check::ok("qemu", format!("version {version}")),
        None => Check::warn(
            "qemu",
            "missing",
            "class emulated cannot be had here, and class microvm with Firecracker only",
            "apt-get install --no-install-recommends qemu-system-x86",
        ),
    }
}

fn firecracker(offers: &Offers) -> Check {
    let name = "firecracker";
    if let Some(programs) = &offers.firecracker {
        let path = programs.firecracker.display();
        return Check::ok(name, format!("version {} at {path}", programs.version));
    }
    let absent = FirecrackerMissing::NotInstalled.to_string();
    let reason = offers.firecracker_missing.clone().unwrap_or_default();
    let fix = "put `firecracker` and `jailer` of one release, 1.16 or newer, into PATH, or name \
               them in the configuration";
    if reason != absent {
        return Check::warn(name, reason, "QEMU runs class microvm in its place", fix);
    }
    match (offers.kvm, &offers.qemu) {
        (Kvm::Usable, None) => Check::warn(
            name,
            "not installed, nor is QEMU",
            "class microvm cannot be had here",
            fix,
        ),
        (Kvm::Usable, Some(_)) => Check::ok(name, "not installed; QEMU runs class microvm"),
        (Kvm::Emulated | Kvm::Absent, _) => {
            Check::ok(name, "not installed; without KVM it would be of no use")
        }
    }
}

fn class(offers: &Offers, config: &Config, class: IsolationClass, name: &'static str) -> Check {
    if config.isolation_refused.contains(&class) {
        return Check::ok(name, "refused by the configuration");
    }
    let means = "machines of this class are refused here";
    match offers.classes.get(&class) {
        Some(Offer::Offered { by }) => Check::ok(name, format!("by {by}")),
        Some(Offer::Missing { reason }) => Check::warn(name, reason, means, ""),
        None => Check::warn(name, "not looked for", means, ""),
    }
}

fn guest(dir: &Path) -> Check {
    let name = "guest image";
    let files = ["vmlinux", "initramfs.cpio"].map(|name| dir.join(name));
    if let Some(missing) = files.iter().find(|path| !path.is_file()) {
        return Check::warn(
            name,
            format!("{} is missing", missing.display()),
            "virtual machines cannot boot; class container can",
            "./x up makes it",
        );
    }
    let bytes = files.iter().filter_map(|path| path.metadata().ok());
    let bytes = bytes.map(|file| file.len()).sum();
    Check::ok(
        name,
        format!("{} in {}", output::size(bytes), dir.display()),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Verdict;
    use super::*;

    fn offers(kvm: Kvm, qemu: Option<&str>, missing: &str) -> Offers {
        Offers {
            kvm,
            qemu: qemu.map(str::to_owned),
            firecracker: None,
            firecracker_missing: Some(missing.to_owned()),
            classes: BTreeMap::new(),
        }
    }

    #[test]
    fn firecracker_is_missed_only_where_it_would_be_used_or_was_asked_for() {
        let absent = FirecrackerMissing::NotInstalled.to_string();
        let verdict = |offers: &Offers| firecracker(offers).verdict;
        assert_eq!(verdict(&offers(Kvm::Absent, None, &absent)), Verdict::Ok);
        let both = offers(Kvm::Usable, Some("7.2"), &absent);
        assert_eq!(verdict(&both), Verdict::Ok);
        assert_eq!(verdict(&offers(Kvm::Usable, None, &absent)), Verdict::Warn);
        let old = offers(Kvm::Absent, Some("7.2"), "it is version 1.0.0");
        assert_eq!(verdict(&old), Verdict::Warn);
    }

    #[test]
    fn a_class_that_the_configuration_refuses_is_nothing_to_worry_about() {
        let offers = offers(Kvm::Absent, None, "");
        let refusing = Config {
            isolation_refused: vec![IsolationClass::Container],
            ..Config::default()
        };
        let look = |config| {
            class(
                &offers,
                config,
                IsolationClass::Container,
                "class container",
            )
        };
        assert_eq!(look(&refusing).verdict, Verdict::Ok);
        assert_eq!(look(&Config::default()).verdict, Verdict::Warn);
    }

    #[test]
    fn a_kernel_that_no_vmm_loads_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinux");
        let verdict = || kernel(Some(&path), None).verdict;
        assert_eq!(verdict(), Verdict::Warn);
        std::fs::write(&path, "MZ bzImage").unwrap();
        assert_eq!(verdict(), Verdict::Warn);
        std::fs::write(&path, "\x7fELF and more").unwrap();
        assert_eq!(verdict(), Verdict::Ok);
        assert_eq!(kernel(None, None).verdict, Verdict::Ok);
    }

    #[test]
    fn guest_files_are_both_needed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vmlinux"), "x").unwrap();
        assert_eq!(guest(dir.path()).verdict, Verdict::Warn);
        std::fs::write(dir.path().join("initramfs.cpio"), "x").unwrap();
        assert_eq!(guest(dir.path()).verdict, Verdict::Ok);
    }
}
