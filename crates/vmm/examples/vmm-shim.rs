//! The sub-commands `shim` and `container` by themselves, for the tests of this crate. The
//! product has them in its one binary.

use std::ffi::OsString;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let command: Option<OsString> = args.next();
    match command.as_ref().and_then(|command| command.to_str()) {
        Some("shim") => vmm::shim_main(args),
        Some("container") => vmm::container_main(args),
        _ => {
            eprintln!("usage: vmm-shim shim|container …");
            ExitCode::from(2)
        }
    }
}
