//! The `aerostat` binary: the command line, and the small processes that it runs itself as.

use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A shim and its helpers change namespaces and fork, so they start before there is a thread.
    let mut words = env::args_os().skip(1);
    match words.next().as_ref().and_then(|word| word.to_str()) {
        Some("shim") => vmm::shim_main(words),
        Some("container") => vmm::container_main(words),
        _ => aerostat::cli::main(),
    }
}
