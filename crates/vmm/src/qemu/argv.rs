//! QEMU's command line: the smallest machine that Linux boots on with PCI.
//!
//! q35 with qboot in place of a BIOS is the fastest machine type that boots stock and own kernels
//! alike, with TCG and KVM (`-M microvm` finds no timer under TCG). Flags are those of QEMU 7.2,
//! which Debian 12 has.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::Path;

use types::guest::VIRTIO_PORT;

use super::jail::{INITRAMFS, KERNEL};
use crate::MacAddress;

/// TCG keeps translated code; by default it would take up to 1 GiB.
const TRANSLATION_CACHE_MIB: u32 = 128;
const KERNEL_COMMAND_LINE: &str =
    "console=ttyS0 reboot=t panic=-1 quiet tsc=reliable no_timer_check";
/// Nothing that a process emulating devices needs: no new programs, no change of user.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accelerator {
    Kvm,
    Tcg,
}

#[derive(Debug)]
pub(super) struct Disk {
    pub(super) serial: String,
    pub(super) fd: RawFd,
    pub(super) kind: DiskKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DiskKind {
    /// Read only, and shared by many machines.
    Image,
    /// Lives as long as the boot.
    Upper,
    /// Outlives the machine: what the guest flushes must be on the host's disk.
    Volume,
}

/// What QEMU does when it is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    Boot,
    /// Wait for the memory of a machine, and then for leave to go on.
    Restore,
}

/// What one machine has. Numbers of descriptors are those that QEMU inherits.
#[derive(Debug)]
pub(super) struct Machine<'a> {
    pub(super) name: &'a str,
    pub(super) accelerator: Accelerator,
    pub(super) firmware: &'a Path,
    pub(super) cpus: u32,
    pub(super) memory_mib: u32,
    pub(super) disks: &'a [Disk],
    pub(super) tap: RawFd,
    pub(super) mac: MacAddress,
    /// A socket that listens.
    pub(super) control: RawFd,
    pub(super) console: RawFd,
    pub(super) monitor: RawFd,
    pub(super) begin: Begin,
}

impl Machine<'_> {
    pub(super) fn argv(&self) -> Vec<OsString> {
        let (accelerator, processor) = match self.accelerator {
            Accelerator::Kvm => ("kvm".to_owned(), "host"),
            Accelerator::Tcg => (format!("tcg,tb-size={TRANSLATION_CACHE_MIB}"), "max"),
        };
        let mut argv = Argv::default();
        for flag in ["-nodefaults", "-no-user-config", "-no-reboot"] {
            argv.0.push(flag.into());
        }
        argv.add("-display", "none");
        argv.add("-sandbox", SANDBOX);
        argv.add("-name", self.name);
        argv.add("-machine", "q35,usb=off");
        argv.add("-bios", self.firmware);
        argv.add("-accel", accelerator);
        argv.add("-cpu", processor);
        argv.add("-smp", self.cpus.max(1).to_string());
        argv.add("-m", format!("size={}M", self.memory_mib));
        // QEMU opens these by name only.
        argv.add("-kernel", KERNEL);
        argv.add("-initrd", INITRAMFS);
        argv.add("-append", KERNEL_COMMAND_LINE);
        argv.add("-chardev", format!("socket,id=console,fd={}", self.console));
        argv.add("-serial", "chardev:console");
        argv.add("-device", "virtio-rng-pci,disable-legacy=on");
        // A console that is not used, and one port. By default there is room for 31, and the guest
        // sets up two queues for each.
        argv.add("-device", "virtio-serial-pci,disable-legacy=on,max_ports=2");
        // The shim may connect again, which tells the guest that its host is another one.
        argv.add(
            "-chardev",
            format!("socket,id=control,fd={},server=on,wait=off", self.control),
        );
        argv.add(
            "-device",
            format!("virtserialport,chardev=control,name={VIRTIO_PORT}"),
        );
        argv.add("-netdev", format!("tap,id=eth0,fd={},vhost=off", self.tap));
        let mac = self.mac;
        argv.add(
            "-device",
            format!("virtio-net-pci,netdev=eth0,mac={mac},romfile=,disable-legacy=on"),
        );
        for (set, disk) in self.disks.iter().enumerate() {
            argv.disk(set, disk);
        }
        argv.add("-chardev", format!("socket,id=monitor,fd={}", self.monitor));
        argv.add("-mon", "chardev=monitor,mode=control");
        match self.begin {
            Begin::Boot => {}
            Begin::Restore => {
                argv.add("-incoming", "defer");
                argv.0.push("-S".into());
            }
        }
        argv.0
    }
}

