//! A guest without an operating system: it says a line on the serial port, and then a dot now and
//! then for as long as it lives. It runs where no Linux does.

/// Where it is in the guest's memory.
const ADDRESS: u64 = 0x0100_0000;
pub(crate) const HELLO: &str = "tiny guest is up\n";

/// 64-bit code, entered in long mode as the Linux boot protocol says.
const CODE: &[u8] = &[
    0xfa, // cli
    0x48, 0x8d, 0x35, 0x1b, 0x00, 0x00, 0x00, // lea hello(%rip), %rsi
    0xba, 0xf8, 0x03, 0x00, 0x00, // mov $0x3f8, %edx     (COM1)
    0xac, // 1: lodsb
    0x84, 0xc0, // test %al, %al
    0x74, 0x03, // jz 2f
    0xee, // out %al, %dx
    0xeb, 0xf8, // jmp 1b
    0xb9, 0x20, 0xa1, 0x07, 0x00, // 2: mov $500000, %ecx
    0xff, 0xc9, // 3: dec %ecx
    0x75, 0xfc, // jnz 3b
    0xb0, 0x2e, // mov $'.', %al
    0xee, // out %al, %dx
    0xeb, 0xf2, // jmp 2b
          // hello:
];

/// An ELF kernel that consists of one segment.
pub(crate) fn kernel() -> Vec<u8> {
    const HEADER_BYTES: u16 = 64;
    const PROGRAM_HEADER_BYTES: u16 = 56;
    const OFFSET: u64 = 0x1000;
    let mut code = CODE.to_vec();
    code.extend_from_slice(HELLO.as_bytes());
    code.push(0);
    let length = code.len() as u64;
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.resize(16, 0);
    // Executable, x86-64, version 1.
    elf.extend([2u16, 62].map(u16::to_le_bytes).concat());
    elf.extend(1u32.to_le_bytes());
    let [entry, headers, sections] = [ADDRESS, u64::from(HEADER_BYTES), 0];
    elf.extend([entry, headers, sections].map(u64::to_le_bytes).concat());
    elf.extend(0u32.to_le_bytes());
    let sizes = [HEADER_BYTES, PROGRAM_HEADER_BYTES, 1, 0, 0, 0];
    elf.extend(sizes.map(u16::to_le_bytes).concat());
    // PT_LOAD, read and execute.
    elf.extend([1u32, 5].map(u32::to_le_bytes).concat());
    let segment = [OFFSET, ADDRESS, ADDRESS, length, length, OFFSET];
    elf.extend(segment.map(u64::to_le_bytes).concat());
    elf.resize(usize::try_from(OFFSET).unwrap(), 0);
    elf.extend(code);
    elf
}

#[test]
fn the_code_finds_its_text() {
    // lea: relative to the instruction that follows it.
    let after = 8;
    assert_eq!(CODE.len(), after + usize::from(CODE[4]));
    let kernel = kernel();
    assert_eq!(kernel.len(), 0x1000 + CODE.len() + HELLO.len() + 1);
}
