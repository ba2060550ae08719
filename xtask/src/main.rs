//! Development tasks.
//!
//! `cargo xtask tidy` checks what neither the compiler nor clippy does; `cargo xtask guest` makes
//! the kernel and the initial RAM file system of the virtual machines.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod guest_image;
mod tidy;

#[derive(Parser)]
#[command(about = "Development tasks of Aerostat")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check the rules that the compiler does not know
    Tidy,
    /// Make the guest kernel and initial RAM file system
    Guest {
        /// Directory that receives `vmlinux` and `initramfs.cpio`
        #[arg(long)]
        out: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Tidy => tidy::run(&repository()),
        Task::Guest { out } => guest_image::run(&out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that anyhow adds where RUST_BACKTRACE is set.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The top of the checkout that this program was built from.
fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}
