//! A guest of two instructions, run under KVM to learn what it is good for.
//!
//! The guest runs in 64-bit mode with the first 4 MiB mapped to themselves and executes
//! `lock cmpxchg16b [rsi]; hlt`. Hardware does so without leaving the guest; a KVM that interprets
//! guests in software gives up at the first instruction, which every Linux kernel uses.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::ForkResult;

/// How the guest ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GuestEnd {
    /// Both instructions were executed.
    Halted,
    /// KVM stopped it with this exit reason.
    Stopped(u32),
    /// It did not end in time.
    Hung,
}

const MEMORY_BYTES: usize = 4 << 20;
const CODE_ADDRESS: u16 = 0x8000;
/// `mov esi, 0x20000; lock cmpxchg16b [rsi]; hlt`
const CODE: [u8; 11] = [
    0xbe, 0x00, 0x00, 0x02, 0x00, 0xf0, 0x48, 0x0f, 0xc7, 0x0e, 0xf4,
];
const EXIT_HLT: u32 = 5;

const KVM_CREATE_VM: libc::Ioctl = 0xae01;
const KVM_GET_VCPU_MMAP_SIZE: libc::Ioctl = 0xae04;
const KVM_CREATE_VCPU: libc::Ioctl = 0xae41;
const KVM_GET_SUPPORTED_CPUID: libc::Ioctl = 0xc008_ae05;
const KVM_SET_CPUID2: libc::Ioctl = 0x4008_ae90;
const KVM_SET_TSS_ADDR: libc::Ioctl = 0xae47;
const KVM_RUN: libc::Ioctl = 0xae80;
const KVM_SET_USER_MEMORY_REGION: libc::Ioctl = 0x4020_ae46;
const KVM_SET_REGS: libc::Ioctl = 0x4090_ae82;
const KVM_GET_SREGS: libc::Ioctl = 0x8138_ae83;
const KVM_SET_SREGS: libc::Ioctl = 0x4138_ae84;

/// `struct kvm_userspace_memory_region`.
#[repr(C)]
struct MemoryRegion {
    slot: u32,
    flags: u32,
    guest_address: u64,
    bytes: u64,
    address: u64,
}

const CPUID_ENTRIES_MAX: u32 = 256;

/// `struct kvm_cpuid2` with room for entries of 40 bytes.
#[repr(C)]
struct Cpuid {
    count: u32,
    padding: u32,
    entries: [[u32; 10]; CPUID_ENTRIES_MAX as usize],
}

/// `struct kvm_regs`.
#[derive(Default)]
#[repr(C)]
struct Registers {
    /// rax to rsp, but the index of the latter is all we need.
    general: [u64; 16],
    rip: u64,
    rflags: u64,
}

/// `struct kvm_segment`.
#[derive(Default, Clone, Copy)]
#[repr(C)]
struct Segment {
    base: u64,
    limit: u32,
    selector: u16,
    kind: u8,
    present: u8,
    dpl: u8,
    db: u8,
    s: u8,
    l: u8,
    g: u8,
    avl: u8,
    unusable: u8,
    padding: u8,
}

/// `struct kvm_dtable`.
#[derive(Default)]
#[repr(C)]
struct Table {
    base: u64,
    limit: u16,
    padding: [u16; 3],
}

/// `struct kvm_sregs`.
#[derive(Default)]
#[repr(C)]
struct SpecialRegisters {
    cs: Segment,
    data: [Segment; 5],
    tr: Segment,
    ldt: Segment,
    gdt: Table,
    idt: Table,
    cr0: u64,
    cr2: u64,
    cr3: u64,
    cr4: u64,
    cr8: u64,
    efer: u64,
    apic_base: u64,
    interrupt_bitmap: [u64; 4],
}