#[derive(Default)]
struct Argv(Vec<OsString>);

impl Argv {
    fn add(&mut self, flag: &str, value: impl Into<OsString>) {
        self.0.extend([flag.into(), value.into()]);
    }

    fn disk(&mut self, set: usize, disk: &Disk) {
        let Disk { serial, fd, kind } = disk;
        let read_only = match kind {
            DiskKind::Image => "on",
            DiskKind::Upper | DiskKind::Volume => "off",
        };
        // The host's page cache may write a layer late: it is gone with the boot.
        let no_flush = match kind {
            DiskKind::Image | DiskKind::Upper => "on",
            DiskKind::Volume => "off",
        };
        self.add("-add-fd", format!("fd={fd},set={set}"));
        self.add(
            "-blockdev",
            format!(
                "driver=raw,node-name={serial},read-only={read_only},discard=unmap,\
                 cache.no-flush={no_flush},file.driver=file,file.filename=/dev/fdset/{set},\
                 file.locking=off,file.discard=unmap,file.cache.no-flush={no_flush}"
            ),
        );
        self.add(
            "-device",
            format!("virtio-blk-pci,drive={serial},serial={serial},disable-legacy=on"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(accelerator: Accelerator, disks: &[Disk]) -> Machine<'_> {
        Machine {
            name: "00000000000001",
            accelerator,
            firmware: Path::new("/qboot.rom"),
            cpus: 2,
            memory_mib: 256,
            disks,
            tap: 5,
            mac: MacAddress([2, 0, 0, 0, 0, 0x1f]),
            control: 6,
            console: 7,
            monitor: 11,
            begin: Begin::Boot,
        }
    }

    fn argv(accelerator: Accelerator, disks: &[Disk]) -> String {
        let argv = machine(accelerator, disks).argv().into_iter();
        argv.map(|a| a.into_string().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn the_class_chooses_the_accelerator_and_nothing_else() {
        let (kvm, tcg) = (argv(Accelerator::Kvm, &[]), argv(Accelerator::Tcg, &[]));
        assert!(kvm.contains("-accel kvm -cpu host"), "{kvm}");
        assert!(tcg.contains("-accel tcg,tb-size=128 -cpu max"), "{tcg}");
        let same = kvm.replace("kvm -cpu host", "tcg,tb-size=128 -cpu max");
        assert_eq!(same, tcg);
    }

    #[test]
    fn disks_are_found_by_serial_number_and_images_cannot_be_written() {
        let disk = |serial: &str, fd, kind| Disk {
            serial: serial.into(),
            fd,
            kind,
        };
        let argv = argv(
            Accelerator::Tcg,
            &[
                disk("image0", 8, DiskKind::Image),
                disk("upper0", 9, DiskKind::Upper),
                disk("volume0", 10, DiskKind::Volume),
            ],
        );
        assert!(argv.contains("-add-fd fd=8,set=0"), "{argv}");
        assert!(argv.contains("node-name=image0,read-only=on,"), "{argv}");
        assert!(argv.contains("drive=image0,serial=image0"), "{argv}");
        assert!(argv.contains("node-name=upper0,read-only=off,"), "{argv}");
        assert!(argv.contains("/dev/fdset/1"), "{argv}");
        // Only what outlives the machine is flushed.
        let volume = "node-name=volume0,read-only=off,discard=unmap,cache.no-flush=off,";
        assert!(argv.contains(volume), "{argv}");
        assert_eq!(argv.matches("no-flush=on").count(), 4, "{argv}");
    }

    #[test]
    fn a_machine_that_is_restored_has_the_same_devices_and_waits() {
        let mut machine = machine(Accelerator::Tcg, &[]);
        let boot = machine.argv();
        machine.begin = Begin::Restore;
        let restore = machine.argv();
        assert_eq!(restore[..boot.len()], boot);
        assert_eq!(restore[boot.len()..], ["-incoming", "defer", "-S"]);
    }

    #[test]
    fn the_sandbox_is_on_and_the_interface_has_the_given_address() {
        let argv = argv(Accelerator::Tcg, &[]);
        assert!(argv.contains("-sandbox on,"), "{argv}");
        assert!(argv.contains("mac=02:00:00:00:00:1f"), "{argv}");
        assert!(argv.contains("name=aerostat.control"), "{argv}");
    }
}