/// Runs the guest in a child process, which is killed when it takes longer than `timeout`.
///
/// # Errors
/// If `/dev/kvm` cannot be used at all.
pub(crate) fn run_guest(timeout: Duration) -> io::Result<GuestEnd> {
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm")?;
    let kvm = kvm.as_raw_fd();
    // Needed: a guest that hangs can be ended by ending its process only.
    // SAFETY: until `_exit` the child makes system calls on memory of its own stack and mappings;
    // it allocates nothing and takes no lock, so other threads of the parent do not matter.
    let child = match unsafe { nix::unistd::fork() }? {
        ForkResult::Child => {
            let code = match run(kvm) {
                Ok(EXIT_HLT) => 0,
                Ok(reason) => 64 + i32::from(u8::try_from(reason & 0x3f).unwrap_or(0)),
                Err(_) => 1,
            };
            // SAFETY: ends the process at once.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => child,
    };
    let deadline = Instant::now() + timeout;
    loop {
        match waitpid(child, Some(WaitPidFlag::WNOHANG))? {
            WaitStatus::Exited(_, 0) => return Ok(GuestEnd::Halted),
            WaitStatus::Exited(_, code) if code >= 64 => {
                return Ok(GuestEnd::Stopped(code.unsigned_abs() - 64));
            }
            WaitStatus::StillAlive if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            WaitStatus::StillAlive => {
                kill(child, Signal::SIGKILL)?;
                waitpid(child, None)?;
                return Ok(GuestEnd::Hung);
            }
            _ => return Err(io::Error::other("KVM cannot make a virtual machine")),
        }
    }
}

/// An ioctl that takes a number.
fn call(fd: RawFd, request: libc::Ioctl, argument: usize) -> io::Result<RawFd> {
    // SAFETY: the requests used with this function read no memory.
    super::checked(unsafe { libc::ioctl(fd, request, argument) })
}

/// An ioctl that takes the structure that belongs to it.
fn pass<T>(fd: RawFd, request: libc::Ioctl, argument: &mut T) -> io::Result<()> {
    // SAFETY: `T` has the layout that the request names (its size, without a trailing array whose
    // length the structure tells, is part of the number), and lives through the call.
    super::checked(unsafe { libc::ioctl(fd, request, std::ptr::from_mut(argument)) }).map(drop)
}

fn owned(fd: RawFd) -> OwnedFd {
    // SAFETY: the kernel just made it for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn map(fd: RawFd, bytes: usize) -> io::Result<*mut u8> {
    let anonymous = if fd < 0 { libc::MAP_ANONYMOUS } else { 0 };
    let (access, flags) = (
        libc::PROT_READ | libc::PROT_WRITE,
        libc::MAP_SHARED | anonymous,
    );
    // SAFETY: a new mapping at an address of the kernel's choice; the process unmaps it by ending.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), bytes, access, flags, fd, 0) };
    if mapped == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(mapped.cast())
}

/// Makes the virtual machine, runs it, and returns the exit reason.
fn run(kvm: RawFd) -> io::Result<u32> {
    let machine = owned(call(kvm, KVM_CREATE_VM, 0)?);
    let machine = machine.as_raw_fd();
    call(machine, KVM_SET_TSS_ADDR, 0xfffb_d000)?;
    let memory = map(-1, MEMORY_BYTES)?;
    let mut region = MemoryRegion {
        slot: 0,
        flags: 0,
        guest_address: 0,
        bytes: MEMORY_BYTES as u64,
        address: memory as u64,
    };
    pass(machine, KVM_SET_USER_MEMORY_REGION, &mut region)?;
    let processor = owned(call(machine, KVM_CREATE_VCPU, 0)?);
    let processor = processor.as_raw_fd();
    let mut cpuid = Cpuid {
        count: CPUID_ENTRIES_MAX,
        padding: 0,
        entries: [[0; 10]; CPUID_ENTRIES_MAX as usize],
    };
    pass(kvm, KVM_GET_SUPPORTED_CPUID, &mut cpuid)?;
    pass(processor, KVM_SET_CPUID2, &mut cpuid)?;
    let size = call(kvm, KVM_GET_VCPU_MMAP_SIZE, 0)?;
    let state = map(processor, usize::try_from(size).unwrap_or(4096))?;

    let write = |address: u16, value: u64| {
        // SAFETY: every address used below lies, aligned, within the mapping of 4 MiB.
        unsafe { memory.add(usize::from(address)).cast::<u64>().write(value) }
    };
    // Page tables: two large pages of 2 MiB, mapped to themselves. Then code and data segment.
    write(0x1000, 0x2007);
    write(0x2000, 0x3007);
    write(0x3000, 0x87);
    write(0x3008, 0x0020_0087);
    write(0x508, 0x00af_9b00_0000_ffff);
    write(0x510, 0x00cf_9300_0000_ffff);
    // SAFETY: the code fits into the mapping at its address, and nobody else uses either.
    unsafe {
        memory
            .add(usize::from(CODE_ADDRESS))
            .copy_from(CODE.as_ptr(), CODE.len())
    };

    let mut special = SpecialRegisters::default();
    pass(processor, KVM_GET_SREGS, &mut special)?;
    let code = Segment {
        limit: u32::MAX,
        selector: 8,
        kind: 11,
        present: 1,
        s: 1,
        l: 1,
        g: 1,
        ..Segment::default()
    };
    special.cs = code;
    special.data = [Segment {
        selector: 16,
        kind: 3,
        db: 1,
        l: 0,
        ..code
    }; 5];
    special.gdt = Table {
        base: 0x500,
        limit: 23,
        padding: [0; 3],
    };
    special.cr3 = 0x1000;
    // PAE and FXSR; protected mode with paging; long mode enabled and active.
    special.cr4 = 0x220;
    special.cr0 = 0x8005_0033;
    special.efer = 0x500;
    pass(processor, KVM_SET_SREGS, &mut special)?;
    let mut registers = Registers {
        rip: u64::from(CODE_ADDRESS),
        rflags: 2,
        ..Registers::default()
    };
    pass(processor, KVM_SET_REGS, &mut registers)?;
    call(processor, KVM_RUN, 0)?;
    // SAFETY: struct kvm_run begins with 8 bytes of flags, and then the exit reason, aligned.
    Ok(unsafe { state.add(8).cast::<u32>().read() })
}
